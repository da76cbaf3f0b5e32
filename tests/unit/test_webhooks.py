"""The webhook sender, as alerts and as enforcers use it: every test runs over both."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from grantledger.base.toml import ConfigError
from grantledger.webhooks.answer import parse_retry_after
from grantledger.webhooks.sender import MAX_ANSWER_BYTES
from grantledger.webhooks.signing import parse_signing_keys, sign
from support.callers import CALLERS, DELIVERED, FAILED, NOON, RETRY, Caller, Sent, secret_file
from support.receiver import KEY, PATH, SECRET, Answer, Receiver, status


@pytest.fixture(params=list(CALLERS))
def send(request: pytest.FixtureRequest, tmp_path: Path) -> Caller:
    def call(url: str, **keys: object) -> Sent:
        return CALLERS[request.param](tmp_path, url, **keys)

    return call


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


def test_the_signature_is_that_of_the_published_example() -> None:
    """The test vector of the reference implementations."""
    keys = parse_signing_keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "secret")
    assert keys == (base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),)
    found = sign(keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_message_is_signed_and_sent_once(receiver: Receiver, send: Caller) -> None:
    sent = send(receiver.url)
    assert (sent.status, sent.retry_after) == (DELIVERED, None) and "answered 204" in sent.detail
    [request] = receiver.requests
    headers = request.headers
    assert request.path == PATH and headers["webhook-id"] == "message-1"
    assert headers["webhook-timestamp"] == str(int(NOON.timestamp()))
    request.assert_signed()
    assert headers["user-agent"].startswith("grantledger-")


def test_while_a_secret_is_replaced_both_sign(receiver: Receiver, send: Caller, tmp_path: Path) -> None:
    other = "whsec_" + base64.b64encode(KEY[::-1]).decode()
    path = tmp_path / "both"
    path.write_text(f"{other} {SECRET}")
    path.chmod(0o600)
    send(receiver.url, secret={"file": str(path)})
    assert [len(part) for part in receiver.requests[0].headers["webhook-signature"].split(" ")] == [47, 47]


@pytest.mark.parametrize(
    ("code", "expected"),
    [(200, DELIVERED), (202, DELIVERED), (500, RETRY), (503, RETRY), (429, RETRY), (425, RETRY), (408, RETRY),
     (400, FAILED), (401, FAILED), (404, FAILED), (410, FAILED)],
)  # fmt: skip
def test_the_meaning_of_an_answer(receiver: Receiver, send: Caller, code: int, expected: str) -> None:
    receiver.respond = lambda request: status(request, code, b"hunter2")
    sent = send(receiver.url)
    assert sent.status == expected and str(code) in sent.detail and "hunter2" not in sent.detail


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("17", 17.0), (formatdate(NOON.timestamp() + 60, usegmt=True), 60.0), ("-1", None), ("1e400", None),
     ("9" * 400, 3600.0)],
)  # fmt: skip
def test_retry_after_is_returned_in_both_forms(
    receiver: Receiver, send: Caller, header: str, seconds: float | None
) -> None:
    receiver.respond = lambda request: status(request, 503, Retry_After=header)
    sent = send(receiver.url)
    assert (sent.status, sent.retry_after) == (RETRY, seconds)


def test_retry_after_in_its_two_forms() -> None:
    assert parse_retry_after("120", 0.0) == 120.0
    assert parse_retry_after(formatdate(999_000, usegmt=True), 1_000_000.0) == 0.0
    for text in (None, "", "soon", "-1", "1.5", "٣"):
        assert parse_retry_after(text, 0.0) is None, text


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(receiver: Receiver, send: Caller, code: int) -> None:
    receiver.respond = lambda request: status(request, code, Location=receiver.url)
    sent = send(receiver.url)
    assert sent.status == FAILED and "a redirect, which is not followed" in sent.detail
    assert len(receiver.requests) == 1


def drip_body(receiver: Receiver) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("content-length", "1000")
        request.end_headers()
        while not receiver.end.wait(0.1):
            request.wfile.write(b".")

    return answer


def drip_headers(receiver: Receiver) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not receiver.end.wait(0.1):
            request.wfile.write(b"x-drip: 1\r\n")

    return answer


def silence(receiver: Receiver) -> Answer:
    def answer(_request: BaseHTTPRequestHandler) -> None:
        receiver.end.wait(20)

    return answer


def half_a_status(_receiver: Receiver) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 2")

    return answer


def half_a_body(_receiver: Receiver) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("content-length", "1000")
        request.end_headers()
        request.wfile.write(b"too short")

    return answer


@pytest.mark.parametrize("answer", [silence, drip_body, drip_headers, half_a_status, half_a_body])
def test_a_slow_or_broken_receiver_is_retried_in_time(
    receiver: Receiver, send: Caller, answer: Callable[[Receiver], Answer]
) -> None:
    receiver.respond = answer(receiver)
    began = time.monotonic()
    sent = send(receiver.url, timeout_seconds=1)
    assert sent.status == RETRY and sent.detail.startswith("no answer")
    assert time.monotonic() - began < 10


def test_the_body_of_a_large_answer_is_not_read_and_its_status_counts(receiver: Receiver, send: Caller) -> None:
    receiver.respond = lambda request: status(request, 200, bytes(64 * MAX_ANSWER_BYTES))
    assert send(receiver.url).status == DELIVERED
    receiver.respond = lambda request: status(request, 500, bytes(64 * MAX_ANSWER_BYTES))
    assert send(receiver.url).status == RETRY


def test_a_receiver_that_is_down_is_retried(receiver: Receiver, send: Caller) -> None:
    receiver.stop()
    receiver.stop = lambda: None  # type: ignore[method-assign]
    sent = send(receiver.url)
    assert sent.status == RETRY and sent.detail.startswith("no answer: ") and receiver.url not in sent.detail


@pytest.mark.parametrize(
    "url",
    ["http://example.com/", "https://user:hunter2@example.com/", "ftp://example.com/", "https:///x", "http://10.0.0.1/",
     "https://example.com/with space", "https://example.com:99999/", "https://example.com/\n"],
)  # fmt: skip
def test_an_unsafe_address_is_refused(send: Caller, url: str) -> None:
    with pytest.raises(ValueError, match=r"url|https"):
        send(url)


@pytest.mark.parametrize("keys", [{"key_file": "/k"}, {"ca_file": "/ca"}, {"cert_file": "/c"}])
def test_tls_files_need_https_and_a_key_needs_a_certificate(send: Caller, keys: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"need"):
        send("http://127.0.0.1/", **keys)


def test_missing_tls_files_are_named(send: Caller) -> None:
    with pytest.raises(ConfigError, match=r"(channels|targets)\.hook: the TLS files cannot be used"):
        send("https://127.0.0.1/", ca_file="/nowhere/ca.pem")


@pytest.mark.parametrize("secret", ["hunter2", "whsec_!!", "whsec_" + base64.b64encode(b"short").decode()])
def test_a_malformed_secret_is_refused_and_not_shown(send: Caller, tmp_path: Path, secret: str) -> None:
    path = tmp_path / "bad"
    path.write_text(secret)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"\.hook\.secret: must be whsec_") as refused:
        send("https://example.com/", secret={"file": str(path)})
    assert secret not in str(refused.value)


def test_a_secret_that_others_can_access_is_refused(send: Caller, tmp_path: Path) -> None:
    path = Path(secret_file(tmp_path)).rename(tmp_path / "open")
    path.chmod(0o604)
    with pytest.raises(ConfigError, match=r"\.hook\.secret: others can access .*chmod 600"):
        send("https://example.com/", secret={"file": str(path)})
