"""Compressed answers and requests of the SQL endpoint."""

from __future__ import annotations

import gzip

import lz4.frame
import pytest

from grantledger.console.native import compress, decompress
from support.sql_endpoint import Owner, assert_refused, post


@pytest.mark.parametrize(("accepted", "encoding"), [("lz4", "lz4"), ("gzip, deflate", "gzip"), ("br, gzip;q=0", None)])
def test_answers_are_compressed_in_an_encoding_that_the_client_accepts(
    owner: Owner, accepted: str, encoding: str | None
) -> None:
    decode = {"lz4": lz4.frame.decompress, "gzip": gzip.decompress, None: bytes}[encoding]
    sql, headers = "SELECT id, name FROM events ORDER BY id", {"Accept-Encoding": accepted}
    _, head, plain = post(owner, sql, headers)
    assert head["Content-Encoding"] is None
    for text, expected in ((sql, plain), ("SELECT 1 WHERE 0", b"")):
        status, head, body = post(owner, text, headers, enable_http_compression="1")
        assert (status, head["Content-Encoding"]) == (200, encoding)
        assert decode(body) == expected
    assert encoding is None or len(post(owner, sql, headers, enable_http_compression="1")[2]) < 0.6 * len(plain)
    body = post(owner, "SELECT nope", headers, enable_http_compression="1")[2]
    assert body.startswith(b"Code: 47.")


def test_compressed_requests_are_read(owner: Owner) -> None:
    assert post(owner, compress(b"SELECT 41 + 1"), decompress="1")[2] == b"42\n"
    frames = compress(b"SELECT ") + compress(b"1 FORMAT CSV")
    assert decompress(post(owner, frames, decompress="1", compress="1")[2], 100) == b"1\n"
    assert_refused(owner, "SELECT 1", 271, decompress="1")
    assert post(owner, "SELECT 1", {"Content-Encoding": "gzip"})[1]["X-ClickHouse-Exception-Code"] == "48"
