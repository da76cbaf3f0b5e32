"""The tool's own records in a stream of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..json_fields import Location
from .documents import Splitter
from .encodings import Read, decoded
from .open_lines import TextLines
from .pieces import Boundary, Piece
from .unwrap import Unwrapped, Unwrapper


@dataclass(frozen=True, slots=True)
class ToolRecord:
    """One record of a tool.

    Attributes:
        raw: its bytes as the tool wrote them, where the envelope kept them; what could not be unwrapped otherwise.
        values: the record as parsed JSON, if it is a JSON object.
        envelopes: the kinds of the envelopes around it, the outermost first.
        problem: why ``raw`` is not the record of a tool, or an empty string; the rejected bytes are then complete.
        skipped: it is a message of the collector itself.
    """

    location: Location
    raw: bytes
    values: dict[str, Any] | None = None
    envelopes: tuple[str, ...] = ()
    problem: str = ""
    skipped: bool = False


class Envelopes:
    """Reads the records of tools out of files, request bodies and lines.

    Args:
        is_own: returns whether a JSON object is the record of a known tool. Such a record is never opened.
        limit: the maximum length of a record in bytes. A longer one becomes a problem, and is never in memory.
        reject: receives the bytes of what is not split off, or not unwrapped; each record ends with a line end.
        lines: knows which lines of text belong together. None: none do.
    """

    def __init__(
        self,
        is_own: Callable[[dict[str, Any]], bool],
        *,
        limit: int,
        reject: Callable[[bytes], object],
        lines: TextLines | None = None,
    ) -> None:
        self._is_own = is_own
        self._limit = limit
        self._reject = reject
        self._lines = lines

    def records(self, read: Read, file: str) -> Iterator[ToolRecord]:
        """Yield the records in a stream: of a file, or of a request's body.

        Raises:
            OSError, EOFError, zlib.error, EncodingError: the data is damaged. The records before the damage were
                yielded.
        """
        yield from self.stream(file).records(decoded(read))

    def stream(self, file: str, start: Boundary = Boundary()) -> Stream:  # noqa: B008 - it cannot change
        """Return the reader of a file or stream that may still grow. ``start``: where it begins to read."""
        return Stream(self, file, start)

    def unwrapper(self) -> Unwrapper:
        """Return an unwrapper for the single lines or objects of one source."""
        return Unwrapper(self._is_own, self._limit, self._split, self._lines)

    def record(self, found: Unwrapped, location: Location) -> ToolRecord:
        """Return what was unwrapped as a record of a file."""
        if found.problem:
            self._reject(found.raw + b"\n")
        return ToolRecord(location, found.raw, found.values, found.kinds, found.problem, found.skipped)

    def pieces(self, read: Read, **growing: Any) -> Splitter:
        """Return the pieces of a stream. ``growing``: the arguments of :class:`Splitter` for a stream that grows."""
        is_record = self.unwrapper().contains_record
        return Splitter(read, limit=self._limit, reject=self._reject, is_record=is_record, **growing)

    def _split(self, read: Read) -> Iterator[bytes | None]:
        return (piece.raw for piece in self.pieces(read))


class Stream:
    """Reads the records of one file or stream, at once or as it grows.

    Attributes:
        at: where reading continues.
        safe: reading may begin here again, with the same results: what lies before is complete. Later than it are only
            parts of lines whose end is missing, and what lies after ``at``.
    """

    def __init__(self, envelopes: Envelopes, file: str, start: Boundary) -> None:
        self.at = self.safe = start
        self._envelopes = envelopes
        self._file = file
        self._unwrapper = envelopes.unwrapper()
        self._pieces: Splitter | None = None
        self._given = 0
        self._number = 0
        self._line = 1

    def records(self, read: Read, ahead: Read | None = None, *, as_line: bool = False) -> Iterator[ToolRecord]:
        """Yield the records from ``at`` on.

        Without ``ahead``, the stream is read to its end. With it, the stream may grow: ``read`` waits where it ends for
        now, or raises an error. Then the next call begins at ``at`` again, and does not repeat records.

        Args:
            read: reads from ``at`` on.
            ahead: the same, but returns nothing instead of raising an error.
            as_line: the first line is no JSON, whatever it looks like.
        """
        given, region = 0 if as_line else self._given, self.at
        pieces = self._pieces = self._envelopes.pieces(
            read, ahead=ahead, start=self.at, as_line=as_line, in_text=lambda: self._unwrapper.in_text
        )
        try:
            for piece in pieces:
                self._move(pieces.boundary)
                if given and self.at == region:  # the beginning of a list whose end was missing
                    given -= 1
                    continue
                self._given += 1
                yield from self._records(piece)
        finally:
            self.settle()
        for found in self._unwrapper.unfinished() if ahead is None else ():
            yield self._envelopes.record(found, Location(self._file, self._line))
        self._move(self.at)

    def settle(self) -> None:
        """Count what was yielded as read. ``read`` may call this before it waits, as it is asked for the next piece."""
        if self._pieces is not None:
            self._move(self._pieces.boundary)

    def _records(self, piece: Piece) -> Iterator[ToolRecord]:
        self._line = piece.line
        if piece.raw is None:
            for found in self._unwrapper.end_text():
                yield self._envelopes.record(found, Location(self._file, piece.line))
            self._number += piece.listed
            number = self._number if piece.listed else None
            yield ToolRecord(Location(self._file, piece.line, number), b"", problem=piece.problem)
            return
        for found in self._unwrapper.unwrap(piece.raw, piece.values, (piece.kind,) if piece.kind else ()):
            listed = piece.listed or found.listed
            self._number += listed
            location = Location(self._file, piece.line, self._number if listed else None)
            yield self._envelopes.record(found, location)

    def _move(self, boundary: Boundary) -> None:
        if boundary != self.at:
            self.at, self._given = boundary, 0
        if not self._unwrapper.waiting:
            self.safe = self.at
