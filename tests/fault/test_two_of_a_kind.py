"""Several sealers or stores: they share the work, fence each other, or are refused; there is always one history."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from grantledger.runtime.children import Child
from support.load import Load
from support.oracle import assert_exactly_once, wait_until_stored
from support.pipeline import FEW_BATCHES, WITHOUT_STATES, Pipeline
from support.shared_broker import RunningBroker
from support.waiting import wait_for


@pytest.fixture(scope="module")
def pipeline(broker: RunningBroker, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    running = make_pipeline(broker.bootstrap_servers, WITHOUT_STATES | FEW_BATCHES)
    running.start("seal", "store")
    return running


def assigned(child: Child) -> int:
    return child.log_path.read_text().count('"partition_assigned"')


def test_sealers_replace_each_other_and_share_partitions(pipeline: Pipeline) -> None:
    first = pipeline.children["seal"]
    wait_for(lambda: assigned(first) >= 7, "the first sealer has its partitions")
    load = Load(pipeline.cluster, count=100_000, rate=100, seed=3).start()

    # The same name twice: the newer sealer fences the older one, which ends with the reason.
    same = pipeline.twin("same", "seal")
    wait_for(lambda: first.exit_code == 1, "the older sealer is fenced")
    assert "GRANTLEDGER_SEALER_INSTANCE" in first.last_error()
    wait_for(lambda: assigned(same) >= 7, "the newer sealer has the partitions")

    # Another name: they share the partitions under load.
    pipeline.twin("other", "seal", GRANTLEDGER_SEALER_INSTANCE="other")
    wait_for(lambda: 0 < assigned(pipeline.children["other"]) < 7, "the second sealer has some partitions")
    before = assigned(same)
    pipeline.kill("other")
    wait_for(lambda: assigned(same) >= before + 7, "the remaining sealer has taken over")

    # Sealers come and go during transactions.
    again = pipeline.twin("again", "seal", GRANTLEDGER_SEALER_INSTANCE="other")
    wait_for(lambda: assigned(again) > 0, "the second sealer is back")
    third = pipeline.twin("third", "seal", GRANTLEDGER_SEALER_INSTANCE="third")
    wait_for(lambda: assigned(third) > 0, "there are three")
    pipeline.kill("same")
    total = "grantledger_sealed_entries_total"
    lately = len(load.sent)
    wait_for(lambda: len(load.sent) > lately + 100, "the load goes on")
    sent = load.stop().finish()
    wait_until_stored(pipeline)
    assert_exactly_once(pipeline, sent)
    assert pipeline.metric("again", total) > 0 and pipeline.metric("third", total) > 0
    for name in ("seal", "same", "other", "again", "third"):
        assert "Traceback" not in pipeline.log(name)


def test_a_second_store_is_refused(pipeline: Pipeline) -> None:
    answer = pipeline.run("run", "store")
    assert answer.returncode == 1
    assert "in use by another process" in answer.stderr and "Traceback" not in answer.stderr
    assert pipeline.children["store"].alive()
    assert pipeline.query("SELECT count() > 0 AS c FROM entries") == [{"c": 1}]
