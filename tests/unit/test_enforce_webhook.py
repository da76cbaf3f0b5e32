"""The webhook plug-in against a receiver on loopback."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from grantledger.enforcers.contract import Attempt, Presence, Result
from grantledger.enforcers.policy import PolicyError, WebhookTarget
from grantledger.enforcers.webhook import MAX_ANSWER_BYTES, WebhookPlugin, sign, signing_keys
from support.receiver import Answer, Receiver, status

from .test_enforce_core import NOON, target

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


@pytest.fixture
def plugin(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> WebhookPlugin:
    monkeypatch.setenv("ORDERS_SECRET", SECRET)
    return WebhookPlugin(config(receiver.url), "test.example")


@pytest.fixture
def impatient(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> WebhookPlugin:
    monkeypatch.setenv("ORDERS_SECRET", SECRET)
    return WebhookPlugin(config(receiver.url, timeout_seconds=1), "test.example")


def config(url: str, **fields: Any) -> WebhookTarget:
    given = {"plugin": "webhook", "url": url, "secret": {"env": "ORDERS_SECRET"}, "timeout_seconds": 30}
    return WebhookTarget.model_validate(given | fields)


def test_the_signature_is_that_of_the_published_example() -> None:
    """Standard Webhooks' own test vector, as its reference libraries have it."""
    keys = [base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    assert keys == signing_keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = sign(keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_receiver_can_check_and_read_the_command(receiver: Receiver, plugin: WebhookPlugin) -> None:
    before = int(time.time())
    assert plugin.revoke(target()) == Attempt(Result.accepted, "the receiver answered 204")
    [(path, headers, body)] = receiver.got
    assert path == "/revoke?team=blue" and headers["content-type"] == "application/cloudevents+json"
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert before <= int(headers["webhook-timestamp"]) <= int(time.time())
    event = json.loads(body)
    assert event.items() >= {
        "specversion": "1.0", "id": headers["webhook-id"], "source": "grantledger/test.example", "subject": "g1",
        "type": "grantledger.revoke.requested", "datacontenttype": "application/json",
        "time": "2026-03-01T12:00:00.000000Z",
    }.items()  # fmt: skip
    assert event["data"]["subject"] == {"id": "alice", "kind": "human", "email": "alice@example.com"}
    assert event["data"]["resource"] == {"kind": "database", "id": "orders", "environment": "production"}
    assert (event["data"]["entitlement"], event["data"]["deadline"]) == ("readwrite", "2026-03-01T12:00:00.000000Z")


def test_every_try_has_the_same_id_and_body(receiver: Receiver, plugin: WebhookPlugin) -> None:
    plugin.revoke(target())
    plugin.revoke(target())
    (_, one, body), (_, two, again) = receiver.got
    assert one["webhook-id"] == two["webhook-id"] and body == again
    plugin.revoke(target("g2"))
    assert receiver.got[2][1]["webhook-id"] != one["webhook-id"]


def test_during_a_change_of_secrets_both_sign(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    other = "whsec_" + base64.b64encode(KEY[::-1]).decode()
    monkeypatch.setenv("ORDERS_SECRET", f"{other} {SECRET}")
    WebhookPlugin(config(receiver.url), "test.example").revoke(target())
    assert [len(part) for part in receiver.got[0][1]["webhook-signature"].split(" ")] == [47, 47]


def test_without_an_address_nothing_is_read_back(receiver: Receiver, plugin: WebhookPlugin) -> None:
    assert plugin.read_back(target()).presence is Presence.unreadable
    assert receiver.got == []


@pytest.mark.parametrize(
    ("code", "body", "presence"),
    [(200, b'{"present": false}', "gone"), (200, b'{"present": true, "since": 4}', "still_there"),
     (200, b'{"present": 0}', "unknown"), (200, b"{}", "unknown"), (200, b"false", "unknown"), (200, b"", "unknown"),
     (200, b"\xff", "unknown"), (200, b"[" * 60_000, "unknown"), (202, b'{"present": false}', "unknown"),
     (404, b'{"present": false}', "unknown"), (307, b'{"present": false}', "unknown"),
     (200, b'{"present": false, "more": "%s"}' % bytes(MAX_ANSWER_BYTES), "unknown")],
)  # fmt: skip
def test_only_a_plain_answer_says_what_is_there(
    receiver: Receiver, plugin: WebhookPlugin, code: int, body: bytes, presence: str
) -> None:
    receiver.answer = lambda request: status(request, code, body, Location=receiver.url)
    asking = WebhookPlugin(config("https://example.com/", read_back=receiver.url), "test.example")
    assert asking.read_back(target()).presence is Presence(presence)
    assert len(receiver.got) == 1


def test_each_question_is_signed_and_has_an_id_of_its_own(receiver: Receiver, plugin: WebhookPlugin) -> None:
    asking = WebhookPlugin(config("https://example.com/", read_back=receiver.url), "test.example")
    asking.read_back(target())
    asking.read_back(target())
    events = [json.loads(body) for _, _, body in receiver.got]
    assert {event["type"] for event in events} == {"grantledger.access.lookup"}
    assert events[0]["data"] == events[1]["data"] == target().as_json()
    assert len({event["id"] for event in events} | {target().command_id}) == 3
    for _, headers, body in receiver.got:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{expected}" and json.loads(body)["id"] == headers["webhook-id"]


@pytest.mark.parametrize(
    ("code", "result"),
    [(200, Result.accepted), (202, Result.accepted), (500, Result.again), (503, Result.again), (429, Result.again),
     (408, Result.again), (400, Result.failed), (401, Result.failed), (404, Result.failed)],
)  # fmt: skip
def test_what_an_answer_means(receiver: Receiver, plugin: WebhookPlugin, code: int, result: Result) -> None:
    receiver.answer = lambda request: status(request, code, b"hunter2")
    attempt = plugin.revoke(target())
    assert attempt.result is result and str(code) in attempt.detail and "hunter2" not in attempt.detail


@pytest.mark.parametrize(
    ("said", "seconds"), [("17", 17.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None), ("1e400", None)]
)
def test_a_wait_asked_for_is_handed_on(
    receiver: Receiver, plugin: WebhookPlugin, said: str, seconds: float | None
) -> None:
    receiver.answer = lambda request: status(request, 503, Retry_After=said)
    assert plugin.revoke(target()) == Attempt(Result.again, "the receiver answered 503", seconds)


def test_gone_ends_it_until_the_next_start(
    receiver: Receiver, plugin: WebhookPlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.answer = lambda request: status(request, 410)
    assert plugin.revoke(target()).result is Result.failed
    receiver.answer = lambda request: status(request, 200)
    assert plugin.revoke(target("g2")).result is Result.failed
    assert len(receiver.got) == 1
    assert WebhookPlugin(config(receiver.url), "test.example").revoke(target()).result is Result.accepted


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(receiver: Receiver, plugin: WebhookPlugin, code: int) -> None:
    receiver.answer = lambda request: status(request, code, Location=receiver.url)
    assert plugin.revoke(target()).result is Result.failed
    assert len(receiver.got) == 1


def drip_body(receiver: Receiver) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(500)
        request.send_header("content-length", "1000")
        request.end_headers()
        while not receiver.end.wait(0.1):
            request.wfile.write(b".")

    return answer


def drip_head(receiver: Receiver) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
        while not receiver.end.wait(0.1):
            request.wfile.write(b".")

    return answer


def silence(receiver: Receiver) -> Answer:
    def answer(_request: BaseHTTPRequestHandler) -> None:
        receiver.end.wait(20)

    return answer


def half_a_status(_receiver: Receiver) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 2")

    return answer


@pytest.mark.parametrize("answer", [silence, drip_body, half_a_status])
def test_a_slow_or_broken_receiver_is_tried_again(
    receiver: Receiver, impatient: WebhookPlugin, answer: Callable[[Receiver], Answer]
) -> None:
    receiver.answer = answer(receiver)
    began = time.monotonic()
    assert impatient.revoke(target()).result is Result.again
    assert time.monotonic() - began < 15


def test_dripping_headers_end_at_the_limit(receiver: Receiver, impatient: WebhookPlugin) -> None:
    receiver.answer = drip_head(receiver)
    began = time.monotonic()
    assert impatient.revoke(target()).result is Result.again  # cut off by us, it is no answer, whatever it began with
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("code", [200, 500])
def test_a_huge_answer_is_not_read(receiver: Receiver, plugin: WebhookPlugin, code: int) -> None:
    receiver.answer = lambda request: status(request, code, bytes(MAX_ANSWER_BYTES + 1))
    attempt = plugin.revoke(target())
    assert attempt.result is Result.failed and "larger" in attempt.detail
    receiver.answer = lambda request: status(request, code, bytes(MAX_ANSWER_BYTES))
    assert "larger" not in plugin.revoke(target()).detail


def test_nobody_there_is_tried_again(receiver: Receiver, plugin: WebhookPlugin) -> None:
    receiver.stop()
    receiver.stop = lambda: None  # type: ignore[method-assign]
    assert plugin.revoke(target()).result is Result.again
    assert target().key.deadline == NOON


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://user:hunter2@example.com/",
        "ftp://example.com/",
        "https:///x",
        "http://10.0.0.1/",
        "https://example.com/with space",
        "https://example.com:99999/",
        "https://example.com/\n",
    ],
)
def test_an_address_that_gives_the_command_away_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        config(url)


@pytest.mark.parametrize("secret", ["hunter2", "whsec_!!", "whsec_" + base64.b64encode(b"short").decode(), ""])
def test_a_secret_of_another_shape_is_refused_and_not_shown(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_SECRET", secret)
    with pytest.raises(PolicyError) as refused:
        WebhookPlugin(config("https://example.com/"), "test.example")
    assert not secret or secret not in str(refused.value)
