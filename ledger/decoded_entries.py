"""Entries as decoded columns: the event's fields, why a record is not a valid event, and its signature's status."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..schemas.arrow import DECODED_SCHEMA, decode_values, has_value
from ..schemas.catalog import SchemaCatalog
from ..schemas.column_rules import forbidden
from ..schemas.event import LIFECYCLE_TOPIC
from ..schemas.placement import shard_of
from .source_keys import SignedRecord, SourceKeys

ENTRY_COLUMNS = DECODED_SCHEMA.append(pa.field("signature", pa.binary()))
"""The columns of ``entries`` that follow from the records, in order."""
INVALID = "event_invalid"
"""The code of ``decode_error`` of a record that decodes but breaks a rule of the events. Its columns are filled."""
BELIEVED = (b"valid", b"unregistered")


def decode_entries(
    values: pa.BinaryArray,
    append_times_ms: Sequence[int] | npt.NDArray[np.int64],
    records: Callable[[], Sequence[SignedRecord]],
    *,
    topic: str,
    partition: int = 0,
    catalog: SchemaCatalog,
    sources: SourceKeys,
) -> pa.RecordBatch:
    """Return the columns of ``ENTRY_COLUMNS``, one row for each value.

    Args:
        records: returns the whole records; called only if one of them may have to be signed.
        topic: the input topic without a prefix.
        partition: the input partition.
        sources: with every registration appended up to ``NOTICE_MS`` before the newest record.
    """
    decoded = decode_values(values, append_times_ms, catalog)
    errors = decoded.column("decode_error")
    is_decoded = pc.equal(pc.binary_length(errors), 0)
    rows = np.flatnonzero(is_decoded.to_numpy(zero_copy_only=False))
    whole = len(rows) == len(decoded)
    events = decoded if whole else decoded.filter(is_decoded)
    broken = forbidden(events, topic)
    if topic == LIFECYCLE_TOPIC and (partition or sources.lifecycle_shards > 1):
        broken = _misplaced(events, partition, sources.lifecycle_shards) | broken
    if broken:
        texts = errors.to_pylist()
        for at, field in broken.items():
            texts[int(rows[at])] = f"{INVALID}: {field}".encode()
        place = decoded.schema.get_field_index("decode_error")
        decoded = decoded.set_column(place, decoded.schema.field(place), pa.array(texts, pa.binary()))
    return decoded.append_column("signature", _signatures(decoded, is_decoded, topic, records, sources))


def believed_rows(entries: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Return whether each row is a valid event, and signed if it must be."""
    signed = pc.is_in(entries.column("signature"), pa.array(BELIEVED, pa.binary()))
    believed: npt.NDArray[np.bool_] = pc.and_(
        signed, pc.equal(pc.binary_length(entries.column("decode_error")), 0)
    ).to_numpy(zero_copy_only=False)
    return believed


def filled_columns(entries: pa.RecordBatch) -> frozenset[str]:
    """Return the columns that have a value in some row: neither null nor what stands for a missing value."""
    return frozenset(name for name in entries.schema.names if has_value(entries.column(name), name))


def _misplaced(events: pa.RecordBatch, partition: int, shards: int) -> dict[int, str]:
    """Return the rows whose tenant belongs in another partition, each with the field and that partition."""
    tenants = events.column("tenant").dictionary_encode()
    shard_by_tenant = np.array([shard_of(one, shards) for one in tenants.dictionary.to_pylist()], np.int64)
    belongs = shard_by_tenant[tenants.indices.to_numpy(zero_copy_only=False)]
    rows = np.flatnonzero(belongs != partition).tolist()
    return {row: f"tenant (belongs in partition {belongs[row]})" for row in rows}


def _signatures(
    table: pa.RecordBatch,
    is_decoded: pa.BooleanArray,
    topic: str,
    records: Callable[[], Sequence[SignedRecord]],
    sources: SourceKeys,
) -> pa.Array:
    """Return the status of each row; empty for a record that cannot be decoded and so names no source.

    Only records of sources that must sign cost a verification.
    """
    found = pc.if_else(is_decoded, pa.scalar(b"unregistered", pa.binary()), pa.scalar(b"", pa.binary()))
    if not sources.complete or not len(table):
        return found
    systems, instances = (table.column(name).dictionary_encode() for name in ("source_system", "source_instance"))
    known_systems, known_instances = systems.dictionary.to_pylist(), instances.dictionary.to_pylist()
    pairs = systems.indices.to_numpy(zero_copy_only=False).astype(np.int64) * len(known_instances)
    pairs += instances.indices.to_numpy(zero_copy_only=False)
    decoded, statuses, tenants = is_decoded.to_numpy(zero_copy_only=False), None, table.column("tenant")
    for pair in np.unique(pairs).tolist():
        system, instance = known_systems[pair // len(known_instances)], known_instances[pair % len(known_instances)]
        if not sources.concerns(topic, system, instance):
            continue
        signed = records()
        statuses = statuses or found.to_pylist()
        for row in np.flatnonzero((pairs == pair) & decoded).tolist():
            statuses[row] = sources.status(signed[row], system, instance, tenants[row].as_py()).encode()
    return found if statuses is None else pa.array(statuses, pa.binary())
