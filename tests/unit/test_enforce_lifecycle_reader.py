"""The running grants, read from the log again and again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from grantledger.enforcers.command_rules import SealedActivation
from grantledger.enforcers.contract import RevokeCommand
from grantledger.enforcers.enforcement_policy import EnforcementPolicy
from grantledger.enforcers.lifecycle_reader import LifecycleReader
from grantledger.enforcers.running_grants import RunningGrants
from grantledger.kafka.sealed_log import SealedLogs
from grantledger.kafka.source_keys_reader import SourceKeysReader
from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.source_keys import SignedRecord, SourceKeys
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.event import Actor, Event, EventSource, IssuingSource, Resource, Subject
from support.sources import Registrar, key_of, record_of

from .test_enforce_command_rules import NOON, command

HERE = "test.example"


class Log:
    """Yields the records of each call: those sealed since the call before, and all that are not sealed yet."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[int, Event]]] = []
        self.unsealed: list[tuple[int, Event]] = []
        self.signer: LocalSigner | None = None
        self.partition, self.position = 0, 1

    def read_sealed(self) -> Iterator[tuple[int, SignedRecord]]:
        return self._records(self.calls.pop(0) if self.calls else [])

    def read_unsealed(self) -> Iterator[tuple[int, SignedRecord]]:
        return self._records(self.unsealed)

    def _records(self, events: list[tuple[int, Event]]) -> Iterator[tuple[int, SignedRecord]]:
        for offset, event in events:
            time_ms = int(event.occurred_at.timestamp() * 1000)
            yield offset, record_of(event, self.signer, HERE, time_ms)


class Sources:
    """Registered sources that are known from the beginning."""

    def __init__(self, keys: SourceKeys | None = None) -> None:
        self.keys = keys or SourceKeys(HERE)

    def until(self, append_time_ms: int) -> SourceKeys:
        return self.keys


def policy_for(*sources: str) -> EnforcementPolicy:
    targets = {"here": {"plugin": "exec", "command": ["/bin/true"]}}
    return EnforcementPolicy.model_validate({"targets": targets, "routes": [{"target": "here", "sources": sources}]})


VAULT = policy_for("vault/*")


def covers(grants: RunningGrants, now: datetime) -> bool:
    return grants.covering(command(), NOON, now, lambda _: True) is not None


def reader_of(
    log: Log, now: datetime, keys: SourceKeys | None = None, policy: EnforcementPolicy = VAULT
) -> LifecycleReader:
    sources = cast(SourceKeysReader, Sources(keys))
    reader = LifecycleReader(cast(SealedLogs, None), sources, SchemaCatalog((event_schema(),)), policy, lambda: now)
    setattr(reader, "_open", lambda: [log])  # noqa: B010
    return reader


def event(event_type: str, minute: int, **more: Any) -> Event:
    return Event(
        event_type=event_type,
        occurred_at=NOON + timedelta(minutes=minute),
        source=EventSource("vault", "prod", f"{event_type}:{minute}", "lease"),
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
    assert covers(found, now) == running


def test_a_record_that_is_read_again_after_it_was_sealed_changes_nothing() -> None:
    log = Log()
    reader = reader_of(log, NOON)
    log.calls = [[(0, activated(0)), (1, revoked(1))], [(0, activated(0)), (1, revoked(1))]]
    for _ in range(2):
        assert not covers(reader.running(), NOON)


def test_only_signed_events_of_a_registered_source_count() -> None:
    log, now, registrar, signer = Log(), NOON + timedelta(hours=1), Registrar(HERE), LocalSigner.generate()
    registrar.init()
    registrar.register("vault", "prod", [key_of(signer)], 0)
    for by, counts in ((None, False), (LocalSigner.generate(), False), (signer, True)):
        reader, log.signer, log.calls = reader_of(log, now, registrar.keys), by, [[(0, activated(0))]]
        assert covers(reader.running(), now) == counts


@pytest.mark.parametrize("partitions", [1, 2])
def test_a_grant_of_any_age_and_in_any_partition_is_found(partitions: int) -> None:
    opened: list[int] = []
    made = [Log() for _ in range(partitions)]

    class Logs:
        cluster = None

        def open(self, topic: str, partition: int) -> Log:
            assert topic == "access.lifecycle"
            opened.append(partition)
            made[partition].partition = partition
            return made[partition]

    old = timedelta(days=400)
    made[-1].calls = [[(0, event("grant.activated", -400 * 24 * 60, expires_at=NOON + old, expiry_source="native"))]]
    # A removal of it in the other partition, where no event of the tenant belongs, changes nothing.
    made[0].calls += [[(0, revoked(0))]] if partitions > 1 else []
    keys = SourceKeys(HERE)
    keys.lifecycle_shards = partitions
    sources = cast(SourceKeysReader, Sources(keys))
    reader = LifecycleReader(cast(SealedLogs, Logs()), sources, SchemaCatalog((event_schema(),)), VAULT, lambda: NOON)
    where = [("access.lifecycle.sealed", partition) for partition in range(partitions)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grantledger.enforcers.lifecycle_reader.all_partitions", lambda *_: where)
        patch.setattr("grantledger.enforcers.lifecycle_reader.end_offsets", lambda *_: dict.fromkeys(where, 1))
        assert covers(reader.running(), NOON) and covers(reader.running(), NOON)
    assert opened == list(range(partitions)), "each once, from its beginning"


def asked() -> RevokeCommand:
    return command(grant_source=IssuingSource("vault", "prod"))


def test_only_a_sealed_activation_justifies_a_command() -> None:
    log = Log()
    reader = reader_of(log, NOON)
    log.unsealed = [(0, activated(0))]
    assert reader.activation(asked()) is None
    log.calls, log.unsealed = [[(0, activated(0))]], []
    assert reader.activation(asked()) == SealedActivation(NOON, signed=False)


def test_access_that_was_read_back_since_the_last_call_is_no_longer_historical() -> None:
    """The command follows the read-back within a second, and no other call reads the log in between."""
    day = 24 * 60
    late = event("grant.activated", day, expires_at=NOON - timedelta(days=1), expiry_source="native")
    seen = event("grant.observed", day + 1, outcome="success", grant_source=IssuingSource("vault", "prod"))
    seen = replace(seen, source=EventSource("grantledger-enforcer", HERE, "seen", "lookup"))
    log = Log()
    reader = reader_of(log, NOON)
    for log.calls, observed in (([[(0, late)]], False), ([[(1, seen)]], True)):
        found = reader.activation(asked())
        assert found is not None and found.observed == observed


def test_sources_without_a_route_take_no_memory() -> None:
    log = Log()
    reader = reader_of(log, NOON, policy=policy_for("teleport/*"))
    log.calls = [[(0, activated(0))]]
    assert not covers(reader.running(), NOON) and reader.activation(asked()) is None


def test_without_named_sources_only_signed_grants_count_and_by_the_gateways_time() -> None:
    registrar, signer = Registrar(HERE), LocalSigner.generate()
    registrar.init()
    registrar.register("vault", "prod", [key_of(signer)], 0)
    late = event("grant.activated", 60, expires_at=NOON, expiry_source="native", received_at=NOON)
    for policy, by, keys, found in (
        (policy_for(), signer, registrar.keys, SealedActivation(NOON, signed=True)),
        (policy_for(), None, None, None),
        (VAULT, None, None, SealedActivation(NOON + timedelta(hours=1), signed=False)),
    ):
        log = Log()
        log.signer, log.calls = by, [[(0, late)]]
        assert reader_of(log, NOON, keys, policy).activation(asked()) == found
