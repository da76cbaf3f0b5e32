"""The encodings of a file: gzip, Zstandard, UTF-16 and UTF-32, recognized by the first bytes. UTF-8 comes out."""

from __future__ import annotations

import codecs
import gzip
import io
import sys
from collections.abc import Callable
from typing import Any, cast

from ...base.errors import UsageError

Read = Callable[[int], bytes]
"""Returns up to the given number of further bytes; empty at the end."""
_HEAD_BYTES = 4
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"
MAX_LAYERS = 3
"""Of compression, one inside the other."""
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class EncodingError(UsageError):
    """The data cannot be decoded."""


def is_encoded(head: bytes) -> bool:
    """Return whether data is compressed or not UTF-8. ``head``: its first 4 bytes, or all if there are less."""
    return head.startswith(_GZIP) or _is_zstd(head) or _encoding(head)[0] is not None


def decoded(read: Read) -> Read:
    """Return a reader of the UTF-8 text in the data, without compression.

    Its calls raise OSError, EOFError, zlib.error or EncodingError for damaged data.
    """
    for _ in range(MAX_LAYERS):
        head, read = _head(read)
        if head.startswith(_GZIP):
            read = cast("Read", gzip.GzipFile(fileobj=io.BufferedReader(_Raw(read))).read1)
        elif _is_zstd(head):
            read = _zstd(read)
        else:
            break
    head, read = _head(read)
    encoding, mark = _encoding(head)
    return read if encoding is None else _utf_8(read, encoding, mark)


def _is_zstd(head: bytes) -> bool:
    return head == _ZSTD or (head[1:] == _ZSTD_SKIPPABLE and head[0] & 0xF0 == 0x50)


def _encoding(head: bytes) -> tuple[str | None, int]:
    """Return the encoding other than UTF-8, and the length of the byte order mark."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    # A record starts with ASCII characters.
    if len(head) == 4 and head[0] and head[2] and not head[1] and not head[3]:
        return "utf-16-le", 0
    if len(head) == 4 and head[1] and head[3] and not head[0] and not head[2]:
        return "utf-16-be", 0
    return None, 0


def _utf_8(read: Read, encoding: str, mark: int) -> Read:
    decoder = codecs.getincrementaldecoder(encoding)()
    skipped, text = mark, b""

    def more(limit: int) -> bytes:
        nonlocal skipped, text
        while not text:
            piece = read(limit)
            start, skipped = skipped, max(0, skipped - len(piece))
            try:
                text = decoder.decode(piece[start:], final=not piece).encode()
            except UnicodeError as error:
                raise EncodingError(f"not {encoding.upper()}") from error
            if not piece:
                break
        given, text = text[:limit], text[limit:]
        return given

    return more


def _zstd(read: Read) -> Read:
    library = _zstd_library()

    def more(limit: int) -> bytes:
        try:
            return cast("bytes", file.read1(limit))
        except library.ZstdError as error:
            raise OSError(str(error)) from error

    try:
        file = library.ZstdFile(io.BufferedReader(_Raw(read)), options={
            library.DecompressionParameter.window_log_max: 27,  # 128 MiB, the most that `zstd` itself allows
        })  # fmt: skip
    except library.ZstdError as error:
        raise OSError(str(error)) from error
    return more


def _zstd_library() -> Any:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError as error:
        raise EncodingError("compressed with Zstandard: install backports.zstd") from error
    return zstd


def _head(read: Read) -> tuple[bytes, Read]:
    """Return the first bytes, and a reader that starts with them."""
    head = b""
    while len(head) < _HEAD_BYTES and (piece := read(_HEAD_BYTES - len(head))):
        head += piece
    left = head

    def more(limit: int) -> bytes:
        nonlocal left
        if not left:
            return read(limit)
        given, left = left[:limit], left[limit:]
        return given

    return head, more


class _Raw(io.RawIOBase):
    """A reader as a file."""

    def __init__(self, read: Read) -> None:
        super().__init__()
        self._read = read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)
