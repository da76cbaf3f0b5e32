"""The members and elements of a JSON text with their exact text, so that an unwrapped record keeps its bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..json_fields import DECODER, Location, RecordError, parse_object

_SPACE = re.compile(r"[ \t\r\n]*")
_NOWHERE = Location("", 0)


def parse(raw: bytes) -> dict[str, Any] | None:
    """Return a JSON object, or None if the bytes are not exactly one valid JSON object."""
    if raw[:1] != b"{" or raw[-1:] != b"}":
        return None
    try:
        return parse_object(raw, _NOWHERE).values
    except RecordError:
        return None


def parse_list(raw: bytes) -> list[tuple[Any, bytes]] | None:
    """Return the elements of a JSON list, each with its text; None if the bytes are not exactly one valid list."""
    if raw[:1] != b"[" or raw[-1:] != b"]":
        return None
    try:
        text = raw.decode()
        found = [(value, start, end) for value, start, end in elements(text)]
        _, end = _value(text, 0)
    except ValueError:
        return None
    return [(value, text[start:end].encode()) for value, start, end in found] if end == len(text) else None


def content_of(string: bytes) -> bytes | None:
    """Return the content of a JSON string, or None if the bytes are not exactly one valid string."""
    try:
        content = DECODER.decode(string.decode())
        return content.encode().strip() if isinstance(content, str) else None
    except (ValueError, RecursionError):
        return None


def members(text: str, at: int = 0) -> Iterator[tuple[str, Any, int, int]]:
    """Yield name, value, start and end of each member of the JSON object that starts at ``at``.

    Raises:
        ValueError: the text ends or is not JSON here. The members before were yielded.
    """
    at = _skip(text, at, "{")
    while text[at : at + 1] != "}":
        if text[at : at + 1] != '"':
            raise ValueError("expected a member")
        name, at = DECODER.raw_decode(text, at)
        start = _skip(text, skip_space(text, at), ":")
        value, at = _value(text, start)
        yield name, value, start, at
        at = _separator(text, at, "}")


def elements(text: str, at: int = 0) -> Iterator[tuple[Any, int, int]]:
    """Yield value, start and end of each element of the JSON list that starts at ``at``; raise as :func:`members`."""
    at = _skip(text, at, "[")
    while text[at : at + 1] != "]":
        start = at
        value, at = _value(text, start)
        yield value, start, at
        at = _separator(text, at, "]")


def member_text(text: str, path: tuple[str, ...]) -> str:
    """Return the exact text of the value at a path of members that is present in the JSON object."""
    for name in path:
        text = next(text[start:end] for found, _, start, end in members(text, skip_space(text, 0)) if found == name)
    return text


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        return DECODER.raw_decode(text, at)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _separator(text: str, at: int, end: str) -> int:
    at = skip_space(text, at)
    return at if text[at : at + 1] == end else _skip(text, at, ",")


def _skip(text: str, at: int, character: str) -> int:
    """Return the position of the next token after a character that must be here."""
    if text[at : at + 1] != character:
        raise ValueError(f"expected {character}")
    return skip_space(text, at + 1)


def skip_space(text: str, at: int) -> int:
    """Return the position of the next character that is no JSON white space."""
    found = _SPACE.match(text, at)
    return found.end() if found else at
