"""The webhook channel against a real receiver on loopback: signatures, retries, 410, and answers of every kind."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from grantledger.base.toml import load_toml
from grantledger.sinks.alerts.channel_builder import build_channels
from grantledger.sinks.alerts.config import AlertConfig
from grantledger.sinks.alerts.database import connect_outbox, prepare
from grantledger.sinks.alerts.delivery import Worker
from grantledger.sinks.alerts.finding import FindingEvent, message_id
from grantledger.sinks.alerts.outbox import Outbox, OutboxPosition
from grantledger.sinks.alerts.page import description
from grantledger.sinks.alerts.status import outbox_status
from support.alerting import finding, webhook_toml
from support.receiver import PATH, SECRET, Receiver, receiving, status
from support.waiting import wait_for

BACKOFF = 0.05


class Channel:
    """A webhook channel at work: an outbox, its worker, and a receiver."""

    def __init__(self, folder: Path, url: str, **more: object) -> None:
        self.folder, self.path, self.offset = folder, folder / "outbox.sqlite3", 0
        secret = folder / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        text = webhook_toml("hook", url, str(secret), **{"backoff_seconds": BACKOFF, "timeout_seconds": 30, **more})
        (folder / "alerts.toml").write_text(text)
        self.channels = build_channels(load_toml(folder / "alerts.toml", AlertConfig))
        prepare(self.path)
        self.outbox = Outbox(self.path, self.channels)
        self.outbox.configure(time.time())
        self.worker = Worker(self.path, self.channels[0], 86_400.0)
        self.worker.start()

    def take(self, *findings: FindingEvent) -> None:
        self.offset += 1
        self.outbox.take(OutboxPosition("00", self.offset), findings, [], live=True, now=time.time())
        self.worker.wake()

    def states(self) -> list[str]:
        with closing(connect_outbox(self.path, read_only=True)) as database:
            return [row[0] for row in database.execute("SELECT state FROM messages ORDER BY number")]

    def results(self) -> list[tuple[str, int | None]]:
        with closing(connect_outbox(self.path, read_only=True)) as database:
            return [tuple(row) for row in database.execute("SELECT result, status FROM deliveries ORDER BY number")]

    def wait(self, *states: str) -> None:
        wait_for(lambda: self.states() == list(states), f"messages are {states}", limit=20, pause=0.02)

    def stop(self) -> None:
        self.worker.stop()
        self.worker.join(10)
        assert not self.worker.is_alive() and self.worker.failure is None
        self.outbox.close()


@contextmanager
def delivering(folder: Path, url: str, **more: object) -> Iterator[Channel]:
    channel = Channel(folder, url, **more)
    try:
        yield channel
    finally:
        channel.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def test_a_message_is_signed_as_standard_webhooks_requires(tmp_path: Path, receiver: Receiver) -> None:
    before = int(time.time())
    with delivering(tmp_path, receiver.url) as channel:
        channel.take(finding("opened", at=1_700_000_000))
        channel.wait("done")
    (request,) = receiver.requests
    assert request.path == PATH
    sent_at = int(request.headers["webhook-timestamp"])
    assert before <= sent_at <= time.time()
    request.assert_signed()
    assert request.headers["webhook-id"] == message_id(finding("opened"), "hook")
    assert request.json == {
        "type": "finding.opened",
        "timestamp": "2023-11-14T22:13:20.000000Z",
        "data": {
            "event_id": "overdue-g-1-opened-0", "rule": "overdue", "key": "g-1", "severity": "critical",
            "deadline": "2026-03-01T12:00:00.000000Z", "deployment": "test.example", "tenant": "default",
            "subject": "alice", "resource": "orders", "runbook": "docs/runbooks/overdue.md",
            "summary": "Access is past its deadline and no removal is on record", "evidence": {},
            "finding_id": "ac4b74e99c", "person": "alice", "late_seconds": 0.0,
            "late": "0:00:00 when the finding opened", "approved_by": "no approval on record",
            "reason": "none on record", "next_command": "grantledger findings show ac4b74e99c",
            "description": description(finding("opened", at=1_700_000_000), ""),
        },
    }  # fmt: skip


def test_failures_are_tried_again_under_the_same_id_with_the_same_body(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answer(500, 503, 0, 200)
    with delivering(tmp_path, receiver.url, timeout_seconds=3) as channel:
        channel.take(finding("opened"))
        channel.wait("done")
        assert channel.results() == [("retry", 500), ("retry", 503), ("retry", None), ("delivered", 200)]
    assert len(set(receiver.ids())) == 1 and len({request.body for request in receiver.requests}) == 1
    (failure, *_) = outbox_status(channel.path, time.time())["failures"]
    assert failure["detail"].startswith("no answer")


def test_a_receiver_that_is_not_there_hears_of_it_when_it_comes(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/"
    with delivering(tmp_path, url) as channel:
        channel.take(finding("opened"))
        wait_for(lambda: len(channel.results()) >= 2, "two tries", limit=10, pause=0.02)
        assert set(channel.results()) == {("retry", None)} and channel.states() == ["due"]
    with receiving() as receiver, delivering(tmp_path, receiver.url) as channel:  # elsewhere, and the process anew
        channel.wait("done")
        assert len(receiver.requests) == 1


def test_retry_after_is_kept_to(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answer((429, {"retry-after": "1"}), 200)
    with delivering(tmp_path, receiver.url) as channel:
        channel.take(finding("opened"), finding("opened", "g-2"))
        channel.wait("done", "done")
    first, second, _third = receiver.requests
    assert second.at - first.at >= 1.0, "nothing goes to a receiver that asks for a pause"


def test_410_disables_and_enabling_delivers_the_backlog(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answer(410, 200)
    with delivering(tmp_path, receiver.url) as channel:
        channel.take(finding("opened", "g-1"), finding("opened", "g-2"))
        wait_for(lambda: outbox_status(channel.path, 0.0)["channels"][0]["state"] == "disabled", "it is disabled")
        channel.take(finding("opened", "g-3"))
        # A stop lets the worker finish what it is at: after it, nothing more can have been under way.
    assert [key for _, key in receiver.findings()] == ["g-1"]
    with delivering(tmp_path, receiver.url) as channel:
        assert outbox_status(channel.path, 0.0)["channels"][0]["disabled_why"] == "answered 410"
        assert channel.outbox.enable("hook", time.time())
        channel.wait("done", "done", "done")
    assert [key for _, key in receiver.findings()] == ["g-1", "g-1", "g-2", "g-3"]
    assert receiver.ids()[0] == receiver.ids()[1]


def test_a_rejected_message_is_given_up_in_time_and_blocks_no_other(tmp_path: Path, receiver: Receiver) -> None:
    receiver.respond = lambda request: status(request, 400 if b'"g-1"' in receiver.requests[-1].body else 200)
    with delivering(tmp_path, receiver.url, give_up_seconds=0.4) as channel:
        channel.take(finding("opened", "g-1"), finding("opened", "g-2"), finding("resolved", "g-1"))
        wait_for(lambda: channel.states()[:2] == ["given_up", "done"], "one is given up", limit=10, pause=0.02)
        channel.wait("given_up", "done", "given_up")
        state = outbox_status(channel.path, time.time())
        assert state["channels"][0]["given_up"] == 2
    assert receiver.findings()[1] == ("finding.opened", "g-2"), "the other one went while it was tried"
    assert receiver.findings().count(("finding.opened", "g-1")) >= 2


def test_a_redirect_is_not_followed(tmp_path: Path, receiver: Receiver) -> None:
    with receiving() as elsewhere:
        receiver.answer((307, {"location": elsewhere.url}))
        with delivering(tmp_path, receiver.url, give_up_seconds=0) as channel:
            channel.take(finding("opened"))
            channel.wait("given_up")
            assert channel.results() == [("rejected", 307)]
            (failure,) = outbox_status(channel.path, 0.0)["failures"]
            assert "a redirect, which is not followed" in failure["detail"]
        assert elsewhere.requests == []


def test_errors_show_neither_secret_nor_address(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answer(500, 410)
    with delivering(tmp_path, receiver.url) as channel:
        channel.take(finding("opened"))
        wait_for(lambda: len(channel.results()) == 2, "two tries")
        shown = str(outbox_status(channel.path, time.time()))
    for word in (SECRET, SECRET.removeprefix("whsec_"), "team=access"):
        assert word not in shown
        assert word.encode() not in channel.path.read_bytes()
