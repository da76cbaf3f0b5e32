"""What a stream of text is split into."""

from __future__ import annotations

from typing import Any, NamedTuple


class Piece(NamedTuple):
    """A JSON value or a line. ``raw`` is None and ``problem`` set if the file or the length is at fault."""

    line: int
    raw: bytes | None
    values: dict[str, Any] | None = None
    problem: str = ""
    listed: bool = False
    kind: str = ""
    """Of the list that contains the record, if it is in a member of an object."""


class Boundary(NamedTuple):
    """A place between two pieces: how many bytes and lines lie before it.

    ``in_line``: it is inside a line whose rest is not read, because it is too long or damaged.
    """

    offset: int = 0
    lines: int = 0
    in_line: bool = False


class EndError(Exception):
    """The file ends inside a value."""


class BrokenError(Exception):
    """The file is damaged here."""
