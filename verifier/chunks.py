"""Steps 1, 3 to 6 and 10 for stored rows: one chunk of a log as an Arrow table. Pure.

Chunks are checked in any process and in any order. :mod:`.logs` then joins them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from ..ledger.decoded_entries import ENTRY_COLUMNS, decode_entries
from ..ledger.entry import NO_HEADERS, EntryError, check_leaves, check_payloads, first_difference, topic_of_origin
from ..ledger.merkle import subtrees
from ..ledger.packing import unpack_hashes
from ..ledger.source_keys import SignedRecord, SourceKeys
from ..schemas.arrow import ERASED
from ..schemas.catalog import SchemaCatalog
from ..schemas.evidence import EVIDENCE_SCHEMA
from .steps import Problem

COLUMNS = (*(name for name in EVIDENCE_SCHEMA.names if name != "origin"), *ENTRY_COLUMNS.names)
"""The columns of ``entries`` that a chunk needs, strings as bytes, times with their zone."""
NULLABLE = ("key", "value", "erased_at")


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """One chunk to check in any process: which rows a table of stored rows must contain, at least 1.

    Attributes:
        erasures: indices of this log whose erasure is on record.
        decoded: whether to check decoded columns: not possible if the schemas on record are not sound.
    """

    origin: str
    first_index: int
    expected: int
    erasures: frozenset[int]
    decoded: bool = True


@dataclass(frozen=True, slots=True)
class Segment:
    """The rows of a chunk up to one with a note, or to its end.

    Attributes:
        subtrees: level and root of the complete subtrees that the rows form in the log's tree, from left to right.
        times: sealing times in microseconds since 1970, each with the first index that has it.
        note: the note of the last row; empty at the end of a chunk.
    """

    subtrees: Sequence[tuple[int, bytes]]
    last_leaf: bytes
    times: Mapping[int, int]
    note: str


@dataclass(frozen=True, slots=True)
class CheckedChunk:
    """A checked chunk, without its payloads. With a problem, it has no entries.

    Attributes:
        previous_leaf: previous leaf hash of the first entry.
        offsets: first and last offset.
    """

    origin: str
    first_index: int
    problem: Problem | None = None
    count: int = 0
    previous_leaf: bytes = b""
    offsets: tuple[int, int] = (0, 0)
    segments: Sequence[Segment] = ()


def check_chunk(task: ChunkTask, table: pa.Table, catalog: SchemaCatalog, sources: SourceKeys) -> CheckedChunk:
    """Check the rows of a chunk up to the first problem, first their evidence, then their decoded columns."""
    first = task.first_index

    def failed(index: int, check: str, message: str) -> CheckedChunk:
        return CheckedChunk(task.origin, first, Problem(task.origin, index, check, message))

    # Step 1, Format: the evidence has the types of the ledger.
    if (column := wrong_type(table, EVIDENCE_SCHEMA, NULLABLE)) is not None:
        return failed(first, "format", f"column {column} has another type than the ledger's, or nulls")
    indices = table.column("index").to_pylist()
    # Step 4, Payload: an entry marked as erased has its erasure on record, and its payload is gone.
    erased = pc.indices_nonzero(pc.is_valid(table.column("erased_at"))).to_pylist()
    for position in erased:
        if indices[position] not in task.erasures:
            message = "the payload is marked as erased, and no payload.erased is on record for it"
            return failed(indices[position], "erased", message)
    # Step 3, Order: every index is there once; offsets increase (checked with the leaves).
    if (gap := _index_problem(indices, task)) is not None:
        return failed(gap[0], "index", gap[1])
    keys, values, headers, offsets = (table.column(name).to_pylist() for name in ("key", "value", "headers", "offset"))
    append_times, sealed_at = (table.column(name).cast(pa.int64()).to_pylist() for name in ("append_time", "sealed_at"))
    leaf_hashes, stored_previous, payload_hashes = (
        _packed(table.column(name)) for name in ("leaf_hash", "previous_leaf_hash", "payload_hash")
    )
    payloads = unpack_hashes(payload_hashes)
    try:
        # Step 4, Payload: the payload hash is that of key, value and headers.
        check_payloads(keys, values, headers, payloads, frozenset(erased))
        # Step 5, Leaf: the leaf hash is that of the entry.
        evidence = (table.column("flags").to_pylist(), offsets, append_times, payloads)
        check_leaves(stored_previous[:32], *evidence, stored=leaf_hashes)
    except EntryError as error:
        return failed(first + error.position, error.check, str(error))
    # Step 6, Chain: the previous leaf hash is the leaf hash of the entry before.
    previous = stored_previous[:32] + leaf_hashes[:-32]
    if previous != stored_previous:
        position = first_difference(previous, stored_previous)
        message = "the previous leaf hash is not the leaf hash of the entry before"
        return failed(first + position, "chain", message)
    for position in erased:
        if (keys[position], values[position], headers[position] or NO_HEADERS) != (None, None, NO_HEADERS):
            message = "the payload is marked as erased, but key, value or headers are still there"
            return failed(first + position, "erased", message)
    # Step 10, Decoded columns: decoding the payload with the schema in force gives the same columns.
    if task.decoded:
        topic = topic_of_origin(task.origin)
        rows = zip(keys, values, headers, append_times, strict=True)
        records = [SignedRecord(topic, *row) for row in rows]
        decoded = decode_entries(
            table.column("value").combine_chunks(), append_times, lambda: records,
            topic=topic, catalog=catalog, sources=sources,
        )  # fmt: skip
        if (difference := _decoded_difference(table, decoded, frozenset(erased))) is not None:
            position, column = difference
            message = f"column {column} is not what the sealed payload contains"
            return failed(first + position, "columns", message)
    segments = _segments(first, leaf_hashes, sealed_at, table.column("note"))
    ends = (offsets[0], offsets[-1])
    return CheckedChunk(task.origin, first, None, task.expected, previous[:32], ends, segments)


def _segments(first: int, leaf_hashes: bytes, sealed_at: Sequence[int], notes: pa.ChunkedArray) -> list[Segment]:
    found = []
    noted = [at + 1 for at in pc.indices_nonzero(pc.binary_length(notes)).to_pylist()]
    for start, end in pairwise([0, *noted, *([] if noted[-1:] == [len(sealed_at)] else [len(sealed_at)])]):
        leaves, times = leaf_hashes[start * 32 : end * 32], sealed_at[start:end]
        since = {time: first + start + times.index(time) for time in set(times)}
        note = notes[end - 1].as_py().decode("utf-8", "replace")
        found.append(Segment(subtrees(first + start, leaves), leaves[-32:], since, note))
    return found


def _index_problem(indices: Sequence[int], task: ChunkTask) -> tuple[int, str] | None:
    """Return the first wrong index, and the problem."""
    first = task.first_index
    if list(indices) == list(range(first, first + task.expected)):
        return None
    for position, index in enumerate(indices):
        wanted = first + position
        # A smaller index is the duplicate of the last row of the chunk before.
        if index < wanted or (position and index == indices[position - 1]):
            return index, f"entry {index} is stored more than once"
        if index != wanted:
            return wanted, f"entry {wanted} is missing; the next one stored is {index}"
    return first + len(indices), f"entry {first + len(indices)} and those after it are missing"


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


def _packed(column: pa.ChunkedArray) -> bytes:
    """Join fixed-size binary values straight from their buffers."""
    parts = []
    for array in column.chunks:
        start = array.offset * array.type.byte_width
        parts.append(array.buffers()[1][start : start + len(array) * array.type.byte_width].to_pybytes())
    return b"".join(parts)


def _decoded_difference(stored: pa.Table, decoded: pa.RecordBatch, erased: frozenset[int]) -> tuple[int, str] | None:
    """Return the first (row, column) where stored and decoded columns differ. Erased rows must decode to nothing."""
    found: tuple[int, str] | None = None
    for field in ENTRY_COLUMNS:
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
