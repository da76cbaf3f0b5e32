"""Splits a stream of text into JSON values and lines, whatever their layout, with one of them in memory at a time.

The layouts: one record per line, several per line, pretty-printed, a list, an object with a list of records, and
journald's export format. A file may mix them. Every record keeps its exact bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from .brackets import CLOSING, MARK, MARK_IN_STRING, MARK_OR_LINE, MARK_OR_LINE_IN_STRING
from .json_spans import content_of, parse
from .list_start import list_start
from .member_envelopes import list_named
from .pieces import Boundary, BrokenError, EndError, Piece

PIECE_BYTES = 64 * 1024
MIN_HEAD_BYTES = 512
"""How much of an object is searched for the start of a list of records, from this up to ``PIECE_BYTES``."""
MAX_DEPTH = 64
"""Of the brackets in an object that spans several lines."""
TOP_LEVEL_LIST = "the list"
_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\x1e"
"""White space in a line, and the separator of RFC 7464."""
_SPACE = re.compile(rb"[ \t\r\n]*")
_BETWEEN = re.compile(rb"[ \t\r,\x1e]*\n?")


class Splitter:
    """Iterates over the JSON values and lines of a stream.

    Args:
        more: returns up to the given number of further bytes; empty at the end.
        limit: longer records become problems.
        reject: receives the bytes of unreadable records, in pieces.
        is_record: returns whether a JSON object is a record or its envelope. It decides whether a list in a member of
            a common name, such as ``items``, is a list of records.
        ahead: only for a stream that grows. Like ``more``, but empty if nothing is there yet, where ``more`` waits or
            raises an error. Then no piece is yielded before the end of its line, and damage costs only a line.
        start: where the stream begins.
        as_line: the first line is no JSON, whatever it looks like.
        in_text: returns whether the next line is no JSON, because it continues the text before it.

    Attributes:
        boundary: the start of the latest piece, or of the list that contains it.
    """

    def __init__(
        self,
        more: Callable[[int], bytes],
        *,
        limit: int,
        reject: Callable[[bytes], object],
        is_record: Callable[[dict[str, Any]], bool],
        ahead: Callable[[int], bytes] | None = None,
        start: Boundary = Boundary(),  # noqa: B008 - it cannot change
        as_line: bool = False,
        in_text: Callable[[], bool] = lambda: False,
    ) -> None:
        self.boundary = start
        self._more = more
        self._ahead = ahead or more
        self._grows = ahead is not None
        self._as_line = as_line
        self._in_text = in_text
        self._limit = limit
        self._reject = reject
        self._is_record = is_record
        self._before = start.offset
        self._data = b""
        self._at = 0
        self._line = start.lines + 1
        self._head_bytes = PIECE_BYTES

    def __iter__(self) -> Iterator[Piece]:
        """Yield the pieces. Damage to a list ends the iteration: the start of the next record is unknown."""
        if self.boundary.in_line:
            yield self._rest_of_line(f"longer than {self._limit} bytes")
        while self._mark() and (self._at < len(self._data) or self._fill()):
            try:
                if (in_text := self._in_text()) or self._as_line:
                    yield self._whole_line(unchanged=in_text)
                    self._as_line = False
                else:
                    yield from self._next()
            except BrokenError as error:
                if not self._grows:
                    yield self._damage(str(error))
                    return
                yield self._rest_of_line(f"{error}; the rest of the line was not read")

    def _mark(self, *, in_line: bool = False) -> bool:
        self.boundary = Boundary(self._before + self._at, self._line - 1, in_line)
        return True

    def _next(self) -> Iterator[Piece]:
        end = self._line_end()
        if self._data.startswith(_BOM, self._at):  # also of a file that was joined to another
            self._at += len(_BOM)
        line = self._data[self._at : end if end >= 0 else len(self._data)]
        text = line.strip(_BLANK)
        if text[:1] == b"{":
            if end >= 0 and len(text) <= self._limit and (values := parse(text)) is not None:
                yield Piece(self._line, text, values)
                self._end_line(end)
            else:
                self._at += line.index(b"{")
                yield from self._object()
        elif text[:1] == b"[" and self._is_list(self._at + line.index(b"[")):
            self._go(self._at + line.index(b"[") + 1)
            yield from self._list(TOP_LEVEL_LIST)
            self._await_line_end()
            self._between()
        elif line.startswith(b"__CURSOR="):
            yield from self._journal_entry()
        else:
            yield self._whole_line()

    def _line_end(self) -> int:
        """Return the position of the end of this line; -1 if the line is longer than a record."""
        scan = self._at
        while (end := self._data.find(b"\n", scan)) < 0:
            if len(self._data) - self._at > self._limit + PIECE_BYTES:
                return -1
            scan = len(self._data) - self._at
            if not self._fill():
                return len(self._data)
        return end

    def _await_line_end(self) -> None:
        if self._grows:
            self._line_end()

    def _whole_line(self, *, unchanged: bool = False) -> Piece:
        """Return the line as it is. ``unchanged``: with all its white space."""
        end, number = self._line_end(), self._line
        if end >= 0:
            line = self._data[self._at : end]
            self._end_line(end)
            text = line.strip(_BLANK)
            if len(text) <= self._limit:
                # White space at the end of a line belongs to it, if the next line continues it.
                stripped = text[:1] in (b"", b"{", b"[") and not unchanged
                return Piece(number, text if stripped else line.removesuffix(b"\r"))
            self._reject(line + b"\n")
            return Piece(number, None, problem=f"longer than {self._limit} bytes")
        return self._rest_of_line(f"longer than {self._limit} bytes")

    def _rest_of_line(self, problem: str) -> Piece:
        """Go to the next line."""
        while (end := self._data.find(b"\n", self._at)) < 0:
            self._reject(self._data[self._at :])
            self._at = len(self._data)
            self._mark(in_line=True)
            if not self._fill():
                end = self._at
                break
        self._reject(self._data[self._at : end] + b"\n")
        number = self._line
        self._end_line(end)
        return Piece(number, None, problem=problem)

    def _end_line(self, end: int) -> None:
        self._at = end
        if end < len(self._data):
            self._at += 1
            self._line += 1

    def _object(self) -> Iterator[Piece]:
        """Read an object that is not alone on its line: a list of records, several objects, or a longer one."""
        while len(self._data) - self._at < self._head_bytes and self._fill(wait=False):
            pass
        # In Latin-1 every byte is one character, so positions in the text are positions in the data.
        found = list_start(self._data[self._at : self._at + self._head_bytes].decode("latin-1"), self._is_record)
        number = self._line
        if found is not None:
            name, start = found
            self._go(self._at + start)
            yield from self._list(name)
            self._rest_of_object(name)
            self._await_line_end()
            self._between()
            return
        try:
            raw = self._skip(b"", by_line=True)
        except (EndError, BrokenError):
            # Many damaged lines must not cost a long head each.
            self._head_bytes = max(MIN_HEAD_BYTES, self._head_bytes // 4)
            yield self._whole_line()
            return
        self._await_line_end()
        self._head_bytes = min(PIECE_BYTES, self._head_bytes * 2)
        yield Piece(number, raw, problem="" if raw is not None else f"longer than {self._limit} bytes")
        self._between()

    def _is_list(self, at: int) -> bool:
        """Return whether the list that starts here may be one of records."""
        self._go(at)
        while True:
            found = _SPACE.match(self._data, self._at + 1)
            end = found.end() if found else self._at + 1
            if end + 1 < len(self._data) or not self._fill():
                return self._data[end : end + 1] in (b"{", b"]") or self._data[end : end + 2] == b'"{'

    def _list(self, name: str) -> Iterator[Piece]:
        envelope = list_named(name)
        try:
            first = True
            while (mark := self._next_byte()) != b"]":
                if not first:
                    if mark != b",":
                        raise BrokenError("not JSON: expected a comma or ]")
                    self._at += 1
                    mark = self._next_byte()
                if mark not in (b"{", b'"'):
                    raise BrokenError("not JSON: expected a record")
                first = False
                number, raw = self._line, self._skip(b"")
                if raw is not None and mark == b'"':
                    raw = content_of(raw) or raw
                problem = "" if raw is not None else f"longer than {self._limit} bytes"
                yield Piece(number, raw, None, problem, listed=True, kind=envelope.kind if envelope else "")
            self._at += 1
        except EndError:
            raise BrokenError(f"the file ends inside {name}") from None

    def _rest_of_object(self, name: str) -> None:
        """Skip the members after the list."""
        while len(self._data) - self._at < PIECE_BYTES and self._fill(wait=False):
            pass
        if re.compile(rb'\s*,\s*"' + re.escape(name.encode()) + rb'"\s*:').match(self._data, self._at):
            raise BrokenError(f"has two members of the same name: {name!r}")
        try:
            self._skip(b"{", wanted=False)
        except EndError:
            raise BrokenError(f"the file ends inside {name}") from None

    def _damage(self, problem: str) -> Piece:
        number = self._line
        self._reject(self._data[self._at :])
        while piece := self._more(PIECE_BYTES):
            self._reject(piece)
        self._reject(b"\n")
        self._data, self._at = b"", 0
        return Piece(number, None, problem=f"{problem}; the rest of the file was not read", listed=True)

    def _journal_entry(self) -> Iterator[Piece]:
        """Read an entry of journald's export format: ``NAME=text`` lines, or a name, a length and any bytes."""
        number, message, too_long = self._line, b"", False
        while (end := self._line_end()) != self._at or end < 0:
            name, is_text, value = self._data[self._at : end if end >= 0 else None].partition(b"=")
            if end < 0:
                too_long |= name == b"MESSAGE"
                self._whole_line()
                continue
            self._end_line(end)
            if not is_text:
                length = int.from_bytes(self._take(8), "little")
                too_long |= name == b"MESSAGE" and length > self._limit
                value = self._take(length, keep=length <= self._limit)
                self._take(1)
            if name == b"MESSAGE":
                message = value
        while (self._at < len(self._data) or self._fill(wait=False)) and self._line_end() == self._at:
            self._end_line(self._at)
        yield Piece(number, None if too_long else message.strip(), problem="longer than the limit" if too_long else "")

    def _take(self, count: int, *, keep: bool = True) -> bytes:
        """Return the next bytes, or read over them."""
        taken = b""
        while count and (self._at < len(self._data) or self._fill()):
            piece = self._data[self._at : self._at + count]
            self._go(self._at + len(piece))
            count -= len(piece)
            taken += piece if keep else b""
        return taken

    def _skip(self, opened: bytes, *, wanted: bool = True, by_line: bool = False) -> bytes | None:
        """Go to the end of a value, starting inside the brackets that are ``opened``.

        Return its bytes, or None if there are too many or they are not ``wanted``. With ``by_line``, the value is not
        part of a list, and a line that cannot be followed by the next one ends it.

        Raises:
            EndError: the file ends first.
            BrokenError: the value is broken; the position is still its start.
        """
        in_string = not opened and self._data.startswith(b'"', self._at)
        scan, whole = self._at + in_string, wanted
        stack = [opened] if opened else []
        marks = (MARK_OR_LINE, MARK_OR_LINE_IN_STRING) if by_line else (MARK, MARK_IN_STRING)
        while True:
            found = marks[in_string].match(self._data, scan)
            if found is None:
                scan = max(scan, len(self._data))
                if not whole or len(self._data) - self._at > self._limit:
                    whole = False
                    self._drop(wanted)
                scan -= self._at
                if not self._fill():
                    if not whole and by_line:
                        return None
                    raise EndError
                continue
            mark, scan = found[1], found.end()
            if mark == b"\\":
                # Skip the escaped byte, which may be the first byte of the next piece.
                scan += 1
            elif mark == b'"':
                in_string = not in_string
                if not in_string and not stack:
                    break
            elif mark == b"\n":
                scan = self._look_ahead(scan)
                if in_string or not self._continues(scan, stack[-1]):
                    if whole:
                        raise BrokenError
                    self._reject(self._data[self._at : scan])
                    self._go(scan)
                    return None
            elif mark in CLOSING:
                stack.append(mark)
                if by_line and len(stack) > MAX_DEPTH and whole:
                    raise BrokenError
            else:
                if by_line and whole and CLOSING[stack[-1]] != mark:
                    raise BrokenError
                stack.pop()
                if not stack:
                    break
        raw = self._data[self._at : scan]
        self._go(scan)
        if whole and len(raw) <= self._limit:
            return raw
        if wanted:
            self._reject(raw + b"\n")
        return None

    def _look_ahead(self, at: int) -> int:
        """Read on until something follows the white space at a position; return the position, which may move."""
        while (found := _SPACE.match(self._data, at)) and found.end() == len(self._data):
            at -= self._at
            if not self._fill():
                return at + self._at
        return at

    def _continues(self, at: int, bracket: bytes) -> bool:
        """Return whether the line that starts at ``at`` can continue the JSON value of the line before it."""
        before = self._data[max(self._at, at - 1024) : at].rstrip()[-1:]
        found = _SPACE.match(self._data, at)
        after = self._data[found.end() : found.end() + 1] if found else b""
        if not after:
            return False
        if before in (b"{", b"[", b","):
            members = bracket == b"{"
            return after == b'"' or (after in b"}" if members and before == b"{" else not members)
        return after in b",]}:" or before == b":"

    def _drop(self, wanted: bool) -> None:
        """Discard the scanned part of a value."""
        if wanted:
            self._reject(self._data[self._at :])
        self._go(len(self._data))

    def _between(self) -> None:
        """Go to the next value on this line, or to the next line."""
        while (
            (found := _BETWEEN.match(self._data, self._at))
            and found.end() == len(self._data)
            and self._fill(wait=False)
        ):
            pass
        self._go(found.end() if found else self._at)

    def _next_byte(self) -> bytes:
        while True:
            found = _SPACE.match(self._data, self._at)
            self._go(found.end() if found else self._at)
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            if not self._fill():
                raise EndError

    def _go(self, at: int) -> None:
        self._line += self._data.count(b"\n", self._at, at)
        self._at = at

    def _fill(self, *, wait: bool = True) -> bool:
        piece = (self._more if wait else self._ahead)(PIECE_BYTES)
        if piece:
            self._before += self._at
            self._data, self._at = self._data[self._at :] + piece, 0
        return bool(piece)
