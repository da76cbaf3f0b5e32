"""ClickHouse's compressed frames and empty Native blocks."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.console.errors import ErrorCode, QueryRefusedError
from grantledger.console.native import compress, decompress, empty_block

# `SELECT version() as server_version`, in the first frame of an answer that the JDBC driver 0.9.4 read.
READ_BY_JDBC = (
    b"\xdb\xb8\x93+\xaaq\x02\x98}{l\xec\xdf\xac\x8c#\x82+\x00\x00\x00 \x00\x00\x00"
    b"\xf0\x11\x01\x0eserver_version\x06String\x0826.9.2.1"
)


@given(st.lists(st.binary(max_size=5000), max_size=4))
def test_frames_round_trip(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    assert decompress(b"".join(map(compress, pieces)), len(whole)) == whole


def test_the_checksum_matches_the_jdbc_driver() -> None:
    content = b"\x01\x0eserver_version\x06String\x0826.9.2.1"
    assert compress(content) == READ_BY_JDBC
    assert decompress(READ_BY_JDBC, 100) == content


def test_an_uncompressed_frame_is_read() -> None:
    from clickhouse_cityhash.cityhash import CityHash128

    frame = struct.pack("<BII", 0x02, 9 + 8, 8) + b"SELECT 1"
    checksum = CityHash128(frame)
    assert decompress(struct.pack("<QQ", checksum >> 64, checksum & (1 << 64) - 1) + frame, 8) == b"SELECT 1"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"SELECT 1", "ends inside a frame"),
        (READ_BY_JDBC[:-1], "ends inside a frame"),
        (READ_BY_JDBC + b"x", "ends inside a frame"),
        (READ_BY_JDBC[:-1] + b"x", "checksum"),
        (READ_BY_JDBC[:17] + b"\x00" * 8 + READ_BY_JDBC[25:], "ends inside a frame"),
    ],
)
def test_damaged_frames_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(QueryRefusedError, match=reason) as caught:
        decompress(data, 1000)
    assert caught.value.code == ErrorCode.CANNOT_DECOMPRESS


def test_the_declared_size_is_checked_before_decompression() -> None:
    with pytest.raises(QueryRefusedError) as caught:
        decompress(compress(bytes(1 << 20)), 1000)
    assert caught.value.code == ErrorCode.QUERY_IS_TOO_LARGE


def test_an_empty_block_has_names_and_types() -> None:
    assert empty_block([("id", "UInt64"), ("n" * 200, "String")]) == (
        b"\x02\x00\x02id\x06UInt64\xc8\x01" + b"n" * 200 + b"\x06String"
    )
