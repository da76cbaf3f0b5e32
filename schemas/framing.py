"""Framing: the bytes before a datum that identify its writer schema.

Readers accept two framings: Avro single-object encoding (Avro 1.11 specification, "Single-object encoding": ``C3 01``,
the 8-byte little-endian CRC-64-AVRO of the writer schema, the datum) and the Confluent wire format (``00``, a
big-endian u32 schema id, the datum). The bytes before the datum are the *prefix*.
"""

from __future__ import annotations

import json
import struct
from typing import Any, NewType

from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

Prefix = NewType("Prefix", bytes)

SINGLE_OBJECT_MARKER = b"\xc3\x01"
SINGLE_OBJECT_LENGTH = 10
CONFLUENT_MARKER = b"\x00"
CONFLUENT_LENGTH = 5


class FramingError(ValueError):
    """The value begins with neither framing; ``code`` is a short stable name of the problem."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def single_object_prefix(schema: dict[str, Any]) -> Prefix:
    """Return the 10 bytes before every datum written with this Avro schema."""
    crc = fingerprint(to_parsing_canonical_form(parse_schema(schema, _write_hint=False)), "CRC-64-AVRO")
    # fastavro prints the fingerprint in little-endian byte order, which is the order on the wire.
    return Prefix(SINGLE_OBJECT_MARKER + bytes.fromhex(crc))


def confluent_prefix(schema_id: int) -> Prefix:
    """Return the 5 bytes before every datum of a schema with this registry id."""
    return Prefix(CONFLUENT_MARKER + struct.pack(">I", schema_id))


def prefix_of(value: bytes) -> Prefix:
    """Return the prefix of a framed value.

    Raises:
        FramingError: the value is empty, too short for its marker, or starts with no known marker.
    """
    if value[:2] == SINGLE_OBJECT_MARKER:
        if len(value) < SINGLE_OBJECT_LENGTH:
            raise FramingError("framing_truncated", f"single-object header needs 10 bytes, value has {len(value)}")
        return Prefix(value[:SINGLE_OBJECT_LENGTH])
    if value[:1] == CONFLUENT_MARKER:
        if len(value) < CONFLUENT_LENGTH:
            raise FramingError("framing_truncated", f"Confluent header needs 5 bytes, value has {len(value)}")
        return Prefix(value[:CONFLUENT_LENGTH])
    if not value:
        raise FramingError("framing_empty", "value is empty")
    raise FramingError("framing_unknown", f"value starts with {value[:2].hex()}, neither c301 nor 00")


def compact_json(schema: Any) -> str:
    """Return the schema as compact JSON, members in their own order: the text that is registered and hashed."""
    return json.dumps(schema, separators=(",", ":"), ensure_ascii=False)
