"""A lost store comes back: from Kafka alone, and from a BACKUP. In test_store_faults.py: from a copy of its folder.

An auditor holds what they had before: the heads that they verified, and a copy of the anchor file.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support.clickhouse_users import ask_as
from support.load import Load, Sent
from support.oracle import assert_exactly_once, wait_until_stored
from support.pipeline import FEW_BATCHES, Pipeline
from support.shared_broker import RunningBroker
from support.waiting import wait_for


@pytest.fixture(scope="module")
def pipeline(broker: RunningBroker, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    running = make_pipeline(broker.bootstrap_servers, FEW_BATCHES | {"GRANTLEDGER_ANCHOR_INTERVAL_SECONDS": "3"})
    running.start()
    return running


def send(pipeline: Pipeline, count: int, seed: int) -> list[Sent]:
    sent = Load(pipeline.cluster, count, 2000, seed=seed).start().finish()
    wait_until_stored(pipeline)
    return sent


@pytest.mark.slow
def test_a_lost_store_comes_back_from_a_backup_and_from_kafka(pipeline: Pipeline, tmp_path: Path) -> None:
    folder, heads, anchors = pipeline.data_dir / "clickhouse", tmp_path / "heads.json", tmp_path / "anchors.jsonl"
    sent = send(pipeline, 400, 31)
    wait_for(lambda: pipeline.metric("store", "grantledger_stored_anchors_total") >= 2, "anchors are stored")
    pipeline.stop("store")
    [backup] = ask_as(None, folder, tmp_path, ["BACKUP DATABASE audit TO File('audit')"])
    assert backup[0][1] == "BACKUP_CREATED"

    pipeline.start("store")
    sent += send(pipeline, 300, 32)
    before = pipeline.verify("--state", str(heads))[1]
    assert before["problems"] == [] and heads.exists()
    pipeline.stop("anchor", "store")
    shutil.copyfile(pipeline.data_dir / "anchors.jsonl", anchors)

    def assert_as_before() -> None:
        pipeline.start("store")
        wait_until_stored(pipeline, shown=True)
        assert_exactly_once(pipeline, sent, verified=False)
        code, report = pipeline.verify("--states", "--state", str(heads), "--anchors", str(anchors))
        assert (code, report["problems"], report["unchecked_states"]) == (0, [], "")
        assert report["entries"] >= before["entries"] and report["outside_anchors"] >= 2
        pipeline.stop("store")
        shutil.rmtree(folder)

    shutil.rmtree(folder)
    [restored] = ask_as(None, folder, tmp_path, ["RESTORE DATABASE audit FROM File('audit')"])
    assert restored[0][1] == "RESTORED"
    assert_as_before()  # the committed offsets are past the end of the backup
    assert_as_before()  # nothing is left: everything is read again
