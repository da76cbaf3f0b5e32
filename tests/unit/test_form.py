"""Forms in the body of a request, and the limits of what a request may cost."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from grantledger.console import native, service
from grantledger.console.address import EndpointCredential
from grantledger.console.errors import ErrorCode, QueryRefusedError
from grantledger.console.form import MOST_FIELDS
from grantledger.console.http_protocol import Connections
from grantledger.console.request import read_statement
from grantledger.console.roles import ANALYST
from grantledger.console.service import Account, QueryService

FORM = "multipart/form-data; boundary=b"


def field(name: str, value: str) -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


def fields(body: bytes, content_type: str = FORM) -> dict[str, str]:
    return dict(read_statement({"content-type": content_type}, [("query", "SELECT 1")], body).fields)


@pytest.mark.parametrize("content_type", [FORM, FORM + "; charset=utf-8", 'Multipart/Form-Data; Boundary="b"'])
def test_the_fields_of_a_form_are_read(content_type: str) -> None:
    text = "\u00fc'\\\r\n\r\n--a\r\n--"
    body = field("param_a", text) + field("param_b", "") + b"--b--\r\n"
    assert fields(body, content_type) == {"param_a": text, "param_b": ""}
    # A preamble, and the headers that other clients add.
    typed = body.replace(b"\r\n\r\n", b"\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: 8bit\r\n\r\n", 1)
    assert fields(b"preamble\r\n" + typed, content_type) == {"param_a": text, "param_b": ""}


def test_the_statement_may_be_a_field() -> None:
    sent = read_statement({"content-type": FORM}, [], field("query", "SELECT 2") + b"--b--")
    assert (sent.text, sent.fields) == ("SELECT 2", {})


def nested(depth: int) -> bytes:
    parts = (f"--c{i}\r\nContent-Type: multipart/mixed; boundary=c{i + 1}\r\n\r\n" for i in range(depth))
    return "\r\n".join(parts).replace("c0", "b", 1).encode() + b"\r\n--b--"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"".join(field(f"param_{i}", "1") for i in range(50_000)) + b"--b--", f"more than {MOST_FIELDS} fields"),
        (b"--b\r\n" * 500_000, f"more than {MOST_FIELDS} fields"),
        (nested(3000), "a form inside a form"),
        (
            b'--b\r\nContent-Disposition: form-data; name="a"\r\nX: ' + b"a" * 3_000_000 + b"\r\n\r\n1\r\n--b--",
            "a header",
        ),
        (b"--b\r\n" + b"X: a\r\n" * 300_000 + b"\r\n1\r\n--b--", "a header"),
        (field("a", "1"), "does not end with the boundary"),
        (b"a" * 3_000_000, "does not end with the boundary"),
        (b"", "does not end with the boundary"),
        (b"--b--", "no field"),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\n1\r\n--b--", "without a name"),
        (b'--b\r\nContent-Disposition: form-data; name="a\\"b"\r\n\r\n1\r\n--b--', "without a name"),
        (field("a", "1").replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n") + b"--b--", "encoded"),
    ],
)
def test_a_malformed_form_is_refused_with_a_reason(body: bytes, reason: str) -> None:
    with pytest.raises(QueryRefusedError, match=reason) as caught:
        fields(body)
    assert caught.value.status == 400


@pytest.mark.parametrize("content_type", ["multipart/form-data", 'multipart/form-data; boundary=""', FORM + "b" * 70])
def test_a_form_needs_a_boundary(content_type: str) -> None:
    with pytest.raises(QueryRefusedError, match="has no boundary") as caught:
        fields(field("a", "1") + b"--b--", content_type)
    assert caught.value.status == 400


def test_a_file_is_refused() -> None:
    with pytest.raises(QueryRefusedError, match="External data") as caught:
        fields(field("a", "1").replace(b'"a"', b'"a"; filename="x"') + b"--b--")
    assert caught.value.code == ErrorCode.NOT_IMPLEMENTED


def test_a_body_of_many_empty_frames_is_refused() -> None:
    frame = native._HEADER.pack(native._NONE, native._HEADER.size, 0)
    frame = native._checksum(frame) + frame
    assert native.decompress(frame * 1000, 100) == b""
    with pytest.raises(QueryRefusedError, match="1000 frames"):
        native.decompress(frame * 1001, 100)


def serve(query_string: bytes, *accounts: Account, headers: tuple[tuple[bytes, bytes], ...] = ()) -> tuple[int, bytes]:
    """Send one request to the application; return status and body."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"SELECT 1", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "query_string": query_string, "headers": headers, "client": ("127.0.0.1", 1)}
    log: Any = None
    asyncio.run(QueryService(accounts, Connections(), log, "audit", "1")(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def test_the_parameters_of_a_url_are_counted_before_they_are_parsed() -> None:
    status, body = serve(b"a&" * 16_000)
    assert status == 400
    assert b"more than 1000 parameters" in body
    assert serve(b"a&" * (MOST_FIELDS - 1))[0] == 401


def test_bodies_are_parsed_outside_the_thread_that_serves_all(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def read(*arguments: Any) -> None:
        threads.append(threading.current_thread())
        raise QueryRefusedError(ErrorCode.BAD_ARGUMENTS, "read")

    monkeypatch.setattr(service, "read_statement", read)
    runner: Any = None
    account = Account(EndpointCredential("analyst", "secret"), ANALYST, runner)
    headers = ((b"x-clickhouse-user", b"analyst"), (b"x-clickhouse-key", b"secret"))
    assert serve(b"", account, headers=headers)[0] == 400
    assert threads != [threading.current_thread()]
    assert len(threads) == 1
