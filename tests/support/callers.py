"""The two users of the webhook sender behind one interface, so that each test runs over both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from grantledger.enforcers.contract import AttemptStatus, Key, RevokeCommand
from grantledger.enforcers.enforcement_policy import WebhookTarget
from grantledger.enforcers.webhook import WebhookPlugin
from grantledger.schemas.event import Resource, Subject
from grantledger.sinks.alerts.channel import Envelope
from grantledger.sinks.alerts.config import WebhookChannel
from grantledger.sinks.alerts.webhook import Webhook

from .receiver import SECRET

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DELIVERED, RETRY, FAILED = "delivered", "retry", "failed"


@dataclass(frozen=True)
class Sent:
    """The result of one message. ``status``: delivered, retry or failed."""

    status: str
    detail: str
    retry_after: float | None = None


Caller = Callable[..., Sent]
"""Sends one message to a URL, with more configuration keys."""


def secret_file(folder: Path, text: str = SECRET) -> str:
    path = folder / "secret"
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def send_alert(folder: Path, url: str, **keys: Any) -> Sent:
    given = {"kind": "webhook", "url": url, "secret": {"file": secret_file(folder)}, "timeout_seconds": 30} | keys
    channel = Webhook("channels.hook", WebhookChannel.model_validate(given), NOON.timestamp)
    (exchange,) = channel.send([Envelope(1, "message-1", "opened", '{"type":"finding.opened"}')])
    answer = exchange.answer
    status = FAILED if answer.result in ("rejected", "gone") else str(answer.result)
    return Sent(status, answer.detail, answer.retry_after)


def send_command(folder: Path, url: str, **keys: Any) -> Sent:
    given = {"plugin": "webhook", "url": url, "secret": {"file": secret_file(folder)}, "timeout_seconds": 30} | keys
    plugin = WebhookPlugin(WebhookTarget.model_validate(given), "test.example", "targets.hook", NOON.timestamp)
    command = RevokeCommand(
        Key("g1", NOON), "message-1", "overdue", "critical", Subject("alice", "human"), Resource("database", "orders"),
        "readwrite", "native", None, NOON,
    )  # fmt: skip
    attempt = plugin.revoke(command)
    status = {AttemptStatus.accepted: DELIVERED, AttemptStatus.retry: RETRY, AttemptStatus.failed: FAILED}
    return Sent(status[attempt.status], attempt.detail, attempt.retry_after)


CALLERS = {"alert": send_alert, "enforce": send_command}
