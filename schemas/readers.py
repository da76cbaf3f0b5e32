"""The readers of a writer schema: a check of each datum, pyruhvro for runs of datums, fastavro for one.

pyruhvro takes about 1 µs per datum, thirty times less than fastavro, but supports neither ``bytes`` nor ``fixed``. The
schema passed to it has ``string`` and doubles in their place, which are the same bytes on the wire (Avro 1.11
specification, "Binary Encoding").
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any

import fastavro
from fastavro.schema import parse_schema

from .columns import misfit
from .datum_check import datum_check
from .framing import CONFLUENT_LENGTH, SINGLE_OBJECT_LENGTH
from .resolved import MICROS, UnusableSchemaError, resolve


@dataclass(frozen=True, slots=True)
class Readers:
    """The readers of one schema, all with the same result. Each needs the one before to have succeeded.

    Attributes:
        valid: whether a datum is valid; the only judge of that.
        wire: the schemas for pyruhvro, as JSON, by the length of the prefix, which they read as the first two fields;
            empty where there are none.
        slow: decodes one valid datum: text as bytes, times as microseconds.
    """

    valid: Callable[[bytes], bool]
    wire: Mapping[int, str]
    slow: Callable[[bytes], dict[str, Any]]


def _never(_datum: bytes) -> bool:
    return False


def _unusable(_datum: bytes) -> dict[str, Any]:
    raise UnusableSchemaError("the registered schema is not usable")


@lru_cache(maxsize=256)
def readers_of(text: str) -> Readers:
    """Return the readers of a writer schema, given as JSON."""
    try:
        resolved = resolve(text)
        if misfit(resolved) is not None:
            return Readers(_never, {}, _unusable)
        valid = datum_check(text)
        parsed = parse_schema(named(_as_bytes(resolved)))
    except Exception:  # anything may be registered; decoding with it must fail entry by entry
        return Readers(_never, {}, _unusable)

    def slow(datum: bytes) -> dict[str, Any]:
        decoded: Any = fastavro.schemaless_reader(io.BytesIO(datum), parsed, None)
        if not isinstance(decoded, dict):
            raise UnusableSchemaError("the schema is not a record")
        return decoded

    try:
        wire = _framed(_wire_equal(resolved))
    except _NoFastReaderError:
        wire = {}
    return Readers(valid, wire, slow)


class _NoFastReaderError(ValueError):
    """The schema has a type that pyruhvro cannot read, not even by its wire form."""


def _framed(record: dict[str, Any]) -> dict[int, str]:
    """Return the schemas that read a record with its prefix: C3 01 is a long, and so is 00."""
    taken = {one["name"] for one in record["fields"]}
    names = (name for at in count() if (name := f"prefix{at}") not in taken)
    marker, schema_id = ({"name": next(names)} for _ in range(2))
    kinds = {SINGLE_OBJECT_LENGTH: "double", CONFLUENT_LENGTH: "float"}
    return {
        length: json.dumps(
            named({**record, "fields": [marker | {"type": "long"}, schema_id | {"type": kind}, *record["fields"]]})
        )
        for length, kind in kinds.items()
    }


def _as_bytes(node: Any) -> Any:
    """Return a resolved type with text as bytes, which need not be UTF-8, and times as numbers."""
    if isinstance(node, list):
        return [_as_bytes(branch) for branch in node]
    if isinstance(node, str):
        return "bytes" if node == "string" else node
    if node["type"] == "record":
        return {"type": "record", "fields": [one | {"type": _as_bytes(one["type"])} for one in node["fields"]]}
    return {name: _as_bytes(part) if name in ("items", "values") else part for name, part in node.items()}


def _wire_equal(node: Any) -> Any:
    """Return a resolved type that reads the same bytes with only the types that pyruhvro reads as docs/ledger.md says.

    It cuts an int to 32 bits, so an int is read as a long.
    """
    if isinstance(node, list):
        if len(node) != 2 or node.count("null") != 1:
            raise _NoFastReaderError("a union of more than null and one type")
        return [_wire_equal(branch) for branch in node]
    if isinstance(node, str):
        return {"bytes": "string", "int": "long"}.get(node, node)
    kind = node["type"]
    if kind == "fixed":
        words, rest = divmod(node["size"], 8)
        if rest or not words:
            raise _NoFastReaderError("fixed whose size is not a multiple of 8")
        return {"type": "record", "fields": [{"name": f"word{at}", "type": "double"} for at in range(words)]}
    if kind == "record" and node["fields"]:
        return {"type": "record", "fields": [one | {"type": _wire_equal(one["type"])} for one in node["fields"]]}
    if kind == "array":
        return {"type": "array", "items": _wire_equal(node["items"])}
    raise _NoFastReaderError(str(kind))


def named(schema: Any) -> Any:
    """Return a resolved schema as Avro: named types get new names, which do not appear on the wire, and times lose
    their logical type.
    """
    return _named(schema, count())


def _named(node: Any, serial: Iterator[int]) -> Any:
    if isinstance(node, list):
        return [_named(branch, serial) for branch in node]
    if isinstance(node, str):
        return "long" if node == MICROS else node
    found = {name: _named(part, serial) if name in ("items", "values") else part for name, part in node.items()}
    if node["type"] == "record":
        found["fields"] = [one | {"type": _named(one["type"], serial)} for one in node["fields"]]
    if node["type"] in ("record", "fixed", "enum"):
        found["name"] = f"type{next(serial)}"
    return found
