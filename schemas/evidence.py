"""The columns of the tables that contain evidence, as the store writes them and the verifier requires them."""

from __future__ import annotations

import pyarrow as pa

from .arrow import MICROS

MILLIS = pa.timestamp("ms", tz="UTC")
HASH = pa.binary(32)

EVIDENCE_SCHEMA = pa.schema(
    [
        ("origin", pa.string()),
        ("index", pa.uint64()),
        ("offset", pa.uint64()),
        ("append_time", MILLIS),
        ("flags", pa.uint8()),
        ("previous_leaf_hash", HASH),
        ("leaf_hash", HASH),
        ("payload_hash", HASH),
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("headers", pa.binary()),
        ("sealed_at", MICROS),
        ("note", pa.string()),
        ("erased_at", MICROS),
    ]
)
"""The columns of ``entries`` that do not come from decoding the value. :data:`.arrow.DECODED_SCHEMA` has the others."""
ORIGINS_SCHEMA = pa.schema(
    [
        ("origin", pa.string()),
        ("topic_id", pa.binary(16)),
        ("first_offset", pa.uint64()),
        ("previous_size", pa.uint64()),
        ("previous_root", HASH),
        ("genesis_hash", HASH),
    ]
)
ANCHORS_SCHEMA = pa.schema(
    [
        ("origin", pa.string()),
        ("index", pa.uint64()),
        ("time", MILLIS),
        ("bodies", pa.list_(pa.string())),
        ("entry", pa.binary()),
        ("frontier", pa.binary()),
        ("note", pa.string()),
    ]
)
RECEIPTS_SCHEMA = pa.schema(
    [
        ("origin", pa.string()),
        ("index", pa.uint64()),
        ("target", pa.string()),
        ("at", MICROS),
        ("receipt", pa.binary()),
        ("error", pa.string()),
    ]
)
