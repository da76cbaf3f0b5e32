"""The strict framing of HTTP requests."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import h11
import pytest

from grantledger.console import http_protocol
from grantledger.console.http_protocol import (
    MOST_HEADER_BYTES,
    MOST_HEADER_LINES,
    MOST_SMALL_CHUNKS,
    ServerLoop,
    StrictConnection,
)
from grantledger.runtime.self_signed import ensure_certificate
from grantledger.runtime.tcp_listener import server_tls, tcp_listener

GOOD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nSELECT 1"


def events(data: bytes) -> list[object]:
    connection = StrictConnection()
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
    connection = StrictConnection()
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
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1\nY: 2\r\n\r\n",
        # The second request of a connection is read as strictly.
        GOOD.replace(b"Host: a\r\n", b"Host: a\n"),
    ],
)
def test_a_request_that_can_be_read_in_two_ways_is_rejected(data: bytes) -> None:
    with pytest.raises(h11.RemoteProtocolError):
        events(data)


HEADER = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEADER + b"Transfer-Encoding: chunked\r\n\r\n"


class CountingPattern:
    """A pattern that counts the bytes that it searches."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self.pattern = pattern
        self.bytes = 0

    def search(self, data: bytes, start: int = 0) -> re.Match[bytes] | None:
        found = self.pattern.search(data, start)
        self.bytes += (found.end() if found else len(data)) - start
        return found


@pytest.mark.parametrize("packet", [1, 7, 64])
def test_a_header_in_small_packets_is_searched_once(monkeypatch: pytest.MonkeyPatch, packet: int) -> None:
    """Every packet cost a search of all bytes before it: 20 s of CPU for half a mebibyte."""
    counting = CountingPattern(http_protocol._END_OF_HEADER)
    monkeypatch.setattr(http_protocol, "_END_OF_HEADER", counting)
    data = HEADER + b"X: " + b"a" * 30_000 + b"\r\n\r\n"
    connection = StrictConnection()
    for start in range(0, len(data), packet):
        connection.receive_data(data[start : start + packet])
        event = connection.next_event()
    assert isinstance(event, h11.Request)
    # The last three bytes of a packet are searched again.
    assert counting.bytes <= len(data) * (1 + 3 / packet)


@pytest.mark.parametrize("packet", [64, 1 << 20])
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (HEADER + b"X: " + b"a" * MOST_HEADER_BYTES + b"\r\n\r\n", 431),
        (HEADER + b"X: " + b"a" * MOST_HEADER_BYTES, 431),
        (b"GET /?" + b"a" * MOST_HEADER_BYTES, 431),
        (HEADER + b"a:\r\n" * MOST_HEADER_LINES + b"\r\n", 431),
        (CHUNKED + b"0\r\n" + b"a:\r\n" * MOST_HEADER_LINES + b"\r\n", 431),
        (CHUNKED + b"0\r\nX: " + b"a" * MOST_HEADER_BYTES, 431),
        (CHUNKED + b"1\r\na\r\n" * (MOST_SMALL_CHUNKS + 1), 413),
        # h11 takes 1.6 s for these 32 KiB, and 100 s for 256 KiB.
        (CHUNKED + b"1;" + b" " * 32_000 + b"\nx\r\na\r\n", 400),
        (CHUNKED + b"1;" + b"x" * 32_000, 400),
    ],
)
def test_what_costs_time_is_rejected(data: bytes, status: int, packet: int) -> None:
    connection = StrictConnection()
    with pytest.raises(h11.RemoteProtocolError) as caught:
        for start in range(0, len(data), packet):
            connection.receive_data(data[start : start + packet])
            while connection.next_event() not in (h11.NEED_DATA, h11.PAUSED):
                pass
    assert caught.value.error_status_hint == status
    assert connection.error is caught.value


def test_the_largest_request_is_read() -> None:
    lines = b"a:\r\n" * (MOST_HEADER_LINES - 5)
    room = MOST_HEADER_BYTES - len(CHUNKED) - len(lines)
    header = CHUNKED.removesuffix(b"\r\n") + lines + b"X:" + b"a" * (room - 4) + b"\r\n\r\n"
    assert len(header) == MOST_HEADER_BYTES
    # Chunks of 2 KiB, as in drivers, and small ones.
    large = b"800\r\n" + b"a" * 2048 + b"\r\n"
    body = large * 2000 + b"1\r\na\r\n" * (MOST_SMALL_CHUNKS - 1) + b"0\r\n\r\n"
    assert isinstance(events(header + body)[-1], h11.EndOfMessage)


def test_the_limits_apply_to_each_request_of_a_connection() -> None:
    connection = StrictConnection()
    request = CHUNKED + b"1\r\na\r\n" * (MOST_SMALL_CHUNKS - 1) + b"0\r\n\r\n"
    connection.receive_data(request * 3)
    for _ in range(3):
        while connection.next_event() is not h11.PAUSED:
            if connection.their_state is h11.DONE:
                break
        connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        connection.send(h11.EndOfMessage())
        connection.start_next_cycle()


def test_a_client_that_does_not_shake_hands_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "SECONDS_TO_SHAKE_HANDS", 0.2)
    made = ensure_certificate(tmp_path, ["127.0.0.1"])
    listener = tcp_listener(("127.0.0.1", 0))

    async def read() -> bytes:
        tls = server_tls(made.certificate, made.key)
        async with await asyncio.get_running_loop().create_server(asyncio.Protocol, sock=listener, ssl=tls):
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            async with asyncio.timeout(30):
                received = await reader.read()
            writer.close()
        return received

    with asyncio.Runner(loop_factory=ServerLoop) as runner:
        assert runner.run(read()) == b""
