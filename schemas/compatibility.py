"""Whether a changed Avro schema still fits those released before: both directions, every released version.

Avro's own rules ("Schema Resolution", Avro 1.11 specification) say when a reader with one schema understands what was
written with another. This is stricter in five points, because our readers decode with the writer's schema and find
fields by name: no field is ever taken away (a renamed optional field would be one gone and one new), aliases do not
count, names are compared with their namespace, a logical type must stay as it is, and ``bytes`` must not become
``string``, which not every value survives. No library does this: fastavro finds out only
while reading a datum, and the checker of Apache's ``avro`` package does not look at logical types or defaults and names
fields by their position.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

_PROMOTIONS = frozenset(
    {
        ("int", "long"), ("int", "float"), ("int", "double"), ("long", "float"), ("long", "double"),
        ("float", "double"), ("string", "bytes"),
    }
)  # fmt: skip
"""(written, read): what a reader may widen."""
_LOGICAL = ("logicalType", "precision", "scale")
_PYTHON_TYPES: dict[str, Any] = {
    "null": (type(None),), "boolean": (bool,), "int": (int,), "long": (int,), "float": (int, float),
    "double": (int, float), "string": (str,), "bytes": (str,), "fixed": (str,), "enum": (str,), "array": (list,),
    "map": (dict,), "record": (dict,), "error": (dict,),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Incompatibility:
    """One reason why two schemas do not fit. ``field``: dotted path from the outermost record, ``[]`` for items."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class IncompatibleSchemaError(ValueError):
    """A schema does not fit the released ones; ``problems`` names the fields."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def released(name: str) -> dict[int, dict[str, Any]]:
    """Return the released versions of one of the project's own schemas, by number."""
    found = {}
    for item in (files(__package__) / "released").iterdir():
        stem, _, version = item.name.removesuffix(".avsc").rpartition(".")
        if item.name.endswith(".avsc") and stem == name:
            found[int(version)] = json.loads(item.read_text("utf-8"))
    return dict(sorted(found.items()))


def check_compatible(new: Any, old: Mapping[int, Any]) -> None:
    """Check that a schema reads everything written with any old one, and is read by the readers of each.

    Args:
        new: the schema as parsed JSON.
        old: the released schemas by version.

    Raises:
        IncompatibleSchemaError: it does not; names version, direction, field and reason.
    """
    problems = [f"{problem}" for problem in bad_defaults(new)]
    for version, schema in old.items():
        backward = _Comparison(_names(new), _names(schema), keep=True).compare(new, schema, "", "", _root_name(new))
        problems += [f"{p} (reading version {version} with the new schema)" for p in backward]
        problems += [f"{p} (reading the new schema with version {version})" for p in incompatibilities(schema, new)]
    if problems:
        raise IncompatibleSchemaError(problems)


def incompatibilities(reader: Any, writer: Any) -> list[Incompatibility]:
    """Return why a reader with one schema does not understand all that is written with another; empty where it does."""
    return _Comparison(_names(reader), _names(writer)).compare(reader, writer, "", "", _root_name(reader))


def bad_defaults(schema: Any) -> list[Incompatibility]:
    """Return the fields whose default is no value of their type; of a union's first branch, where it is one."""
    names = _names(schema)
    problems: list[Incompatibility] = []

    def walk(node: Any, namespace: str, path: str) -> None:
        if isinstance(node, list):
            for branch in node:
                walk(branch, namespace, path)
        elif isinstance(node, dict):
            if node["type"] in ("record", "error"):
                inner = _fullname(node, namespace).rpartition(".")[0]
                for field in node["fields"]:
                    where = _join(path, field["name"])
                    if "default" in field and not _fits(field["default"], field["type"], inner, names):
                        problems.append(Incompatibility(where, "its default is no value of its (first) type"))
                    walk(field["type"], inner, where)
            elif node["type"] in ("array", "map"):
                walk(node.get("items", node.get("values")), namespace, path + "[]")
            elif not isinstance(node["type"], str):
                walk(node["type"], namespace, path)

    walk(schema, "", _root_name(schema))
    return problems


def _fits(value: Any, schema: Any, namespace: str, names: dict[str, Any]) -> bool:
    if isinstance(schema, list):
        return bool(schema) and _fits(value, schema[0], namespace, names)
    node, namespace = _resolve(schema, namespace, names)
    kind = node["type"]
    if not isinstance(kind, str):
        return _fits(value, kind, namespace, names)
    if not isinstance(value, _PYTHON_TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return False
    if kind == "array":
        return all(_fits(item, node["items"], namespace, names) for item in value)
    if kind == "record":
        fields = {field["name"]: field for field in node["fields"]}
        inner = _fullname(node, namespace).rpartition(".")[0]
        return all(
            _fits(value[name], field["type"], inner, names) if name in value else "default" in field
            for name, field in fields.items()
        )
    return kind != "enum" or value in node["symbols"]


class _Comparison:
    """One walk over a reader's and a writer's schema."""

    def __init__(self, reader_names: dict[str, Any], writer_names: dict[str, Any], *, keep: bool = False) -> None:
        self._reader_names, self._writer_names, self._keep = reader_names, writer_names, keep
        self._under_way: set[tuple[str, str]] = set()

    def compare(
        self, reader: Any, writer: Any, reader_space: str, writer_space: str, path: str
    ) -> list[Incompatibility]:
        if isinstance(writer, list):
            found = []
            for branch in writer:
                found += self.compare(reader, branch, reader_space, writer_space, path)
            return found
        if isinstance(reader, list):
            tries = [self.compare(branch, writer, reader_space, writer_space, path) for branch in reader]
            if any(not problems for problems in tries):
                return []
            kind = self._kind(writer, writer_space, self._writer_names)
            kinds = [self._kind(branch, reader_space, self._reader_names) for branch in reader]
            if kinds.count(kind) == 1:  # the branch that was meant says best what is wrong
                return tries[kinds.index(kind)]
            return [Incompatibility(path, f"{kind} is written, the reader has only {', '.join(kinds)}")]
        return self._one(reader, writer, reader_space, writer_space, path)

    @staticmethod
    def _kind(schema: Any, namespace: str, names: dict[str, Any]) -> str:
        node, _ = _resolve(schema, namespace, names)
        return str(node["type"])

    def _one(self, reader: Any, writer: Any, reader_space: str, writer_space: str, path: str) -> list[Incompatibility]:
        read, reader_space = _resolve(reader, reader_space, self._reader_names)
        written, writer_space = _resolve(writer, writer_space, self._writer_names)
        for key in _LOGICAL:
            if read.get(key) != written.get(key):
                return [Incompatibility(path, f"{key} {written.get(key)} is written, {read.get(key)} is read")]
        kinds = written["type"], read["type"]
        if kinds[0] != kinds[1]:
            if kinds in _PROMOTIONS:
                return []
            return [Incompatibility(path, f"{kinds[0]} is written, {kinds[1]} is read")]
        if kinds[0] == "array":
            return self.compare(read["items"], written["items"], reader_space, writer_space, path + "[]")
        if kinds[0] == "map":
            return self.compare(read["values"], written["values"], reader_space, writer_space, path + "[]")
        if "name" not in read:
            return []
        names = _fullname(read, reader_space), _fullname(written, writer_space)
        if names[0] != names[1]:
            return [Incompatibility(path, f"the type is written as {names[1]} and read as {names[0]}")]
        if kinds[0] == "fixed" and read["size"] != written["size"]:
            return [Incompatibility(path, f"{written['size']} bytes are written, {read['size']} are read")]
        if kinds[0] == "enum":
            unknown = [symbol for symbol in written["symbols"] if symbol not in read["symbols"]]
            if unknown and "default" not in read:
                return [Incompatibility(path, f"the reader does not know {', '.join(unknown)} and has no default")]
        if kinds[0] in ("record", "error") and names not in self._under_way:
            self._under_way.add(names)
            try:
                return self._fields(read, written, names[0].rpartition(".")[0], names[1].rpartition(".")[0], path)
            finally:
                self._under_way.discard(names)
        return []

    def _fields(
        self, read: dict[str, Any], written: dict[str, Any], reader_space: str, writer_space: str, path: str
    ) -> list[Incompatibility]:
        there = {field["name"]: field for field in written["fields"]}
        found = []
        if self._keep:
            kept = {field["name"] for field in read["fields"]}
            found += [Incompatibility(_join(path, name), "is gone") for name in there if name not in kept]
        for field in read["fields"]:
            where = _join(path, field["name"])
            if field["name"] in there:
                other = there[field["name"]]["type"]
                found += self.compare(field["type"], other, reader_space, writer_space, where)
            elif "default" not in field:
                found.append(Incompatibility(where, "is not written, and the reader has no default for it"))
        return found


def _root_name(schema: Any) -> str:
    return str(schema.get("name", "")) if isinstance(schema, dict) else ""


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _fullname(node: dict[str, Any], namespace: str) -> str:
    name = str(node["name"])
    if "." in name:
        return name
    space = node.get("namespace", namespace)
    return f"{space}.{name}" if space else name


def _resolve(schema: Any, namespace: str, names: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return a type as an object, whose ``type`` is a word, and the namespace in which its own names are to be read."""
    if isinstance(schema, str):
        for name in (schema if "." in schema or not namespace else f"{namespace}.{schema}", schema):
            if name in names:
                return names[name], name.rpartition(".")[0]
        return {"type": schema}, namespace
    if isinstance(schema["type"], str):
        kind = schema["type"]
        known = kind if kind in names else f"{namespace}.{kind}"
        if known in names:  # {"type": "Hash"}: a reference with attributes of its own
            return names[known], known.rpartition(".")[0]
        return schema, namespace
    return _resolve(schema["type"], namespace, names)


def _names(schema: Any) -> dict[str, Any]:
    """Return every named type in a schema by its full name."""
    found: dict[str, Any] = {}

    def walk(node: Any, namespace: str) -> None:
        if isinstance(node, list):
            for branch in node:
                walk(branch, namespace)
        elif isinstance(node, dict):
            if node["type"] in ("record", "error", "enum", "fixed"):
                name = _fullname(node, namespace)
                found[name] = node
                for field in node.get("fields", ()):
                    walk(field["type"], name.rpartition(".")[0])
            elif node["type"] in ("array", "map"):
                walk(node.get("items", node.get("values")), namespace)
            elif not isinstance(node["type"], str):
                walk(node["type"], namespace)

    walk(schema, "")
    return found
