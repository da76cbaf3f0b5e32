"""The verifier's Arrow side: stored rows to chunks, and decoded columns against the payload they claim to come from."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ..ledger.entry import NO_HEADERS, payload_hash
from ..schemas.arrow import DECODED_SCHEMA, decode_values
from ..schemas.catalog import SchemaCatalog
from .logs import CheckedChunk, Chunk, Problem, check_chunk, failed_chunk

EVIDENCE = (
    "index", "offset", "append_time", "flags", "previous_leaf_hash", "leaf_hash", "payload_hash", "key", "value",
    "headers", "sealed_at", "note", "erased_at",
)  # fmt: skip
COLUMNS = (*EVIDENCE, *DECODED_SCHEMA.names)
"""The columns of ``entries`` that a chunk needs, strings as bytes, times with their zone."""
ERASED = "erased: the payload was erased by law"
"""``decode_error`` of an entry whose payload was erased: key, value and headers are gone, decoded columns are empty."""


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """One chunk to check in any process: stored rows as an Arrow table, and what they must be."""

    origin: str
    first_index: int
    expected: int
    erasures: frozenset[int]
    """Indices of this origin whose erasure is on record."""
    decoded: bool = True
    """Whether decoded columns are checked too; without sound schemas on record nothing can be said about them."""


def check_rows(task: ChunkTask, table: pa.Table, catalog: SchemaCatalog) -> CheckedChunk:
    """Check stored rows: evidence first, then every decoded column against the payload, read with sealed schemas."""
    chunk = to_chunk(task, table)
    for position in sorted(chunk.erased):
        index = chunk.indices[position]
        if index not in task.erasures:
            message = "the payload is marked as erased, and no payload.erased is on record for it"
            return _failed(task, index, "erased", message)
    checked = check_chunk(chunk, task.expected)
    if checked.problem is not None:
        return checked
    for position in sorted(chunk.erased):
        if not _whole_or_gone(chunk, position):
            message = "the payload of an erased entry is neither gone nor what was sealed"
            return _failed(task, task.first_index + position, "erased", message)
    if not task.decoded:
        return checked
    values = table.column("value").combine_chunks()
    decoded = decode_values(values, chunk.append_times, catalog)
    difference = first_difference(table, decoded, chunk.erased)
    if difference is None:
        return checked
    position, column = difference
    message = f"column {column} is not what the sealed payload says"
    return _failed(task, task.first_index + position, "columns", message)


def _whole_or_gone(chunk: Chunk, position: int) -> bool:
    key, value, headers = chunk.keys[position], chunk.values[position], chunk.headers[position]
    if key is None and value is None and headers in (b"", NO_HEADERS):
        return True
    return payload_hash(key, value, headers) == chunk.payload_hashes[32 * position : 32 * position + 32]


def _failed(task: ChunkTask, index: int, check: str, message: str) -> CheckedChunk:
    return failed_chunk(Problem(task.origin, index, check, message))


def to_chunk(task: ChunkTask, table: pa.Table) -> Chunk:
    """Turn stored rows into what the verifier takes."""
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
    """Return fixed-size binary values joined, out of their buffers."""
    parts = []
    for array in column.chunks:
        start = array.offset * array.type.byte_width
        parts.append(array.buffers()[1][start : start + len(array) * array.type.byte_width].to_pybytes())
    return b"".join(parts)


def first_difference(stored: pa.Table, decoded: pa.RecordBatch, erased: frozenset[int]) -> tuple[int, str] | None:
    """Return the first (row, column) in which stored and decoded columns differ; of erased rows nothing is left."""
    found: tuple[int, str] | None = None
    for field in DECODED_SCHEMA:
        left = stored.column(field.name)
        right = pa.chunked_array([decoded.column(field.name)])
        if left.type != field.type:
            left = left.cast(field.type)
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
