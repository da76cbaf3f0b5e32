"""Stored rows as Arrow tables: their format (step 1), erased payloads (step 4) and decoded columns (step 10)."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ..ledger.entry import NO_HEADERS
from ..schemas.arrow import DECODED_SCHEMA, ERASED, decode_values
from ..schemas.catalog import SchemaCatalog
from ..sinks.rows import EVIDENCE_SCHEMA
from .entries import CheckedChunk, Chunk, check_chunk, failed_chunk

EVIDENCE = tuple(name for name in EVIDENCE_SCHEMA.names if name != "origin")
COLUMNS = (*EVIDENCE, *DECODED_SCHEMA.names)
"""The columns of ``entries`` that a chunk needs, strings as bytes, times with their zone."""
NULLABLE = ("key", "value", "erased_at")


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """One chunk to check in any process: which rows a table of stored rows must contain."""

    origin: str
    first_index: int
    expected: int
    erasures: frozenset[int]
    """Indices of this log whose erasure is on record."""
    decoded: bool = True
    """Whether to check decoded columns: not possible if the schemas on record are not sound."""


def check_rows(task: ChunkTask, table: pa.Table, catalog: SchemaCatalog) -> CheckedChunk:
    """Check stored rows: evidence first, then every decoded column against the payload."""
    # Step 1, Format: the evidence has the types of the ledger.
    if (column := wrong_type(table, EVIDENCE_SCHEMA, NULLABLE)) is not None:
        message = f"column {column} has another type than the ledger's, or nulls"
        return failed_chunk(task.origin, task.first_index, "format", message)
    chunk = to_chunk(task, table)
    # Step 4, Payload: an entry marked as erased has its erasure on record, and its payload is gone.
    for position in sorted(chunk.erased):
        index = chunk.indices[position]
        if index not in task.erasures:
            message = "the payload is marked as erased, and no payload.erased is on record for it"
            return failed_chunk(task.origin, index, "erased", message)
    checked = check_chunk(chunk, task.expected)
    if checked.problem is not None:
        return checked
    for position in sorted(chunk.erased):
        payload = (chunk.keys[position], chunk.values[position], chunk.headers[position] or NO_HEADERS)
        if payload != (None, None, NO_HEADERS):
            message = "the payload is marked as erased, but key, value or headers are still there"
            return failed_chunk(task.origin, task.first_index + position, "erased", message)
    if not task.decoded:
        return checked
    # Step 10, Decoded columns: decoding the payload with the schema in force gives the same columns.
    decoded = decode_values(table.column("value").combine_chunks(), chunk.append_times, catalog)
    difference = first_difference(table, decoded, chunk.erased)
    if difference is None:
        return checked
    position, column = difference
    message = f"column {column} is not what the sealed payload contains"
    return failed_chunk(task.origin, task.first_index + position, "columns", message)


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


def to_chunk(task: ChunkTask, table: pa.Table) -> Chunk:
    """Convert stored rows of the right types to Python columns."""
    columns = {name: table.column(name) for name in EVIDENCE}
    notes = columns["note"]
    noted = pc.indices_nonzero(pc.binary_length(notes)).to_pylist()
    erased = pc.indices_nonzero(pc.is_valid(columns["erased_at"])).to_pylist()
    return Chunk(
        origin=task.origin,
        first_index=task.first_index,
        indices=columns["index"].to_pylist(),
        flags=columns["flags"].to_pylist(),
        offsets=columns["offset"].to_pylist(),
        append_times=columns["append_time"].cast(pa.int64()).to_pylist(),
        keys=columns["key"].to_pylist(),
        values=columns["value"].to_pylist(),
        headers=columns["headers"].to_pylist(),
        payload_hashes=_packed(columns["payload_hash"]),
        previous_leaf_hashes=_packed(columns["previous_leaf_hash"]),
        leaf_hashes=_packed(columns["leaf_hash"]),
        sealed_at=columns["sealed_at"].cast(pa.int64()).to_pylist(),
        notes=tuple((at, notes[at].as_py().decode("utf-8", "replace")) for at in noted),
        erased=frozenset(erased),
    )


def _packed(column: pa.ChunkedArray) -> bytes:
    """Join fixed-size binary values straight from their buffers."""
    parts = []
    for array in column.chunks:
        start = array.offset * array.type.byte_width
        parts.append(array.buffers()[1][start : start + len(array) * array.type.byte_width].to_pybytes())
    return b"".join(parts)


def first_difference(stored: pa.Table, decoded: pa.RecordBatch, erased: frozenset[int]) -> tuple[int, str] | None:
    """Return the first (row, column) where stored and decoded columns differ. Erased rows must decode to nothing."""
    found: tuple[int, str] | None = None
    for field in DECODED_SCHEMA:
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
