"""The key of the logs is replaced, whatever step is interrupted, and everything verifies afterwards.

One ledger goes through all of it, one test after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from grantledger.base.errors import StoppedError
from grantledger.kafka.sealed_log import SealedLogProblem, SealedLogs
from grantledger.processors.key_change import KeyChangeWriter
from grantledger.runtime.broker import LocalBroker
from grantledger.runtime.key_rotation import next_key_file, rotate_key
from grantledger.runtime.keys import KeyUnavailableError, load_log_keys, load_signers, older_key_file
from grantledger.runtime.settings import Settings
from support.load import Load
from support.pipeline import ANCHORED_OFTEN, PROCESSES, WITHOUT_STATES, Pipeline
from support.stopped_ledger import Ledger
from support.waiting import wait_for

IDLE = "access.queries"
"""A log without an entry."""
RESTATED_OFTEN = {"GRANTLEDGER_HEAD_RESTATE_SECONDS": "1"}


@pytest.fixture(scope="module")
def ledger(broker: LocalBroker, make_pipeline: Callable[..., Pipeline]) -> Ledger:
    """A ledger whose entries are sealed, stored and anchored, with nothing running."""
    ledger = Ledger(make_pipeline(broker.bootstrap_servers, ANCHORED_OFTEN | WITHOUT_STATES | RESTATED_OFTEN))
    ledger.pipeline.start("store", "anchor")
    wait_for(ledger.all_stored, "everything is stored")
    wait_for(lambda: ledger.pipeline.metric("anchor", "grantledger_anchors_total") >= 2, "everything is anchored")
    ledger.stop_drained()
    return ledger


@pytest.fixture(autouse=True)
def _nothing_runs_afterwards(ledger: Ledger) -> Iterator[None]:
    yield
    ledger.pipeline.stop()


def settings(ledger: Ledger) -> Settings:
    return ledger.pipeline.settings()


def logs(ledger: Ledger, problems: list[SealedLogProblem] | None = None) -> SealedLogs:
    """Return a reader of the sealed logs with the list of keys as it is now."""
    keys = load_log_keys(settings(ledger))
    found = [] if problems is None else problems
    return SealedLogs(ledger.pipeline.cluster, ledger.pipeline.deployment, keys, found.append)


def goes_on(ledger: Ledger) -> None:
    """Send records through the whole pipeline until they are stored and anchored."""
    pipeline = ledger.pipeline
    Load(pipeline.cluster, 40, 2000, seed=11, odd=False).start().finish()
    pipeline.start(*PROCESSES)

    def all_stored() -> bool:
        sealed = pipeline.metric("seal", "grantledger_log_size_entries")
        return pipeline.metric("store", "grantledger_stored_log_size_entries") >= sealed > 0

    wait_for(all_stored, "everything is stored")
    before = pipeline.metric("anchor", "grantledger_anchors_total")
    wait_for(lambda: pipeline.metric("anchor", "grantledger_anchors_total") >= before + 2, "anchoring goes on")


def assert_sound(ledger: Ledger) -> dict[str, Any]:
    """Verify what the store and what Kafka have; return the report of the latter."""
    pipeline = ledger.pipeline
    pipeline.stop("seal", "anchor")
    reports = []

    def sound(*arguments: str) -> bool:
        code, report = pipeline.verify(*arguments)
        reports.append(report)
        return code == 0

    wait_for(sound, "the store is sound", pause=1.0)
    assert sound("--from", "kafka"), reports[-1]
    return reports[-1]


def test_a_running_sealer_prevents_it(ledger: Ledger) -> None:
    ledger.pipeline.start("seal")
    wait_for(lambda: ledger.pipeline.metric("seal", "grantledger_log_size_entries") > 0, "a sealer runs")
    with pytest.raises(StoppedError, match="stop `run seal`"):
        KeyChangeWriter(logs(ledger), load_signers(settings(ledger))).take_over(patience=0.0)


class InterruptedHereError(Exception):
    """Stands for kill -9."""


def rotate(ledger: Ledger, until: str = "") -> None:
    """Replace the key; with ``until``, only up to the step that begins so."""

    def on_step(step: str) -> None:
        if until and step.startswith(until):
            raise InterruptedHereError

    rotate_key(settings(ledger), person="alice", reason="ticket 17", on_step=on_step)


def test_every_step_can_be_interrupted(ledger: Ledger) -> None:
    """Each run goes one step further than the one before. Until the list is written, the old key is in force."""
    here, old, new = settings(ledger), load_log_keys(settings(ledger)), set[bytes]()
    for step in ("waiting", "writing the new", "publishing", "sealing", "checking", "keeping", "writing the list"):
        with pytest.raises(InterruptedHereError):
            rotate(ledger, step)
        if next_key_file(here).path.exists():
            new.add(next_key_file(here).read().public_key)
        assert load_signers(here).keys == old
    ledger.seal_until_done(61)  # the sealers may even be started meanwhile
    with pytest.raises(InterruptedHereError):
        rotate(ledger, "replacing")
    with pytest.raises(KeyUnavailableError, match="keys rotate` again"):
        load_signers(here)  # nothing can sign with the old key any more
    with pytest.raises(InterruptedHereError):
        rotate(ledger, "removing")
    rotate(ledger)
    assert new == {load_signers(here).newest.public_key} == {load_log_keys(here).newest}
    assert not next_key_file(here).path.exists()
    assert older_key_file(here, 1).read().public_key == old.newest
    goes_on(ledger)
    assert_sound(ledger)
