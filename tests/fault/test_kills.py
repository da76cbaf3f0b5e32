"""kill -9 at random points of a load: nothing lost, nothing doubled, one history."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from grantledger.runtime.broker import LocalBroker
from grantledger.sinks.file_target import read_anchor_file
from support.load import Load
from support.oracle import assert_exactly_once, assert_sound, chain_by_hand, committed_records, wait_until_stored
from support.pipeline import Pipeline
from support.waiting import wait_for

KILLS = 20


@pytest.fixture(scope="module")
def pipeline(broker: LocalBroker, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    running = make_pipeline(broker.bootstrap_servers)
    running.start()
    return running


def test_twenty_kills_of_sealer_and_store(pipeline: Pipeline) -> None:
    draw = random.Random(20260301)
    load = Load(pipeline.cluster, count=24_000, rate=450, seed=1).start()
    victims = ["seal", "store"] * (KILLS // 2)
    draw.shuffle(victims)
    began = time.monotonic()
    for victim in victims:
        # From the middle of its start to well into its work: wherever it is then, it must do no harm.
        time.sleep(draw.uniform(0.5, 3.5))
        pipeline.kill(victim)
        pipeline.start(victim)
        assert not load.failures, load.failures
    print(f"{KILLS} kills in {time.monotonic() - began:.0f} s")
    sent = load.finish()
    print(f"load done {time.monotonic() - began:.0f} s")
    total = wait_until_stored(pipeline)
    print(f"stored {time.monotonic() - began:.0f} s")
    assert total >= len(sent) >= 24_000
    assert_exactly_once(pipeline, sent)
    print(f"checked {time.monotonic() - began:.0f} s")
    [head] = pipeline.query(
        f"SELECT hex(argMax(leaf_hash, index)) AS h FROM entries WHERE origin = '{pipeline.origin('access.lifecycle')}'"
    )
    assert head["h"].lower() == chain_by_hand(pipeline, "access.lifecycle", 0)
    for name in ("seal", "store", "anchor"):
        assert "Traceback" not in pipeline.log(name)


def file_indices(file: Path) -> list[int]:
    return [anchor.index for anchor in read_anchor_file(file)]


def test_an_anchor_killed_before_its_target_answered_is_published_again(pipeline: Pipeline) -> None:
    file = pipeline.data_dir / "anchors.jsonl"
    pipeline.kill("anchor")
    before = file.read_bytes()
    # The target refuses, so what follows is committed in Kafka and nowhere outside: then the process dies.
    file.unlink()
    file.mkdir()
    failed = "grantledger_anchor_target_failures_total"
    pipeline.start("anchor")
    wait_for(lambda: pipeline.metric("anchor", failed) >= 3, "anchors are committed and not published")
    pipeline.kill("anchor")
    file.rmdir()
    file.write_bytes(before + b'{"origin": "torn by a crash')
    committed = len(committed_records(pipeline.cluster, ["access.anchors"])["access.anchors", 0])
    pipeline.start("anchor")
    wait_for(lambda: committed - 1 in file_indices(file), "the last committed anchor is outside")
    draw = random.Random(7)
    for _ in range(4):
        time.sleep(draw.uniform(0.8, 2.5))
        pipeline.kill("anchor")
        pipeline.start("anchor")
    latest = len(committed_records(pipeline.cluster, ["access.anchors"])["access.anchors", 0])
    wait_for(lambda: pipeline.query("SELECT count() AS c FROM anchors")[0]["c"] >= latest, "the anchors are stored")
    pipeline.stop("anchor")
    assert_sound(pipeline)
    indices = file_indices(file)
    assert indices == sorted(set(indices)), "an anchor stands outside twice"
    rows = pipeline.query("SELECT toUInt32(index) AS i FROM anchors ORDER BY index")
    assert [row["i"] for row in rows] == list(range(len(rows)))
