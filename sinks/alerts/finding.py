"""Findings as the alerts need them: out of sealed entries, with everything that senders chose bounded and printable."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from ...ledger.batch import micros_of

What = Literal["opened", "resolved"]
MESSAGE_NAMESPACE = uuid.UUID("0f3c8d0e-6a0b-5c63-9f7e-5c1b5a3c2e19")
"""Fixed for ever: idempotency keys are uuid5 in this namespace."""
LABEL_LENGTH = 200
"""Characters of a label; a longer text is cut and told apart by a digest."""
EVIDENCE_LENGTH = 4000
EVIDENCE_DEPTH = 20
TYPES: dict[str, What] = {"finding.opened": "opened", "finding.resolved": "resolved"}
SEVERITIES = ("info", "warning", "critical")
"""From the least to the worst."""
_ABOUT = ("grant_id", "request_id", "session_id")


class NoFindingError(ValueError):
    """An event that calls itself a finding and is none; says what is missing."""


@dataclass(frozen=True, slots=True)
class FindingEvent:
    """A finding that opens, or is resolved. Times in microseconds since 1970.

    Attributes:
        event_id: of the event that says so; the same event read twice is one.
        deadline: RFC 3339 in UTC, empty where there is none. With rule and key it makes a finding the same finding.
        at: when it opened or ended, by whoever said so.
        appended: when Kafka took it.
        facts: who, what and where, with the evidence: strings, and ``evidence`` as an object.
    """

    event_id: str
    what: What
    rule: str
    key: str
    deadline: str
    severity: str
    at: int
    appended: int
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Rule, key and deadline as one text."""
        return json.dumps([self.rule, self.key, self.deadline], ensure_ascii=False)

    def as_text(self) -> str:
        """Return it as JSON, which :func:`from_text` reads."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)


def from_text(text: str) -> FindingEvent:
    """Return what :meth:`FindingEvent.as_text` wrote."""
    return FindingEvent(**json.loads(text))


def finding_of(datum: Mapping[str, Any], deployment: str, place: str, appended: int) -> FindingEvent | None:
    """Return the finding in a decoded event, None where the event is about something else.

    Args:
        datum: the event as its writer schema describes it.
        place: origin and index of the entry, for people who follow an alert back to the proof.
        appended: microseconds since 1970 at which Kafka took it.

    Raises:
        NoFindingError: its type says finding, and it holds none.
    """
    what = TYPES.get(str(datum.get("event_type")))
    if what is None:
        return None
    try:
        said, deadline = datum["finding"], datum["finding"].get("deadline")
        evidence = _evidence(said.get("evidence") or "{}")
        facts = {"deployment": deployment, "tenant": _text(datum.get("tenant")), "entry": place}
        facts |= _who_and_what(datum, evidence)
        facts |= {name: _text(datum.get(name)) for name in _ABOUT}
        return FindingEvent(
            event_id=_text(datum["event_id"]),
            what=what,
            rule=_text(said["rule"]),
            key=_text(said["key"]),
            deadline=rfc3339(micros_of(deadline)) if deadline is not None else "",
            severity=_text(said["severity"]),
            at=micros_of(datum["occurred_at"]),
            appended=appended,
            facts={name: value for name, value in facts.items() if value} | {"evidence": evidence},
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise NoFindingError(f"{datum.get('event_type')}: {type(error).__name__} {error}"[:200]) from error


def message_id(finding: FindingEvent, channel: str) -> str:
    """Return the idempotency key of one message: the same whenever, and however often, it is made."""
    name = [finding.rule, finding.key, finding.deadline, finding.what, finding.event_id, channel]
    return str(uuid.uuid5(MESSAGE_NAMESPACE, json.dumps(name, separators=(",", ":"), ensure_ascii=False)))


def rfc3339(micros: int) -> str:
    """Return microseconds since 1970 as RFC 3339 in UTC, always of the same length."""
    seconds, rest = divmod(micros, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:06d}Z"


def printable(text: str, limit: int) -> str:
    """Return a text of at most ``limit`` characters that all simply print: no line ends, no marks of direction."""
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def label(text: str) -> str:
    """Return a text as the value of a label. What had to be changed ends in a digest, so that two stay two."""
    shown = printable(text, LABEL_LENGTH)
    if shown == text:
        return text
    return f"{shown[: LABEL_LENGTH - 13]}~{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:12]}"


def at_least(severity: str, least: str) -> bool:
    """Whether a severity is not below another; a word that is not known counts as the worst."""
    rank = {word: number for number, word in enumerate(SEVERITIES)}
    return rank.get(severity, len(SEVERITIES)) >= rank[least]


def _evidence(text: str) -> dict[str, Any]:
    """Return the evidence as an object; as plain text what cannot be kept, or sent on as JSON, as it is."""
    if len(text) > EVIDENCE_LENGTH:
        return {"cut": printable(text, EVIDENCE_LENGTH)}
    try:
        found = json.loads(text)
        # A lone surrogate fits into no database, and NaN is no JSON to anybody else.
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and _flat_enough(found, EVIDENCE_DEPTH):
        return found
    return {"text": printable(text, EVIDENCE_LENGTH)}


def _flat_enough(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_flat_enough(one, levels - 1) for one in inner)


def _who_and_what(datum: Mapping[str, Any], evidence: Mapping[str, Any]) -> dict[str, str]:
    """Return subject and resource. The pipeline may be the event's own subject; then the evidence names the holder."""
    subject, resource = datum.get("subject") or {}, datum.get("resource") or {}
    holder = evidence.get("subject") if subject.get("kind") == "system" else None
    return {
        "subject": _text(holder or subject.get("id")),
        "subject_email": _text(subject.get("email")),
        "resource": _text(resource.get("id") or evidence.get("resource")),
        "resource_kind": _text(resource.get("kind")),
        "environment": _text(resource.get("environment")),
        "entitlement": _text(datum.get("entitlement") or evidence.get("entitlement")),
    }


def _text(value: object) -> str:
    """Return what a sender chose as text that a database and JSON can hold, however long."""
    return "" if value is None else str(value).encode("utf-8", "replace").decode()[:4096]
