"""A check that a changed Avro schema fits the released ones, in both directions.

Our readers decode with the writer's schema and find fields by name. A schema therefore fits if it has every released
field with exactly the released type, and if each new field has a default. This is stricter than Avro's schema
resolution (Avro 1.11 specification): no promotions, no aliases, no removed fields, no changed logical types.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastavro import validate
from fastavro.schema import parse_schema

Fields = dict[str, tuple[Any, dict[str, Any]]]


def incompatibilities(new: Any, released: Mapping[int, Any]) -> list[str]:
    """Return the reasons why a schema does not fit the released versions; each begins with the path of a field."""
    current = _fields(new)
    problems = [
        f"{path}: the default is not a value of the (first) type"
        for path, (_, field) in current.items()
        if "default" in field and not _fits(field["default"], field["type"])
    ]
    for version, schema in released.items():
        old = _fields(schema)
        problems += [f"{path}: removed since version {version}" for path in old if path not in current]
        problems += [
            f"{path}: the type differs from version {version}: {current[path][0]} instead of {kind}"
            for path, (kind, _) in old.items()
            if path in current and current[path][0] != kind
        ]
        problems += [
            f"{path}: missing in version {version} and without a default"
            for path, (_, field) in current.items()
            if path not in old and path.rpartition(".")[0] in old and "default" not in field
        ]
    return problems


def _fields(schema: Any) -> Fields:
    """Return the type and the definition of every field by its path; the outermost record is a field as well."""
    expanded: Any = parse_schema(schema, expand=True, _write_hint=False, _ignore_default_error=True)
    return dict(_walk(str(expanded["name"]).rpartition(".")[2], {"type": expanded}))


def _walk(path: str, field: dict[str, Any]) -> Iterator[tuple[str, tuple[Any, dict[str, Any]]]]:
    yield path, (_signature(field["type"]), field)
    for branch in field["type"] if isinstance(field["type"], list) else [field["type"]]:
        if isinstance(branch, dict):
            if "items" in branch:
                yield from _walk(f"{path}[]", {"type": branch["items"]})
            for inner in branch.get("fields", ()):
                yield from _walk(f"{path}.{inner['name']}", inner)


def _signature(schema: Any) -> Any:
    """Return a type without its documentation, and without the fields and items that have paths of their own."""
    if isinstance(schema, list):
        return [_signature(branch) for branch in schema]
    if isinstance(schema, str):
        return schema
    kept = {key: schema[key] for key in ("type", "name", "size", "symbols", "logicalType") if key in schema}
    return kept["type"] if len(kept) == 1 else kept


def _fits(default: Any, kind: Any) -> bool:
    return bool(validate(default, kind[0] if isinstance(kind, list) else kind, raise_errors=False))
