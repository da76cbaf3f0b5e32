"""The rules over columns find the same bad fields as the rules over one event."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from grantledger.schemas.arrow import decode_values
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.column_rules import forbidden
from grantledger.schemas.event import (
    ACCESS_TYPES,
    PIPELINE_TYPES,
    SOURCE_REPORT,
    Actor,
    Approval,
    Event,
    EventSource,
    ExecutedQuery,
    Finding,
    IssuingSource,
    OpenedEpoch,
    RegisteredSchema,
    RegisteredSource,
    Report,
    Resource,
    Subject,
)
from grantledger.schemas.rules import InvalidEventError, check
from support.events import event, written
from support.examples import few

SCHEMA = event_schema()
CATALOG = SchemaCatalog((SCHEMA,))
TIMES = st.sampled_from(
    [
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2026, 3, 1, tzinfo=UTC),
        datetime(2299, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2300, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, tzinfo=UTC),
    ]
)
KINDS = st.sampled_from(["human", "unknown", "robot", "human\0"])
NAMES = st.sampled_from(["", "a", "\0"])
IDS = st.sampled_from([None, "a", "b"])
ISSUERS = st.sampled_from([IssuingSource("bot", "eu-1"), IssuingSource("", "eu-1"), IssuingSource("bot", "")])
CHANGES: dict[str, st.SearchStrategy[Any]] = {
    "event_type": st.sampled_from([*ACCESS_TYPES, SOURCE_REPORT, *PIPELINE_TYPES, "", "grant.given", "request."]),
    "occurred_at": TIMES,
    "starts_at": st.none() | TIMES,
    "expires_at": st.none() | TIMES,
    "source": st.builds(EventSource, NAMES, NAMES, NAMES, NAMES),
    "grant_source": st.none() | ISSUERS,
    "session_source": st.none() | ISSUERS,
    "subject": st.builds(Subject, NAMES, KINDS),
    "actor": st.builds(Actor, NAMES, KINDS),
    "tenant": NAMES,
    "resource": st.sampled_from([None, Resource("", "b"), Resource("a", "")]),
    "entitlement": IDS,
    "grant_id": IDS,
    "grant_id_kind": st.sampled_from([None, "native", "synthesized", "nativ"]),
    "request_id": IDS,
    "session_id": IDS,
    "report": st.sampled_from([None, Report("skipped", 0, "x"), Report("lost", 1), Report("mapped", -1)]),
    "approvals": st.lists(
        st.builds(Approval, NAMES, st.sampled_from(["approved", "pending", "", "maybe"]), at=st.none() | TIMES),
        max_size=3,
    ).map(tuple),
    "requested_seconds": st.sampled_from([None, 0, 1, -1]),
    "expiry_source": st.sampled_from([None, "native", "unknown", "nativ"]),
    "removal_evidence": st.sampled_from([None, "none", "confirmed", "sworn"]),
    "outcome": st.sampled_from(["success", "unknown", "perhaps"]),
    "finding": st.sampled_from(
        [None, Finding("a", "b", "info"), Finding("a", "b", "bad"), Finding("a", "b", "info", accept_index=1)]
    ),
    "reason": IDS,
    "raw": st.sampled_from([None, b"{}"]),
    "received_at": st.none() | TIMES,
}
NOT_DECODED: dict[str, Any] = {
    "registered_schema": RegisteredSchema("", "", ""),
    "registered_source": RegisteredSource("", "", None, ()),
    "opened_epoch": OpenedEpoch("", 0, b"", 0, "", 0, b"", ""),
    "executed_query": ExecutedQuery(None, 0),
}


@st.composite
def events(draw: st.DrawFn) -> Event:
    """A valid event with up to four fields changed, some of them to invalid values."""
    made = event(draw(st.sampled_from(ACCESS_TYPES)), 1, **NOT_DECODED)
    names = draw(st.lists(st.sampled_from(sorted(CHANGES)), max_size=4, unique=True))
    return replace(made, **{name: draw(CHANGES[name]) for name in names})


def wrong_field(one: Event) -> str | None:
    try:
        check(one)
    except InvalidEventError as error:
        return error.field
    return None


def table_of(some: list[Event]) -> pa.RecordBatch:
    values = [written(one.to_datum(), SCHEMA.definition, SCHEMA.prefix) for one in some]
    return decode_values(pa.array(values, pa.binary()), [0] * len(values), CATALOG)


@few(60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(events(), min_size=1, max_size=12))
def test_columns_and_single_events_have_the_same_bad_fields(some: list[Event]) -> None:
    expected = {row: field for row, one in enumerate(some) if (field := wrong_field(one)) is not None}
    assert forbidden(table_of(some)) == expected


def test_good_events_and_empty_tables_break_no_rule() -> None:
    assert forbidden(table_of([event(kind, number) for number, kind in enumerate(ACCESS_TYPES)])) == {}
    assert forbidden(table_of([event("grant.activated", 1)]).slice(0, 0)) == {}


def test_an_enumeration_that_an_older_schema_lacks_breaks_no_rule() -> None:
    left_out = replace(event("grant.activated", 1), subject=Subject("alice", ""), outcome="")
    assert forbidden(table_of([left_out])) == {}


def test_the_columns_are_freed_at_once() -> None:
    """A cycle of references would keep those of many batches in memory until Python collects garbage."""
    table = table_of([event("session.query", 1)])
    freed = weakref.ref(table)
    gc.disable()
    try:
        assert forbidden(table, "access.activity") == {}
        del table
        assert freed() is None
    finally:
        gc.enable()
