"""The second verifier on signatures and on the rules of events: it agrees with the product about every entry."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import second_verifier
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from grantledger.ledger.decoded_entries import decode_entries
from grantledger.ledger.entry import NO_HEADERS, encode_headers
from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.registered_schemas import collect_schemas
from grantledger.ledger.source_keys import SHARDS_KEY, SignedRecord, SourceKeys
from grantledger.ledger.source_signature import HEADER, SourceSigner, key_id_of
from grantledger.processors.notices import schema_key, schema_registered
from grantledger.runtime.lifecycle_shards import shards_event
from grantledger.schemas.catalog import SchemaCatalog, WriterSchema, event_schema
from grantledger.schemas.framing import confluent_prefix
from grantledger.schemas.own_sources import OPERATOR, SEALER
from grantledger.schemas.rules import EVENT_TYPES
from support.columns import comparable
from support.events import written
from support.sources import registered

HERE = "test.example"
SLOW = "GRANTLEDGER_TEST_SLOW" in os.environ
TOPICS = ("access.lifecycle", "access.activity", "access.findings", "access.queries")
SIGNERS = [LocalSigner(Ed25519PrivateKey.from_private_bytes(bytes([at] * 32))) for at in range(1, 5)]
OPERATES = SIGNERS[0]
SOURCES = ((OPERATOR, HERE), (SEALER, HERE), ("grantledger-watch", HERE), ("vault", "eu-1"), ("vault", "us-1"))
RELEASED = second_verifier.released_schemas()
SCHEMA = event_schema()
CATALOG = SchemaCatalog((SCHEMA,))
OTHERS = [WriterSchema(confluent_prefix(number), SCHEMA.text) for number in (7, 8)]


def encoded(datum: dict[str, Any]) -> bytes:
    return written(datum, SCHEMA.definition, SCHEMA.prefix)


def mostly(usual: Sequence[Any], others: Sequence[Any]) -> st.SearchStrategy[Any]:
    """Draw one of the usual values nine times out of ten."""
    return st.sampled_from([*list(usual) * (1 + 9 * len(others) // len(usual)), *others])


KINDS = ("human", "service", "unknown")
TEXT = mostly(("a", "default"), ("", None))
REQUIRED_TEXT = mostly(("a", "default"), ("",))
MOMENTS = (0, 1, 1_700_000_000_000_000, 253_402_300_799_999_999)
TIME = mostly(MOMENTS, (-1, 253_402_300_800_000_000, 2**63 - 1, -(2**63)))
OPTIONAL_TIME = st.one_of(st.none(), TIME)
SOURCE_NAME = mostly(("vault", "bot"), ("", "grantledger-watch"))


def person(second: str) -> st.SearchStrategy[dict[str, Any]]:
    kind = mostly(KINDS, ("", "robot"))
    return st.fixed_dictionaries({"id": REQUIRED_TEXT, "kind": kind, second: TEXT})


ISSUER = st.one_of(
    st.none(), st.fixed_dictionaries({"system": mostly(("aws",), ("",)), "instance": st.sampled_from(("", "x"))})
)
APPROVAL = st.fixed_dictionaries(
    {"reviewer": TEXT.map(str), "group": st.none(), "decision": mostly(("approved", "denied", "pending"), ("", "yes")),
     "at": OPTIONAL_TIME, "reason": st.none(), "forced": st.booleans()}
)  # fmt: skip
RESOURCE = {"kind": "db", "id": "x", "environment": "p"}
DATUM = st.fixed_dictionaries(
    {
        "event_id": st.just("e"), "event_type": mostly(sorted(EVENT_TYPES), ("grant.made", "")), "occurred_at": TIME,
        "source": st.fixed_dictionaries(
            {"system": SOURCE_NAME, "instance": REQUIRED_TEXT, "native_id": REQUIRED_TEXT, "native_type": REQUIRED_TEXT,
             "seq": st.none(), "sender": st.none()}
        ),
        "mapping": st.none(), "grant_source": ISSUER, "request_source": ISSUER, "session_source": ISSUER,
        "tenant": REQUIRED_TEXT, "subject": person("email"), "actor": person("on_behalf_of"),
        "resource": mostly((RESOURCE,), (None, RESOURCE | {"kind": ""}, RESOURCE | {"kind": "", "id": ""})),
        "entitlement": TEXT, "grant_id": TEXT, "grant_id_kind": mostly(("native", "synthesized"), (None, "", "other")),
        "request_id": TEXT, "session_id": TEXT, "approvals": st.lists(APPROVAL, max_size=2), "starts_at": OPTIONAL_TIME,
        "expires_at": mostly(MOMENTS, (None, -1)), "requested_seconds": mostly((None, 0, 60), (-1,)),
        "expiry_source": mostly(("native", "unknown"), (None, "", "never")), "ends_by_itself": st.none(),
        "removal_evidence": mostly(("none", "confirmed"), (None, "", "seen")), "reason": TEXT, "ticket": st.none(),
        "customer": st.none(), "outcome": mostly(("success", "unknown"), ("", "ok")), "error": st.none(),
        "client_ip": st.none(), "action": st.none(),
        "finding": st.one_of(st.none(), st.fixed_dictionaries(
            {"rule": TEXT.map(lambda one: one or ""), "key": TEXT.map(lambda one: one or ""),
             "severity": mostly(("info", "critical"), ("", "high")), "deadline": st.none(), "evidence": st.just("{}"),
             "accept_index": st.sampled_from((None, None, 3))})),
        "registered_schema": st.none(), "registered_source": st.none(), "opened_epoch": st.none(),
        "executed_query": st.none(),
        "report": mostly((None, {"result": "failed", "reason": "x", "records": 2}), (
            {"result": "lost", "reason": None, "records": 1}, {"result": "", "reason": None, "records": 1},
            {"result": "mapped", "reason": None, "records": -1})),
        "received_at": OPTIONAL_TIME, "raw": st.sampled_from((None, b"", b"raw")),
        "raw_sha256": st.just(bytes(32)), "salt": st.just(bytes(16)),
    }
)  # fmt: skip


def product_rows(
    topic: str, records: list[SignedRecord], sources: SourceKeys, partition: int = 0
) -> list[dict[str, Any]]:
    values = pa.array([one.value for one in records], pa.binary())
    times = [one.append_time_ms for one in records]
    table = decode_entries(
        values, times, lambda: records, topic=topic, partition=partition, catalog=CATALOG, sources=sources
    )
    signatures = table.column("signature").to_pylist()
    rows = comparable(table.drop_columns(["signature"]))
    return [row | {"signature": one} for row, one in zip(rows, signatures, strict=True)]


def second_schemas() -> second_verifier.Schemas:
    found = second_verifier.Schemas(RELEASED)
    found.found = {bytes(SCHEMA.prefix): (SCHEMA.text, -(2**63))}
    return found


def second_record(one: SignedRecord) -> second_verifier.Record:
    return second_verifier.Record(one.topic, one.append_time_ms, one.key, one.value, one.headers)


@settings(max_examples=3000 if SLOW else 25, deadline=None)
@given(DATUM, st.sampled_from(TOPICS), mostly((0,), (1, 2)), mostly((1,), (2, 3)))
def test_they_agree_which_events_are_valid(datum: dict[str, Any], topic: str, partition: int, shards: int) -> None:
    record = SignedRecord(topic, b"k", encoded(datum), NO_HEADERS, 1)
    mine, other = SourceKeys(HERE), second_verifier.Sources(HERE, RELEASED)
    mine.lifecycle_shards = other.shards = shards
    [row] = product_rows(topic, [record], mine, partition)
    assert second_schemas().row(second_record(record)._replace(partition=partition), other) == row


@st.composite
def signed(draw: st.DrawFn, topic: str, key: bytes, value: bytes, time: int, usual: LocalSigner) -> SignedRecord:
    """A record with its signature, mostly the right one."""
    by = draw(st.sampled_from([*[usual] * 8, None, None, *SIGNERS]))
    deployment, of_topic = draw(mostly(((HERE, topic),), (("other.example", topic), (HERE, "access.activity"))))
    headers = SourceSigner(deployment, by).headers(of_topic, key, value) if by is not None else []
    damaged = [(HEADER, b"short"), (HEADER, None), (HEADER, bytes(72)), ("other", b"x")]
    headers = draw(mostly((headers,), ([damaged[0]], [damaged[1]], [damaged[2]], [damaged[3], *headers], headers * 2)))
    return SignedRecord(topic, key, value, encode_headers(headers) if headers else NO_HEADERS, time)


@st.composite
def registration(draw: st.DrawFn, time: int, number: int, source: tuple[str, str] | None = None) -> SignedRecord:
    """A registration of a source, mostly by the operator. With ``source``: as ``init`` makes it."""
    system, instance = source or draw(st.sampled_from(SOURCES))
    removed, initial = draw(mostly((False,), (True,))), source is not None or draw(st.booleans())
    event = registered(HERE, system, instance, [], removed=removed, initial=initial)
    datum = event.to_datum()
    datum["event_id"] = f"r{draw(mostly((number,), (0, 1, 2)))}"
    datum["source"]["system"] = draw(mostly((OPERATOR,), ("grantledger-watch", "vault")))
    own = SIGNERS[SOURCES.index((system, instance)) % 4]
    moments = [datetime.fromtimestamp(second, UTC) for second in (0, 100, 200, 300)]
    keys = [
        {
            "key_id": draw(mostly((key_id_of(one.public_key).hex(),), ("00" * 8,))),
            "public_key": draw(mostly((one.public_key,), (b"short",))),
            "valid_from": draw(mostly(moments[:1], moments)), "valid_until": draw(mostly((None,), moments)),
        }
        for one in draw(st.lists(mostly((own,), SIGNERS), min_size=1, max_size=3))
    ]  # fmt: skip
    stated = datum["registered_source"]
    stated["keys"], stated["tenant"] = keys, draw(mostly((None,), ("default", "acme")))
    if draw(mostly((False,), (True,))):
        datum["event_type"] = "grant.activated"
    key = draw(mostly((event.key.encode(),), (b"k",)))
    return draw(signed("access.findings", key, encoded(datum), time, OPERATES))


@st.composite
def stated_shards(draw: st.DrawFn, time: int) -> SignedRecord:
    """The number of lifecycle shards, mostly as ``init`` states it."""
    datum = shards_event(HERE, draw(st.integers(1, 3)), "carol").to_datum()
    datum["source"]["system"] = draw(mostly((OPERATOR,), ("grantledger-watch", "vault")))
    datum["raw"] = draw(mostly((datum["raw"],), (b"", b"0", b"02", b"many", None)))
    datum["event_type"] = draw(mostly(("config.changed",), ("source.registered",)))
    key = draw(mostly((SHARDS_KEY,), (b"source/x",)))
    return draw(signed("access.findings", key, encoded(datum), time, OPERATES))


@st.composite
def story(draw: st.DrawFn) -> list[SignedRecord]:
    """Registrations of sources and schemas, and events of every source in every topic, in order of time."""
    first = registered(HERE, OPERATOR, HERE, [], initial=True).to_datum()
    public = OPERATES.public_key
    whole = {"key_id": key_id_of(public).hex(), "public_key": public, "valid_from": datetime(1970, 1, 1, tzinfo=UTC)}
    first["registered_source"]["keys"] = [whole | {"valid_until": None}]
    found, time = [], 1000
    if draw(st.booleans()):
        headers = SourceSigner(HERE, OPERATES).headers("access.findings", b"source/x", encoded(first))
        found.append(SignedRecord("access.findings", b"source/x", encoded(first), encode_headers(headers), time))
    else:
        found.append(draw(signed("access.findings", b"source/x", encoded(first), time, OPERATES)))
    for number, source in enumerate(draw(st.sampled_from((SOURCES[1:], SOURCES[1:], ()))), 100):
        found.append(draw(registration(time, number, source)))
    found += draw(st.lists(stated_shards(time), max_size=2))
    for number in range(draw(st.integers(3, 12))):
        time += draw(st.sampled_from((0, 1, 30_000, 60_000, 61_000)))
        what = draw(st.sampled_from(("source", "source", "schema", "event", "event", "event")))
        if what == "source":
            found.append(draw(registration(time, number)))
            continue
        system, instance = draw(st.sampled_from(SOURCES))
        usual = SIGNERS[SOURCES.index((system, instance)) % 4]
        if what == "schema":
            schema = draw(st.sampled_from(OTHERS))
            event = schema_registered(HERE, schema, draw(st.booleans()), datetime.fromtimestamp(0, UTC))
            datum = event.to_datum()
            datum["source"]["system"] = draw(mostly((SEALER,), (system,)))
            key = schema_key(schema).encode()
            found.append(draw(signed("access.findings", key, encoded(datum), time, SIGNERS[1])))
            continue
        datum = draw(DATUM)
        datum["source"] |= {"system": system, "instance": instance}
        if draw(st.booleans()):
            datum |= {"event_type": "session.ended", "session_id": "s", "tenant": "default"}
        topic = draw(st.sampled_from(TOPICS))
        found.append(draw(signed(topic, b"k", encoded(datum), time, usual)))
    return found


def test_they_agree_who_is_registered_and_what_is_signed() -> None:
    """The stories have every status: otherwise the agreement would show little."""
    seen: Counter[str] = Counter()

    @settings(max_examples=2000 if SLOW else 30, deadline=None)
    @given(story())
    def agree(records: list[SignedRecord]) -> None:
        for row in agreed(records):
            seen[f"{row['signature'].decode()} {row['decode_error']}"] += 1

    agree()
    for status in ("valid", "missing", "invalid", "unregistered"):
        assert min(seen[f"{status} "], seen[f"{status} event_invalid"]) >= 3, seen


def agreed(records: list[SignedRecord]) -> list[dict[str, Any]]:
    """Return the rows of both, which are the same."""
    sources, catalog = SourceKeys(HERE), SchemaCatalog((SCHEMA,))
    others, schemas = second_verifier.Sources(HERE, RELEASED), second_schemas()
    for at, one in enumerate(records):
        if one.topic == "access.findings":
            collect_schemas(
                [one.key], [one.value], [one.append_time_ms], catalog, headers=[one.headers], sources=sources
            )
            others.learn(second_record(one))
            schemas.learn("findings", at, second_record(one), others)
    assert others.shards == sources.lifecycle_shards
    assert others.names() == sorted("/".join(name) for name in sources.stated())
    assert {bytes(one.prefix): one.in_force_ms for one in catalog} == {
        prefix: since for prefix, (_, since) in schemas.found.items()
    }
    found = []
    for topic in TOPICS:
        mine = [one for one in records if one.topic == topic]
        rows = product_rows(topic, mine, sources)
        assert [second_schemas().row(second_record(one), others) for one in mine] == rows
        found += rows
    return found
