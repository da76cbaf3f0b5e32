"""The running grants, read from the log again and again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from grantledger.enforcers.lifecycle_reader import LifecycleReader
from grantledger.kafka.sealed_log import SealedLogs
from grantledger.kafka.source_keys_reader import SourceKeysReader
from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.source_keys import SignedRecord, SourceKeys
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.event import Actor, Event, Resource, Source, Subject
from support.sources import Registrar, key_of, record_of

from .test_enforce_command_rules import NOON, command

HERE = "test.example"


class Log:
    """Yields the records of each call: first those sealed since the call before, then all that are not sealed yet."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[int, Event]]] = []
        self.signer: LocalSigner | None = None

    def read_records(self) -> Iterator[tuple[int, SignedRecord]]:
        for offset, event in self.calls.pop(0):
            time_ms = int(event.occurred_at.timestamp() * 1000)
            yield offset, record_of(event, self.signer, HERE, time_ms)


class Sources:
    """Registered sources that are known from the beginning."""

    def __init__(self, keys: SourceKeys | None = None) -> None:
        self.keys = keys or SourceKeys(HERE)

    def until(self, append_time_ms: int) -> SourceKeys:
        return self.keys


def reader_of(log: Log, now: datetime, keys: SourceKeys | None = None) -> LifecycleReader:
    sources = cast(SourceKeysReader, Sources(keys))
    reader = LifecycleReader(cast(SealedLogs, None), sources, SchemaCatalog((event_schema(),)), lambda: now)
    setattr(reader, "_open", lambda: log)  # noqa: B010
    return reader


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
def test_records_of_a_new_epoch_count_although_their_offsets_begin_again(running: bool) -> None:
    log, now = Log(), NOON + timedelta(hours=1)
    reader = reader_of(log, now)
    earlier, later = (revoked, activated) if running else (activated, revoked)
    log.calls = [[(100, activated(0)), (101, earlier(1))], [(0, later(2))]]
    for _ in range(2):
        found = reader.running()
    assert (found.covering(command(), NOON, now) is not None) == running


def test_a_record_that_is_read_again_after_it_was_sealed_changes_nothing() -> None:
    log = Log()
    reader = reader_of(log, NOON)
    log.calls = [[(0, activated(0)), (1, revoked(1))], [(0, activated(0)), (1, revoked(1))]]
    for _ in range(2):
        assert reader.running().covering(command(), NOON, NOON) is None


def test_only_signed_events_of_a_registered_source_count() -> None:
    log, now, registrar, signer = Log(), NOON + timedelta(hours=1), Registrar(HERE), LocalSigner.generate()
    registrar.init()
    registrar.register("vault", "prod", [key_of(signer)], 0)
    for by, counts in ((None, False), (LocalSigner.generate(), False), (signer, True)):
        reader, log.signer, log.calls = reader_of(log, now, registrar.keys), by, [[(0, activated(0))]]
        assert (reader.running().covering(command(), NOON, now) is not None) == counts


def test_a_grant_of_any_age_is_found() -> None:
    opened: list[tuple[str, dict[str, Any]]] = []

    class Logs:
        cluster = None

        def open(self, topic: str, **more: Any) -> Log:
            opened.append((topic, more))
            return log

    log, old = Log(), timedelta(days=400)
    log.calls = [[(0, event("grant.activated", -400 * 24 * 60, expires_at=NOON + old, expiry_source="native"))]]
    sources = cast(SourceKeysReader, Sources())
    reader = LifecycleReader(cast(SealedLogs, Logs()), sources, SchemaCatalog((event_schema(),)), lambda: NOON)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grantledger.enforcers.lifecycle_reader.end_offset", lambda *_: 1)
        found = reader.running()
    assert opened == [("access.lifecycle", {})], "from the beginning of the log"
    assert found.covering(command(), NOON, NOON) is not None
