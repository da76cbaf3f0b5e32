"""The rules of :mod:`.rules` over columns of decoded events, at about a hundredth of the cost of decoding them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..base.times import micros_of
from .event import GIVING, topic_of
from .rules import (
    ABOUT_GRANTS,
    ALLOWED,
    BY_PERSON,
    DECISIONS,
    EARLIEST_YEAR,
    EVENT_TYPES,
    ISSUERS,
    LATEST_YEAR,
    NOT_EMPTY,
    REQUIRED,
    TIMES,
)

Rows = npt.NDArray[np.bool_]
_FIRST, _END = (micros_of(datetime(year, 1, 1, tzinfo=UTC)) for year in (EARLIEST_YEAR, LATEST_YEAR))
_END += timedelta(days=365) // timedelta(microseconds=1)  # Python cannot represent the end of the last year
"""The allowed times in microseconds since 1970: the first, and the end that is no longer allowed."""
_NOT_DECODED = ("action", "registered_schema", "registered_source", "opened_epoch", "executed_query")
"""Required fields that no column represents: an event without one passes."""


def forbidden(table: pa.RecordBatch, topic: str | None = None) -> dict[int, str]:
    """Return the rows that break a rule, each with the dotted path of the first bad field, as ``rules.check`` does.

    An enumeration may be empty: a schema may lack the field, and null reads as empty.

    Args:
        table: columns of ``DECODED_SCHEMA``, without rows that could not be decoded.
        topic: the input topic of the events: a type is valid in one topic only. None: not checked.
    """
    found: dict[int, str] = {}
    for field, wrong in _violations(table, topic):
        for row in np.flatnonzero(wrong).tolist():
            found.setdefault(row, field)
    return found


class _Columns:
    """The columns of a table by the fields of an event. Each is examined once.

    Without a cycle of references: the table is freed at once, and not when Python collects garbage.
    """

    def __init__(self, table: pa.RecordBatch) -> None:
        self.table = table
        self._encoded: dict[str, pa.DictionaryArray] = {}
        self._known: dict[str, Rows] = {}

    def encoded(self, field: str) -> pa.DictionaryArray:
        """Return the texts of a field, each different one once."""
        if field not in self._encoded:
            self._encoded[field] = self._column(field).dictionary_encode()
        return self._encoded[field]

    def given(self, field: str) -> Rows:
        """Return the rows with a value for a text, a resource, a finding or a report."""
        if field not in self._known:
            self._known[field] = self._given(field)
        return self._known[field]

    def matches(self, field: str, fits: Callable[[str], bool]) -> Rows:
        """Return the rows with a text that fits."""
        return _matches(self.encoded(field), fits)

    def _column(self, field: str) -> pa.Array:
        native = field.startswith("source.native")
        return self.table.column(field.removeprefix("source.") if native else field.replace(".", "_"))

    def _given(self, field: str) -> Rows:
        if field == "resource":
            return self.given("resource.kind") | self.given("resource.id")
        if field == "finding":
            return self.given("finding.rule") | self.given("finding.key") | self.given("finding.severity")
        if field == "report":
            return self.given("report.result")
        given: Rows = pc.binary_length(self._column(field)).to_numpy(zero_copy_only=False) > 0
        return given


def _violations(table: pa.RecordBatch, topic: str | None) -> Iterator[tuple[str, Rows]]:
    """Yield each field with the rows in which it breaks a rule, in the order of ``rules.check``."""
    columns = _Columns(table)
    valid_types = EVENT_TYPES if topic is None else frozenset(one for one in EVENT_TYPES if topic_of(one) == topic)
    yield "event_type", ~columns.matches("event_type", valid_types.__contains__)
    for field, allowed in ALLOWED.items():
        yield field, ~columns.matches(field, {"", *allowed}.__contains__)
    approvals = table.column("approvals")
    decisions = approvals.flatten()
    if len(decisions):
        known = _matches(pc.struct_field(decisions, "decision").dictionary_encode(), DECISIONS.__contains__)
        yield from _of_approvals(approvals, "decision", ~known)
    for field in NOT_EMPTY:
        yield field, ~columns.given(field)
    for issuer in ISSUERS:
        yield f"{issuer}.system", columns.given(f"{issuer}.instance") & ~columns.given(f"{issuer}.system")
    for field in TIMES:
        yield field, _outside(table.column(field).cast(pa.int64()), _FIRST, _END)
    if len(decisions):
        times = pc.struct_field(decisions, "at").cast(pa.int64())
        yield from _of_approvals(approvals, "at", _outside(times, _FIRST, _END))
    yield "requested_seconds", _outside(table.column("requested_seconds"), 0, None)
    yield "report.records", _outside(table.column("report_records"), 0, None)
    for field, types in REQUIRED.items():
        concerned = columns.matches("event_type", types.__contains__)
        if field not in _NOT_DECODED and concerned.any():
            yield field, concerned & ~columns.given(field)
    named = columns.given("grant_id") | columns.given("request_id")
    yield "grant_id", ~named & columns.matches("event_type", ABOUT_GRANTS.__contains__)
    yield "grant_id_kind", columns.given("grant_id") & ~columns.given("grant_id_kind")
    endless = _nulls(table.column("expires_at")) & ~columns.matches("expiry_source", "unknown".__eq__)
    yield "expires_at", endless & columns.matches("event_type", GIVING.__contains__)
    person = columns.matches("actor.kind", "human".__eq__) & columns.given("actor.id")
    yield "actor", ~person & columns.matches("event_type", BY_PERSON.__contains__)
    accepted = ~_nulls(table.column("finding_accept_index"))
    yield "finding.accept_index", accepted & ~columns.matches("event_type", "finding.closed".__eq__)


def _matches(texts: pa.DictionaryArray, fits: Callable[[str], bool]) -> Rows:
    """Return the rows with a text that fits. There are few different texts, however many the rows."""
    fitting = np.array([fits(text.decode("utf-8", "replace")) for text in texts.dictionary.to_pylist()], np.bool_)
    if fitting.all():
        return np.ones(len(texts), np.bool_)
    chosen: Rows = fitting[texts.indices.to_numpy(zero_copy_only=False)]
    return chosen


def _outside(numbers: pa.Array, first: int, end: int | None) -> Rows:
    """Return the rows with a number less than the first or not less than the end; null is neither."""
    if numbers.null_count == len(numbers):
        return np.zeros(len(numbers), np.bool_)
    values = pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False)
    wrong: Rows = values < first if end is None else (values < first) | (values >= end)
    return wrong


def _nulls(column: pa.Array) -> Rows:
    nulls: Rows = pc.is_null(column).to_numpy(zero_copy_only=False)
    return nulls


def _of_approvals(approvals: pa.Array, field: str, wrong: Rows) -> Iterator[tuple[str, Rows]]:
    """Yield each event's wrong approvals, given the wrong rows of all approvals joined."""
    events = pc.list_parent_indices(approvals).to_numpy(zero_copy_only=False)
    for at in np.flatnonzero(wrong).tolist():
        rows = np.zeros(len(approvals), np.bool_)
        rows[events[at]] = True
        yield f"approvals[{at - int(np.searchsorted(events, events[at]))}].{field}", rows
