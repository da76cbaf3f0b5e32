"""A writer schema with every name replaced by its type: the form from which all readers of its datums are made.

docs/ledger.md, "Valid datums", defines which schemas are usable. Anybody who may register a schema can register any
JSON, so the limits here bound what one schema can cost: a datum of an unusable schema is invalid.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from fastavro.schema import parse_schema

LARGEST = 2_000
"""Types in a schema, with every name replaced by its type."""
DEEPEST = 24
"""Types inside one another: the record itself is at 0."""
MICROS = "timestamp-micros"
"""Stands in a resolved schema for a long with this logical type; other logical types are dropped."""
_PRIMITIVES = {"null": 0, "boolean": 1, "int": 1, "long": 1, "float": 4, "double": 8, "string": 1, "bytes": 1}
"""Types without parts, and the least number of bytes that each takes."""


class UnusableSchemaError(ValueError):
    """No datum of the schema can be decoded."""


@lru_cache(maxsize=256)
def resolve(text: str) -> dict[str, Any]:
    """Return a schema, given as JSON, without names: strings, lists (unions) and objects with ``type``.

    Raises:
        UnusableSchemaError: it is not an Avro schema, not a record, or beyond the limits.
    """
    try:
        resolved = _Resolver().resolve(parse_schema(_stripped(json.loads(text))), 0)
    except Exception as error:  # anything may be registered, and fastavro raises errors of many kinds
        raise UnusableSchemaError(f"{type(error).__name__}: {error}"[:200]) from error
    if not isinstance(resolved, dict) or resolved["type"] != "record":
        raise UnusableSchemaError("the schema is not a record")
    return resolved


def least_bytes(node: Any) -> int:
    """Return the least number of bytes that a value of a resolved type takes."""
    if isinstance(node, list) or node == MICROS:
        return 1
    if isinstance(node, str):
        return _PRIMITIVES[node]
    if node["type"] == "record":
        return sum(least_bytes(field["type"]) for field in node["fields"])
    return int(node["size"]) if node["type"] == "fixed" else 1


def non_null(node: Any) -> Any:
    """Return T of the unions [null, T] and [T, null]; other types unchanged."""
    if isinstance(node, list) and len(node) == 2 and "null" in node:
        return node[1] if node[0] == "null" else node[0]
    return node


class _Resolver:
    def __init__(self) -> None:
        self._named: dict[str, Any] = {}
        self._open: set[str] = set()
        self._types = 0

    def resolve(self, node: Any, depth: int) -> Any:
        if isinstance(node, list):
            self._count(depth)
            return [self.resolve(branch, depth + 1) for branch in node]
        if isinstance(node, str):
            return self.resolve({"type": node}, depth) if node in _PRIMITIVES else self._reference(node, depth)
        kind = node["type"]
        if isinstance(kind, dict | list):
            return self.resolve(kind, depth)
        if kind in _PRIMITIVES:
            self._count(depth)
            return MICROS if (kind, node.get("logicalType")) == ("long", MICROS) else kind
        if kind in ("record", "fixed", "enum"):
            self._named[node["name"]] = node
            return self._named_type(node["name"], node, depth)
        if kind in ("array", "map"):
            self._count(depth)
            part = "items" if kind == "array" else "values"
            items = self.resolve(node[part], depth + 1)
            if kind == "array" and not least_bytes(items):
                raise UnusableSchemaError("the items of an array take no bytes, so that a few bytes make any number")
            return {"type": kind, part: items}
        return self._reference(kind, depth)

    def _count(self, depth: int) -> None:
        self._types += 1
        if self._types > LARGEST or depth > DEEPEST:
            raise UnusableSchemaError("the schema has too many types, or types too deep inside one another")

    def _reference(self, name: str, depth: int) -> Any:
        if name in self._open:
            raise UnusableSchemaError(f"{name} contains itself")
        return self._named_type(name, self._named[name], depth)

    def _named_type(self, name: str, node: Mapping[str, Any], depth: int) -> Any:
        self._count(depth)
        if node["type"] == "fixed":
            if type(node["size"]) is not int or not 0 <= node["size"] <= 1 << 20:
                raise UnusableSchemaError("the size of a fixed")
            return {"type": "fixed", "size": node["size"]}
        if node["type"] == "enum":
            return {"type": "enum", "symbols": list(node["symbols"])}
        self._open.add(name)
        fields = [{"name": one["name"], "type": self.resolve(one["type"], depth + 1)} for one in node["fields"]]
        self._open.remove(name)
        return {"type": "record", "fields": fields}


def _stripped(node: Any) -> Any:
    """Return a schema without what does not change its datums: defaults, texts and most logical types."""
    if isinstance(node, list):
        return [_stripped(one) for one in node]
    if not isinstance(node, dict):
        return node
    dropped = {"default", "doc", "order", "aliases"}
    if (node.get("type"), node.get("logicalType")) != ("long", MICROS):
        dropped |= {"logicalType"}
    return {key: _stripped(one) for key, one in node.items() if key not in dropped}
