"""Convert a sealed batch to rows of ``entries``, column by column, without a loop over entries."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..ledger.batch import BatchError, SealedBatch
from ..ledger.decoded_entries import ENTRY_COLUMNS, decode_entries
from ..ledger.entry import partition_of_origin, topic_of_origin
from ..ledger.packing import NULL
from ..ledger.source_keys import SourceKeys, signed_records
from ..schemas.arrow import DECODED, MICROS
from ..schemas.catalog import SchemaCatalog
from ..schemas.evidence import EVIDENCE_SCHEMA, HASH, MILLIS

_OPTIONAL = frozenset(column.name for column in DECODED) - {"event_type", "subject_id"} | {"erased_at"}
"""Columns that an insert need not have: nothing reads them after it, and no value is the column's default."""


def entries_table(batch: SealedBatch, catalog: SchemaCatalog, sources: SourceKeys) -> pa.Table:
    """Return the rows of a batch with at least one entry: evidence, decoded columns, and the note on the last row.

    Raises:
        BatchError: the columns of the batch do not fit together.
    """
    evidence = evidence_columns(batch)
    values = evidence[EVIDENCE_SCHEMA.get_field_index("value")]
    topic = topic_of_origin(batch.origin)
    decoded = decode_entries(
        values,
        np.frombuffer(batch.append_times, dtype=">i8"),
        cache(lambda: signed_records(topic, batch.records())),
        topic=topic,
        partition=partition_of_origin(batch.origin),
        catalog=catalog,
        sources=sources,
    )
    return pa.table(evidence + decoded.columns, names=EVIDENCE_SCHEMA.names + ENTRY_COLUMNS.names)


def evidence_columns(batch: SealedBatch) -> list[pa.Array]:
    """Return the evidence columns of a batch, in the order of ``EVIDENCE_SCHEMA``."""
    count = batch.count
    leaves = batch.leaf_hashes
    notes = pa.array([""] * (count - 1) + [batch.note], pa.string())
    return [
        pa.repeat(pa.scalar(batch.origin, pa.string()), count),
        pa.array(np.arange(batch.first_index, batch.size, dtype=np.uint64)),
        pa.array(np.frombuffer(batch.offsets, dtype=">u8").astype(np.uint64)),
        pa.array(np.frombuffer(batch.append_times, dtype=">i8").astype(np.int64)).cast(MILLIS),
        pa.array(np.frombuffer(batch.flags, dtype=np.uint8)),
        _hashes(batch.previous_leaf_hash + leaves[:-32]),
        _hashes(leaves),
        _hashes(batch.payload_hashes),
        _blobs(batch.key_lengths, batch.keys),
        _blobs(batch.value_lengths, batch.values),
        _blobs(batch.header_lengths, batch.headers),
        pa.repeat(pa.scalar(batch.sealed_at, MICROS), count),
        notes,
        pa.nulls(count, MICROS),
    ]


def _hashes(joined: bytes) -> pa.Array:
    return pa.Array.from_buffers(HASH, len(joined) // 32, [None, pa.py_buffer(joined)])


def _blobs(lengths: bytes, joined: bytes) -> pa.Array:
    """Return packed lengths and joined bytes as a binary array, without copying the bytes."""
    sizes: Any = np.frombuffer(lengths, dtype=">u4").astype(np.int64)
    null = sizes == NULL
    sizes[null] = 0
    ends = np.zeros(len(sizes) + 1, dtype=np.int32)
    np.cumsum(sizes, out=ends[1:])
    if ends[-1] != len(joined):
        raise BatchError(f"lengths add up to {ends[-1]}, there are {len(joined)} bytes")
    validity = pa.py_buffer(np.packbits(~null, bitorder="little").tobytes()) if null.any() else None
    return pa.Array.from_buffers(pa.binary(), len(sizes), [validity, pa.py_buffer(ends), pa.py_buffer(joined)])


def needed_columns(table: pa.Table) -> frozenset[str]:
    """Return the columns that an insert of these rows must have. Most columns are empty in most logs."""
    return frozenset(name for name in table.schema.names if name not in _OPTIONAL or not _is_empty(table.column(name)))


def _is_empty(column: pa.ChunkedArray) -> bool:
    """Whether every value is certainly the default of the column in ``entries``; found without a loop over rows."""
    if column.null_count == len(column):
        return True
    if column.null_count:
        return False
    if pa.types.is_binary(column.type) or pa.types.is_list(column.type):
        return all(_length(chunk) == 0 for chunk in column.chunks)
    return False  # of a number, a time or a truth value, the default may be null


def _length(chunk: pa.Array) -> int:
    """Return the joined length of the texts or lists of an array without nulls."""
    ends = np.frombuffer(chunk.buffers()[1], dtype=np.int32)
    return int(ends[chunk.offset + len(chunk)] - ends[chunk.offset]) if len(chunk) else 0


def lacks_schema(table: pa.Table) -> bool:
    """Whether a row could not be decoded because its schema is not registered."""
    return bool(pc.any(pc.starts_with(table.column("decode_error"), b"schema_unknown")).as_py())


def rejected_codes(table: pa.Table) -> list[str]:
    """Return the code of every decode error in the rows."""
    errors = table.column("decode_error")
    bad = errors.filter(pc.greater(pc.binary_length(errors), 0))
    return [error.partition(b":")[0].decode() for error in bad.to_pylist()] if len(bad) else []
