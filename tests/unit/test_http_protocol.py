"""The strict framing of HTTP requests."""

from __future__ import annotations

import h11
import pytest

from grantledger.console.http_protocol import StrictConnection

GOOD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nSELECT 1"


def events(data: bytes) -> list[object]:
    connection = StrictConnection(h11.SERVER)
    connection.receive_data(data)
    found: list[object] = []
    while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
        found.append(event)
    return found


@pytest.mark.parametrize(
    "data",
    [
        GOOD,
        b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nSELECT 1\r\n0\r\n\r\n",
        b"GET /ping HTTP/1.0\r\nHost: a\r\n\r\n",
        # A body may contain anything.
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nSELECT\n\n 1\n\n",
    ],
)
def test_usual_requests_are_read(data: bytes) -> None:
    assert isinstance(events(data)[-1], h11.EndOfMessage)
    # A byte at a time gives the same.
    connection = StrictConnection(h11.SERVER)
    for index in range(len(data)):
        connection.receive_data(data[index : index + 1])
        while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            last = event
    assert isinstance(last, h11.EndOfMessage)


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 8\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\nContent-Length: 8\r\n\r\nSELECT 1",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\nContent-Length: 9\r\n\r\nSELECT 1",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +8\r\n\r\nSELECT 1",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8, 8\r\n\r\nSELECT 1",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /ping HTTP/1.1\nHost: a\n\n",
        b"GET /ping HTTP/1.1\r\nHost: a\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: a\r\nX: 1\nY: 2\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: a\r\n\n",
        b"GET /ping HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: a\r\nX: 1\r\n\t2\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /ping HTTP/1.1\r\n\r\n",
        b"GET /ping HTTP/1.0\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: a\r\nX\x00: 1\r\n\r\n",
        b"GET /pi ng HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\nSELECT 1\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x8\r\nSELECT 1\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nSELECT 1XX0\r\n\r\n",
        # The second request of a connection is read as strictly.
        GOOD.replace(b"Host: a\r\n", b"Host: a\n"),
    ],
)
def test_a_request_that_can_be_read_in_two_ways_is_rejected(data: bytes) -> None:
    with pytest.raises(h11.RemoteProtocolError):
        events(data)
