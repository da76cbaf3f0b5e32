"""ClickHouse's own byte formats over HTTP: compressed frames (`compress=1`, `decompress=1`) and an empty Native block.

A frame consists of a 16-byte CityHash128 (version 1.0.2) of everything after it, a method byte, the size of the frame
without the checksum and the size of the data (both 32-bit little-endian), and the data. JDBC drivers request frames by
default. See clickhouse.com/docs, "Compression in Native protocol" (`src/Compression/CompressedWriteBuffer.cpp`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

import lz4.block
from clickhouse_cityhash.cityhash import CityHash128
from clickhouse_connect.driver.common import write_leb128

from .errors import ErrorCode, QueryRefusedError

_HEADER = struct.Struct("<BII")
_CHECKSUM = struct.Struct("<QQ")
_NONE: Final = 0x02
_LZ4: Final = 0x82
# Clients fill their frames: with 64 KiB or more, as a server does.
_MOST_FRAMES: Final = 1000


def compress(data: bytes) -> bytes:
    """Return `data` as one LZ4 frame; nothing for empty data."""
    if not data:
        return b""
    packed: bytes = lz4.block.compress(data, store_size=False)
    frame = _HEADER.pack(_LZ4, _HEADER.size + len(packed), len(data)) + packed
    return _checksum(frame) + frame


def decompress(data: bytes, max_bytes: int) -> bytes:
    """Return the content of frames that use LZ4 or no compression.

    Raises:
        QueryRefusedError: a frame is damaged or uses another method (271), or there are more than `max_bytes` of
            content or more than 1000 frames (229).
    """
    parts: list[bytes] = []
    position = size = frames = 0
    while position < len(data):
        start = position + _CHECKSUM.size
        if len(data) < start + _HEADER.size:
            raise _damaged("it ends inside a frame")
        method, frame_size, content_size = _HEADER.unpack_from(data, start)
        position = start + frame_size
        if frame_size < _HEADER.size or position > len(data):
            raise _damaged("it ends inside a frame")
        if data[start - _CHECKSUM.size : start] != _checksum(data[start:position]):
            raise _damaged("the checksum of a frame does not match")
        size += content_size
        frames += 1
        if frames > _MOST_FRAMES:
            raise QueryRefusedError(ErrorCode.QUERY_IS_TOO_LARGE, f"Query exceeds the limit of {_MOST_FRAMES} frames.")
        if size > max_bytes:
            raise QueryRefusedError(ErrorCode.QUERY_IS_TOO_LARGE, f"Query exceeds the limit of {max_bytes} bytes.")
        content = data[start + _HEADER.size : position]
        if method == _LZ4:
            try:
                content = lz4.block.decompress(content, uncompressed_size=content_size)
            except lz4.block.LZ4BlockError as error:
                raise _damaged("a frame is not valid LZ4") from error
        elif method != _NONE:
            raise _damaged(f"compression method 0x{method:02x} is not supported, use LZ4")
        if len(content) != content_size:
            raise _damaged("a frame does not have the announced size")
        parts.append(content)
    return b"".join(parts)


def empty_block(columns: Iterable[tuple[str, str]]) -> bytes:
    """Return a Native block without rows: the names and types of the columns."""
    texts = [text.encode() for column in columns for text in column]
    block = bytearray()
    write_leb128(len(texts) // 2, block)
    write_leb128(0, block)
    for text in texts:
        write_leb128(len(text), block)
        block += text
    return bytes(block)


def _checksum(frame: bytes) -> bytes:
    value = CityHash128(frame)
    return _CHECKSUM.pack(value >> 64, value & (1 << 64) - 1)


def _damaged(reason: str) -> QueryRefusedError:
    return QueryRefusedError(ErrorCode.CANNOT_DECOMPRESS, f"Cannot read the compressed request body: {reason}.")
