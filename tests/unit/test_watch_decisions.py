"""What a running watch reads of the findings that people close."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from grantledger.kafka.cluster import Cluster
from grantledger.kafka.identity import TopicIdentity
from grantledger.kafka.sealed_log import SealedLogs
from grantledger.kafka.topics import TopicError
from grantledger.ledger.source_keys import SignedRecord
from grantledger.processors.naming import Installation
from grantledger.processors.watch import kafka_findings as module
from grantledger.processors.watch.core.judge import KnownFindings
from grantledger.processors.watch.kafka_findings import KafkaFindings
from grantledger.processors.watch.shard import ONLY_SHARD, Shard
from grantledger.processors.watch_policy import WatchPolicy
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from support.sources import record_of
from support.watch_world import NOON
from support.watching import key

from .test_watch_at_work import closed

HERE = "test"
DEADLINE = NOON + timedelta(seconds=100)
MICROS = round(DEADLINE.timestamp() * 1_000_000)
NAMED = Installation(system="vault", instance="main", other_names=("prod",))


class Log:
    """The log of findings, as its reader gives it: a record that is not sealed yet is read again when it is."""

    cluster, deployment, signer = Cluster({}), HERE, None

    def __init__(self) -> None:
        self.sealed: list[tuple[int, SignedRecord]] = []
        self.unsealed: list[tuple[int, SignedRecord]] = []
        self.open_readers = 0

    def open(self, topic: str) -> Log:
        assert topic == "access.findings"
        self.open_readers += 1
        return self

    def close(self) -> None:
        self.open_readers -= 1

    def check_whole(self) -> None:
        """It has its beginning."""

    def read_sealed(self) -> Iterator[tuple[int, SignedRecord]]:
        taken, self.sealed = self.sealed, []
        return iter(taken)

    def read_records(self) -> Iterator[tuple[int, SignedRecord]]:
        return iter([*self.read_sealed(), *self.unsealed])


def record(*about: Any, offset: int, **more: Any) -> tuple[int, SignedRecord]:
    return offset, record_of(closed(*about, **more), None, HERE, round(NOON.timestamp() * 1000))


def findings(
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
    policy: WatchPolicy = WatchPolicy(),  # noqa: B008
    shard: Shard = ONLY_SHARD,
) -> KafkaFindings:
    writer = SimpleNamespace(init=lambda: None)
    monkeypatch.setattr(module, "TransactionalWriter", lambda *_, **__: writer)
    monkeypatch.setattr(module, "wait_without_open_transaction", lambda *_: None)
    made = KafkaFindings(cast(SealedLogs, log), SchemaCatalog((event_schema(),)), policy, shard=shard)
    monkeypatch.setattr(made, "publish", lambda _: None)
    return made


def test_each_decision_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    log.sealed = [record("overdue", "a", DEADLINE, offset=3)]
    log.unsealed = [record("overdue", "b", DEADLINE, offset=5)]
    watch = findings(log, monkeypatch)
    known = watch.take_over()
    assert known.findings == {("overdue", key(name), MICROS): False for name in "ab"}
    assert watch.decisions() == KnownFindings()
    log.sealed = [*log.unsealed, record("event_conflict", "vault/prod", offset=7, accept=4)]
    decided = watch.decisions()
    assert decided.findings == {("event_conflict", "default/vault/prod", 0): False}, "the other one is known"
    assert decided.accepted == {("vault/prod", 4)}
    assert watch.decisions() == KnownFindings()
    watch.take_over()
    assert log.open_readers == 1


def test_decisions_about_another_name_of_an_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    watch = findings(log, monkeypatch, WatchPolicy(installation=(NAMED,)))
    watch.take_over()
    log.sealed = [
        record("overdue", "a", DEADLINE, offset=0), record("event_conflict", "vault/prod", offset=1, accept=4),
    ]  # fmt: skip
    decided = watch.decisions()
    assert ("overdue", "default/vault/main/a", MICROS) in decided.findings
    assert decided.accepted == {("vault/main", 4)}


@pytest.mark.parametrize("partitions", [1, 2])
def test_a_watch_refuses_a_log_of_which_it_would_judge_a_part(monkeypatch: pytest.MonkeyPatch, partitions: int) -> None:
    logs = SimpleNamespace(cluster=Cluster({}, "eu-"), deployment=HERE, signer=None)
    findings = KafkaFindings(cast(SealedLogs, logs), SchemaCatalog((event_schema(),)), WatchPolicy())
    identity = TopicIdentity(bytes(16), partitions)
    monkeypatch.setattr(module, "end_offset", lambda *_, **__: 7)
    monkeypatch.setattr(module, "identify_topics", lambda _, topics: dict.fromkeys(topics, identity))
    if partitions == 1:
        assert findings.log_end() == (bytes(16), 7)
    else:
        with pytest.raises(
            TopicError, match=r"^eu-access\.lifecycle has 2 partitions, and lifecycle_shards is 1: create"
        ):
            findings.log_end()
