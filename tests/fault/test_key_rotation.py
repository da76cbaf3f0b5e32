"""The key of the logs is replaced, whatever step is interrupted, and everything verifies afterwards.

One ledger goes through all of it, one test after the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from grantledger.base.errors import StoppedError
from grantledger.kafka.sealed_log import SealedLogProblem, SealedLogs
from grantledger.ledger import batch as batches
from grantledger.ledger.batch import Records
from grantledger.ledger.entry import NO_HEADERS
from grantledger.ledger.key_list import write_key_list
from grantledger.ledger.keys import LocalSigner, LogKey, LogKeys
from grantledger.processors.key_change import KeyChangeWriter
from grantledger.runtime.broker import LocalBroker
from grantledger.runtime.key_rotation import rotate_key
from grantledger.runtime.keys import KeyUnavailableError, load_log_keys, load_signers, next_key_file, older_key_file
from grantledger.runtime.settings import Settings
from support.load import Load
from support.pipeline import ANCHORED_OFTEN, PROCESSES, WITHOUT_STATES, Pipeline
from support.stopped_ledger import LIFECYCLE, Ledger
from support.waiting import wait_for

IDLE = "access.queries"
"""A log without an entry."""
RESTATED_OFTEN = {"GRANTLEDGER_HEAD_RESTATE_SECONDS": "1"}


@pytest.fixture(scope="module")
def ledger(broker: LocalBroker, make_pipeline: Callable[..., Pipeline]) -> Ledger:
    """A ledger whose entries are sealed, stored and anchored, with nothing running."""
    ledger = Ledger(make_pipeline(broker.bootstrap_servers, ANCHORED_OFTEN | WITHOUT_STATES | RESTATED_OFTEN))
    ledger.store_and_anchor()
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


def test_the_list_must_be_that_of_the_ledger(ledger: Ledger, tmp_path: Path) -> None:
    """An older list could not check; a list with a key that the ledger does not name like this is a problem."""
    keys, file = load_log_keys(settings(ledger)), tmp_path / "log.pub"

    def verified(*listed: LogKey) -> tuple[int, list[str], str]:
        file.write_bytes(write_key_list(LogKeys(listed)))
        code, report = ledger.pipeline.verify("--from", "kafka", "--public-key", str(file))
        return code, [problem["check"] for problem in report["problems"]], "; ".join(report.get("could_not_check", []))

    code, _, reason = verified(*keys.keys[:-1])
    assert code == 2 and "names a key that the list of keys does not have" in reason
    beyond = {origin: size + 10_000 for origin, size in keys.keys[-1].first_sizes.items()}
    added = LogKey(LocalSigner.generate().public_key, beyond)
    code, _, reason = verified(*keys.keys, added)
    assert code == 2 and "is not here (yet)" in reason
    one_more = {origin: size + (LIFECYCLE in origin) for origin, size in keys.keys[-1].first_sizes.items()}
    code, checks, _ = verified(*keys.keys[:-1], replace(keys.keys[-1], first_sizes=one_more))
    assert code == 1 and "log_key" in checks


def test_the_key_is_replaced_again(ledger: Ledger) -> None:
    """By the command. A log without an entry restates its head with the first of three keys."""
    pipeline, before = ledger.pipeline, load_log_keys(settings(ledger))
    assert pipeline.run("keys", "rotate", "--yes").returncode == 2  # no reason
    assert pipeline.run("keys", "rotate", "--reason", "no", stdin="n\n").returncode == 1
    answer = pipeline.run("keys", "rotate", "--reason", "ticket 18", "--as", "bob", "--yes")
    assert answer.returncode == 0, answer.stderr
    assert "it is key 3 now" in answer.stdout and "log.2.pem" in answer.stdout
    keys = load_log_keys(settings(ledger))
    assert keys.keys[:-1] == before.keys
    shown = [row for row in json.loads(pipeline.run("keys", "-o", "json").stdout) if LIFECYCLE in row["origin"]]
    assert [row["first_size"] for row in shown] == [0, *(key.first_sizes[shown[0]["origin"]] for key in keys.keys[1:])]
    idle = logs(ledger).last(IDLE)
    assert idle is not None and idle.head.size == 0
    goes_on(ledger)
    wait_for(lambda: (now := logs(ledger).last(IDLE)) is not None and now.offset > idle.offset, "the head is restated")
    assert_sound(ledger)
    sql = "SELECT actor_id, reason FROM entries WHERE event_type = 'key.changed' ORDER BY index DESC LIMIT 1"
    assert pipeline.query(sql) == [{"actor_id": "bob", "reason": "ticket 18"}]


def test_the_old_key_signs_nothing_any_more(ledger: Ledger) -> None:
    """This is the last test of the ledger: what is forged stays in Kafka."""
    pipeline, here = ledger.pipeline, settings(ledger)
    old, last = older_key_file(here, 2).read(), logs(ledger).last(LIFECYCLE)
    assert last is not None
    head = last.head
    records = Records([1], [head.next_offset], [7], [b"k"], [b"forged"], [NO_HEADERS])
    batch, _ = batches.seal(head, records, head.next_offset + 1, datetime.now(UTC), old)
    producer = Producer(pipeline.options)
    producer.produce(pipeline.cluster.physical(f"{LIFECYCLE}.sealed"), batches.encode(batch), b"k", 0)
    assert producer.flush(20) == 0
    problems: list[SealedLogProblem] = []
    found = logs(ledger, problems).last(LIFECYCLE)
    assert found is not None and found.offset == last.offset
    assert [problem.rule for problem in problems] == ["sealed_record_invalid"]
    assert "copy log.pub again" in problems[0].reason
    code, report = pipeline.verify("--from", "kafka")
    assert code == 1 and [problem["check"] for problem in report["problems"]] == ["checkpoint"]
