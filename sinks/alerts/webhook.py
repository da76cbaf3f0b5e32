"""Channel ``webhook``: a signed POST for each opening and each end (Standard Webhooks 1.0.0, standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Sequence

from .channel import USER_AGENT, Envelope, Post, poster
from .config import AlertConfigError, WebhookChannel
from .finding import FindingEvent, rfc3339
from .http import Answer, judge

SECRET_PREFIX = "whsec_"  # noqa: S105 - a marker, not a secret


def body_of(finding: FindingEvent) -> str:
    """Return the body: kept in the outbox, so that it is the same at every try."""
    facts = {name: value for name, value in finding.facts.items() if name != "evidence"}
    data = {
        "event_id": finding.event_id,
        "rule": finding.rule,
        "key": finding.key,
        "severity": finding.severity,
        "deadline": finding.deadline or None,
        **facts,
        "evidence": finding.facts.get("evidence", {}),
    }
    message = {"type": f"finding.{finding.what}", "timestamp": rfc3339(finding.at), "data": data}
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def parse_secrets(text: str, what: str) -> tuple[bytes, ...]:
    """Return the signing keys in a text: one, or several apart by spaces while one takes the place of another.

    Args:
        what: the field, for the error.

    Raises:
        AlertConfigError: one is not ``whsec_`` and base64 of 24 to 64 bytes.
    """
    found = []
    for secret in text.split():
        try:
            key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not secret.startswith(SECRET_PREFIX) or not 24 <= len(key) <= 64:
            raise AlertConfigError(f"{what}: must be whsec_ and base64 of 24 to 64 bytes")
        found.append(key)
    return tuple(found)


def signature(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of ``webhook-signature``: a ``v1`` signature with each key.

    Args:
        timestamp: of this try, seconds since 1970.
    """
    content = b".".join((message_id.encode(), str(timestamp).encode(), body))
    return " ".join("v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys)


class Webhook:
    """Sends what is in the outbox, one message a post.

    Args:
        clock: seconds since 1970.

    Raises:
        AlertConfigError: the secret or a TLS file is not there, or not right.
    """

    def __init__(self, name: str, config: WebhookChannel, clock: Callable[[], float]) -> None:
        place = f"channels.{name}"
        self._keys = parse_secrets(config.secret.read(f"{place}.secret"), f"{place}.secret")
        self._poster = poster(place, config.url, config)
        self._clock = clock

    def message(self, finding: FindingEvent) -> str:
        """Return what goes into the outbox."""
        return body_of(finding)

    def ending(self, finding: FindingEvent, opened: str) -> str:
        """Return what goes into the outbox for an end; what was said at the opening changes nothing here."""
        del opened
        return body_of(finding)

    def send(self, envelopes: Sequence[Envelope]) -> list[Post]:
        """Post each message and say what became of it."""
        return [Post((envelope.number,), judge(self._post(envelope))) for envelope in envelopes]

    def _post(self, envelope: Envelope) -> Answer:
        body, now = envelope.text.encode(), self._clock()
        headers = {
            "content-type": "application/json",
            "user-agent": USER_AGENT,
            "webhook-id": envelope.message_id,
            "webhook-timestamp": str(int(now)),
            "webhook-signature": signature(self._keys, envelope.message_id, int(now), body),
        }
        return self._poster.post(body, headers, now)
