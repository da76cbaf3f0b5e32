"""SQL stays available: under idle and slow connections, malformed requests, and statements that run for hours."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from grantledger.console.http_protocol import MOST_CONNECTIONS, SECONDS_TO_SEND_A_HEADER
from grantledger.console.roles import ANALYST, AUDITOR, READER
from support.sql_endpoint import Owner, post

ENDLESS = "SELECT count() FROM numbers(1e12) WHERE sipHash64(number) = 1"


@contextlib.contextmanager
def opened(owner: Owner, count: int, data: bytes = b"") -> Iterator[list[socket.socket]]:
    """Open connections that send some bytes and then nothing."""
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection((owner.address.host, owner.address.port)))
            connection.sendall(data)
            connections.append(connection)
        yield connections


def answered(owner: Owner, within: float) -> None:
    for credential in (owner.address.reader, owner.address.analyst):
        started = time.monotonic()
        assert post(owner, "SELECT 1", credential=credential)[::2] == (200, b"1\n")
        assert time.monotonic() - started < within


@pytest.mark.parametrize("data", [b"", b"POST / HTTP/1.1\r\nHost: a\r\n", b"\r\n"])
def test_idle_connections_without_a_password_block_nobody(owner: Owner, data: bytes) -> None:
    """Seventy answered everybody with 503 for over a minute."""
    for count in (70, MOST_CONNECTIONS + 50):
        with opened(owner, count, data):
            answered(owner, 5)


def test_connections_that_send_no_request_are_closed(owner: Owner) -> None:
    unfinished = [
        b"",
        b"GET / HT",
        b"POST / HTTP/1.1\r\nHost: a\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nSELECT",
        b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(opened(owner, 1, data))[0] for data in unfinished]
        started = time.monotonic()
        for connection in connections:
            connection.settimeout(SECONDS_TO_SEND_A_HEADER + 20)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(4096):
                    pass
        assert time.monotonic() - started < SECONDS_TO_SEND_A_HEADER + 20


def test_a_client_without_a_password_that_reads_no_answer_is_closed(owner: Owner) -> None:
    with opened(owner, 1) as [connection]:
        connection.settimeout(SECONDS_TO_SEND_A_HEADER + 20)
        requests = b"GET /allowed HTTP/1.1\r\nHost: a\r\n\r\n" * 1000
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(1000):
                connection.sendall(requests)


def test_endless_statements_of_analysts_delay_only_analysts(owner: Owner) -> None:
    """Four of them blocked verify, sweep and status for 300 s."""
    ends: list[int] = []
    threads = [
        threading.Thread(target=lambda: ends.append(post(owner, ENDLESS, max_execution_time="2")[0]))
        for _ in range(2 * ANALYST.places)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    started = time.monotonic()
    assert post(owner, "SELECT count() FROM entries", credential=owner.address.reader)[0] == 200
    assert not ends
    # Others wait for their turn instead of being refused.
    assert post(owner, "SELECT 1")[::2] == (200, b"1\n")
    assert time.monotonic() - started < 60
    for thread in threads:
        thread.join()
    assert ends == [408] * len(threads)


def test_a_full_queue_is_refused_and_our_own_readers_are_not(owner: Owner) -> None:
    statuses: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError):
            statuses.append(post(owner, ENDLESS, max_execution_time="0.2")[0])
            if statuses[-1] == 503:
                stop.set()

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(120)]
    for thread in threads:
        thread.start()
    assert stop.wait(20)
    assert post(owner, "SELECT 1", credential=owner.address.reader)[::2] == (200, b"1\n")
    for thread in threads:
        thread.join(90)
    assert set(statuses) <= {408, 503}


def test_the_limits_of_the_roles() -> None:
    assert float(ANALYST.limits["max_execution_time"]) <= 30
    assert READER.places >= 2
    for role in (ANALYST, AUDITOR, READER):
        assert 0 < int(role.limits["max_memory_usage"]) <= 1 << 30
        assert role.limits["max_temporary_data_on_disk_size_for_query"] != "0"


def test_analysts_cannot_take_the_places_of_readers(owner: Owner) -> None:
    for password in ("", owner.address.analyst.password):
        status = post(owner, "SELECT 1", {"X-ClickHouse-User": "reader", "X-ClickHouse-Key": password})[0]
        assert status == 403


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /ping HTTP/1.1\nHost: a\n\n",
        b"GET /ping HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\nGET /ping HTTP/1.1\nHost: a\n\n",
    ],
)
def test_ambiguous_requests_are_rejected_and_the_connection_closed(owner: Owner, request_bytes: bytes) -> None:
    with opened(owner, 1, request_bytes) as [connection]:
        connection.settimeout(5)
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    assert b"HTTP/1.1 400 " in answer
    assert answer.count(b"HTTP/1.1 200 ") == request_bytes.count(b"\r\n\r\nGET")


HEADER = b"POST /?query=SELECT+1 HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEADER + b"Transfer-Encoding: chunked\r\n\r\n"
FIELD = b'--b\r\nContent-Disposition: form-data; name="param_%d"\r\n\r\n1\r\n'
NESTED = b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n"


def form(owner: Owner, body: bytes, boundary: bytes = b"b") -> bytes:
    """Return the POST of a form by an analyst."""
    user = owner.address.analyst
    secret = f"X-ClickHouse-User: {user.user}\r\nX-ClickHouse-Key: {user.password}\r\n".encode()
    kind = b"Content-Type: multipart/form-data; boundary=%s\r\nContent-Length: %d\r\n\r\n" % (boundary, len(body))
    return HEADER + secret + kind + body


def status_of(owner: Owner, data: bytes, packet: int) -> bytes:
    """Send bytes in packets; return the status of the answer."""
    with opened(owner, 1) as [connection]:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(30)
        for start in range(0, len(data), packet):
            connection.sendall(data[start : start + packet])
        return connection.recv(4096)[9:12]


ATTACKS = {
    "a header in small packets": (lambda owner: HEADER + b"X: " + b"a" * 500_000, 64, b"431"),
    "many headers": (lambda owner: HEADER + b"a:\r\n" * 5000 + b"\r\n", 1 << 20, b"431"),
    "a long URL": (lambda owner: b"GET /?" + b"a=1&" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 1 << 20, b"431"),
    "many parameters": (lambda owner: b"GET /?" + b"a&" * 15_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 1 << 20, b"400"),
    "a chunk extension": (lambda owner: CHUNKED + b"1;" + b" " * 30_000 + b"\nx\r\n", 1 << 20, b"400"),
    "small chunks": (lambda owner: CHUNKED + b"1\r\na\r\n" * 100_000, 1 << 20, b"413"),
    "trailers": (lambda owner: CHUNKED + b"0\r\n" + b"a:\r\n" * 60_000 + b"\r\n", 1 << 20, b"431"),
    "a flat form": (lambda owner: form(owner, b"".join(FIELD % i for i in range(45_000)) + b"--b--"), 1 << 20, b"400"),
    "a nested form": (
        lambda owner: form(owner, b"".join(NESTED % (i, i + 1) for i in range(3000)), b"b0"),
        1 << 20,
        b"400",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_expensive_requests_are_rejected_and_delay_nobody(owner: Owner, attack: str) -> None:
    """Some took a minute, in which nobody was answered; most need no password."""
    build, packet, expected = ATTACKS[attack]
    data = build(owner)
    statuses: list[bytes] = []
    threads = [threading.Thread(target=lambda: statuses.append(status_of(owner, data, packet))) for _ in range(8)]
    size = owner.log.stat().st_size
    for thread in threads:
        thread.start()
    answered(owner, 5)
    for thread in threads:
        thread.join()
    answered(owner, 5)
    assert statuses == [expected] * len(threads)
    log = owner.log.read_bytes()[size:]
    assert b"Traceback" not in log and b"ERROR" not in log, log[-2000:]


def test_a_malformed_rest_of_a_body_after_the_answer_closes_the_connection(owner: Owner) -> None:
    size = owner.log.stat().st_size
    with opened(owner, 1, CHUNKED) as [connection]:
        connection.settimeout(5)
        assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")
        connection.sendall(b"x\r\n")
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(4096):
                pass
    answered(owner, 5)
    assert b"Traceback" not in owner.log.read_bytes()[size:]


def test_the_allowed_names_are_listed(owner: Owner) -> None:
    with opened(owner, 1, b"GET /allowed HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") as [connection]:
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    for name in (
        b"events",
        b"countIf"[:5],
        b"JSONEachRow",
        b"output_format_json_quote_64bit_integers",
        b"generateseries",
    ):
        assert name in answer
