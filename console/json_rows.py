"""Rows of an answer in ClickHouse's JSON, as Python values by the types of its columns. Pure.

Type names: clickhouse.com/docs, "Data types". Another one is an error, so that no value is read wrongly: this format
cannot carry the bytes of a FixedString, for example.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

FORMAT: Final = "JSONCompact"
SETTINGS: Final[Mapping[str, str]] = {
    "output_format_json_quote_64bit_integers": "0",
    "output_format_json_quote_denormals": "1",
    "output_format_json_named_tuples_as_objects": "1",
    "session_timezone": "UTC",
}
"""With these settings, ``FORMAT`` keeps every value of the types here; in text, bytes that are not UTF-8 are replaced.

The time zone is that of columns whose type names none."""

Read = Callable[[Any], Any]
_NAMED_ELEMENT: Final = re.compile(r"(`(?:[^`\\]|\\.)+`|\w+) (?=\S)")
_QUOTED: Final = re.compile(r"'((?:[^'\\]|\\.)*)'")
_AS_IT_IS: Final = frozenset({"String", "Enum8", "Enum16", "Bool", "Nothing"})


def rows(answer: bytes) -> list[dict[str, Any]]:
    """Return the rows of an answer in ``FORMAT``, by column. Times have their zone.

    Raises:
        ValueError: not JSON, or a column of another type.
    """
    found = json.loads(answer)
    columns = [(column["name"], reader(column["type"])) for column in found["meta"]]
    return [{name: read(value) for (name, read), value in zip(columns, row, strict=True)} for row in found["data"]]


def reader(type_name: str) -> Read:
    """Return what makes the Python value of a JSON value of this type. Raises ValueError."""
    name, _, rest = type_name.partition("(")
    inner = rest.removesuffix(")")
    if re.fullmatch(r"U?Int\d+", name) or name in _AS_IT_IS:
        return lambda value: value
    if name in {"Nullable", "LowCardinality"}:
        return partial(_unless_null, reader(inner))
    if name in {"DateTime", "DateTime64"}:
        zone = _QUOTED.search(inner)
        named = zone[1] if zone else "UTC"
        return partial(_time, UTC if named == "UTC" else ZoneInfo(named))
    if name in _SIMPLE:
        return _SIMPLE[name]
    if name == "Array":
        return partial(_array, reader(inner))
    if name == "Map":
        key, value = _parts(inner)
        return partial(_map, reader(key), reader(value))
    if name == "Tuple":
        return _tuple(_parts(inner))
    raise ValueError(f"an answer has a column of the type {type_name}, which cannot be read here")


_SIMPLE: Final[Mapping[str, Read]] = {
    "Float32": float, "Float64": float, "UUID": UUID, "Date": date.fromisoformat,
    "Date32": date.fromisoformat,
}  # fmt: skip


def _unless_null(read: Read, value: Any) -> Any:
    return None if value is None else read(value)


def _time(zone: Any, value: str) -> datetime:
    return datetime.fromisoformat(value).replace(tzinfo=zone)


def _array(read: Read, values: list[Any]) -> list[Any]:
    return [read(value) for value in values]


def _map(read_key: Read, read: Read, values: Mapping[str, Any]) -> dict[Any, Any]:
    return {read_key(key): read(value) for key, value in values.items()}


def _tuple(parts: list[str]) -> Read:
    named = [_NAMED_ELEMENT.match(part) for part in parts]
    if not parts or any(name is None for name in named):
        readers = [reader(part) for part in parts]
        return lambda values: tuple(read(value) for read, value in zip(readers, values, strict=True))
    by_name = {name[1].strip("`"): reader(part[name.end() :]) for name, part in zip(named, parts, strict=True) if name}
    return lambda values: {name: read(values[name]) for name, read in by_name.items()}


def _parts(inner: str) -> list[str]:
    """Split the arguments of a type at the commas between them."""
    parts, depth, quoted = [""], 0, False
    for at, letter in enumerate(inner):
        quoted ^= letter == "'" and (at == 0 or inner[at - 1] != "\\")
        if not quoted:
            depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]
