"""The rules of the schema over many decoded events at once: which of them no sender of ours would have written.

Nearly all events are good. So columns are looked at first, which costs about a hundredth of decoding them, and
:func:`.rules.check` has the last word on the few rows that look wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .arrow import MICROS
from .event import ACCESS_TYPES, Action, Actor, Approval, Event, Finding, RegisteredSchema, Resource, Source, Subject
from .rules import (
    DECISIONS,
    EARLIEST_YEAR,
    EXPIRY_SOURCES,
    GRANT_ID_KINDS,
    LATEST_YEAR,
    OUTCOMES,
    PRINCIPAL_KINDS,
    REMOVAL_EVIDENCE,
    InvalidEventError,
    check,
)

Rows = npt.NDArray[np.bool_]
_WORDS: dict[str, Collection[str]] = {
    "subject_kind": PRINCIPAL_KINDS,
    "actor_kind": PRINCIPAL_KINDS,
    "outcome": OUTCOMES,
    "expiry_source": EXPIRY_SOURCES,
    "grant_id_kind": GRANT_ID_KINDS,
    "removal_evidence": REMOVAL_EVIDENCE,
}
"""Words by column. An empty one is left out, as an older schema may do, and null in the schema reads as empty too."""
_NAMES = ("source_system", "source_instance", "native_id", "native_type", "tenant")
_TIMES = ("occurred_at", "starts_at", "expires_at")
_IDS = ("grant_id", "request_id", "session_id", "entitlement")
_FINDING = ("finding_rule", "finding_key", "finding_severity")
_USED = (
    "event_type", *_WORDS, *_NAMES, *_TIMES, *_IDS, *_FINDING, "subject_id", "resource_kind", "resource_id",
    "requested_seconds", "approvals",
)  # fmt: skip
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


_FIRST = _micros(datetime(EARLIEST_YEAR, 1, 1, tzinfo=UTC))
_LAST = _micros(datetime(LATEST_YEAR + 1, 1, 1, tzinfo=UTC)) - 1
_SHOWN = _micros(datetime.min.replace(tzinfo=UTC)), _micros(datetime.max.replace(tzinfo=UTC))
"""The times that Python can show. What lies outside is shown as the first or last of them, and is as wrong."""


def forbidden(table: pa.RecordBatch) -> dict[int, str]:
    """Return the rows that the rules forbid, each with the field that is wrong, as a dotted path.

    What the columns cannot tell is given the benefit of the doubt: an action that is missing from one without content.

    Args:
        table: columns of ``DECODED_SCHEMA``, without rows that could not be decoded.
    """
    rows = np.flatnonzero(_doubtful(table))
    found: dict[int, str] = {}
    if not len(rows):
        return found
    doubtful = table.select(_USED).take(pa.array(rows))
    columns = {name: _listed(doubtful.column(name)) for name in _USED}
    for at, row in enumerate(rows.tolist()):
        try:
            check(_event({name: values[at] for name, values in columns.items()}))
        except InvalidEventError as error:
            found[row] = error.field
    return found


def _doubtful(table: pa.RecordBatch) -> Rows:
    """Return whether each row may be forbidden: true for all that are, and for few others."""
    given = {name: _lengths(table, name) > 0 for name in (*_NAMES, *_IDS, *_FINDING, "resource_kind", "resource_id")}
    doubt = np.zeros(table.num_rows, np.bool_)
    words = {name: table.column(name).dictionary_encode() for name in ("event_type", *_WORDS)}
    for name, known in _WORDS.items():
        doubt |= ~_is(words[name], {"", *known}.__contains__)
    for name in _NAMES:
        doubt |= ~given[name]
    for name in _TIMES:
        times = table.column(name).cast(pa.int64())
        doubt |= _outside(times, _FIRST, _LAST)
    doubt |= _outside(table.column("requested_seconds"), 0, (1 << 63) - 1)
    doubt |= _by_decisions(table.column("approvals"))
    for name in _FINDING:  # no access system says one
        doubt |= given[name]

    kind = words["event_type"]
    doubt |= ~_is(kind, ACCESS_TYPES.__contains__)
    for family in ("request", "grant", "session"):
        doubt |= _starts(kind, f"{family}.") & ~given[f"{family}_id"]
    named = given["entitlement"] & (given["resource_kind"] | given["resource_id"])
    doubt |= _starts(kind, "request.", "grant.") & ~named
    doubt |= given["grant_id"] & _is(words["grant_id_kind"], "".__eq__)
    endless = _nulls(table.column("expires_at")) & ~_is(words["expiry_source"], "unknown".__eq__)
    unsourced = _is(words["expiry_source"], "".__eq__)
    doubt |= _is(kind, ("grant.activated", "grant.extended").__contains__) & (unsourced | endless)
    unproved = _is(words["removal_evidence"], "".__eq__)
    doubt |= _is(kind, ("grant.revoked", "grant.expired").__contains__) & unproved
    return doubt


def _lengths(table: pa.RecordBatch, name: str) -> npt.NDArray[np.int32]:
    lengths: npt.NDArray[np.int32] = pc.binary_length(table.column(name)).to_numpy(zero_copy_only=False)
    return lengths


def _is(words: pa.DictionaryArray, fits: Callable[[str], bool]) -> Rows:
    """Return which rows hold a word that fits. The words are few, however many the rows."""
    of_word = np.array([fits(_text(word)) for word in words.dictionary.to_pylist()], np.bool_)
    if of_word.all():
        return np.ones(len(words), np.bool_)
    chosen: Rows = of_word[words.indices.to_numpy(zero_copy_only=False)]
    return chosen


def _starts(words: pa.DictionaryArray, *beginnings: str) -> Rows:
    return _is(words, lambda word: word.startswith(beginnings))


def _outside(numbers: pa.Array, first: int, last: int) -> Rows:
    if numbers.null_count == len(numbers):
        return np.zeros(len(numbers), np.bool_)
    values = pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False)
    wrong: Rows = (values < first) | (values > last)
    return wrong


def _nulls(column: pa.Array) -> Rows:
    nulls: Rows = pc.is_null(column).to_numpy(zero_copy_only=False)
    return nulls


def _by_decisions(approvals: pa.Array) -> Rows:
    """Return the rows with a decision in no word that is known, or at no time that can be shown."""
    doubt = np.zeros(len(approvals), np.bool_)
    decisions = approvals.flatten()
    if len(decisions):
        wrong = ~_is(pc.struct_field(decisions, "decision").dictionary_encode(), DECISIONS.__contains__)
        wrong |= _outside(pc.struct_field(decisions, "at").cast(pa.int64()), _FIRST, _LAST)
        doubt[pc.list_parent_indices(approvals).to_numpy(zero_copy_only=False)[wrong]] = True
    return doubt


def _listed(column: pa.Array) -> list[Any]:
    """Return the values of a column: text as text, times as numbers, which lie outside of the calendar at times."""
    if column.type == MICROS:
        column = column.cast(pa.int64())
    if pa.types.is_list(column.type):
        column = column.cast(_numbered(column.type))
    values: list[Any] = column.to_pylist()
    return [_text(value) for value in values] if pa.types.is_binary(column.type) else values


def _numbered(kind: pa.DataType) -> pa.DataType:
    """Return the type of a list of structs with numbers for times."""
    return pa.list_(pa.struct([(one.name, pa.int64() if one.type == MICROS else one.type) for one in kind.value_type]))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else _EPOCH + timedelta(microseconds=min(max(micros, _SHOWN[0]), _SHOWN[1]))


def _event(row: dict[str, Any]) -> Event:
    """Return what the rules look at in a row as an event. Where null reads as empty, empty is null."""
    rule, key, severity = (row[name] for name in _FINDING)
    resource = Resource(row["resource_kind"], row["resource_id"])
    return Event(
        event_type=row["event_type"],
        occurred_at=_time(row["occurred_at"]) or _EPOCH,
        source=Source(row["source_system"], row["source_instance"], row["native_id"], row["native_type"]),
        subject=Subject(row["subject_id"], row["subject_kind"] or "unknown"),
        actor=Actor("", row["actor_kind"] or "unknown"),
        tenant=row["tenant"],
        resource=resource if resource.kind or resource.id else None,
        entitlement=row["entitlement"] or None,
        grant_id=row["grant_id"] or None,
        grant_id_kind=row["grant_id_kind"] or None,
        request_id=row["request_id"] or None,
        session_id=row["session_id"] or None,
        approvals=tuple(
            Approval(_text(one["reviewer"]), _text(one["decision"]), at=_time(one["at"])) for one in row["approvals"]
        ),
        starts_at=_time(row["starts_at"]),
        expires_at=_time(row["expires_at"]),
        requested_seconds=row["requested_seconds"],
        expiry_source=row["expiry_source"] or None,
        removal_evidence=row["removal_evidence"] or None,
        outcome=row["outcome"] or "unknown",
        action=Action(),
        finding=Finding(rule, key, severity) if rule or key or severity else None,
        registered_schema=RegisteredSchema("", "", ""),
        raw_sha256=bytes(32),
        salt=bytes(16),
        event_id=" ",
    )
