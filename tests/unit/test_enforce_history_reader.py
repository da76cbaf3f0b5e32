"""What the enforcer believes of the log of findings."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast

import pytest

from grantledger.enforcers import history_reader
from grantledger.enforcers.command_rules import Breaker, Circuit
from grantledger.enforcers.events import Recorder
from grantledger.enforcers.history_reader import HistoryReader
from grantledger.kafka.cluster import Cluster
from grantledger.kafka.sealed_log import SealedLogs
from grantledger.ledger.source_keys import SignedRecord
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import Event, EventSource
from support.sources import record_of

from .test_enforce_command_rules import HOUR, NOON, command_event

HERE = "test.example"
CIRCUIT = Circuit("bot", "eu-1", "here")
RECORDER = Recorder(HERE)


class Log:
    """The log of findings: sealed records until the next call, and those that are not sealed yet."""

    cluster, deployment, signer = Cluster({}), HERE, None

    def __init__(self) -> None:
        self.sealed: list[SignedRecord] = []
        self.unsealed: list[SignedRecord] = []
        self.read_below = 0

    def open(self, topic: str) -> Log:
        assert topic == "access.findings"
        return self

    def check_whole(self) -> None:
        pass

    def has_read_below(self, offset: int) -> bool:
        return offset <= self.read_below

    def read_sealed(self) -> Iterator[tuple[int, SignedRecord]]:
        taken, self.sealed = self.sealed, []
        return iter(list(enumerate(taken)))

    def read_unsealed(self) -> Iterator[tuple[int, SignedRecord]]:
        return iter(list(enumerate(self.unsealed)))


def reader(log: Log) -> HistoryReader:
    return HistoryReader(cast(SealedLogs, log), SchemaCatalog((event_schema(),)))


def record(event: Event, hours: int = 0) -> SignedRecord:
    return record_of(event, None, HERE, int((NOON + hours * HOUR).timestamp() * 1000))


def request(**fields: Any) -> Event:
    return command_event(**({"source": EventSource("grantledger-watch", HERE, "g1", "finding")} | fields))


def test_only_sealed_requests_of_this_watch_count_and_the_first_time() -> None:
    log, value = Log(), EventEncoder().encode(request())
    one = record(request())._replace(value=value)
    log.unsealed = [one]
    found = reader(log)
    assert found.requested(value) is None, "it is not sealed"
    log.sealed = [one, one._replace(append_time_ms=one.append_time_ms + 9_000_000)]
    found.update()
    assert found.requested(value) == NOON, "a copy makes it no younger"
    assert found.requested(EventEncoder().encode(request())) is None, "the same in other bytes"
    for other in (
        request(source=EventSource("grantledger-watch", "other.example", "g1", "finding")),
        request(source=EventSource("emit", HERE, "g1", "finding")),
        request(event_type="revoke.attempted"),
    ):
        foreign = record(other)
        log.sealed = [foreign]
        found.update()
        assert found.requested(foreign.value or b"") is None


@pytest.mark.parametrize("sealed", [True, False])
def test_an_open_breaker_is_found_again_and_a_copy_of_its_closing_does_nothing(sealed: bool) -> None:
    def opened(hours: int) -> SignedRecord:
        return record(RECORDER.breaker_opened(NOON + hours * HOUR, CIRCUIT, Breaker(20, HOUR), "too many"), hours)

    closed = record(RECORDER.breaker_closed(NOON + HOUR, CIRCUIT, "carol", "looked"), 1)
    log, elsewhere = Log(), Circuit("vault", "prod", "here")
    other = record(RECORDER.breaker_opened(NOON, elsewhere, Breaker(20, HOUR), "too many"))
    records = [opened(0), other, closed, opened(2), closed]
    if sealed:
        log.sealed = records
    else:
        log.unsealed = records
    found = reader(log)
    assert found.history.open_since == {elsewhere: NOON, CIRCUIT: NOON + 2 * HOUR}
    # The running enforcer sees what people decide, and no second time what was not sealed at the start.
    log.sealed = records
    found.update()
    assert set(found.history.open_since) == {elsewhere, CIRCUIT}
    log.sealed = [record(RECORDER.breaker_closed(NOON + timedelta(hours=3), CIRCUIT, "carol", "looked"), 3)]
    found.update()
    assert set(found.history.open_since) == {elsewhere}


def test_after_the_topic_was_created_again_nothing_counts_as_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command whose request is not sealed yet would otherwise pass for forged."""
    log = Log()
    found, ends = reader(log), iter([500, 2])
    monkeypatch.setattr(history_reader, "end_offset", lambda *_, **__: next(ends))
    log.read_below = 500
    assert found.has_read_below(found.end())
    log.read_below = 0
    assert not found.has_read_below(found.end())
