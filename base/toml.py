"""The TOML loader: validates a file with a pydantic model and reports every error with its line and key."""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import UsageError

M = TypeVar("M", bound=BaseModel)
_Keys = tuple[str | int, ...]
_LIST_ERRORS = frozenset({"tuple_type", "list_type", "set_type", "frozen_set_type"})
_TABLE_ERRORS = frozenset({"dict_type", "mapping_type", "model_type", "model_attributes_type", "dataclass_type"})
_POSITION = re.compile(r" \(at line (\d+), column (\d+)\)$")


class ConfigError(UsageError):
    """A configuration file is wrong. One line per problem: ``file:line: key: problem``, without values."""


def load_toml(path: Path, model: type[M]) -> M:
    """Read a file and validate it.

    Raises:
        ConfigError: the file is unreadable, writable by everyone, not TOML, or has invalid keys.
    """
    text = _read(path)
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _POSITION.search(str(error))
        place = f"{found[1]}:{found[2]}" if found else str(max(1, len(text.splitlines())))
        raise ConfigError(f"{path}:{place}: {_POSITION.sub('', str(error))}") from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        source = _Source(text, value, model.model_json_schema())
        errors = error.errors(include_input=False, include_url=False)
        problems = sorted(source.problem(one) for one in errors if not source.is_consequence(one))
        raise ConfigError("\n".join(f"{path}:{line}: {problem}" for line, problem in problems)) from None


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            # These files configure what the process does and which programs it runs.
            if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
                raise ConfigError(f"{path}: anybody can write this file; run: chmod o-w {path}")
            return file.read()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 at byte {error.start}") from None


def _path(keys: Sequence[str | int]) -> str:
    """Return keys as a text. Items count from 1: ``rule 2.when`` is in the second rule."""
    return "".join(f" {key + 1}" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


class _Source:
    """The text of a valid TOML file with its value and its schema, to find the line of a key and similar keys."""

    def __init__(self, text: str, value: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
        self._lines, self._value, self._schema = _lines_of_keys(text), value, schema

    def problem(self, error: Mapping[str, Any]) -> tuple[int, str]:
        """Return the line and the text of one pydantic error."""
        keys = self._keys(error["loc"])
        # A key without a line of its own is in an inline table, or missing in a table.
        line = next((self._lines[keys[:end]] for end in range(len(keys), 0, -1) if keys[:end] in self._lines), 1)
        where = _path(keys)
        message = str(error["msg"]).removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = "unknown key" + self._suggestion(keys)
        elif error["type"] == "missing":
            message = "is required"
        elif error["type"] == "union_tag_invalid":
            tags = [one.strip(" '") for one in error["ctx"]["expected_tags"].split(",")]
            name = error["ctx"]["discriminator"].strip("'")
            where = f"{where}.{name}"
            line = self._lines.get((*keys, name), line)
            message = f"is not one of {', '.join(tags)}{_similar(error['ctx']['tag'], tags)}"
        elif error["type"] == "union_tag_not_found":
            name = error["ctx"]["discriminator"].strip("'")
            table = _child_at(self._value, keys)
            near = difflib.get_close_matches(name, table, n=1) if isinstance(table, dict) else []
            where, line = _path((*keys, *(near or [name]))), self._lines.get((*keys, *near), line)
            message = f"unknown key; did you mean {name}? It is required" if near else "is required"
            tags = [tag for node in self._nodes(keys) for tag in node.get("discriminator", {}).get("mapping", ())]
            message += f": one of {', '.join(tags)}"
        elif error["type"] in _LIST_ERRORS:
            message = f"must be a list{self._items(keys)}"
        elif error["type"] in _TABLE_ERRORS:
            message = "must be a table"
        elif error["type"] == "too_short":
            least = error["ctx"]["min_length"]
            message = "must not be empty" if least == 1 else f"must have at least {least} items"
        return line, f"{where}: {message}" if where else message

    def is_consequence(self, error: Mapping[str, Any]) -> bool:
        """Whether an error follows from others: pydantic does not count the items that have errors of their own."""
        if error["type"] != "too_short":
            return False
        value = _child_at(self._value, self._keys(error["loc"]))
        return isinstance(value, list) and len(value) >= error["ctx"]["min_length"]

    def _items(self, keys: _Keys) -> str:
        """Return what a list contains, if it is one kind: texts or tables."""
        items = [node["items"] for node in self._nodes(keys) if isinstance(node.get("items"), dict)]
        types = {one.get("type") for item in items for one in self._variants(item, None)}
        return {"string": " of texts", "object": " of tables"}.get(str(types.pop()), "") if len(types) == 1 else ""

    def _keys(self, location: Sequence[str | int]) -> _Keys:
        """Return a pydantic location as keys of the file: without the tags of unions, and without ``[key]``."""
        value: Any = self._value
        keys: _Keys = ()
        for part in location:
            if part == "[key]" or (isinstance(value, dict) and part not in value and part in value.values()):
                continue
            keys += (part,)
            value = _child(value, part)
        return keys

    def _suggestion(self, keys: Sequence[str | int]) -> str:
        known = {name for node in self._nodes(keys[:-1]) for name in node.get("properties", {})}
        return _similar(str(keys[-1]), sorted(known))

    def _nodes(self, keys: Sequence[str | int]) -> list[Mapping[str, Any]]:
        """Return the schemas of the value of a key, variants included."""
        nodes: list[Mapping[str, Any]] = [self._schema]
        value: Any = self._value
        for part in keys:
            nodes = [child for node in nodes for child in self._children(node, value, part)]
            value = _child(value, part)
        return [variant for node in nodes for variant in self._variants(node, value)]

    def _variants(self, node: Mapping[str, Any], value: Any) -> Iterator[Mapping[str, Any]]:
        """Yield the variants of a schema. Of a discriminated union, only the one that fits the value."""
        if "$ref" in node:
            yield from self._variants(self._schema["$defs"][node["$ref"].rpartition("/")[2]], value)
            return
        union = node.get("discriminator")
        if union and isinstance(value, dict) and (chosen := union["mapping"].get(value.get(union["propertyName"]))):
            yield from self._variants({"$ref": chosen}, value)
            return
        yield node
        for one in (*node.get("anyOf", ()), *node.get("oneOf", ())):
            yield from self._variants(one, value)

    def _children(self, node: Mapping[str, Any], value: Any, part: str | int) -> Iterator[Mapping[str, Any]]:
        for one in self._variants(node, value):
            child = one.get("items") if isinstance(part, int) else one.get("properties", {}).get(part)
            child = child or (one.get("additionalProperties") if isinstance(part, str) else None)
            if isinstance(child, dict):
                yield child


def _lines_of_keys(text: str) -> dict[_Keys, int]:
    """Return the line, from 1, of the statement that introduces each key or table.

    ``tomllib`` keeps no positions, but it parses every single statement.
    """
    lines: dict[_Keys, int] = {}
    sizes: Counter[_Keys] = Counter()  # of arrays of tables
    table: _Keys = ()
    statement, begin = "", 1
    for number, line in enumerate(text.split("\n"), start=1):
        statement += line + "\n"
        try:
            parsed: Any = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue  # it continues on the next line
        header = statement.lstrip().startswith("[")
        keys = () if header else table
        while isinstance(parsed, dict) and len(parsed) == 1:
            [(key, parsed)] = parsed.items()
            keys += (key,)
            lines.setdefault(keys, begin)
            if header and parsed == [{}]:
                sizes[keys] += 1
            if header and keys in sizes:
                keys += (sizes[keys] - 1,)
                lines.setdefault(keys, begin)
        table = keys if header else table
        statement, begin = "", number + 1
    return lines


def _child(value: Any, part: str | int) -> Any:
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):
        return None


def _child_at(value: Any, keys: Sequence[str | int]) -> Any:
    for part in keys:
        value = _child(value, part)
    return value


def _similar(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
