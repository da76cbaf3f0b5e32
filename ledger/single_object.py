"""Avro records of the ledger's own topics in single-object encoding (docs/ledger.md, "Sealed batch" and "Anchors")."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from typing import Any

import fastavro
from fastavro.schema import parse_schema

from ..schemas.catalog import load
from ..schemas.framing import prefix_of, single_object_prefix


@cache
def _schema(name: str) -> tuple[bytes, Any]:
    definition = load(name)
    return bytes(single_object_prefix(definition)), parse_schema(definition)


def encode(name: str, datum: Mapping[str, Any]) -> bytes:
    """Encode a datum with one of the ledger's schemas."""
    prefix, schema = _schema(name)
    out = io.BytesIO(prefix)
    out.seek(0, io.SEEK_END)
    fastavro.schemaless_writer(out, schema, datum)
    return out.getvalue()


def decode(name: str, value: bytes) -> dict[str, Any]:
    """Decode the value of a Kafka record.

    Raises:
        ValueError: it is not exactly one datum of this schema, or a number in it is negative.
    """
    prefix, schema = _schema(name)
    label = name.replace("_", " ")
    try:
        if (found := prefix_of(value)) != prefix:
            raise ValueError(f"schema id {found.hex()}, expected {prefix.hex()}")
        rest = io.BytesIO(value[len(prefix) :])
        datum: Any = fastavro.schemaless_reader(rest, schema, None)
        if extra := len(rest.read()):
            raise ValueError(f"{extra} bytes follow the datum")
        for key, number in datum.items():
            if isinstance(number, int) and number < 0:
                raise ValueError(f"its {key} is {number}")
    except (EOFError, IndexError, ValueError, OverflowError) as error:
        raise ValueError(f"not a {label}: {error}") from error
    result: dict[str, Any] = datum
    return result
