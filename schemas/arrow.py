"""Decode many framed values to Arrow columns, for the store and the verifier.

One bad datum fails pyruhvro's whole run. The run is then split in halves until each bad datum is isolated. The result
for an entry therefore never depends on its neighbors, and the verifier, which forms other runs, gets the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .catalog import SchemaCatalog, WriterSchema
from .framing import FramingError, prefix_of
from .readers import Readers, readers_of

MICROS = pa.timestamp("us", tz="UTC")
_TEXT = pa.binary()
"""Text stays bytes, and is stored as it arrived, valid UTF-8 or not."""
_APPROVAL = pa.struct(
    [
        ("reviewer", _TEXT),
        ("group", _TEXT),
        ("decision", _TEXT),
        ("at", MICROS),
        ("reason", _TEXT),
        ("forced", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True)
class Column:
    """A decoded column: its name in the store, its path in the datum and its type. Null text reads as empty.

    ``nullable``: whether the store can hold null where text would be empty; if not, a missing time reads as 1970 and a
    missing truth value as false.
    """

    name: str
    path: tuple[str, ...]
    type: pa.DataType
    nullable: bool = True


def _column(path: str, type_: pa.DataType = _TEXT, name: str | None = None, *, nullable: bool = True) -> Column:
    return Column(name or path.replace(".", "_"), tuple(path.split(".")), type_, nullable)


DECODED: tuple[Column, ...] = (
    _column("event_id"),
    _column("event_type"),
    _column("occurred_at", MICROS, nullable=False),
    _column("source.system"),
    _column("source.instance"),
    _column("source.native_id", name="native_id"),
    _column("source.native_type", name="native_type"),
    _column("source.seq", pa.int64()),
    _column("source.sender"),
    _column("mapping.adapter"),
    _column("mapping.version"),
    _column("grant_source.system"),
    _column("grant_source.instance"),
    _column("request_source.system"),
    _column("request_source.instance"),
    _column("session_source.system"),
    _column("session_source.instance"),
    _column("tenant"),
    _column("subject.id"),
    _column("subject.kind"),
    _column("subject.email"),
    _column("actor.id"),
    _column("actor.kind"),
    _column("actor.on_behalf_of"),
    _column("resource.kind"),
    _column("resource.id"),
    _column("resource.environment"),
    _column("entitlement"),
    _column("grant_id"),
    _column("grant_id_kind"),
    _column("request_id"),
    _column("session_id"),
    _column("approvals", pa.list_(_APPROVAL)),
    _column("starts_at", MICROS),
    _column("expires_at", MICROS),
    _column("requested_seconds", pa.int64()),
    _column("expiry_source"),
    _column("ends_by_itself", pa.bool_()),
    _column("removal_evidence"),
    _column("reason"),
    _column("ticket"),
    _column("customer"),
    _column("outcome"),
    _column("error"),
    _column("client_ip"),
    _column("action.command", name="command"),
    _column("action.args", pa.list_(_TEXT), name="args"),
    _column("action.query", name="query"),
    _column("action.exit_code", pa.int64(), name="exit_code"),
    _column("action.redacted", pa.bool_(), name="redacted", nullable=False),
    _column("action.truncated", pa.bool_(), name="truncated", nullable=False),
    _column("executed_query.rows", pa.int64(), name="query_rows"),
    _column("executed_query.duration_ms", pa.int64(), name="query_duration_ms"),
    _column("finding.rule"),
    _column("finding.key"),
    _column("finding.severity"),
    _column("finding.deadline", MICROS),
    _column("finding.evidence"),
    _column("finding.accept_index", pa.int64()),
    _column("received_at", MICROS),
    _column("raw"),
    _column("raw_sha256", pa.binary(32)),
)
"""The columns that an event becomes in the store, in order."""

ERASED = "erased: the payload was erased by law"
"""``decode_error`` of an entry whose payload was erased: every decoded column is empty."""
DECODED_SCHEMA = pa.schema([(column.name, column.type) for column in DECODED] + [("decode_error", _TEXT)])


def decode_values(
    values: pa.BinaryArray, append_times_ms: Sequence[int] | npt.NDArray[np.int64], catalog: SchemaCatalog
) -> pa.RecordBatch:
    """Decode framed values, one row each, in the columns of ``DECODED_SCHEMA``.

    A value that cannot be decoded has empty columns, and the reason in ``decode_error``: a short stable code, a colon
    and the detail. Bad values raise nothing.
    """
    times = np.asarray(append_times_ms, dtype=np.int64)
    schema = _only_schema(values, times, catalog)
    if schema is not None:
        whole = _attempt(readers_of(schema.text), _datums(values, len(schema.prefix)))
        if whole is not None:
            return whole.append_column("decode_error", _empty(_TEXT, len(values)))
    errors: list[str | None] = [None] * len(values)
    parts: list[pa.RecordBatch] = []
    order: list[int] = []
    listed = values.to_pylist()
    for schema, rows in _by_schema(listed, times.tolist(), catalog, errors).items():
        datums = [listed[row][len(schema.prefix) :] for row in rows]
        good, part, bad = _decode_run(datums, schema)
        for at, message in bad:
            errors[rows[at]] = message
        parts.append(part)
        order.extend(rows[at] for at in good)
    return _assemble(parts, order, errors)


def _spans(values: pa.BinaryArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where each value starts and ends in the array's third buffer."""
    bounds = np.frombuffer(values.buffers()[1], dtype=np.int32)[values.offset : values.offset + len(values) + 1]
    return bounds[:-1].astype(np.int64), bounds[1:].astype(np.int64)


def _only_schema(values: pa.BinaryArray, times: npt.NDArray[np.int64], catalog: SchemaCatalog) -> WriterSchema | None:
    """Return the schema if all values name the same one. That is nearly always so, and checked without a loop."""
    if values.null_count or not len(values):
        return None
    try:
        prefix = prefix_of(values[0].as_py())
    except FramingError:
        return None
    schema = catalog.get(prefix, int(times.min()))
    starts, ends = _spans(values)
    if schema is None or (ends - starts < len(prefix)).any():
        return None
    joined = np.frombuffer(values.buffers()[2], dtype=np.uint8)
    heads = joined[starts[:, None] + np.arange(len(prefix))]
    return schema if (heads == np.frombuffer(prefix, dtype=np.uint8)).all() else None


def _datums(values: pa.BinaryArray, skip: int) -> list[bytes]:
    """Return each value without its schema id."""
    starts, ends = _spans(values)
    joined = values.buffers()[2].to_pybytes()
    return [joined[start:end] for start, end in zip((starts + skip).tolist(), ends.tolist(), strict=True)]


def _by_schema(
    values: Sequence[bytes | None], times: Sequence[int], catalog: SchemaCatalog, errors: list[str | None]
) -> dict[WriterSchema, list[int]]:
    """Group rows by their writer schema; rows without one get an error."""
    groups: dict[WriterSchema, list[int]] = {}
    for row, (value, time) in enumerate(zip(values, times, strict=True)):
        if value is None:
            errors[row] = "value_null: the record has no value"
            continue
        try:
            prefix = prefix_of(value)
        except FramingError as error:
            errors[row] = f"{error.code}: {error}"
            continue
        schema = catalog.get(prefix, time)
        if schema is None:
            errors[row] = f"schema_unknown: schema id {prefix.hex()} was not registered when this entry was appended"
            continue
        groups.setdefault(schema, []).append(row)
    return groups


def _decode_run(
    datums: list[bytes], schema: WriterSchema
) -> tuple[Sequence[int], pa.RecordBatch, list[tuple[int, str]]]:
    """Return the positions decoded, their columns in that order, and (position, message) of those that were not.

    The message contains no text of a library: a verifier with other library versions must produce the same one.
    """
    reader = readers_of(schema.text)
    whole = _attempt(reader, datums)
    if whole is not None:
        return range(len(datums)), whole, []
    good: list[int] = []
    bad: list[tuple[int, str]] = []
    runs: list[pa.RecordBatch] = []
    pending = [(0, len(datums))]
    while pending:
        start, stop = pending.pop()
        part = _attempt(reader, datums[start:stop])
        if part is not None:
            runs.append(part)
            good.extend(range(start, stop))
        elif stop - start > 1:
            middle = (start + stop) // 2
            pending += [(middle, stop), (start, middle)]
        else:
            bad.append((start, f"datum_invalid: the datum does not fit the schema {schema.prefix.hex()}"))
    return good, _concat(runs), bad


def _attempt(reader: Readers, datums: list[bytes]) -> pa.RecordBatch | None:
    """Return the columns of a run of datums, or None if one of them cannot be read."""
    try:
        if reader.fast is not None:
            return flatten(reader.fast(datums))
        return _concat([_from_datum(reader.slow(datum)) for datum in datums])
    except BaseException as error:  # a pyruhvro panic is not an Exception; fastavro raises many kinds for bad bytes
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return None


def flatten(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Turn decoded datums, as nested Arrow, into the columns of ``DECODED``; a missing field is empty."""
    return pa.record_batch([_take(batch, column) for column in DECODED], schema=_DECODED_ONLY)


_DECODED_ONLY = pa.schema([(column.name, column.type) for column in DECODED])


def _take(batch: pa.RecordBatch, column: Column) -> pa.Array:
    at = batch.schema.get_field_index(column.path[0])
    if at < 0:
        return _empty(column.type, batch.num_rows, nullable=column.nullable)
    array = batch.column(at)
    for name in column.path[1:]:
        if not pa.types.is_struct(array.type) or array.type.get_field_index(name) < 0:
            return _empty(column.type, batch.num_rows, nullable=column.nullable)
        array = pc.struct_field(array, name)  # a null parent gives null
    if pa.types.is_fixed_size_binary(column.type) and pa.types.is_struct(array.type):
        return _from_words(array, column.type)
    return _fill(_cast(array, column.type), column.type, nullable=column.nullable)


def _from_words(array: pa.Array, type_: pa.DataType) -> pa.Array:
    # Read the buffers directly: pyarrow's conversion to numpy imports pandas, which takes a second.
    columns = [
        np.frombuffer(word.buffers()[1], dtype=np.float64)[word.offset : word.offset + len(word)]
        for word in array.flatten()
    ]
    if len(columns) * 8 != type_.byte_width:
        raise ValueError(f"{len(columns) * 8} bytes where {type_.byte_width} belong")
    words = np.stack(columns, axis=1)
    return pa.Array.from_buffers(type_, len(array), [None, pa.py_buffer(np.ascontiguousarray(words).tobytes())])


def _cast(array: pa.Array, type_: pa.DataType) -> pa.Array:
    if array.type == type_:
        return array
    if pa.types.is_timestamp(type_):
        return array.cast(pa.int64()).cast(type_) if not pa.types.is_timestamp(array.type) else array.cast(type_)
    if pa.types.is_list(type_) and pa.types.is_struct(type_.value_type):
        return _cast_approvals(array, type_)
    return array.cast(type_)


def _cast_approvals(array: pa.Array, type_: pa.DataType) -> pa.Array:
    """Give each field of the listed structs its own type; ``cast`` cannot turn a long inside them into a time."""
    items = array.values
    wanted = type_.value_type
    fields = []
    for field in wanted:
        if items.type.get_field_index(field.name) < 0:
            fields.append(_empty(field.type, len(items), nullable=not pa.types.is_boolean(field.type)))
        else:
            found = _cast(pc.struct_field(items, field.name), field.type)
            fields.append(_fill(found, field.type, nullable=not pa.types.is_boolean(field.type)))
    return pa.ListArray.from_arrays(array.offsets, pa.StructArray.from_arrays(fields, fields=list(wanted)), type=type_)


@cache
def _blank(type_: pa.DataType, *, nullable: bool) -> pa.Scalar | None:
    """Return the value that replaces null in a column of this type, or None if null stays null.

    Built from buffers: ``pa.scalar`` imports pandas, which takes longer than verifying a small ledger.
    """
    zeros = pa.py_buffer(bytes(32))
    if pa.types.is_list(type_):
        children = [pa.nulls(0, type_.value_type)]
        return pa.Array.from_buffers(type_, 1, [None, zeros], children=children)[0]
    if pa.types.is_binary(type_):
        return pa.Array.from_buffers(type_, 1, [None, zeros, zeros])[0]
    if pa.types.is_fixed_size_binary(type_) or not nullable:
        return pa.Array.from_buffers(type_, 1, [None, zeros])[0]
    return None


def _fill(array: pa.Array, type_: pa.DataType, *, nullable: bool = True) -> pa.Array:
    blank = _blank(type_, nullable=nullable)
    if array.null_count == 0 or blank is None:
        return array
    return pc.fill_null(array, blank)


def _empty(type_: pa.DataType, rows: int, *, nullable: bool = True) -> pa.Array:
    blank = _blank(type_, nullable=nullable)
    return pa.nulls(rows, type_) if blank is None or not rows else pa.repeat(blank, rows)


def _from_datum(datum: dict[str, Any]) -> pa.RecordBatch:
    """One row from fastavro's dictionary."""
    arrays = []
    for column in DECODED:
        value: Any = datum
        for name in column.path:
            value = value.get(name) if isinstance(value, dict) else None
        arrays.append(_fill(_one(value, column.type), column.type, nullable=column.nullable))
    return pa.record_batch(arrays, schema=_DECODED_ONLY)


def _one(value: Any, type_: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(type_):
        return pa.array([value], pa.int64()).cast(type_)
    if type_ == pa.list_(_APPROVAL):
        items = [{field.name: _plain(item.get(field.name), field.type) for field in _APPROVAL} for item in value or []]
        return pa.array([items], type_)
    return pa.nulls(1, type_) if value is None and type_ == pa.bool_() else pa.array([_plain(value, type_)], type_)


def _plain(value: Any, type_: pa.DataType) -> Any:
    if type_ == _TEXT:
        return value.encode() if isinstance(value, str) else value or b""
    if type_ == pa.list_(_TEXT):
        return [item.encode() for item in value or []]
    if type_ == pa.bool_():
        return bool(value)
    return value


def _concat(runs: list[pa.RecordBatch]) -> pa.RecordBatch:
    table = pa.Table.from_batches(runs, schema=_DECODED_ONLY).combine_chunks()
    return table.to_batches()[0] if table.num_rows else pa.record_batch([[] for _ in DECODED], schema=_DECODED_ONLY)


def _assemble(parts: list[pa.RecordBatch], order: list[int], errors: list[str | None]) -> pa.RecordBatch:
    """Restore the order of the decoded rows, with empty rows for errors."""
    missing = [row for row, error in enumerate(errors) if error is not None]
    columns = [_empty(column.type, len(missing), nullable=column.nullable) for column in DECODED]
    blank = pa.record_batch(columns, schema=_DECODED_ONLY)
    joined = _concat([*parts, blank])
    where = np.empty(len(errors), dtype=np.int64)
    where[np.array([*order, *missing], dtype=np.int64)] = np.arange(len(errors))
    texts = pa.array([(error or "").encode() for error in errors], _TEXT)
    return joined.take(pa.array(where)).append_column("decode_error", texts)
