"""The encodings of an answer's body, as streams: ClickHouse's frames for `compress=1`, gzip and LZ4 for HTTP."""

from __future__ import annotations

import zlib
from typing import Final, Protocol

from . import native

FRAMES: Final = "frames"
# Content encodings, best first: lz4 costs the least processor time.
HTTP_ENCODINGS: Final = ("lz4", "gzip")


class Encoder(Protocol):
    """A compressor of one stream, like `zlib.compressobj`."""

    def compress(self, data: bytes, /) -> bytes:
        """Return the encoded bytes that are complete; may keep some back."""

    def flush(self) -> bytes:
        """Return the rest of the stream."""


class Plain:
    """No encoding."""

    def compress(self, data: bytes, /) -> bytes:
        """Return `data`."""
        return data

    def flush(self) -> bytes:
        """Return nothing."""
        return b""


class _Frames(Plain):
    def compress(self, data: bytes, /) -> bytes:
        return native.compress(data)


class _Lz4:
    def __init__(self) -> None:
        import lz4.frame

        self._frame = lz4.frame.LZ4FrameCompressor()
        self._start: bytes = self._frame.begin()

    def compress(self, data: bytes, /) -> bytes:
        start, self._start = self._start, b""
        return start + bytes(self._frame.compress(data))

    def flush(self) -> bytes:
        return self._start + bytes(self._frame.flush())


def encoder(encoding: str | None) -> Encoder:
    """Return a new encoder for `FRAMES`, one of `HTTP_ENCODINGS`, or None."""
    match encoding:
        case "frames":
            return _Frames()
        case "lz4":
            return _Lz4()
        case "gzip":
            return zlib.compressobj(level=1, wbits=31)
    return Plain()
