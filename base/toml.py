"""The one TOML loader: validates a file with a pydantic model and reports every error with its line and key."""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import UsageError

M = TypeVar("M", bound=BaseModel)
_POSITION = re.compile(r" \(at line (\d+), column (\d+)\)$")


class ConfigError(UsageError):
    """A configuration file is wrong. One line per problem, ``file:line: key: problem``; no value is shown."""


def load_toml(path: Path, model: type[M]) -> M:
    """Return a file as the model describes it.

    Raises:
        ConfigError: the file cannot be read, anybody may write it, it is not TOML, or keys in it are wrong.
    """
    text = _read(path)
    try:
        return model.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        found = _POSITION.search(str(error))
        place = f"{found[1]}:{found[2]}" if found else str(max(1, len(text.splitlines())))
        raise ConfigError(f"{path}:{place}: {_POSITION.sub('', str(error))}") from None
    except ValidationError as error:
        source = _Source(text, model.model_json_schema())
        problems = sorted(source.problem(one) for one in error.errors(include_input=False, include_url=False))
        raise ConfigError("\n".join(f"{path}:{line}: {problem}" for line, problem in problems)) from None


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            # These files decide what the process does and which programs it runs.
            if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
                raise ConfigError(f"{path}: anybody can write this file; run: chmod o-w {path}")
            return file.read()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 at byte {error.start}") from None


class _Source:
    """The text of a TOML file that parses, to find the line of a key.

    ``tomllib`` keeps no positions, but parses any prefix that ends with a whole statement. The line of a key is where
    the shortest prefix that contains it has its last statement.
    """

    def __init__(self, text: str, schema: Mapping[str, Any]) -> None:
        self._lines, self._schema = StringIO(text).readlines(), schema
        self._prefixes: dict[int, dict[str, Any] | None] = {}

    def problem(self, error: Mapping[str, Any]) -> tuple[int, str]:
        """Return the line and the text of one pydantic error."""
        keys = self._keys(error["loc"])
        line, where = self._line(keys), ".".join(map(str, keys))
        message = str(error["msg"]).removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = "unknown key" + self._suggestion(keys)
        elif error["type"] == "missing":
            message = "is required"
        return line, f"{where}: {message}" if where else message

    def _keys(self, location: Sequence[str | int]) -> list[str | int]:
        """Return a pydantic location as keys of the file: without the tags of unions, and without ``[key]``."""
        value: Any = self._prefix(len(self._lines))[1]
        keys: list[str | int] = []
        for part in location:
            if part == "[key]" or (isinstance(value, dict) and part not in value and part in value.values()):
                continue
            keys.append(part)
            value = _child(value, part)
        return keys

    def _prefix(self, count: int) -> tuple[int, dict[str, Any]]:
        """Return the longest prefix of whole statements within ``count`` lines: its number of lines, and its value."""
        while count:
            if count not in self._prefixes:
                try:
                    self._prefixes[count] = tomllib.loads("".join(self._lines[:count]))
                except tomllib.TOMLDecodeError:
                    self._prefixes[count] = None
            found = self._prefixes[count]
            if found is not None:
                return count, found
            count -= 1
        return 0, {}

    def _line(self, keys: Sequence[str | int]) -> int:
        """Return the line, from 1, of the statement that introduces a key, or the nearest table above it."""
        whole = self._prefix(len(self._lines))[1]
        present = list(keys)
        while present and not _contains(whole, present):
            present.pop()
        if not present:
            return 1
        low, high = 0, len(self._lines)
        while high - low > 1:
            middle = (low + high) // 2
            if _contains(self._prefix(middle)[1], present):
                high = middle
            else:
                low = middle
        return self._prefix(high - 1)[0] + 1  # several lines where the statement has several

    def _suggestion(self, keys: Sequence[str | int]) -> str:
        nodes, value = [self._schema], self._prefix(len(self._lines))[1]
        for part in keys[:-1]:
            nodes = [child for node in nodes for child in self._children(node, value, part)]
            value = _child(value, part)
        known = {name for node in nodes for one in self._variants(node, value) for name in one.get("properties", {})}
        near = difflib.get_close_matches(str(keys[-1]), sorted(known), n=1)
        return f"; did you mean {near[0]}?" if near else ""

    def _variants(self, node: Mapping[str, Any], value: Any) -> Iterator[Mapping[str, Any]]:
        """Yield the schemas that a schema may stand for. Of a discriminated union only the one that fits the value."""
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


def _child(value: Any, part: str | int) -> Any:
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):
        return None


def _contains(value: Any, keys: Sequence[str | int]) -> bool:
    for part in keys:
        if isinstance(value, dict):
            if part not in value:
                return False
        elif not (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            return False
        value = value[part]
    return True
