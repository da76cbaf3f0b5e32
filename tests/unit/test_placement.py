"""Several lifecycle shards: where events belong, and what happens to events that are elsewhere."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import chdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grantledger.base.errors import UsageError
from grantledger.enforcers import event_writer
from grantledger.kafka.cluster import Cluster
from grantledger.kafka.sealed_log import SealedLogs
from grantledger.ledger.decoded_entries import decode_entries
from grantledger.ledger.entry import encode_headers
from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.source_keys import SignedRecord, SourceKeys
from grantledger.runtime.lifecycle_shards import check_on_record, shards_event
from grantledger.runtime.settings import Settings
from grantledger.schemas.catalog import own_schemas
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import Event, EventSource, Finding
from grantledger.schemas.own_sources import OPERATOR, SEALER
from grantledger.schemas.placement import ANY_PARTITION, murmur2, placement_of, shard_of
from support.events import event
from support.sources import Registrar, key_of, record_of

HERE = "test.example"


def sharded(shards: int = 2) -> Registrar:
    """The sources of a ledger that was created with some shards."""
    registrar = Registrar(HERE)
    registrar.init()
    state(registrar, shards_event(HERE, shards, "carol"), registrar.operator)
    return registrar


def state(registrar: Registrar, stated: Event, signer: LocalSigner | None) -> bool:
    return registrar.keys.learn(record_of(stated, signer, HERE, 0))


def decode_errors(
    events: list[Event], sources: SourceKeys, partition: int, topic: str = "access.lifecycle"
) -> list[str]:
    values = [EventEncoder().encode(one) for one in events]
    records = [SignedRecord(topic, b"", value, encode_headers([]), 0) for value in values]
    table = decode_entries(
        pa.array(values, pa.binary()), [0] * len(values), lambda: records,
        topic=topic, partition=partition, catalog=own_schemas(), sources=sources,
    )  # fmt: skip
    return [one.decode() for one in table.column("decode_error").to_pylist()]


@pytest.mark.parametrize(
    ("data", "hashed"),
    [  # the vectors of Kafka's own test
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_kafkas(data: bytes, hashed: int) -> None:
    assert murmur2(data) == hashed % 2**32


def test_the_shard_is_the_one_that_clickhouse_computes() -> None:
    tenants = [bytes(range(length)) for length in range(64)]
    listed = ",".join(f"unhex('{one.hex()}')" for one in tenants)
    found = chdb.query(f"SELECT arrayJoin(arrayMap(one -> kafkaMurmurHash(one) % 7, [{listed}]))").data()
    assert [int(one) for one in str(found).split()] == [shard_of(one, 7) for one in tenants]


def test_events_of_a_tenant_are_in_one_shard_in_the_order_of_the_log() -> None:
    activated, revoked = event("grant.activated", 1, tenant="globex"), event("grant.revoked", 2, tenant="globex")
    assert placement_of(activated, 2) == placement_of(revoked, 2) == ("globex", 1)
    assert placement_of(replace(activated, tenant="acme"), 2) == ("acme", 0)


def test_other_topics_and_a_single_shard_keep_their_keys() -> None:
    activated, command = event("grant.activated", 1), event("session.command", 1)
    assert placement_of(activated, 1) == (activated.key, ANY_PARTITION)
    assert placement_of(command, 2) == (command.key, ANY_PARTITION)


def test_an_event_in_another_shard_is_rejected() -> None:
    events = [event("grant.activated", number, tenant=tenant) for number, tenant in enumerate(("acme", "globex"))]
    assert decode_errors(events, sharded().keys, 0) == ["", "event_invalid: tenant (belongs in partition 1)"]
    assert decode_errors(events, sharded().keys, 1) == ["event_invalid: tenant (belongs in partition 0)", ""]


def test_only_the_lifecycle_is_sharded() -> None:
    commands = [event("session.command", number, tenant=tenant) for number, tenant in enumerate(("acme", "globex"))]
    assert decode_errors(commands, sharded().keys, 1, "access.activity") == ["", ""]


def test_a_ledger_with_one_shard_rejects_what_is_in_a_second_partition() -> None:
    events = [event("grant.activated", number, tenant=tenant) for number, tenant in enumerate(("acme", "globex"))]
    assert decode_errors(events, SourceKeys(HERE), 0) == ["", ""]
    assert decode_errors(events, SourceKeys(HERE), 1) == ["event_invalid: tenant (belongs in partition 0)"] * 2


@settings(max_examples=20)
@given(st.lists(st.sampled_from(["acme", "globex", "initech", "ü€"]), min_size=1), st.integers(1, 5))
def test_every_event_is_accepted_in_exactly_its_shard(tenants: list[str], shards: int) -> None:
    events = [event("request.created", number, tenant=tenant) for number, tenant in enumerate(tenants)]
    keys = SourceKeys(HERE)
    keys.lifecycle_shards = shards
    accepted = [[not one for one in decode_errors(events, keys, partition)] for partition in range(shards)]
    places = [placement_of(one, shards).partition if shards > 1 else 0 for one in events]
    assert [[place == partition for place in places] for partition in range(shards)] == accepted


def test_the_first_number_that_the_operator_signs_counts_forever() -> None:
    registrar = sharded(2)
    assert registrar.keys.lifecycle_shards == 2
    assert not state(registrar, shards_event(HERE, 3, "carol"), registrar.operator)
    assert registrar.keys.lifecycle_shards == 2


def test_nobody_else_states_the_number() -> None:
    registrar, stated = Registrar(HERE), shards_event(HERE, 2, "mallory")
    assert not state(registrar, stated, registrar.operator)  # no operator is registered
    signers = registrar.init(SEALER)
    assert not state(registrar, stated, None)
    assert not state(registrar, stated, LocalSigner.generate())
    by_sealer = replace(stated, source=replace(stated.source, system=SEALER), event_id="")
    assert not state(registrar, by_sealer, signers[SEALER])
    registrar.register("vault", "eu-1", [key_of(signers[SEALER])], 0)
    by_sender = replace(stated, source=EventSource("vault", "eu-1", "1", "config"), event_id="")
    assert not state(registrar, by_sender, signers[SEALER])
    assert not state(registrar, replace(stated, raw=b"0", raw_sha256=b""), registrar.operator)
    assert not state(registrar, replace(stated, raw=b"two", raw_sha256=b""), registrar.operator)
    assert registrar.keys.lifecycle_shards == 1
    assert stated.source.system == OPERATOR


def test_another_number_than_the_one_on_record_is_refused() -> None:
    check_on_record(Settings(lifecycle_shards=2), sharded(2).keys)
    check_on_record(Settings(), SourceKeys(HERE))
    for given_, known in ((1, sharded(2).keys), (3, sharded(2).keys), (2, SourceKeys(HERE))):
        with pytest.raises(UsageError, match=f"lifecycle_shards is {given_}, and this ledger was created with"):
            check_on_record(Settings(lifecycle_shards=given_), known)


def test_removals_of_the_enforcer_are_in_the_shard_of_the_tenant(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, str, int]] = []

    class Writer:
        init = begin = commit = staticmethod(lambda: None)

        def produce(self, topic: str, _value: bytes, key: str, partition: int, on_delivery: object) -> None:
            written.append((topic, key, partition))

    monkeypatch.setattr(event_writer, "TransactionalWriter", lambda *_, **__: Writer())
    monkeypatch.setattr(event_writer, "end_offset", lambda *_, **__: 0)
    removal = event("grant.revoked", 1, tenant="globex")
    confirmed = event("revoke.confirmed", 1, tenant="globex", finding=Finding("overdue", "grant-1", "critical"))
    for shards in (1, 2):
        logs = SimpleNamespace(deployment=HERE, cluster=Cluster({}, lifecycle_shards=shards), signer=None)
        event_writer.TransactionalEventWriter(cast(SealedLogs, logs)).write([confirmed, removal], 0)
    assert written == [
        ("access.findings", "grant-1", ANY_PARTITION), ("access.lifecycle", "grant-1", ANY_PARTITION),
        ("access.findings", "grant-1", ANY_PARTITION), ("access.lifecycle", "globex", 1),
    ]  # fmt: skip
