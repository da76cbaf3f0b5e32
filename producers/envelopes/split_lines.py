"""Joins the parts of lines that a container runtime has split."""

from __future__ import annotations

from collections.abc import Iterator

from .json_spans import parse

Stream = tuple[str, ...]
MAX_STREAMS = 1024
MAX_BYTES = 64 * 1024 * 1024
"""Limits of all parts whose end is missing, at one time."""
END_MISSING = "the last part of the line is missing"


class SplitLines:
    """The parts whose end is missing, by stream.

    Args:
        limit: the maximum length of a line in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: dict[Stream, list[bytes] | None] = {}
        self._lengths: dict[Stream, int] = {}

    def add(self, stream: Stream, part: bytes, more: bool) -> Iterator[tuple[bytes, str]]:
        """Yield the lines that end with this part, each with its problem or an empty string.

        Args:
            stream: what identifies the stream.
            part: a line, or the next part of one.
            more: another part of the line follows.
        """
        if stream in self._parts and parse(part.strip()) is not None:
            # The rest of an object has a closing bracket too many, so this is a line of its own.
            yield self._take(stream), END_MISSING
        length = self._lengths.get(stream, 0) + len(part)
        if not more and stream not in self._parts and length <= self._limit:
            yield part, ""
            return
        parts = self._parts.setdefault(stream, [])
        if parts is not None and length <= self._limit:
            parts.append(part)
            self._lengths[stream] = length
        else:
            self._parts[stream], self._lengths[stream] = None, 0
        if not more:
            too_long = self._parts[stream] is None
            yield self._take(stream), f"longer than {self._limit} bytes" if too_long else ""
        elif len(self._parts) > MAX_STREAMS or sum(self._lengths.values()) > MAX_BYTES:
            yield self._take(next(iter(self._parts))), "too many lines are in parts at one time"

    def has(self, stream: Stream) -> bool:
        """Return whether the end of a line of the stream is missing."""
        return stream in self._parts

    @property
    def waiting(self) -> bool:
        """Whether the end of any line is missing."""
        return bool(self._parts)

    def unfinished(self) -> Iterator[tuple[Stream, bytes]]:
        """Yield the parts whose end is missing, by stream, and forget them."""
        for stream in list(self._parts):
            yield stream, self._take(stream)

    def _take(self, stream: Stream) -> bytes:
        self._lengths.pop(stream, None)
        return b"".join(self._parts.pop(stream) or ())


def ends_line(log: bytes, begun: bool) -> bool:
    """Return whether Docker's ``log`` is a whole line, or the last part of one.

    Docker keeps the line end, but a collector may cut it off: then only the beginning of an object is a part.

    Args:
        log: the line or part.
        begun: parts of the line were read before.
    """
    return log.endswith(b"\n") or not (begun or log.startswith(b"{")) or parse(log.strip()) is not None
