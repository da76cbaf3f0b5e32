"""Decodes sealed batches of ``access.lifecycle`` into facts, column by column.

In between stands a fact table: the columns that the watch needs, one row per event. Snapshots store these tables, so
facts from a snapshot and facts from the log go through the same code.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ...ledger.batch import SealedBatch
from ...ledger.decoded_entries import INVALID, believed_rows, decode_entries
from ...ledger.entry import partition_of_origin, topic_of_origin
from ...ledger.signature_mistakes import mistake_in
from ...ledger.source_keys import SignedRecord, SourceKeys, signed_records
from ...schemas.arrow import DECODED_SCHEMA, MICROS
from ...schemas.catalog import SchemaCatalog
from ...schemas.event import DEFAULT_TENANT, GIVING, OBSERVED, REMOVING
from ...schemas.history import HISTORY_HEADER
from ...schemas.rules import FAILED
from ..access import LATEST, LONGEST_REASON, Access, Source
from ..naming import NO_NAMING, Naming
from .core.facts import Decision, Fact

_NEEDED = (
    "event_id", "event_type", "source_system", "source_instance", "occurred_at", "tenant", "subject_id",
    "subject_kind", "subject_email", "resource_kind", "resource_id", "resource_environment", "entitlement", "grant_id",
    "grant_id_kind", "request_id", "session_id", "approvals", "starts_at", "expires_at", "expiry_source",
    "removal_evidence", "outcome", "grant_source_system", "grant_source_instance", "request_source_system",
    "request_source_instance", "session_source_system", "session_source_instance", "ends_by_itself", "reason",
)  # fmt: skip
FACT_SCHEMA = pa.schema(
    [("index", pa.int64()), ("entry", pa.int64()), ("append", pa.int64()), ("content", pa.binary(8))]
    + [("mapping", pa.binary(2)), ("signed", pa.bool_()), ("received", pa.int64()), ("imported", pa.bool_())]
    + [DECODED_SCHEMA.field(name) for name in _NEEDED]
)
"""A fact table: the first fields of a fact (times in microseconds since 1970), and the event's columns."""

_CHANGING = frozenset((*GIVING, *REMOVING, OBSERVED))
"""Types that change nothing if their outcome is failure or denied."""
MOST_EXPLAINED = 3
"""Events of a batch whose signatures are examined to explain what is wrong: that takes milliseconds each."""
_MARK = HISTORY_HEADER.encode()
Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Rows = Iterator[tuple[Any, ...]]


class InvalidEntry(NamedTuple):
    """An entry that the schema's rules forbid, and the wrong field."""

    entry: int
    append: int
    source: Source
    tenant: str
    field: str


class DecodedBatch(NamedTuple):
    """A sealed batch as a fact table, its rows as Python values, and the entries that the schema's rules forbid.

    ``unsigned``: the events that are not signed although their source is registered; ``mistakes``: what is wrong with
    the first of them, by entry. The facts include neither.
    """

    table: pa.RecordBatch
    rows: Rows
    invalid: list[InvalidEntry]
    unsigned: Rows
    mistakes: Mapping[int, str]


def decode_batch(
    batch: SealedBatch,
    catalog: SchemaCatalog,
    before: int = 0,
    source_keys: Callable[[int], SourceKeys] = lambda _: SourceKeys(""),
) -> DecodedBatch:
    """Decode a batch: the expensive part. Events that cannot be decoded are left out.

    The append time is the broker's. If the sender set the timestamp of a record, no deadline may use it, and the
    sealing time replaces it.

    Args:
        before: number of entries in earlier epochs.
        source_keys: returns the keys of the sources, for records appended up to a time.
    """
    if not batch.count:
        return DecodedBatch(empty_table(), iter(()), [], iter(()), {})
    records, topic, keys = batch.records(), topic_of_origin(batch.origin), source_keys(batch.newest_append_time_ms())
    table = decode_entries(
        pa.array(records.values, pa.binary()), records.append_times, lambda: signed_records(topic, records),
        topic=topic, partition=partition_of_origin(batch.origin), catalog=catalog,
        sources=keys,
    )  # fmt: skip
    times = np.array(batch.times(), np.int64)
    entries = np.arange(batch.first_index, batch.size, dtype=np.int64)
    imported = np.array([_MARK in one for one in records.headers], np.bool_)
    invalid = list(_invalid(table, entries, times))
    valid = pc.equal(pc.binary_length(table.column("decode_error")), 0).to_numpy(zero_copy_only=False)
    believed = believed_rows(table)
    places = _Places(entries, times, before, imported)
    facts, rows = _facts(table, places, believed)
    refused = valid & ~believed
    _, unsigned = _facts(table, places, refused)
    mistakes = dict(_mistakes(batch, table, np.flatnonzero(refused)[:MOST_EXPLAINED], keys))
    return DecodedBatch(facts, rows, invalid, unsigned, mistakes)


def _mistakes(batch: SealedBatch, table: pa.RecordBatch, rows: Numbers, keys: SourceKeys) -> Iterator[tuple[int, str]]:
    """Yield the entries in some rows, and why they are not signed as they must be."""
    if not len(rows):
        return
    records, topic = batch.records(), topic_of_origin(batch.origin)
    for row in rows.tolist():
        columns = records.keys, records.values, records.headers, records.append_times
        record = SignedRecord(topic, *(column[row] for column in columns))
        names = (table.column(name)[row].as_py() or b"" for name in ("source_system", "source_instance", "tenant"))
        source = (name.encode() if isinstance(name, str) else name for name in names)
        yield batch.first_index + row, mistake_in(keys, record, *source)


def _invalid(table: pa.RecordBatch, entries: Numbers, times: Numbers) -> Iterator[InvalidEntry]:
    named = (table.column(name) for name in ("decode_error", "source_system", "source_instance", "tenant"))
    errors, systems, instances, tenants = named
    for row in np.flatnonzero(pc.starts_with(errors, INVALID).to_numpy(zero_copy_only=False)).tolist():
        source = _source(*(_text(column[row].as_py() or b"") for column in (systems, instances)))
        tenant = _text(tenants[row].as_py() or b"") or DEFAULT_TENANT
        field = errors[row].as_py().decode()[len(INVALID) + 2 :]
        yield InvalidEntry(int(entries[row]), int(times[row]), source, tenant, field)


class _Places(NamedTuple):
    """Entries of a batch by index and append time, the number of entries in earlier epochs, and which are marked."""

    entries: Numbers
    times: Numbers
    before: int
    imported: Flags


def _facts(table: pa.RecordBatch, places: _Places, chosen: Flags) -> tuple[pa.RecordBatch, Rows]:
    """Return the chosen rows of a decoded batch as a fact table, and as Python values."""
    if not chosen.any():
        return empty_table(), iter(())
    if not chosen.all():
        table = table.filter(pa.array(chosen))
    entries, times, imported = places.entries[chosen], places.times[chosen], places.imported[chosen]
    values = {name: as_values(table.column(name)) for name in DECODED_SCHEMA.names[:-1]}
    columns = (_hashable(table, name, values[name]) for name in values if name not in _NOT_CONTENT)
    contents = [_digest(8, row) for row in zip(*columns, strict=True)]
    mappings = list(map(_mapping, values["mapping_adapter"], values["mapping_version"]))
    numbers = [entries + places.before, entries, times]
    signed = pc.equal(table.column("signature"), b"valid")
    by_gateway = pc.if_else(signed, table.column("received_at").cast(pa.int64()), None)
    received = pc.min_element_wise(pa.array(times), by_gateway)
    firsts = [*map(pa.array, numbers), pa.array(contents, pa.binary(8)), pa.array(mappings, pa.binary(2)), signed]
    firsts += [received, pa.array(imported)]
    facts = pa.RecordBatch.from_arrays([*firsts, *(table.column(name) for name in _NEEDED)], schema=FACT_SCHEMA)
    plain = [column.tolist() for column in numbers]
    more = (as_values(signed), as_values(received), imported.tolist())
    rows = zip(*plain, contents, mappings, *more, *(values[name] for name in _NEEDED), strict=True)
    return facts, rows


def empty_table() -> pa.RecordBatch:
    """Return a fact table without rows."""
    return pa.RecordBatch.from_pylist([], FACT_SCHEMA)


def rows_of(table: pa.RecordBatch) -> Rows:
    """Return the rows of a fact table as Python values."""
    return zip(*(as_values(table.column(name)) for name in FACT_SCHEMA.names), strict=True)


def facts_from(rows: Rows, naming: Naming = NO_NAMING) -> Iterator[Fact]:
    """Yield the facts of rows, one at a time: a list of them between long-lived objects would fragment memory.

    ``naming``: facts use the names of the policy for installations and people, and its environments of resources.
    """
    names = naming.installations
    source = lru_cache(maxsize=1 << 12)(lambda system, instance: Source(*names.of((system, instance))))
    for (
        index, entry, append, content, mapping, signed, received, imported, event_id, event_type, system, instance,
        occurred, tenant, subject, kind, email, resource_kind, resource, environment, entitlement, grant_id,
        grant_id_kind, request_id, session_id, approvals, starts, expires, expiry_source, removal, outcome,
        grant_system, grant_instance, request_system, request_instance, session_system, session_instance,
        ends_by_itself, reason,
    ) in rows:  # fmt: skip
        issued_by = source(system, instance)
        yield Fact(
            index=index,
            entry=entry,
            append=append,
            occurred=occurred,
            event_id=event_id,
            event_type="grant.failed" if outcome in FAILED and event_type in _CHANGING else event_type,
            source=issued_by,
            content=content,
            mapping=mapping,
            signed=signed,
            received_at=received,
            imported=imported,
            access=_access(tenant, subject, resource_kind, resource, entitlement),
            environment=environment or naming.environment_of(issued_by, resource_kind, resource),
            subject_kind=kind,
            person=naming.person_of(subject, email),
            grant_id=grant_id,
            grant_id_kind=grant_id_kind,
            request_id=grant_id if request_id == grant_id else request_id,
            session_id=session_id,
            decisions=_decisions(approvals, event_type, occurred, naming) if approvals else (),
            starts=starts,
            expires=expires if expires is None or expires <= LATEST else LATEST,
            native=expiry_source == "native",
            ends_by_itself=bool(ends_by_itself) and expiry_source in ("native", "derived"),
            removal="api_accepted" if removal == "confirmed" and outcome != "success" else removal or "none",
            outcome=outcome,
            grant_source=source(grant_system, grant_instance) if grant_system else None,
            request_source=source(request_system, request_instance) if request_system else None,
            session_source=source(session_system, session_instance) if session_system else None,
            reason=_reason(reason) if reason else "",
        )


_NOT_CONTENT = frozenset(
    {"raw", "raw_sha256", "received_at", "mapping_adapter", "mapping_version", "source_seq", "source_sender"}
)
"""Columns that may differ between two readings of one record."""


def _digest(size: int, row: tuple[Any, ...]) -> bytes:
    # Version 2 of the format encodes equal values equally, whatever objects they share.
    return blake2b(marshal.dumps(row, 2), digest_size=size).digest()


@lru_cache(maxsize=1 << 10)
def _mapping(adapter: str, version: str) -> bytes:
    """Return a digest of an adapter and its version."""
    return _digest(2, (adapter, version))


def _hashable(table: pa.RecordBatch, name: str, values: list[Any]) -> list[Any]:
    """Return the values of a column with texts in place of lists."""
    is_nested = pa.types.is_nested(table.schema.field(name).type)
    return [str(value) if type(value) is list else value for value in values] if is_nested else values


def as_values(column: pa.Array) -> list[Any]:
    """Return a column as Python values: text as str, times as microseconds, lists as lists or None if empty."""
    kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_string(kind):
        encoded = column.dictionary_encode()
        values = _texts(encoded.dictionary)
        if len(values) == len(column):
            return values
        if len(values) * 4 < len(column) * 3:  # one object for all grants; ids would only evict them from the cache
            values = list(map(_shared, values))
        if len(values) == 1:
            return values * len(column)
        return [values[at] for at in _plain(encoded.indices)]
    if pa.types.is_nested(kind):
        lengths = column.value_lengths() if pa.types.is_list(kind) else None
        if lengths is not None and (pc.max(lengths).as_py() or 0) == 0:
            return [None] * len(column)
        if column.type == _APPROVALS:  # its times may be outside of the calendar
            column = column.cast(_APPROVALS_AS_INTEGERS)
        # Contents are compared across batches, so an empty list must not depend on the rest of the batch.
        return [value or None for value in column.to_pylist()]
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.int64())
    return _plain(column) if pa.types.is_fixed_size_binary(kind) or not column.null_count else column.to_pylist()


def _plain(column: pa.Array) -> list[Any]:
    values: list[Any] = column.to_numpy(zero_copy_only=False).tolist()  # many times as fast as ``to_pylist``
    return values


def _texts(column: pa.Array) -> list[str]:
    try:
        return _plain(column.cast(pa.string()))
    except pa.ArrowInvalid:  # not UTF-8
        return list(map(_text, column.to_pylist()))


_APPROVALS = FACT_SCHEMA.field("approvals").type
_APPROVALS_AS_INTEGERS = pa.list_(
    pa.struct([(one.name, pa.int64() if one.type == MICROS else one.type) for one in _APPROVALS.value_type])
)
"""The same type with integers for times."""


def _decisions(approvals: list[dict[str, Any]], event_type: str, occurred: int, naming: Naming) -> tuple[Decision, ...]:
    """Return the decisions of an event. Events of requests report new ones; those of grants may repeat old ones."""
    at = occurred if event_type.startswith("request.") else None
    return tuple(
        Decision(
            naming.reviewer(_text(one["reviewer"] or b"")), _text(one["decision"] or b""), bool(one["forced"]),
            at if one["at"] is None else one["at"],
        )
        for one in approvals
    )  # fmt: skip


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


@lru_cache(maxsize=1 << 16)
def _shared(text: str) -> str:
    """Return one object for all equal names."""
    return text


@lru_cache(maxsize=1 << 14)
def _reason(text: str) -> str:
    """Return one object for the reason of a request and of its grant, of bounded length."""
    return text[:LONGEST_REASON]


_source = lru_cache(maxsize=1 << 12)(Source)


_access = lru_cache(maxsize=1 << 15)(Access)
