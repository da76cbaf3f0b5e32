"""Decode many framed values to Arrow columns, for the store and the verifier.

One bad datum fails pyruhvro's whole run. Then each datum is checked (``datum_check``), and the valid ones are decoded
as one run, so a bad datum costs about as much as a good one. pyruhvro accepts exactly the datums that the check
accepts. Therefore the result for an entry never depends on its neighbors, and the verifier, which forms other runs,
gets the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from .catalog import SchemaCatalog, WriterSchema
from .columns import APPROVAL, PLACES, Place
from .framing import FramingError, prefix_of
from .readers import readers_of

MICROS = pa.timestamp("us", tz="UTC")
_TEXT = pa.binary()
"""Text stays bytes, and is stored as it arrived, valid UTF-8 or not."""
_TYPES: dict[str, pa.DataType] = {
    "text": _TEXT,
    "time": MICROS,
    "number": pa.int64(),
    "boolean": pa.bool_(),
    "texts": pa.list_(_TEXT),
    "hash": pa.binary(32),
}
_APPROVAL = pa.struct([(name, _TYPES[kind]) for name, kind in APPROVAL.items()])
_TYPES["approvals"] = pa.list_(_APPROVAL)


@dataclass(frozen=True, slots=True)
class DecodedColumn:
    """A decoded column: a place, and the column's type."""

    place: Place
    type: pa.DataType

    @property
    def name(self) -> str:
        """The column's name in the store."""
        return self.place.name

    @property
    def path(self) -> tuple[str, ...]:
        """Where the value is in the datum."""
        return self.place.path

    @property
    def nullable(self) -> bool:
        """Whether the store can hold null where text would be empty."""
        return self.place.nullable


DECODED: tuple[DecodedColumn, ...] = tuple(DecodedColumn(place, _TYPES[place.kind]) for place in PLACES)
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
    errors: list[str | None] = [None] * len(values)
    schema = _only_schema(values, times, catalog)
    if schema is not None:
        listed = values.to_pylist()
        whole = _run(schema, listed)
        if whole is not None:
            return whole.append_column("decode_error", _empty(_TEXT, len(values)))
        order, part = _valid_ones(schema, listed, range(len(listed)), errors)
        return _assemble([part], order, errors)
    order, parts = [], []
    listed = values.to_pylist()
    for schema, rows in _by_schema(listed, times.tolist(), catalog, errors).items():
        framed = [listed[row] for row in rows]
        part_or_none = _run(schema, framed)
        if part_or_none is None:
            rows, part_or_none = _valid_ones(schema, framed, rows, errors)  # noqa: PLW2901
        parts.append(part_or_none)
        order.extend(rows)
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


def _run(schema: WriterSchema, framed: list[bytes]) -> pa.RecordBatch | None:
    """Return the columns of values with this schema, or None if one is invalid or pyruhvro cannot read the schema.

    The schema for pyruhvro describes the prefix too, because cutting it off would copy each value.
    """
    wire = readers_of(schema.text).wire.get(len(schema.prefix))
    if wire is None:
        return None
    try:
        return flatten(pyruhvro.deserialize_array(framed, wire))
    except BaseException as error:  # a panic is not an Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return None


def _valid_ones(
    schema: WriterSchema, framed: list[bytes], rows: Sequence[int], errors: list[str | None]
) -> tuple[list[int], pa.RecordBatch]:
    """Return the rows whose datums are valid, and their columns; note the error of each other row.

    The message contains no text of a library: a verifier with other library versions must produce the same one.
    """
    readers, length = readers_of(schema.text), len(schema.prefix)
    valid = readers.valid
    good = [at for at, value in enumerate(framed) if valid(value[length:])]
    found = [framed[at] for at in good]
    part = _run(schema, found)
    if part is None:
        part = _from_data([readers.slow(value[length:]) for value in found])
    for at in set(range(len(framed))).difference(good):
        errors[rows[at]] = f"datum_invalid: the datum does not fit the schema {schema.prefix.hex()}"
    return [rows[at] for at in good], part


def flatten(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Turn decoded datums, as nested Arrow, into the columns of ``DECODED``; a missing field is empty."""
    return pa.record_batch([_take(batch, column) for column in DECODED], schema=_DECODED_ONLY)


_DECODED_ONLY = pa.schema([(column.name, column.type) for column in DECODED])


def _take(batch: pa.RecordBatch, column: DecodedColumn) -> pa.Array:
    empty = _empty(column.type, batch.num_rows, nullable=column.nullable)
    at = batch.schema.get_field_index(column.path[0])
    if at < 0:
        return empty
    array = batch.column(at)
    for name in column.path[1:]:
        if not pa.types.is_struct(array.type) or array.type.get_field_index(name) < 0:
            return empty
        if array.null_count == len(array):
            return empty
        array = pc.struct_field(array, name)  # a null parent gives null
    if pa.types.is_fixed_size_binary(column.type) and pa.types.is_struct(array.type):
        return _from_words(array, column.type)
    if array.null_count == len(array):
        return empty
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


_NOT_NULLABLE = frozenset(column.name for column in DECODED if not column.nullable)


def has_value(array: pa.Array, name: str) -> bool:
    """Return whether a decoded column has a value in some row: not what :func:`decode_values` writes for none."""
    if array.null_count == len(array):
        return False
    if pa.types.is_binary(array.type) or pa.types.is_list(array.type):
        ends = np.frombuffer(array.buffers()[1], np.int32)
        return bool(ends[array.offset] != ends[array.offset + len(array)])
    if pa.types.is_fixed_size_binary(array.type):
        width = array.type.byte_width
        return bool(np.frombuffer(array.buffers()[1], np.uint8)[array.offset * width :][: len(array) * width].any())
    return name not in _NOT_NULLABLE or not pa.types.is_boolean(array.type) or bool(pc.any(array).as_py())


def _fill(array: pa.Array, type_: pa.DataType, *, nullable: bool = True) -> pa.Array:
    blank = _blank(type_, nullable=nullable)
    if array.null_count == 0 or blank is None:
        return array
    return pc.fill_null(array, blank)


def _empty(type_: pa.DataType, rows: int, *, nullable: bool = True) -> pa.Array:
    return _many_empty(type_, 1 << rows.bit_length(), nullable=nullable)[:rows]


@lru_cache(maxsize=32)
def _many_empty(type_: pa.DataType, rows: int, *, nullable: bool) -> pa.Array:
    """Return a column without values. Most columns are, and making one takes longer than decoding it."""
    blank = _blank(type_, nullable=nullable)
    return pa.nulls(rows, type_) if blank is None else pa.repeat(blank, rows)


def _from_data(data: list[dict[str, Any]]) -> pa.RecordBatch:
    """Return the columns of datums as fastavro's dictionaries."""
    arrays = []
    for column in DECODED:
        values: list[Any] = data
        for name in column.path:
            values = [value.get(name) if isinstance(value, dict) else None for value in values]
        arrays.append(_fill(_column_of(values, column.type), column.type, nullable=column.nullable))
    return pa.record_batch(arrays, schema=_DECODED_ONLY)


def _column_of(values: list[Any], type_: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(type_):
        return pa.array(values, pa.int64()).cast(type_)
    if type_ == _TYPES["approvals"]:
        values = [[_approval(item) for item in items or []] for items in values]
    elif pa.types.is_list(type_):
        values = [items or [] for items in values]
    elif type_ == _TEXT:
        values = [_as_text(value) for value in values]
    return pa.array(values, type_)


def _approval(item: dict[str, Any]) -> dict[str, Any]:
    found = {name: item.get(name) for name in APPROVAL}
    return {name: _as_text(value) if APPROVAL[name] == "text" else value for name, value in found.items()} | {
        "forced": bool(found["forced"])
    }


def _as_text(value: bytes | str | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""  # str: the symbol of an enumeration


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
