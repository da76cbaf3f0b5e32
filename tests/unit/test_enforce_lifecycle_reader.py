"""The running grants, read from the log again and again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from grantledger.enforcers.lifecycle_reader import LifecycleReader
from grantledger.kafka.sealed_log import SealedLogReader, SealedLogs
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import Actor, Event, Resource, Source, Subject

from .test_enforce_command_rules import NOON, command


class Log:
    """Yields the records of each call: first those sealed since the call before, then all that are not sealed yet."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[int, Event]]] = []

    def read_records(self) -> Iterator[tuple[int, bytes | None, bytes | None, int]]:
        for offset, event in self.calls.pop(0):
            time_ms = int(event.occurred_at.timestamp() * 1000)
            yield offset, event.key.encode(), EventEncoder().encode(event), time_ms


def event(event_type: str, minute: int, **more: Any) -> Event:
    return Event(
        event_type=event_type,
        occurred_at=NOON + timedelta(minutes=minute),
        source=Source("vault", "prod", f"{event_type}:{minute}", "lease"),
        subject=Subject("alice", "human"),
        actor=Actor("alice"),
        resource=Resource("database", "orders", "production"),
        entitlement="readwrite",
        grant_id="g1",
        grant_id_kind="native",
        **more,
    )


def activated(minute: int) -> Event:
    return event("grant.activated", minute, expires_at=NOON + timedelta(days=1), expiry_source="native")


def revoked(minute: int) -> Event:
    return event("grant.revoked", minute, removal_evidence="confirmed")


@pytest.mark.parametrize("running", [True, False])
def test_records_of_a_new_epoch_count_although_their_offsets_begin_again(
    monkeypatch: pytest.MonkeyPatch, running: bool
) -> None:
    log, now = Log(), NOON + timedelta(hours=1)
    reader = LifecycleReader(cast(SealedLogs, None), SchemaCatalog((event_schema(),)), lambda: now)
    monkeypatch.setattr(reader, "_reader_from", lambda since: cast(SealedLogReader, log))
    earlier, later = (revoked, activated) if running else (activated, revoked)
    log.calls = [[(100, activated(0)), (101, earlier(1))], [(0, later(2))]]
    for _ in range(2):
        found = reader.running(NOON)
    assert (found.covering(command(), NOON, now) is not None) == running


def test_a_record_that_is_read_again_after_it_was_sealed_changes_nothing() -> None:
    log, now = Log(), datetime.now(UTC)
    reader = LifecycleReader(cast(SealedLogs, None), SchemaCatalog((event_schema(),)), lambda: NOON)
    setattr(reader, "_reader_from", lambda since: log)  # noqa: B010
    log.calls = [[(0, activated(0)), (1, revoked(1))], [(0, activated(0)), (1, revoked(1))]]
    for _ in range(2):
        assert reader.running(now).covering(command(), NOON, NOON) is None
