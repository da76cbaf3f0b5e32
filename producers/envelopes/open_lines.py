"""Joins the lines of a record that is text, such as a statement in csvlog."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from .split_lines import END_MISSING


class TextLines(Protocol):
    """Knows which lines belong together; every adapter does."""

    def begins(self, line: bytes) -> bool:
        """Return whether a line is the beginning of a record whose end may be on a later line."""

    def goes_on(self, line: bytes, begun: bool) -> bool:
        """Return whether the record of a line goes on in the next one. ``begun``: the line continues one itself."""


class OpenLines:
    """The lines of a record whose end is missing.

    Args:
        limit: the maximum length of a record in bytes.
    """

    def __init__(self, lines: TextLines | None, limit: int) -> None:
        self._lines = lines
        self._limit = limit
        self._begun: list[bytes] = []
        self._length = 0

    @property
    def waiting(self) -> bool:
        """Whether the end of a record is missing."""
        return bool(self._begun)

    def takes(self, line: bytes) -> bool:
        """Return whether a line is one of several of a record."""
        return self._lines is not None and (self.waiting or self._lines.goes_on(line, False))

    def add(self, line: bytes) -> Iterator[tuple[bytes, str]]:
        """Yield the records that end with a line that it takes, each with its problem or an empty string."""
        if self._lines is None:
            return
        if self.waiting and self._lines.begins(line):
            yield from self.unfinished()
        goes_on = self._lines.goes_on(line, self.waiting)
        self._begun.append(line)
        self._length += len(line) + 1
        if self._length > self._limit:
            yield self._take(), f"longer than {self._limit} bytes"
        elif not goes_on:
            yield self._take(), ""

    def unfinished(self) -> Iterator[tuple[bytes, str]]:
        """Yield the record whose end is missing, if there is one, and forget it."""
        if self.waiting:
            yield self._take(), END_MISSING

    def _take(self) -> bytes:
        record = b"\n".join(self._begun)
        self._begun, self._length = [], 0
        return record
