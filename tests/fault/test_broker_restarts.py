"""Kafka fails under load, in several ways: nothing is lost, nothing is duplicated, and there is one history."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from grantledger.runtime.broker import LocalBroker
from support.enforcing import Enforcement
from support.load import Load
from support.oracle import assert_exactly_once, wait_until_stored
from support.pipeline import FEW_BATCHES, WITHOUT_STATES, Pipeline
from support.waiting import wait_for


@pytest.fixture(scope="module")
def pipeline(own_broker: LocalBroker, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    running = make_pipeline(own_broker.bootstrap_servers, WITHOUT_STATES | FEW_BATCHES)
    running.start()
    return running


@contextmanager
def watched(pipeline: Pipeline) -> Iterator[None]:
    """Restart processes that end, as the supervisor of the local stack does."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            pipeline.restart_failed()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def sealed(pipeline: Pipeline) -> float:
    return pipeline.metric("seal", "grantledger_log_size_entries")


@pytest.mark.parametrize(
    "ways", [("killed",), pytest.param(("restarted", "frozen", "killed for long"), marks=pytest.mark.slow)]
)
def test_kafka_fails_under_load(own_broker: LocalBroker, pipeline: Pipeline, ways: tuple[str, ...]) -> None:
    wait_for(lambda: sealed(pipeline) > 0, "sealing has begun")
    load = Load(pipeline.cluster, count=100_000, rate=150, seed=2).start()
    with watched(pipeline):
        for away in ways:
            before = sealed(pipeline)
            wait_for(lambda before=before: sealed(pipeline) > before + 100, f"sealing continues before Kafka is {away}")
            if away == "frozen":
                # Longer than the transaction timeout: the transaction is aborted and must be repeated.
                assert own_broker.pid is not None
                os.kill(own_broker.pid, signal.SIGSTOP)
                time.sleep(12)
                os.kill(own_broker.pid, signal.SIGCONT)
            elif away == "restarted":
                own_broker.stop()
                own_broker.start()
            else:
                own_broker.kill()
                time.sleep(11 if away == "killed for long" else 0)  # longer than the session timeout
                own_broker.start()
        before = sealed(pipeline)
        wait_for(lambda: sealed(pipeline) > before + 100, "sealing continues afterwards")
        sent = load.stop().finish()
    wait_until_stored(pipeline, watch=True)
    assert len(sent) >= 200
    assert_exactly_once(pipeline, sent)
    for name, child in pipeline.children.items():
        assert child.gave_up is None, (name, child.gave_up)
        assert "Traceback" not in pipeline.log(name), pipeline.log(name)


def test_each_process_says_that_it_waits_for_kafka(own_broker: LocalBroker, pipeline: Pipeline) -> None:
    """It is not ready. It is alive: a restart would not bring Kafka back."""
    with watched(pipeline):
        pipeline.wait_ready()
        own_broker.stop()
        for name in pipeline.children:
            told = f"waits for Kafka at {own_broker.bootstrap_servers}: Connection refused"
            wait_for(lambda name=name, told=told: told in pipeline.health(name).waits, f"{name} says so")
            assert not pipeline.health(name).hanging
        own_broker.start()
        pipeline.wait_ready()


@pytest.mark.slow
def test_an_enforcer_goes_on_by_itself(own_broker: LocalBroker, pipeline: Pipeline, tmp_path: Path) -> None:
    """Nothing restarts it. Kafka fails while it waits, and between the two transactions of an attempt."""
    pipeline.stop()
    here = Enforcement(pipeline, "enforced.example", tmp_path / "here")

    def done(*grants: str) -> None:
        here.grant(*grants)
        wait_for(lambda: here.lag() == 0, "all commands are done", limit=25)

    try:
        child = here.acting()
        done("g1")
        own_broker.kill()
        own_broker.start()
        done("g2")
        here.hold("before")
        here.grant("g3")
        here.wait_held()
        own_broker.stop()
        own_broker.start()
        here.release()
        wait_for(lambda: here.lag() == 0, "the attempt has its result", limit=25)
        done("g4")
        assert child.alive(), child.last_error()
        assert "Traceback" not in child.log_path.read_text()
        here.end(child)
    finally:
        here.stop()
    grants = ["g1", "g2", "g3", "g4"]
    assert here.requested() == here.removals() == grants
    for grant in grants:
        assert here.history(grant) == [
            ("revoke.attempted", "pending", 1), ("revoke.attempted", "success", 1), ("revoke.confirmed", "success", 1)
        ]  # fmt: skip
