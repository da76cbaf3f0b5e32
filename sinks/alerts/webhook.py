"""Channel ``webhook``: one signed POST per change of a finding (Standard Webhooks 1.0.0)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from ...webhooks.sender import SignedSender, WebhookSender
from ...webhooks.signing import parse_signing_keys
from .channel import USER_AGENT, Envelope, Exchange
from .config import WebhookChannel
from .finding import FindingEvent, rfc3339
from .page import description, late_seconds, page_of


class Webhook:
    """Sends one message per request."""

    def __init__(
        self, key: str, config: WebhookChannel, clock: Callable[[], float], runbook_base_url: str = ""
    ) -> None:
        self._runbook_base_url = runbook_base_url
        keys = parse_signing_keys(config.secret.read(f"{key}.secret"), f"{key}.secret")
        headers = {"content-type": "application/json", "user-agent": USER_AGENT}
        self._sender = SignedSender(WebhookSender(config, key, clock=clock), keys, headers)

    def message(self, finding: FindingEvent, opened: str = "") -> str:
        """Return the body. It does not depend on the text of the opening."""
        del opened
        facts = {name: value for name, value in finding.facts.items() if name != "evidence"}
        late = late_seconds(finding)
        data = {
            "event_id": finding.event_id,
            "rule": finding.rule,
            "key": finding.key,
            "severity": finding.severity,
            "deadline": finding.deadline or None,
            "summary": finding.summary,
            "runbook": finding.runbook_at(self._runbook_base_url),
            "description": description(finding, self._runbook_base_url),
            **page_of(finding),
            **({} if late is None else {"late_seconds": late}),
            **facts,
            "evidence": finding.facts.get("evidence", {}),
        }
        message = {"type": f"finding.{finding.change}", "timestamp": rfc3339(finding.at), "data": data}
        return json.dumps(message, ensure_ascii=False, separators=(",", ":"))

    def send(self, envelopes: Sequence[Envelope]) -> list[Exchange]:
        """Post each message."""
        return [Exchange((one.number,), self._sender.post(one.message_id, one.text.encode())) for one in envelopes]
