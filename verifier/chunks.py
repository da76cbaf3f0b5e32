"""Steps 1, 3 to 6 and 10 for stored rows: one chunk of a log as an Arrow table. Pure.

Chunks are checked in any process and in any order. :mod:`.logs` then joins them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..ledger.decoded_entries import ENTRY_COLUMNS, decode_entries, filled_columns
from ..ledger.entry import NO_HEADERS, EntryError, first_difference, partition_of_origin, topic_of_origin
from ..ledger.merkle import subtrees
from ..ledger.source_keys import SignedRecord, SourceKeys
from ..ledger.vectorized import check_leaves, check_payloads
from ..schemas.arrow import ERASED
from ..schemas.catalog import SchemaCatalog
from ..schemas.evidence import EVIDENCE_SCHEMA
from .steps import Problem

Number = TypeVar("Number", np.uint8, np.uint64, np.int64)

EVIDENCE_COLUMNS = tuple(name for name in EVIDENCE_SCHEMA.names if name != "origin")
COLUMNS = (*EVIDENCE_COLUMNS, *ENTRY_COLUMNS.names)
"""The columns of ``entries`` that a chunk needs, strings as bytes, times with their zone."""
OTHER_VALUES = "other_values"
"""A column of a chunk that lacks decoded columns: whether one of them has a value in the row."""
VARIABLE_COLUMNS = tuple(
    name
    for schema in (EVIDENCE_SCHEMA, ENTRY_COLUMNS)
    for name, kind in zip(schema.names, schema.types, strict=True)
    if name in COLUMNS and (pa.types.is_binary(kind) or pa.types.is_string(kind) or pa.types.is_list(kind))
)
"""Those of them whose values may have any size."""
NULLABLE = ("key", "value", "erased_at")


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """One chunk to check in any process: which rows a table of stored rows must contain, at least 1.

    Attributes:
        erasures: indices of this log whose erasure is on record.
        decoded: whether to check decoded columns: not possible if the schemas on record are not sound.
        columns: the decoded columns that the table has; None for all.
        cut: whether the table ends with a row that belongs to the next chunk.
    """

    origin: str
    first_index: int
    expected: int
    erasures: frozenset[int]
    decoded: bool = True
    columns: frozenset[str] | None = None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """The rows of a chunk up to one with a note, or to its end.

    Attributes:
        subtrees: level and root of the complete subtrees that the rows form in the log's tree, from left to right.
        next_offset: the offset after the last one.
        times: sealing times in microseconds since 1970, each with the first index that has it.
        note: the note of the last row; empty at the end of a chunk.
    """

    subtrees: Sequence[tuple[int, bytes]]
    last_leaf: bytes
    next_offset: int
    times: Mapping[int, int]
    note: str


@dataclass(frozen=True, slots=True)
class CheckedChunk:
    """A checked chunk, without its payloads. With a problem, it has no entries.

    Attributes:
        previous_leaf: previous leaf hash of the first entry.
        offsets: first and last offset.
        erased: indices whose payload is erased.
        filled: the decoded columns with a value; known only if the chunk had all columns.
        lacking: whether the chunk lacked a decoded column that has a value, here or in the payload. Everything but the
            decoded columns was checked. It has no entries then.
    """

    origin: str
    first_index: int
    problem: Problem | None = None
    count: int = 0
    previous_leaf: bytes = b""
    offsets: tuple[int, int] = (0, 0)
    segments: Sequence[Segment] = ()
    erased: Sequence[int] = ()
    filled: frozenset[str] = frozenset()
    lacking: bool = False


def check_chunk(task: ChunkTask, table: pa.Table, catalog: SchemaCatalog, sources: SourceKeys) -> CheckedChunk:
    """Check the rows of a chunk up to the first problem, first their evidence, then their decoded columns."""
    first = task.first_index

    def failed(index: int, check: str, message: str) -> CheckedChunk:
        return CheckedChunk(task.origin, first, Problem(task.origin, index, check, message))

    # Step 1, Format: the evidence has the types of the ledger.
    if (column := wrong_type(table, EVIDENCE_SCHEMA, NULLABLE)) is not None:
        return failed(first, "format", f"column {column} has another type than the ledger's, or nulls")
    indices = _numbers(table.column("index"), np.uint64)
    # Step 4, Payload: an entry marked as erased has its erasure on record, and its payload is gone.
    erased = pc.indices_nonzero(pc.is_valid(table.column("erased_at"))).to_pylist()
    for position in erased:
        if int(indices[position]) not in task.erasures:
            message = "the payload is marked as erased, and no payload.erased is on record for it"
            return failed(int(indices[position]), "erased", message)
    # Step 3, Order: every index is there once; offsets increase (checked with the leaves).
    if (gap := _index_problem(indices, task)) is not None:
        return failed(gap[0], "index", gap[1])
    keys, values, headers = (_joined(table.column(name)) for name in ("key", "value", "headers"))
    offsets = _numbers(table.column("offset"), np.uint64)
    append_times, sealed_at = (_numbers(table.column(name), np.int64) for name in ("append_time", "sealed_at"))
    leaf_hashes, stored_previous, payloads = (
        _packed(table.column(name)) for name in ("leaf_hash", "previous_leaf_hash", "payload_hash")
    )
    try:
        # Step 4, Payload: the payload hash is that of key, value and headers.
        check_payloads(keys, values, headers, payloads, frozenset(erased))
        # Step 5, Leaf: the leaf hash is that of the entry.
        flags = _numbers(table.column("flags"), np.uint8)
        check_leaves(stored_previous[:32], flags, offsets, append_times, payloads, stored=leaf_hashes)
    except EntryError as error:
        return failed(first + error.position, error.check, str(error))
    # Step 6, Chain: the previous leaf hash is the leaf hash of the entry before.
    previous = stored_previous[:32] + leaf_hashes[:-32]
    if previous != stored_previous:
        position = first_difference(previous, stored_previous)
        message = "the previous leaf hash is not the leaf hash of the entry before"
        return failed(first + position, "chain", message)
    for position in erased:
        rest = (keys[position].as_py(), values[position].as_py(), headers[position].as_py() or NO_HEADERS)
        if rest != (None, None, NO_HEADERS):
            message = "the payload is marked as erased, but key, value or headers are still there"
            return failed(first + position, "erased", message)
    # Step 10, Decoded columns: decoding the payload with the schema in force gives the same columns.
    filled = frozenset[str]()
    if task.decoded:
        topic = topic_of_origin(task.origin)

        def records() -> list[SignedRecord]:
            columns = (column.to_pylist() for column in (keys, values, headers))
            return [SignedRecord(topic, *row) for row in zip(*columns, append_times.tolist(), strict=True)]

        partition = partition_of_origin(task.origin)
        decoded = decode_entries(
            values, append_times, records, topic=topic, partition=partition, catalog=catalog, sources=sources
        )
        filled = filled_columns(decoded)
        if task.columns is not None and (filled - task.columns or _any(table.column(OTHER_VALUES))):
            return CheckedChunk(task.origin, first, lacking=True)
        if (difference := _decoded_difference(table, decoded, frozenset(erased))) is not None:
            position, column = difference
            message = f"column {column} is not what the sealed payload contains"
            return failed(first + position, "columns", message)
    segments = _segments(first, leaf_hashes, offsets, sealed_at.tolist(), table.column("note"))
    ends = (int(offsets[0]), int(offsets[-1]))
    gone = [first + position for position in erased]
    return CheckedChunk(task.origin, first, None, task.expected, previous[:32], ends, segments, gone, filled)


def _segments(
    first: int,
    leaf_hashes: bytes,
    offsets: npt.NDArray[np.uint64],
    sealed_at: Sequence[int],
    notes: pa.ChunkedArray,
) -> list[Segment]:
    found = []
    noted = [at + 1 for at in pc.indices_nonzero(pc.binary_length(notes)).to_pylist()]
    for start, end in pairwise([0, *noted, *([] if noted[-1:] == [len(sealed_at)] else [len(sealed_at)])]):
        leaves, times = leaf_hashes[start * 32 : end * 32], sealed_at[start:end]
        since = {time: first + start + times.index(time) for time in set(times)}
        note = notes[end - 1].as_py().decode("utf-8", "replace")
        next_offset = int(offsets[end - 1]) + 1
        found.append(Segment(subtrees(first + start, leaves), leaves[-32:], next_offset, since, note))
    return found


def _index_problem(indices: npt.NDArray[np.uint64], task: ChunkTask) -> tuple[int, str] | None:
    """Return the first wrong index, and the problem."""
    first = task.first_index
    if np.array_equal(indices, np.arange(task.expected, dtype=np.uint64) + np.uint64(first)):
        return None
    listed = indices.tolist()
    for position, index in enumerate(listed):
        wanted = first + position
        # A smaller index is the duplicate of the last row of the chunk before.
        if index < wanted or (position and index == listed[position - 1]):
            return index, f"entry {index} is stored more than once"
        if index != wanted:
            return wanted, f"entry {wanted} is missing; the next one stored is {index}"
    return first + len(listed), f"entry {first + len(listed)} and those after it are missing"


def wrong_type(table: pa.Table, schema: pa.Schema, nullable: tuple[str, ...] = ()) -> str | None:
    """Return the first column of a table that cannot hold what the schema describes, or None."""
    for name in table.column_names:
        place = schema.get_field_index(name)
        if place < 0:
            continue
        wanted, column = schema.field(place).type, table.column(name)
        nulls = column.null_count if name not in nullable else 0
        if pa.types.is_list(wanted) and pa.types.is_list(column.type):  # the name of the items differs
            wanted, column = wanted.value_type, pc.list_flatten(column)
            nulls += column.null_count
        if nulls or column.type != (pa.binary() if wanted == pa.string() else wanted):
            return str(name)
    return None


def _numbers(column: pa.ChunkedArray, type_: type[Number]) -> npt.NDArray[Number]:
    """Return numbers, or times as the numbers that they are, without nulls, straight from their buffers.

    Not with ``to_numpy``, which imports pandas.
    """
    width = np.dtype(type_).itemsize
    parts = [
        np.frombuffer(array.buffers()[1], type_, len(array), array.offset * width)
        for array in column.chunks
        if len(array)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty(0, type_)


def _joined(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _packed(column: pa.ChunkedArray) -> bytes:
    """Join fixed-size binary values straight from their buffers."""
    parts = []
    for array in column.chunks:
        start = array.offset * array.type.byte_width
        parts.append(array.buffers()[1][start : start + len(array) * array.type.byte_width].to_pybytes())
    return b"".join(parts)


def _any(flags: pa.ChunkedArray) -> bool:
    """Whether one of the rows has a value other than false, 0 and null."""
    return bool(pc.any(flags.cast(pa.bool_())).as_py())


def _decoded_difference(stored: pa.Table, decoded: pa.RecordBatch, erased: frozenset[int]) -> tuple[int, str] | None:
    """Return the first (row, column) where stored and decoded columns differ. Erased rows must decode to nothing.

    Columns that are not stored here are left out.
    """
    found: tuple[int, str] | None = None
    present = frozenset(stored.column_names)
    for field in ENTRY_COLUMNS:
        if field.name not in present:
            continue
        left = stored.column(field.name)
        right = pa.chunked_array([decoded.column(field.name)])
        if left.type != field.type:
            try:
                left = left.cast(field.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                return 0, field.name
        if left.equals(right):
            continue
        for row, (a, b) in enumerate(zip(left, right, strict=True)):
            if field.name == "decode_error" and row in erased and a.as_py() == ERASED.encode():
                continue
            if a != b and (a.is_valid or b.is_valid):
                if found is None or row < found[0]:
                    found = (row, field.name)
                break
    return found
