"""``kill -9`` at random points under load: nothing is lost, nothing is duplicated, and there is one history."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from grantledger.sinks.file_target import read_anchor_file
from support.kill_campaign import KillCampaign, assert_anchors_once
from support.load import Load
from support.oracle import assert_exactly_once, assert_sound, chain_by_hand, committed_records, wait_until_stored
from support.pipeline import ANCHORED_OFTEN, FEW_BATCHES, Pipeline
from support.shared_broker import RunningBroker
from support.waiting import wait_for


@pytest.fixture(scope="module")
def pipeline(broker: RunningBroker, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    running = make_pipeline(broker.bootstrap_servers, ANCHORED_OFTEN | FEW_BATCHES)
    running.start()
    return running


def test_sealer_store_and_anchor_are_killed(pipeline: Pipeline) -> None:
    """The quick campaign; test_kill_campaign.py has the long one."""
    load = Load(pipeline.cluster, count=10**9, rate=100, seed=8).start()
    KillCampaign(pipeline, ("seal", "store", "anchor"), seed=20260301).run(5, load)
    sent = load.stop().finish()
    total = wait_until_stored(pipeline)
    assert total >= len(sent) >= 200
    assert_exactly_once(pipeline, sent)
    assert_anchors_once(pipeline)
    [head] = pipeline.query(
        f"SELECT hex(argMax(leaf_hash, index)) AS h FROM entries WHERE origin = '{pipeline.origin('access.lifecycle')}'"
    )
    assert head["h"].lower() == chain_by_hand(pipeline, "access.lifecycle", 0)


def file_indices(file: Path) -> list[int]:
    return [anchor.index for anchor in read_anchor_file(file)]


@pytest.mark.slow
def test_an_anchor_killed_before_its_target_answered_is_published_again(pipeline: Pipeline) -> None:
    file = pipeline.data_dir / "anchors.jsonl"
    pipeline.kill("anchor")
    before = file.read_bytes()
    # The target fails, so new anchors are committed in Kafka and published nowhere. Then the process dies.
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
    wait_for(lambda: committed - 1 in file_indices(file), "the last committed anchor is published")
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
    assert indices == sorted(set(indices)), "an anchor was published twice"
    rows = pipeline.query("SELECT toUInt32(index) AS i FROM anchors ORDER BY index")
    assert [row["i"] for row in rows] == list(range(len(rows)))
