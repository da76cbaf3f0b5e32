"""The webhook plug-in against a receiver on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from grantledger.enforcers.contract import Attempt, AttemptStatus, Presence
from grantledger.enforcers.enforcement_policy import WebhookTarget
from grantledger.enforcers.webhook import WebhookPlugin
from grantledger.webhooks.sender import MAX_ANSWER_BYTES
from support.receiver import PATH, SECRET, Receiver, status

from .test_enforce_command_rules import command


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


@pytest.fixture
def plugin(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> WebhookPlugin:
    monkeypatch.setenv("ORDERS_SECRET", SECRET)
    return WebhookPlugin(config(receiver.url), "test.example")


def config(url: str, **fields: Any) -> WebhookTarget:
    given = {"plugin": "webhook", "url": url, "secret": {"env": "ORDERS_SECRET"}, "timeout_seconds": 30}
    return WebhookTarget.model_validate(given | fields)


def test_a_receiver_can_check_and_read_the_command(receiver: Receiver, plugin: WebhookPlugin) -> None:
    before = int(time.time())
    assert plugin.revoke(command()) == Attempt(AttemptStatus.accepted, "the receiver answered 204")
    [request] = receiver.requests
    headers = request.headers
    assert request.path == PATH and headers["content-type"] == "application/cloudevents+json"
    request.assert_signed()
    assert before <= int(headers["webhook-timestamp"]) <= int(time.time())
    event = request.json
    assert event.items() >= {
        "specversion": "1.0", "id": headers["webhook-id"], "source": "grantledger/test.example", "subject": "g1",
        "type": "grantledger.revoke.requested", "datacontenttype": "application/json",
        "time": "2026-03-01T12:00:00.000000Z",
    }.items()  # fmt: skip
    assert event["data"]["subject"] == {"id": "alice", "kind": "human", "email": "alice@example.com"}
    assert event["data"]["resource"] == {"kind": "database", "id": "orders", "environment": "production"}
    assert (event["data"]["entitlement"], event["data"]["deadline"]) == ("readwrite", "2026-03-01T12:00:00.000000Z")


def test_every_try_has_the_same_id_and_body(receiver: Receiver, plugin: WebhookPlugin) -> None:
    plugin.revoke(command())
    plugin.revoke(command())
    one, two = receiver.requests
    assert one.headers["webhook-id"] == two.headers["webhook-id"] and one.body == two.body
    plugin.revoke(command("g2"))
    assert receiver.requests[2].headers["webhook-id"] != one.headers["webhook-id"]


def test_without_an_address_nothing_is_read_back(receiver: Receiver, plugin: WebhookPlugin) -> None:
    assert plugin.read_back(command()).presence is Presence.unreadable
    assert receiver.requests == []


@pytest.mark.parametrize(
    ("code", "body", "presence"),
    [(200, b'{"present": false}', "absent"), (200, b'{"present": true, "since": 4}', "present"),
     (200, b'{"present": 0}', "unknown"), (200, b"{}", "unknown"), (200, b"false", "unknown"), (200, b"", "unknown"),
     (200, b"\xff", "unknown"), (200, b"[" * 60_000, "unknown"), (202, b'{"present": false}', "unknown"),
     (404, b'{"present": false}', "unknown"), (307, b'{"present": false}', "unknown"),
     (200, b'{"present": false, "more": "%s"}' % bytes(MAX_ANSWER_BYTES), "unknown")],
)  # fmt: skip
def test_only_an_unambiguous_answer_counts_as_a_read_back(
    receiver: Receiver, plugin: WebhookPlugin, code: int, body: bytes, presence: str
) -> None:
    receiver.respond = lambda request: status(request, code, body, Location=receiver.url)
    asking = WebhookPlugin(config("https://example.com/", read_back=receiver.url), "test.example")
    assert asking.read_back(command()).presence is Presence(presence)
    assert len(receiver.requests) == 1


def test_each_question_is_signed_and_has_an_id_of_its_own(receiver: Receiver, plugin: WebhookPlugin) -> None:
    asking = WebhookPlugin(config("https://example.com/", read_back=receiver.url), "test.example")
    asking.read_back(command())
    asking.read_back(command())
    events = [one.json for one in receiver.requests]
    assert {event["type"] for event in events} == {"grantledger.access.lookup"}
    assert events[0]["data"] == events[1]["data"] == command().as_json()
    assert len({event["id"] for event in events} | {command().command_id}) == 3
    for one in receiver.requests:
        one.assert_signed()
        assert one.json["id"] == one.headers["webhook-id"]


def test_gone_ends_it_until_the_next_start(
    receiver: Receiver, plugin: WebhookPlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.respond = lambda request: status(request, 410)
    assert plugin.revoke(command()).status is AttemptStatus.failed
    receiver.respond = lambda request: status(request, 200)
    assert plugin.revoke(command("g2")).status is AttemptStatus.failed
    assert len(receiver.requests) == 1
    assert WebhookPlugin(config(receiver.url), "test.example").revoke(command()).status is AttemptStatus.accepted


def test_the_lookup_must_not_cross_a_network_in_the_clear() -> None:
    with pytest.raises(ValueError, match="read_back: http is for loopback"):
        config("https://example.com/", read_back="http://example.com/")
