"""The two readers of a writer schema: pyruhvro for runs of datums, fastavro for one.

pyruhvro decodes at about 1 µs a datum, thirty times faster than fastavro, but has neither ``bytes`` nor ``fixed``. The
schema handed to it says ``string`` and doubles instead, which are the same bytes on the wire (Avro 1.11 specification,
"Binary Encoding").
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import fastavro
import pyarrow as pa
import pyruhvro
from fastavro.schema import parse_schema


@dataclass(frozen=True, slots=True)
class Readers:
    """``fast`` decodes a run of datums to Arrow or raises ValueError, None where it cannot; ``slow`` decodes one."""

    fast: Callable[[list[bytes]], pa.RecordBatch] | None
    slow: Callable[[bytes], Any]


def _unusable(_datum: bytes) -> Any:
    raise ValueError("the schema on record is no Avro schema")


@lru_cache(maxsize=256)
def readers_of(text: str) -> Readers:
    """Return the readers of a writer schema, given as JSON."""
    try:
        definition = json.loads(text)
        plain = parse_schema(_without_logical_types(definition))
    except Exception:  # whatever was registered, reading with it must fail entry by entry
        return Readers(None, _unusable)

    def slow(datum: bytes) -> Any:
        decoded = fastavro.schemaless_reader(io.BytesIO(datum), plain, None)
        if not isinstance(decoded, dict):
            raise ValueError("the schema is not a record")
        return decoded

    try:
        wire = json.dumps(_wire_equal(definition, {}))
        pa.schema(pyruhvro.avro_to_arrow_schema(wire))
    except BaseException as error:  # whatever it cannot take, fastavro reads, only slower; a panic is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return Readers(None, slow)

    def fast(datums: list[bytes]) -> pa.RecordBatch:
        decoded: pa.RecordBatch = pyruhvro.deserialize_array(datums, wire)
        return decoded

    return Readers(fast, slow)


class _NoFastReaderError(ValueError):
    """The schema has a type that pyruhvro cannot read even by its wire form."""


_FAST_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "string"})


def _wire_equal(schema: Any, named: dict[str, Any]) -> Any:
    """Return a schema that reads the same bytes with only the types pyruhvro has."""
    if isinstance(schema, list):
        return [_wire_equal(branch, named) for branch in schema]
    if isinstance(schema, str):
        if schema == "bytes":
            return "string"
        if schema in _FAST_PRIMITIVES:
            return schema
        if schema in named:
            return named[schema]
        raise _NoFastReaderError(schema)
    kind = schema["type"]
    if kind == "fixed":
        words, rest = divmod(schema["size"], 8)
        if rest:
            raise _NoFastReaderError("fixed whose size is no multiple of 8")
        fields = [{"name": f"word{number}", "type": "double"} for number in range(words)]
        result: Any = {"type": "record", "name": schema["name"], "fields": fields}
        named[schema["name"]] = result
        return result
    if kind == "record":
        if not schema["fields"]:
            raise _NoFastReaderError("a record without fields")
        fields = [{"name": f["name"], "type": _wire_equal(f["type"], named)} for f in schema["fields"]]
        result = {"type": "record", "name": schema["name"], "fields": fields}
        named[schema["name"]] = result
        return result
    if kind == "array":
        return {"type": "array", "items": _wire_equal(schema["items"], named)}
    if kind in ("long", "int"):
        return kind  # the logical type is put back by the column's own type
    if isinstance(kind, str) and kind in ("string", "bytes", "boolean", "float", "double"):
        return _wire_equal(kind, named)
    raise _NoFastReaderError(str(kind))


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_logical_types(item) for item in schema]
    if isinstance(schema, dict):
        return {name: _without_logical_types(item) for name, item in schema.items() if name != "logicalType"}
    return schema
