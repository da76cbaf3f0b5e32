"""The tool's own records in a stream of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..json_fields import Location
from .documents import Splitter
from .encodings import Read, decoded
from .unwrap import Unwrapped, Unwrapper


@dataclass(frozen=True, slots=True)
class Record:
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
    """

    def __init__(
        self, is_own: Callable[[dict[str, Any]], bool], *, limit: int, reject: Callable[[bytes], object]
    ) -> None:
        self._is_own = is_own
        self._limit = limit
        self._reject = reject

    def records(self, read: Read, file: str) -> Iterator[Record]:
        """Yield the records in a stream: of a file, or of a request's body.

        Raises:
            OSError, EOFError, zlib.error, EncodingError: the data is damaged. The records before the damage were
                yielded.
        """
        unwrapper = self.unwrapper()
        number, line = 0, 1
        for piece in self._pieces(decoded(read)):
            line = piece.line
            if piece.raw is None:
                number += piece.listed
                yield Record(Location(file, line, number if piece.listed else None), b"", problem=piece.problem)
                continue
            for found in unwrapper.unwrap(piece.raw, piece.values, (piece.kind,) if piece.kind else ()):
                listed = piece.listed or found.listed
                number += listed
                yield self._record(found, Location(file, line, number if listed else None))
        for found in unwrapper.unfinished():
            yield self._record(found, Location(file, line))

    def unwrapper(self) -> Unwrapper:
        """Return an unwrapper for the single lines or objects of one source."""
        return Unwrapper(self._is_own, self._limit, self._split)

    def _record(self, found: Unwrapped, location: Location) -> Record:
        if found.problem:
            self._reject(found.raw + b"\n")
        return Record(location, found.raw, found.values, found.kinds, found.problem, found.skipped)

    def _split(self, read: Read) -> Iterator[bytes | None]:
        return (piece.raw for piece in self._pieces(read))

    def _pieces(self, read: Read) -> Splitter:
        is_record = self.unwrapper().contains_record
        return Splitter(read, limit=self._limit, reject=self._reject, is_record=is_record)
