"""Streaming encoders for the body of an answer: ClickHouse's frames for `compress=1`, gzip and LZ4 for HTTP."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

import lz4.frame

from . import native

FRAMES: Final = "frames"
# Content encodings, best first: lz4 costs the least processor time.
HTTP_ENCODINGS: Final = ("lz4", "gzip")

Encoder = tuple[bytes, Callable[[bytes], bytes], Callable[[], bytes]]


def encoder(encoding: str | None) -> Encoder:
    """Return an encoder for `FRAMES`, one of `HTTP_ENCODINGS`, or None for no encoding.

    It consists of the first bytes of the stream, a function that encodes a piece, and a function that ends the stream.
    """
    match encoding:
        case "frames":
            return b"", native.compress, bytes
        case "lz4":
            frame = lz4.frame.LZ4FrameCompressor()
            return frame.begin(), frame.compress, frame.flush
        case "gzip":
            gzip = zlib.compressobj(level=1, wbits=31)
            return b"", gzip.compress, gzip.flush
    return b"", bytes, bytes
