"""Events to bytes and back; every rule of the vocabulary has an event that breaks it, and names the field."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.schemas.catalog import SchemaCatalog, WriterSchema, event_schema
from grantledger.schemas.codec import DecodeError, EventEncoder, decode
from grantledger.schemas.event import (
    Action,
    Actor,
    Approval,
    Event,
    EventSource,
    ExecutedQuery,
    Finding,
    IssuingSource,
    Mapping,
    OpenedEpoch,
    RegisteredSchema,
    RegisteredSource,
    Report,
    Resource,
    SourceKey,
    Subject,
    make_event_id,
    topic_of,
)
from grantledger.schemas.framing import FramingError, confluent_prefix
from grantledger.schemas.rules import InvalidEventError, check

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
CATALOG = SchemaCatalog((event_schema(),))
GRANT = Event(
    event_type="grant.activated",
    occurred_at=NOW,
    source=EventSource("vault", "eu-1", "lease/1", "lease", 3),
    subject=Subject("alice", "human", "alice@example.com"),
    actor=Actor("bob", "human"),
    resource=Resource("database", "orders", "production"),
    entitlement="readwrite",
    grant_id="g-1",
    grant_id_kind="native",
    approvals=(Approval("carol", "approved", "leads", NOW, "fine", forced=True), Approval("dave", "pending")),
    starts_at=NOW,
    expires_at=NOW + timedelta(hours=1),
    requested_seconds=3600,
    expiry_source="native",
    reason="incident",
    ticket="INC-1",
    outcome="success",
    raw=b"\xff\x00",
    salt=bytes(16),
)
SESSION = replace(
    GRANT,
    event_type="session.command",
    session_id="s-1",
    action=Action("rm", ("-rf", "/")),
    event_id="",
    raw_sha256=b"",
)
FINDING = replace(GRANT, event_type="finding.opened", finding=Finding("overdue", "g-1", "critical", NOW), event_id="")


def test_an_event_comes_back_as_it_was_written() -> None:
    for event in (GRANT, SESSION, FINDING):
        datum = decode(EventEncoder().encode(event), CATALOG, 0)
        assert datum == event.to_datum()
    assert decode(EventEncoder().encode(GRANT), CATALOG, 0)["occurred_at"] == NOW


def test_a_registry_id_instead_of_the_fingerprint() -> None:
    value = EventEncoder(confluent_prefix(9)).encode(GRANT)
    assert value[:5].hex() == "0000000009"
    schema = WriterSchema(confluent_prefix(9), event_schema().text, in_force_ms=5)
    assert decode(value, SchemaCatalog((schema,)), 5) == GRANT.to_datum()
    with pytest.raises(DecodeError, match="schema id 0000000009 is not registered") as caught:
        decode(value, SchemaCatalog((schema,)), 4)
    assert caught.value.code == "schema_unknown"


def test_each_type_is_valid_in_one_topic() -> None:
    types = (
        "query.executed",
        "finding.opened",
        "epoch.opened",
        "session.command",
        "session.started",
        "grant.failed",
        "source.report",
    )
    topics = ("queries", "findings", "findings", "activity", "lifecycle", "lifecycle", "activity")
    assert [topic_of(one) for one in types] == [f"access.{name}" for name in topics]
    query = {"action": Action(query="SELECT 1"), "executed_query": ExecutedQuery(None, 3)}
    assert replace(GRANT, event_type="query.executed", **query).key == "bob"  # all statements of one person in order


def test_times_are_written_in_utc() -> None:
    event = replace(GRANT, occurred_at=NOW.astimezone(timezone(timedelta(hours=-7))))
    assert decode(EventEncoder().encode(event), CATALOG, 0)["occurred_at"] == NOW


def test_the_same_record_read_twice_has_the_same_id() -> None:
    assert GRANT.event_id == make_event_id(GRANT.source, "grant.activated") == "302fd1fb-207a-5879-bf36-c04970159240"
    assert GRANT.event_id == replace(GRANT, event_id="", salt=b"x" * 16, reason=None).event_id
    others = {
        replace(GRANT, event_id="", ordinal=1).event_id,
        replace(GRANT, event_id="", event_type="grant.extended").event_id,
        replace(GRANT, event_id="", source=replace(GRANT.source, native_id="lease/2")).event_id,
        replace(GRANT, event_id="", source=replace(GRANT.source, seq=4)).event_id,
    }
    assert len(others - {GRANT.event_id}) == 3  # the counter is no part of the identity


SOURCE = RegisteredSource("vault", "eu-1", None, (SourceKey("00" * 8, bytes(32), NOW),))
EPOCH = OpenedEpoch(
    "access.lifecycle", 0, bytes(16), 7, "d/access.lifecycle/0/0", 7, bytes(32), "d/access.lifecycle/0/1"
)
PERSON = {"actor": Actor("carol", "human"), "reason": "checked with the owner"}
PROBLEMS = {
    "event_type": {"event_type": "grant.activate"},
    "subject.kind": {"subject": Subject("alice", "person")},
    "actor.kind": {"actor": Actor("bob", "")},
    "outcome": {"outcome": "ok"},
    "expiry_source": {"expiry_source": "guess"},
    "grant_id_kind": {"grant_id_kind": "made-up"},
    "removal_evidence": {"removal_evidence": "sure"},
    "approvals[1].decision": {"approvals": (Approval("a", "approved"), Approval("b", "yes"))},
    "finding.severity": {"finding": Finding("r", "k", "bad")},
    "source.system": {"source": replace(GRANT.source, system="")},
    "source.instance": {"source": replace(GRANT.source, instance="")},
    "source.native_id": {"source": replace(GRANT.source, native_id="")},
    "source.native_type": {"source": replace(GRANT.source, native_type="")},
    "tenant": {"tenant": ""},
    "grant_source.system": {"grant_source": IssuingSource("", "prod")},
    "request_source.system": {"request_source": IssuingSource("", "prod")},
    "session_source.system": {"session_source": IssuingSource("", "prod")},
    "finding.accept_index": {"finding": Finding("r", "k", "info", accept_index=3)},
    "salt": {"salt": bytes(15)},
    "raw_sha256": {"raw_sha256": bytes(31)},
    "occurred_at": {"occurred_at": NOW.replace(tzinfo=None)},
    "starts_at": {"starts_at": datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)},
    "expires_at": {"expires_at": datetime(1969, 1, 1, tzinfo=UTC)},
    "approvals[0].at": {"approvals": (Approval("a", "approved", at=NOW.replace(tzinfo=None)),)},
    "requested_seconds": {"requested_seconds": -1},
    "report.result": {"report": Report("lost", 1)},
    "report.records": {"report": Report("mapped", -1)},
}
MISSING = {
    ("grant_id", "grant.activated"): {"grant_id": None},
    ("grant_id", "grant.revoked"): {"grant_id": None, "removal_evidence": "none"},
    ("grant_id", "grant.extended"): {"grant_id": None, "request_id": ""},
    ("grant_id", "grant.expired"): {"grant_id": "", "session_id": "s", "removal_evidence": "none"},
    ("request_id", "request.created"): {},
    ("session_id", "session.started"): {"session_id": None},
    ("resource", "request.created"): {"request_id": "r", "resource": None},
    ("resource", "grant.failed"): {"resource": None},
    ("entitlement", "grant.failed"): {"entitlement": None},
    ("grant_id_kind", "session.started"): {"session_id": "s", "grant_id_kind": None},
    ("expiry_source", "grant.extended"): {"expiry_source": None},
    ("expires_at", "grant.activated"): {"expires_at": None},
    ("removal_evidence", "grant.revoked"): {},
    ("removal_evidence", "grant.expired"): {},
    ("action", "session.command"): {"session_id": "s"},
    ("action", "session.query"): {"session_id": "s"},
    ("finding", "finding.opened"): {},
    ("finding", "revoke.requested"): {},
    ("registered_schema", "schema.registered"): {},
    ("finding", "finding.acknowledged"): {**PERSON},
    ("finding", "finding.closed"): {**PERSON},
    ("actor", "finding.closed"): {"finding": Finding("r", "k", "info"), "actor": Actor("grantledger-watch", "system")},
    ("reason", "finding.closed"): {"finding": Finding("r", "k", "info"), **PERSON, "reason": None},
    ("reason", "finding.acknowledged"): {"finding": Finding("r", "k", "info"), **PERSON, "reason": ""},
    ("actor", "payload.erased"): {"actor": Actor("", "human")},
    ("reason", "payload.erased"): {**PERSON, "reason": None},
    ("actor", "source.registered"): {"registered_source": SOURCE, "reason": "new", "actor": Actor("robot", "service")},
    ("reason", "epoch.opened"): {"opened_epoch": EPOCH, **PERSON, "reason": None},
    ("registered_source", "source.registered"): {**PERSON},
    ("opened_epoch", "epoch.opened"): {**PERSON},
    ("action", "query.executed"): {"executed_query": ExecutedQuery(None, 3)},
    ("executed_query", "query.executed"): {"action": Action(query="SELECT 1")},
    ("report", "source.report"): {},
    ("resource", "config.changed"): {"resource": None},
    ("raw", "config.changed"): {"raw": None},
}


@pytest.mark.parametrize("field", PROBLEMS)
def test_an_invalid_text_number_or_time_is_reported(field: str) -> None:
    with pytest.raises(InvalidEventError) as caught:
        check(replace(GRANT, **PROBLEMS[field]))
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


@pytest.mark.parametrize(("field", "event_type"), MISSING)
def test_a_missing_field_is_named(field: str, event_type: str) -> None:
    with pytest.raises(InvalidEventError) as caught:
        EventEncoder().encode(replace(GRANT, event_type=event_type, **MISSING[field, event_type]))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"expires_at": None, "expiry_source": "unknown"},
        {"event_type": "grant.revoked", "removal_evidence": "none"},
        {"event_type": "grant.revoked", "removal_evidence": "none", "grant_id": None, "request_id": "r"},
        {"event_type": "grant.extended", "grant_id": None, "grant_id_kind": None, "request_id": "r"},
        {"event_type": "grant.failed", "grant_id": None, "request_id": "r"},
        {"event_type": "request.created", "request_id": "r"},
        {"event_type": "session.started", "session_id": "s"},
        {"event_type": "finding.resolved", "finding": Finding("r", "k", "info"), "grant_id": None},
        {"event_type": "schema.registered", "registered_schema": RegisteredSchema("00", "", "{}"), "grant_id": None},
        {"event_type": "key.changed", "grant_id": None, "resource": None},
        {"event_type": "finding.closed", "finding": Finding("r", "k", "info", accept_index=3), **PERSON},
        {"event_type": "finding.acknowledged", "finding": Finding("r", "k", "info"), **PERSON},
        {"event_type": "config.changed", "resource": Resource("config", "watch-policy"), "raw": b"[default]"},
        {"event_type": "payload.erased", **PERSON},
        {"event_type": "source.registered", "registered_source": SOURCE, **PERSON},
        {"event_type": "epoch.opened", "opened_epoch": EPOCH, **PERSON},
        {"event_type": "source.report", "report": Report("skipped", 3, "noise"), "grant_id": None},
        {"event_type": "query.executed", "action": Action(query="SELECT 1"), "executed_query": ExecutedQuery(1, 3)},
        {"mapping": Mapping("vault", "2"), "source": replace(GRANT.source, sender="host-1"), "ends_by_itself": True},
        {"actor": Actor("bot", "agent", "bob"), "customer": "acme", "received_at": NOW},
        {"grant_source": IssuingSource("teleport", "root.example.com")},
        {"occurred_at": datetime(1970, 1, 1, tzinfo=UTC)},
        {"occurred_at": datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)},
    ],
)
def test_valid_values_are_accepted(changes: dict) -> None:
    EventEncoder().encode(replace(GRANT, **changes))


@pytest.mark.parametrize(
    ("time", "allowed"),
    [
        (datetime(1970, 1, 1, 4, 59, tzinfo=timezone(timedelta(hours=5))), False),
        (datetime(1969, 12, 31, 20, tzinfo=timezone(timedelta(hours=-5))), True),
        (datetime(9999, 12, 31, 20, tzinfo=timezone(timedelta(hours=-5))), False),
        (datetime(2300, 1, 1, 4, tzinfo=timezone(timedelta(hours=5))), True),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))), False),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=5))), False),
    ],
)
def test_the_year_that_counts_is_the_one_in_utc(time: datetime, allowed: bool) -> None:
    event = replace(GRANT, starts_at=time)
    if allowed:
        assert decode(EventEncoder().encode(event), CATALOG, 0)["starts_at"] == time
    else:
        with pytest.raises(InvalidEventError) as caught:
            check(event)
        assert caught.value.field == "starts_at"


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": "\ud800"},
        {"source": replace(GRANT.source, seq=2**63)},
        {"requested_seconds": 2**70},
        {"reason": 5},
        {"raw": "text"},
        {"entitlement": b"bytes"},
        {"subject": None},
        {"expires_at": "2026-01-01"},
        {"subject": Subject(None)},
    ],
)
def test_values_of_another_type_are_invalid_events_too(changes: dict) -> None:
    with pytest.raises(InvalidEventError):
        EventEncoder().encode(replace(GRANT, **changes))


@given(st.binary(max_size=100))
def test_random_bytes_give_a_decode_error_and_nothing_else(value: bytes) -> None:
    for framed in (value, bytes(event_schema().prefix) + value):
        try:
            decode(framed, CATALOG, 0)
        except (FramingError, DecodeError) as error:
            assert error.code in (
                "framing_empty",
                "framing_unknown",
                "framing_truncated",
                "schema_unknown",
                "datum_invalid",
            )


@pytest.mark.parametrize("text", ["not json", '{"type":"strin"}', '"long"', "[]", "{}"])
def test_a_schema_that_is_none_gives_a_decode_error(text: str) -> None:
    with pytest.raises(DecodeError) as caught:
        prefix = confluent_prefix(1)
        decode(prefix + b"\x02", SchemaCatalog((WriterSchema(prefix, text),)), 0)
    assert caught.value.code == "datum_invalid"
