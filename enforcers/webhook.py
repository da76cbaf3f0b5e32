"""Plug-in ``webhook``: a signed POST of the command, and an optional second one that asks whether the access exists.

Headers and signature: Standard Webhooks 1.0.0. A command keeps its ``webhook-id`` at every attempt, so that a receiver
can detect duplicates. Body: CloudEvents 1.0.2, JSON event format, structured mode.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable

from ..webhooks.answer import SendResult
from ..webhooks.sender import SignedSender, WebhookSender
from ..webhooks.signing import parse_signing_keys
from .contract import Attempt, AttemptStatus, Observation, Presence, RevokeCommand, as_text
from .enforcement_policy import WebhookTarget

EVENT_TYPE = "grantledger.revoke.requested"
LOOKUP_TYPE = "grantledger.access.lookup"
HEADERS = {"content-type": "application/cloudevents+json", "user-agent": "grantledger-enforcer"}


def cloud_event(command: RevokeCommand, deployment: str, kind: str, message_id: str) -> bytes:
    """Return the body, which depends on nothing but the arguments."""
    event = {
        "specversion": "1.0",
        "id": message_id,
        "source": f"grantledger/{deployment}",
        "type": kind,
        "subject": command.key.grant_id,
        "time": as_text(command.requested_at),
        "datacontenttype": "application/json",
        "data": command.as_json(),
    }
    return json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class WebhookPlugin:
    """Asks a receiver to remove the access and, if the policy has ``read_back``, whether it is gone."""

    kind = "webhook"

    def __init__(
        self, target: WebhookTarget, deployment: str, key: str = "targets", clock: Callable[[], float] = time.time
    ) -> None:
        self._deployment, self._disabled = deployment, False
        keys = parse_signing_keys(target.secret.read(f"{key}.secret"), f"{key}.secret")
        self._commands = SignedSender(WebhookSender(target, key, clock=clock), keys, HEADERS)
        self._lookups = (
            SignedSender(WebhookSender(target, key, target.read_back, clock), keys, HEADERS)
            if target.read_back
            else None
        )

    def revoke(self, command: RevokeCommand) -> Attempt:
        """POST the command. After a 410 nothing more is sent until the enforcer restarts."""
        if self._disabled:
            return Attempt(AttemptStatus.failed, "the receiver answered 410 before; restart the enforcer to enable it")
        body = cloud_event(command, self._deployment, EVENT_TYPE, command.command_id)
        answer = self._commands.post(command.command_id, body)
        if answer.result is SendResult.delivered:
            return Attempt(AttemptStatus.accepted, f"the receiver {answer.detail}")
        if answer.result is SendResult.retry:
            detail = answer.detail if answer.status is None else f"the receiver {answer.detail}"
            return Attempt(AttemptStatus.retry, detail, answer.retry_after)
        self._disabled = answer.result is SendResult.gone
        note = "; nothing more is sent to it until the enforcer restarts" if self._disabled else ""
        return Attempt(AttemptStatus.failed, f"the receiver {answer.detail}{note}")

    def read_back(self, command: RevokeCommand) -> Observation:
        """POST the question. Only a 200 with ``{"present": true}`` or ``false`` counts as an answer."""
        if self._lookups is None:
            return Observation(Presence.unreadable, "the policy has no address to read back")
        # Every lookup has its own id, so that the receiver does not discard it as a duplicate.
        message_id = str(uuid.uuid4())
        answer = self._lookups.post(message_id, cloud_event(command, self._deployment, LOOKUP_TYPE, message_id))
        try:
            found = json.loads(answer.body) if answer.status == 200 else None
        except (ValueError, RecursionError):
            found = None
        present = found.get("present") if isinstance(found, dict) else None
        if not isinstance(present, bool):
            return Observation(Presence.unknown, f"the lookup is not a usable answer: {answer.detail}")
        presence = Presence.present if present else Presence.absent
        return Observation(presence, f"the receiver answered present: {json.dumps(present)}")
