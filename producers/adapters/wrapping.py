"""Cutting the records out of a file that holds them in a list, as it streams by: ``{"Records": [{…}, {…}]}``.

Such a file is often one line of many megabytes. It is never held as a whole, and every record keeps its own bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

PIECE_BYTES = 64 * 1024
_HEAD_BYTES = 4096
"""No head is longer: what stands before the first record, with any white space."""
_SPACE = re.compile(rb"[ \t\r\n]*")
_MARK = re.compile(rb'(?:[^"{}\[\]]++|"[^"\\]*+")*+(["{}\[\]])')
"""The next bracket. Plain texts are passed over in one go; a quotation mark begins one that is not plain."""
_MARK_IN_TEXT = re.compile(rb'[^"\\]*+(["\\])')


@dataclass(frozen=True, slots=True)
class Cut:
    """One record of the list, or what is wrong where one was looked for.

    ``line`` is where it begins, ``number`` which record of the file it is, both counted from 1. ``raw`` is None where
    there is a ``problem``.
    """

    line: int
    number: int
    raw: bytes | None
    problem: str | None = None


def begins_wrapped(head: bytes, member: str) -> bool | None:
    """Whether a file that begins with these bytes holds its records in a list; None where they are too few to tell."""
    if _head(member).match(head):
        return True
    stripped = b"".join(head.split())
    wanted = b'{"' + member.encode() + b'":['
    return None if len(head) < _HEAD_BYTES and wanted.startswith(stripped) else False


def _head(member: str) -> re.Pattern[bytes]:
    return re.compile(rb'\s*\{\s*"' + re.escape(member.encode()) + rb'"\s*:\s*\[')


class _EndError(Exception):
    """The file ends where more must come."""


class _BrokenError(Exception):
    """Something else stands where the list or a record must go on."""


class Cutter:
    """Cuts one file into its records. Several such objects may follow one another, as in files that were joined.

    Args:
        head: what has been read of the file.
        more: returns up to so many further bytes; empty at the end.
        member: the name of the list.
        limit: longer records are passed over with a problem.
        reject: takes the bytes of what cannot be read, in pieces.
    """

    def __init__(
        self,
        head: bytes,
        more: Callable[[int], bytes],
        member: str,
        limit: int,
        reject: Callable[[bytes], object],
    ) -> None:
        self._data = head
        self._at = 0
        self._more = more
        self._member = member
        self._head = _head(member)
        self._limit = limit
        self._reject = reject
        self._line = 1
        self._number = 0

    def __iter__(self) -> Iterator[Cut]:
        """Return the records. After damage there are no more: nobody can tell where the next one begins."""
        try:
            while self._space():
                self._open()
                yield from self._list()
        except _EndError:
            yield self._damage(f"the file ends within {self._member}")
        except _BrokenError as error:
            yield self._damage(str(error))

    def _damage(self, problem: str) -> Cut:
        cut = Cut(self._line, self._number + 1, None, f"{problem}; the rest of the file was not read")
        self._reject(self._data[self._at :])
        while piece := self._more(PIECE_BYTES):
            self._reject(piece)
        self._reject(b"\n")
        return cut

    def _open(self) -> None:
        while len(self._data) - self._at < _HEAD_BYTES and self._fill():
            pass
        found = self._head.match(self._data, self._at)
        if found is None:
            raise _BrokenError(f'not JSON: {{"{self._member}": [ must stand here')
        self._go(found.end())

    def _list(self) -> Iterator[Cut]:
        first = True
        while True:
            mark = self._next()
            if mark == b"]":
                self._go(self._at + 1)
                break
            if not first:
                if mark != b",":
                    raise _BrokenError("not JSON: a comma or ] must stand here")
                self._go(self._at + 1)
                mark = self._next()
            if mark != b"{":
                raise _BrokenError("not JSON: a record must stand here")
            first = False
            yield self._record()
        # Whatever else the object holds behind its list is no record.
        self._skip(1, wanted=False)

    def _record(self) -> Cut:
        line = self._line
        raw = self._skip(0)
        self._number += 1
        problem = None if raw is not None else f"longer than {self._limit} bytes"
        return Cut(line, self._number, raw, problem)

    def _skip(self, depth: int, *, wanted: bool = True) -> bytes | None:
        """Go to the end of a value, from ``depth`` brackets within; return its bytes, None where they are too many.

        The bytes of one that is not ``wanted`` are let go.
        """
        scan, text, whole = self._at, False, wanted
        while True:
            found = (_MARK_IN_TEXT if text else _MARK).match(self._data, scan)
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
                # Whatever it escapes is no mark, also where that is the first byte of the next piece.
                scan += 1
            elif mark == b'"':
                text = not text
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
        """Let go what has been scanned of a value."""
        if wanted:
            self._reject(self._data[self._at :])
        self._go(len(self._data))

    def _next(self) -> bytes:
        if not self._space():
            raise _EndError
        return self._data[self._at : self._at + 1]

    def _space(self) -> bool:
        """Pass over white space; return whether anything comes behind it."""
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
