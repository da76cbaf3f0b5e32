"""The two readers of a writer schema: pyruhvro for runs of datums, fastavro for one.

pyruhvro takes about 1 µs per datum, thirty times less than fastavro, but supports neither ``bytes`` nor ``fixed``. The
schema passed to it has ``string`` and doubles in their place, which are the same bytes on the wire (Avro 1.11
specification, "Binary Encoding").
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any

import fastavro
import pyarrow as pa
import pyruhvro
from fastavro.schema import parse_schema


@dataclass(frozen=True, slots=True)
class Readers:
    """``fast`` decodes a run of datums to Arrow or raises ValueError; it is None where pyruhvro cannot read the schema.

    ``slow`` decodes one datum.
    """

    fast: Callable[[list[bytes]], pa.RecordBatch] | None
    slow: Callable[[bytes], Any]


def _unusable(_datum: bytes) -> Any:
    raise ValueError("the registered schema is not an Avro schema")


@lru_cache(maxsize=256)
def readers_of(text: str) -> Readers:
    """Return the readers of a writer schema, given as JSON."""
    try:
        definition = json.loads(text)
        plain = parse_schema(_without_logical_types(definition))
    except Exception:  # anything may be registered; decoding with it must fail entry by entry
        return Readers(None, _unusable)

    def slow(datum: bytes) -> Any:
        decoded = fastavro.schemaless_reader(io.BytesIO(datum), plain, None)
        if not isinstance(decoded, dict):
            raise ValueError("the schema is not a record")
        return decoded

    try:
        wire = json.dumps(_wire_equal(definition, {}, count()))
        pa.schema(pyruhvro.avro_to_arrow_schema(wire))
    except BaseException as error:  # fastavro reads the rest, only slower; a panic is not an Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return Readers(None, slow)

    def fast(datums: list[bytes]) -> pa.RecordBatch:
        decoded: pa.RecordBatch = pyruhvro.deserialize_array(datums, wire)
        return decoded

    return Readers(fast, slow)


class _NoFastReaderError(ValueError):
    """The schema has a type that pyruhvro cannot read, not even by its wire form."""


_FAST_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "string"})


def _wire_equal(schema: Any, named: dict[str, Any], serial: Iterator[int]) -> Any:
    """Return a schema that reads the same bytes with only the types that pyruhvro has.

    A reference to a named type is replaced by the type itself. Names do not appear on the wire, so each record gets a
    new one: pyruhvro rejects a name that is defined twice.
    """
    if isinstance(schema, list):
        return [_wire_equal(branch, named, serial) for branch in schema]
    if isinstance(schema, str):
        if schema == "bytes":
            return "string"
        if schema in _FAST_PRIMITIVES:
            return schema
        if schema in named:
            return _wire_equal(named[schema], named, serial)
        raise _NoFastReaderError(schema)
    kind = schema["type"]
    if kind == "fixed":
        words, rest = divmod(schema["size"], 8)
        if rest:
            raise _NoFastReaderError("fixed whose size is not a multiple of 8")
        named[schema["name"]] = schema
        return _record([{"name": f"word{number}", "type": "double"} for number in range(words)], serial)
    if kind == "record":
        if not schema["fields"]:
            raise _NoFastReaderError("a record without fields")
        fields = [{"name": f["name"], "type": _wire_equal(f["type"], named, serial)} for f in schema["fields"]]
        named[schema["name"]] = schema  # only now: a record inside itself cannot be inlined
        return _record(fields, serial)
    if kind == "array":
        return {"type": "array", "items": _wire_equal(schema["items"], named, serial)}
    if kind in ("long", "int"):
        return kind  # the column's own type restores the logical type
    if isinstance(kind, str) and kind in ("string", "bytes", "boolean", "float", "double"):
        return _wire_equal(kind, named, serial)
    raise _NoFastReaderError(str(kind))


def _record(fields: list[dict[str, Any]], serial: Iterator[int]) -> dict[str, Any]:
    return {"type": "record", "name": f"record{next(serial)}", "fields": fields}


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_logical_types(item) for item in schema]
    if isinstance(schema, dict):
        return {name: _without_logical_types(item) for name, item in schema.items() if name != "logicalType"}
    return schema
