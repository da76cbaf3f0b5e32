"""Facts out of sealed batches of ``access.lifecycle``, decoded column by column like everything that is sealed.

On the way stands a table: what the watch needs of each entry, one row an entry. It is what the watch keeps between two
starts (:mod:`.memory`), so facts come out of what was kept just as out of what is sealed.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...ledger import packing
from ...ledger.batch import SealedBatch, micros_of
from ...schemas.arrow import DECODED_SCHEMA, MICROS, decode_values
from ...schemas.catalog import SchemaCatalog
from ...schemas.column_rules import forbidden
from .facts import Access, Decision, Fact, Source

_NEEDED = (
    "event_id", "event_type", "source_system", "source_instance", "occurred_at", "source_seq", "tenant", "subject_id",
    "subject_kind", "subject_email", "resource_kind", "resource_id", "resource_environment", "entitlement", "grant_id",
    "grant_id_kind", "request_id", "session_id", "approvals", "starts_at", "expires_at", "expiry_source",
    "removal_evidence", "outcome",
)  # fmt: skip
TABLE = pa.schema(
    [("index", pa.int64()), ("append", pa.int64()), ("content", pa.binary(8))]
    + [DECODED_SCHEMA.field(name) for name in _NEEDED]
)
"""What is needed of an entry: its index, its time in microseconds since 1970, a digest of its content, its columns."""

Rows = Iterator[tuple[Any, ...]]
LATEST = 253_402_300_799_999_999
"""The last microsecond of the year 9999. No calendar goes further, and what is later would pass for never."""


class Entries(NamedTuple):
    """What a sealed batch tells.

    Attributes:
        table: a ``TABLE`` of the events that the rules of the schema allow.
        rows: its rows.
        wrong: index of each entry that the rules forbid, and the field that is wrong. It is in neither of the others.
    """

    table: pa.RecordBatch
    rows: Rows
    wrong: dict[int, str]


def read(batch: SealedBatch, catalog: SchemaCatalog) -> Entries:
    """Return the entries of a batch: the costly part.

    What cannot be decoded is left out. What the rules forbid is named and left out too: fields of it would go into
    events of ours, which the rules forbid as well.

    The time of a record is the broker's; where its sender set it, no deadline may use it, and the time of sealing
    stands instead.

    Args:
        catalog: the writer schemas on record.

    Raises:
        BatchError: the columns of the batch do not fit together.
    """
    if not batch.count:
        return Entries(nothing(), iter(()), {})
    appended = packing.unpack_i64(batch.append_times)
    table = decode_values(pa.array(batch.records().values, pa.binary()), appended, catalog)
    stamped = np.frombuffer(batch.flags, np.uint8) & 1 == 1
    times = np.where(stamped, np.array(appended, np.int64) * 1000, micros_of(batch.sealed_at))
    indexes = np.arange(batch.first_index, batch.size, dtype=np.int64)
    good = pc.equal(pc.binary_length(pc.fill_null(table.column("decode_error"), b"")), 0)
    if not pc.all(good).as_py():
        table, kept = table.filter(good), good.to_numpy(zero_copy_only=False)
        times, indexes = times[kept], indexes[kept]
    wrong = forbidden(table)
    if wrong:
        kept = np.ones(len(indexes), np.bool_)
        kept[list(wrong)] = False
        wrong = {int(indexes[row]): field for row, field in wrong.items()}
        table, times, indexes = table.filter(pa.array(kept)), times[kept], indexes[kept]
    listed = {name: _listed(table.column(name)) for name in DECODED_SCHEMA.names[:-1]}
    contents = _contents(list(listed.values()))
    firsts = [pa.array(indexes), pa.array(times), pa.array(contents, pa.binary(8))]
    whole = pa.RecordBatch.from_arrays([*firsts, *(table.column(name) for name in _NEEDED)], schema=TABLE)
    rows = zip(indexes.tolist(), times.tolist(), contents, *(listed[name] for name in _NEEDED), strict=True)
    return Entries(whole, rows, wrong)


def nothing() -> pa.RecordBatch:
    """Return a ``TABLE`` without rows."""
    return pa.RecordBatch.from_pylist([], TABLE)


def rows_of(table: pa.RecordBatch) -> Rows:
    """Return the rows of a ``TABLE``."""
    return zip(*(_listed(table.column(name)) for name in TABLE.names), strict=True)


def facts_of(batch: SealedBatch, catalog: SchemaCatalog) -> Iterator[Fact]:
    """Yield the facts of a batch of ``access.lifecycle``: :func:`read` and :func:`facts_from` in one.

    Raises:
        BatchError: the columns of the batch do not fit together.
    """
    return facts_from(read(batch, catalog).rows)


def facts_from(rows: Rows) -> Iterator[Fact]:
    """Yield the facts that rows tell.

    One at a time, so that a batch's facts do not lie between what is kept: that would cost a third more memory.

    Args:
        rows: of :func:`read` or :func:`rows_of`.
    """
    for (
        index, append, content, event_id, event_type, system, instance, occurred, seq, tenant, subject, kind, email,
        resource_kind, resource, environment, entitlement, grant_id, grant_id_kind, request_id, session_id, approvals,
        starts, expires, expiry_source, removal, outcome,
    ) in rows:  # fmt: skip
        yield Fact(
            index=index,
            append=append,
            occurred=occurred,
            event_id=event_id,
            event_type=event_type,
            source=_source(system, instance),
            content=content,
            seq=seq,
            access=_access(tenant, subject, resource_kind, resource, entitlement),
            environment=environment,
            subject_kind=kind,
            person=_person(subject, email),
            grant_id=grant_id,
            grant_id_kind=grant_id_kind,
            request_id=grant_id if request_id == grant_id else request_id,
            session_id=session_id,
            decisions=_decisions(approvals) if approvals else (),
            starts=starts,
            expires=expires if expires is None or expires <= LATEST else LATEST,
            native=expiry_source == "native",
            removal=removal or "none",
            outcome=outcome,
        )


def _contents(columns_of: list[list[Any]]) -> list[bytes]:
    """Return a digest of each row: everything in the event but its salt."""
    flat = [
        [str(value) if type(value) is list else value for value in one]
        if any(type(value) is list for value in one)
        else one
        for one in columns_of
    ]
    # Version 2 of the format says the same for the same values, and nothing of how they lie in memory.
    return [blake2b(marshal.dumps(row, 2), digest_size=8).digest() for row in zip(*flat, strict=True)]


def _listed(column: pa.Array) -> list[Any]:
    """Return the values of a column: text as text, times as microseconds, lists as lists; empty ones as None."""
    kind = column.type
    if pa.types.is_fixed_size_binary(kind):
        return list(column.to_pylist())
    if pa.types.is_binary(kind) or pa.types.is_string(kind):
        encoded = column.dictionary_encode()
        known = encoded.dictionary.to_pylist()
        # Names that repeat are one object for all grants; ids that do not would only push them out.
        text = _shared if len(known) * 2 < len(column) else _text
        values = [text(value) for value in known]
        return [values[at] for at in encoded.indices.to_numpy(zero_copy_only=False).tolist()]
    if pa.types.is_nested(kind):
        lengths = column.value_lengths() if pa.types.is_list(kind) else None
        if lengths is not None and (pc.max(lengths).as_py() or 0) == 0:
            return [None] * len(column)
        if column.type == _APPROVALS:  # its times may lie outside of the calendar
            column = column.cast(_NUMBERED)
        # An empty one is the same whatever else is in the batch: contents are compared across batches.
        return [value or None for value in column.to_pylist()]
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.int64())
    plain: list[Any] = column.to_pylist() if column.null_count else column.to_numpy(zero_copy_only=False).tolist()
    return plain


_APPROVALS = TABLE.field("approvals").type
_NUMBERED = pa.list_(
    pa.struct([(one.name, pa.int64() if one.type == MICROS else one.type) for one in _APPROVALS.value_type])
)
"""The same with numbers for times."""


def _decisions(approvals: list[dict[str, Any]]) -> tuple[Decision, ...]:
    return tuple(
        Decision(_text(one["reviewer"] or b""), _text(one["decision"] or b""), bool(one["forced"])) for one in approvals
    )


# A million grants are held by few people, on few resources: each name is one object.
def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


_shared = lru_cache(maxsize=1 << 17)(_text)


_source = lru_cache(maxsize=1 << 12)(Source)
_access = lru_cache(maxsize=1 << 17)(Access)


@lru_cache(maxsize=1 << 17)
def _person(subject: str, email: str) -> tuple[str, ...]:
    return (subject, email) if email and email != subject else (subject,)
