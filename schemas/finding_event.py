"""Makes the events by which processes open and end findings. ``operator_events`` makes those of people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal

from .access_key import NO_ISSUER, SourceName
from .event import Actor, Event, EventSource, Finding, Subject
from .finding_rules import FINDING_RULES, Severity

PERSON_REQUEST = "person_request"
"""``finding.rule`` of a revocation that a person requests. Its ``finding.deadline`` is the time of the request."""
FindingEventType = Literal[
    "finding.opened", "finding.resolved", "finding.closed", "revoke.requested", "lookup.requested"
]  # fmt: skip
_OUTCOMES = {"finding.opened": "failure", "revoke.requested": "pending", "lookup.requested": "pending"}


def finding_event(
    event_type: FindingEventType,
    source: EventSource,
    finding: tuple[str, str],
    at: datetime,
    *,
    severity: Severity | None = None,
    deadline: datetime | None = None,
    evidence: Mapping[str, object] | None = None,
    **fields: Any,
) -> Event:
    """Return an event about a finding.

    Args:
        source: its system is also the actor, unless ``fields`` has another. Its ``native_id`` decides the event id, so
            that an event that is published twice counts once.
        finding: its rule and its key, which is also the subject, unless ``fields`` has another.
        severity: None for the rule's own.
        fields: more fields of the event.
    """
    rule, key = finding
    text = json.dumps(evidence or {}, sort_keys=True)
    defaults: dict[str, Any] = {"subject": Subject(key, "system"), "actor": Actor(source.system, "system")}
    return Event(
        event_type=event_type,
        occurred_at=at,
        source=source,
        outcome=_OUTCOMES.get(event_type, "success"),
        finding=Finding(rule, key, severity or FINDING_RULES[rule].severity, deadline, text),
        **defaults | fields,
    )


def finding_id(rule: str, key: str, deadline: datetime | None, tenant: str, issuer: SourceName) -> str:
    """Return the id of a finding: the beginning of the hash of what identifies it, short enough to type.

    ``grantledger findings`` computes the same in SQL.
    """
    due = ""
    if deadline is not None:
        due = deadline.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
    return sha256("\n".join((rule, key, due, tenant, *issuer)).encode("utf-8", "replace")).hexdigest()[:10]


def key_issuer(rule: str, grant: SourceName, request: SourceName, session: SourceName) -> SourceName:
    """Return the source that issued the id in the key of a finding; two empty texts if the key is no such id.

    Args:
        grant: issuer of the grant that the event about the finding names; two empty texts if it names none.
        request: issuer of its request.
        session: issuer of its session.
    """
    about = FINDING_RULES[rule].about if rule in FINDING_RULES else ""
    if about == "session":
        return session
    if about == "grant":
        return grant if grant[0] else request
    return NO_ISSUER
