"""A streaming splitter for files that are one JSON list of records: ``{"Records": [{…}, {…}]}``.

Such a file is often a single line of many megabytes. It is never loaded completely, and every record keeps its original
bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .json_fields import Location

PIECE_BYTES = 64 * 1024
_HEAD_BYTES = 4096
"""The maximum length of the text before the first record, including white space."""
_SPACE = re.compile(rb"[ \t\r\n]*")
_MARK = re.compile(rb'(?:[^"{}\[\]]++|"[^"\\]*+")*+(["{}\[\]])')
"""The next bracket. Strings without escapes are skipped at once; a quotation mark starts any other string."""
_MARK_IN_STRING = re.compile(rb'[^"\\]*+(["\\])')


class RawRecord(NamedTuple):
    """One record of a file. ``raw`` is None and ``problem`` set if the file or the record's length is at fault."""

    location: Location
    raw: bytes | None
    problem: str = ""


def is_record_list(head: bytes, member: str) -> bool | None:
    """Return whether a file that starts with these bytes is a list of records; None if more bytes are needed."""
    if _head(member).match(head):
        return True
    stripped = b"".join(head.split())
    wanted = b'{"' + member.encode() + b'":['
    return None if len(head) < _HEAD_BYTES and wanted.startswith(stripped) else False


def _head(member: str) -> re.Pattern[bytes]:
    return re.compile(rb'\s*\{\s*"' + re.escape(member.encode()) + rb'"\s*:\s*\[')


class _EndError(Exception):
    """The file ends inside the list."""


class _BrokenError(Exception):
    """The file is damaged here."""


class RecordList:
    """Iterates over the records of one file. The file may contain several such objects in a row, as joined files do.

    Args:
        file: the name of the file.
        head: the bytes of the file that were already read.
        more: returns up to the given number of further bytes; empty at the end of the file.
        member: the name of the list.
        limit: longer records become problems.
        reject: receives the bytes of unreadable records, in pieces.
    """

    def __init__(
        self,
        file: str,
        head: bytes,
        more: Callable[[int], bytes],
        *,
        member: str,
        limit: int,
        reject: Callable[[bytes], object],
    ) -> None:
        self._file = file
        self._data = head
        self._at = 0
        self._more = more
        self._member = member
        self._head = _head(member)
        self._again = re.compile(rb'\s*,\s*"' + re.escape(member.encode()) + rb'"\s*:')
        self._limit = limit
        self._reject = reject
        self._line = 1
        self._number = 0

    def __iter__(self) -> Iterator[RawRecord]:
        """Yield the records. Damage to the list ends the iteration: the start of the next record is unknown."""
        try:
            while self._space():
                self._open()
                yield from self._list()
        except _EndError:
            yield self._damage(f"the file ends inside {self._member}")
        except _BrokenError as error:
            yield self._damage(str(error))

    def _damage(self, problem: str) -> RawRecord:
        location = Location(self._file, self._line, self._number + 1)
        self._reject(self._data[self._at :])
        while piece := self._more(PIECE_BYTES):
            self._reject(piece)
        self._reject(b"\n")
        return RawRecord(location, None, f"{problem}; the rest of the file was not read")

    def _open(self) -> None:
        while len(self._data) - self._at < _HEAD_BYTES and self._fill():
            pass
        found = self._head.match(self._data, self._at)
        if found is None:
            raise _BrokenError(f'not JSON: expected {{"{self._member}": [')
        self._go(found.end())

    def _list(self) -> Iterator[RawRecord]:
        first = True
        while True:
            mark = self._next()
            if mark == b"]":
                self._go(self._at + 1)
                break
            if not first:
                if mark != b",":
                    raise _BrokenError("not JSON: expected a comma or ]")
                self._go(self._at + 1)
                mark = self._next()
            if mark != b"{":
                raise _BrokenError("not JSON: expected a record")
            first = False
            yield self._record()
        while len(self._data) - self._at < _HEAD_BYTES and self._fill():
            pass
        if self._again.match(self._data, self._at):
            raise _BrokenError(f"has two members of the same name: {self._member!r}")
        # Other members after the list are not records.
        self._skip(1, wanted=False)

    def _record(self) -> RawRecord:
        location = Location(self._file, self._line, self._number + 1)
        raw = self._skip(0)
        self._number += 1
        return RawRecord(location, raw, "" if raw is not None else f"longer than {self._limit} bytes")

    def _skip(self, depth: int, *, wanted: bool = True) -> bytes | None:
        """Go to the end of a value, starting ``depth`` brackets inside it.

        Return its bytes, or None if there are too many or they are not ``wanted``.
        """
        scan, in_string, whole = self._at, False, wanted
        while True:
            found = (_MARK_IN_STRING if in_string else _MARK).match(self._data, scan)
            if found is None:
                scan = max(scan, len(self._data))
                if not whole or len(self._data) - self._at > self._limit:
                    whole = False
                    self._drop(wanted)
                scan -= self._at
                if not self._fill():
                    raise _EndError
                continue
            mark, scan = found[1], found.end()
            if mark == b"\\":
                # Skip the escaped byte, which may be the first byte of the next piece.
                scan += 1
            elif mark == b'"':
                in_string = not in_string
            else:
                depth += 1 if mark in b"{[" else -1
                if depth == 0:
                    break
        raw = self._data[self._at : scan]
        self._go(scan)
        if whole and len(raw) <= self._limit:
            return raw
        if wanted:
            self._reject(raw + b"\n")
        return None

    def _drop(self, wanted: bool) -> None:
        """Discard the scanned part of a value."""
        if wanted:
            self._reject(self._data[self._at :])
        self._go(len(self._data))

    def _next(self) -> bytes:
        if not self._space():
            raise _EndError
        return self._data[self._at : self._at + 1]

    def _space(self) -> bool:
        """Skip white space; return whether more bytes follow."""
        while True:
            found = _SPACE.match(self._data, self._at)
            self._go(found.end() if found else self._at)
            if self._at < len(self._data):
                return True
            if not self._fill():
                return False

    def _go(self, at: int) -> None:
        self._line += self._data.count(b"\n", self._at, at)
        self._at = at

    def _fill(self) -> bool:
        piece = self._more(PIECE_BYTES)
        if piece:
            self._data, self._at = self._data[self._at :] + piece, 0
        return bool(piece)
