"""Splits a stream of syslog into messages: RFC 6587 (octet counting, or line ends), also inside TLS (RFC 5425)."""

from __future__ import annotations

_MOST_DIGITS = 7


class FrameError(ValueError):
    """The stream cannot be split."""


class SyslogFrames:
    """The messages of one connection. A sender may change the framing between messages.

    Args:
        limit: the longest message in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the messages that are complete with these bytes. Raises FrameError for one that is too long."""
        self._data += piece
        data, at, messages = self._data, 0, []
        while at < len(data):
            start, end, following = self._next(at)
            if (end if end >= 0 else len(data)) - start > self._limit:
                raise FrameError(f"a message is longer than {self._limit} bytes")
            if end < 0 or end > len(data):
                break
            messages.append(bytes(data[start:end]))
            at = following
        del data[:at]
        return [one for one in messages if one.strip()]

    def end(self) -> list[bytes]:
        """Return what is left when the sender has closed the connection."""
        rest, self._data = bytes(self._data), bytearray()
        return [rest] if rest.strip() else []

    def _next(self, at: int) -> tuple[int, int, int]:
        """Return where the message at a position begins and ends, and where the next one begins.

        The end is negative if it is not known yet, and may lie beyond the data.
        """
        data = self._data
        space = data.find(b" ", at, at + _MOST_DIGITS + 1)
        digits = data[at:space] if space >= 0 else b""
        # A line may begin with a number, too: with a time. A counted message begins with its priority.
        if digits.isdigit() and bytes(data[space + 1 : space + 2]) in (b"<", b""):
            if space + 1 == len(data):
                return at, -1, at
            return space + 1, space + 1 + int(digits), space + 1 + int(digits)
        if space < 0 and data[at:].isdigit() and len(data) - at <= _MOST_DIGITS:
            return at, -1, at
        end = data.find(b"\n", at)
        return at, end, end + 1
