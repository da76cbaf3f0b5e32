"""What the watch says, as events: findings for ``access.findings``, commands for ``access.commands`` as well.

Every event's id is made from what it says, so that the same thing said twice is one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

from ...schemas.codec import EventEncoder
from ...schemas.event import FINDINGS_TOPIC, Actor, Event, Finding, Resource, Source, Subject
from ...schemas.rules import InvalidEventError
from ...schemas.topics import COMMANDS_TOPIC, MAX_RECORD_BYTES
from .life import Grant
from .policy import Judge, Severity
from .reading import LATEST
from .rules import REVOKE
from .state import Change, Identity

SYSTEM = "grantledger-watch"
"""``source.system`` of everything the watch writes."""
ACTOR = Actor(SYSTEM, "system")
FAULT = "watch_fault"
"""Rule of the finding that says that something could not be judged."""
LONGEST_NAME = 500
"""Characters of a sender's name of something, where a longer one would not fit into a record."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(micros: int) -> datetime:
    """Return a time; what lies outside of the calendar, its first or last moment."""
    return _EPOCH + timedelta(microseconds=min(max(micros, 0), LATEST))


def _name(identity: Identity) -> str:
    return json.dumps(identity, separators=(",", ":"), ensure_ascii=False)


def short(name: str) -> str:
    """Return a name that fits into a record, however long a sender made it. A name that was cut ends in a digest."""
    if len(name) <= LONGEST_NAME:
        return name
    digest = sha256(name.encode("utf-8", "replace")).hexdigest()[:32]
    return f"{name[: LONGEST_NAME - 33]}~{digest}"


class Word(NamedTuple):
    """An event as it is written: where it goes, and its bytes."""

    topic: str
    event: Event
    value: bytes


class Writer:
    """Turns events into bytes that a topic takes."""

    def __init__(self) -> None:
        self._encoder = EventEncoder()

    def word(self, topic: str, event: Event) -> Word:
        """Return an event as it is written.

        Raises:
            InvalidEventError: the event breaks a rule of the schema, or is too large for a record; names the field.
        """
        value = self._encoder.encode(event)
        size = len(value) + len(event.key.encode())
        if size > MAX_RECORD_BYTES:
            raise InvalidEventError("event", f"has {size} bytes, more than the {MAX_RECORD_BYTES} of a record")
        return Word(topic, event, value)


@dataclass(frozen=True, slots=True)
class Reporter:
    """Makes the watch's events. ``deployment`` is the source's instance."""

    deployment: str
    judge: Judge

    def report(self, change: Change, grant: Grant | None, remark: Mapping[str, object]) -> list[tuple[str, Event]]:
        """Return what to write where, as pairs of topic and event.

        Args:
            grant: the grant that it is about, where it is about one.
            remark: what to add to the evidence: that our own lag may hide the answer.
        """
        found = change.finding
        evidence = {**found.evidence, **remark}
        if found.rule == REVOKE:
            if grant is None:
                return []
            command = self._event("revoke.requested", change, grant, self.judge.severity("overdue"), evidence)
            return [(COMMANDS_TOPIC, command), (FINDINGS_TOPIC, command)]
        event_type = "finding.opened" if change.what == "opened" else "finding.resolved"
        return [(FINDINGS_TOPIC, self._event(event_type, change, grant, self.judge.severity(found.rule), evidence))]

    def _event(
        self, event_type: str, change: Change, grant: Grant | None, severity: Severity, evidence: dict[str, object]
    ) -> Event:
        found = change.finding
        about: dict[str, Any] = {"subject": Subject(found.key, "system")}
        rule = "overdue" if found.rule == REVOKE else found.rule
        if grant is not None:
            subject_kind, id_kind = grant.kinds
            access = grant.access
            about = {
                "tenant": access.tenant,
                "subject": Subject(access.subject, subject_kind),
                "resource": Resource(access.resource_kind, access.resource, grant.environment or None),
                "entitlement": access.entitlement or None,
                "grant_id": grant.grant_id,
                "grant_id_kind": id_kind,
                "request_id": grant.request_id or None,
            }
        deadline = moment(found.deadline) if found.deadline else None
        return Event(
            event_type=event_type,
            occurred_at=moment(change.at),
            source=Source(SYSTEM, self.deployment, _name(found[:3]), "finding"),
            actor=ACTOR,
            outcome={"finding.opened": "failure", "finding.resolved": "success"}.get(event_type, "pending"),
            finding=Finding(rule, found.key, severity, deadline, json.dumps(evidence, sort_keys=True)),
            **about,
        )

    def fault(self, where: str, at: int, error: Exception) -> Event:
        """Return the finding that something could not be judged or reported. It says nothing of the payload.

        Args:
            where: which sealed record, entry or grant; makes the id.
        """
        why = type(error).__name__
        if isinstance(error, InvalidEventError):
            why = f"{why}: {error.field}"
        return self._own(FAULT, where, 0, at, {"error": why})

    def jumped(self, at: int, seconds: float, *, resolved: bool) -> Event:
        """Return the finding that this machine's clock jumped, or that the brokers have told the time since."""
        return self._own(
            "clock_skew", f"{SYSTEM}/{self.deployment}", at, at, {"jumped_seconds": seconds}, resolved=resolved
        )

    def _own(
        self, rule: str, key: str, deadline: int, at: int, evidence: dict[str, object], *, resolved: bool = False
    ) -> Event:
        return Event(
            event_type="finding.resolved" if resolved else "finding.opened",
            occurred_at=moment(at),
            source=Source(SYSTEM, self.deployment, _name((rule, key, deadline)), "finding"),
            subject=Subject(SYSTEM, "system"),
            actor=ACTOR,
            outcome="success" if resolved else "failure",
            finding=Finding(
                rule, key, "critical", moment(deadline) if deadline else None, json.dumps(evidence, sort_keys=True)
            ),
        )


def said_before(known: dict[Identity, bool], native_id: str, event_type: str) -> None:
    """Fold one event of a watch into what has been said: identity to whether it is open.

    Raises:
        ValueError: no watch has said this.
    """
    rule, key, deadline = json.loads(native_id)
    if event_type == "revoke.requested":
        known[REVOKE, key, deadline] = True
    elif event_type in ("finding.opened", "finding.resolved"):
        known[rule, key, deadline] = event_type == "finding.opened"
