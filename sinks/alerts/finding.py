"""Findings as the alerts need them, made from sealed entries. Text that senders chose is bounded and printable."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from ...base.times import micros_of
from ...schemas.access_key import SourceName
from ...schemas.finding_event import finding_id, key_issuer
from ...schemas.finding_rules import FINDING_RULES, SEVERITIES
from ...schemas.instance_names import InstanceNames
from ...schemas.names import plain_name

ChangeKind = Literal["opened", "acknowledged", "resolved", "closed"]
"""The change of a finding that an event records. ``closed``: a person ended it."""
MESSAGE_NAMESPACE = uuid.UUID("0f3c8d0e-6a0b-5c63-9f7e-5c1b5a3c2e19")
"""Fixed forever: idempotency keys are uuid5 in this namespace."""
LABEL_LENGTH = 200
"""Characters of a label. A longer text is cut, and a digest keeps it distinct."""
EVIDENCE_LENGTH = 4000
EVIDENCE_DEPTH = 20
TYPES: dict[str, ChangeKind] = {f"finding.{change}": change for change in get_args(ChangeKind)}
_DECIDED = ("approved", "denied")
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_ISSUERS = ("grant_source", "request_source", "session_source")
SCOPE = ("tenant", *(f"{issuer}_{part}" for issuer in _ISSUERS for part in ("system", "instance")))
"""Facts that distinguish findings with equal keys: an id belongs to its issuing source."""
_FACTS: Mapping[str, tuple[str, ...]] = {
    "tenant": ("tenant",),
    **{f"{issuer}_{part}": (issuer, part) for issuer in _ISSUERS for part in ("system", "instance")},
    "subject": ("subject", "id"),
    "subject_email": ("subject", "email"),
    "resource": ("resource", "id"),
    "resource_kind": ("resource", "kind"),
    "environment": ("resource", "environment"),
    **{name: (name,) for name in ("entitlement", "reason", "grant_id", "request_id", "session_id")},
}
"""Facts and where each is in an event."""


class InvalidFindingError(ValueError):
    """An event has the type of a finding but lacks a required field."""


@dataclass(frozen=True, slots=True)
class FindingEvent:
    """One change of a finding. Times in microseconds since 1970."""

    event_id: str
    change: ChangeKind
    rule: str
    key: str
    deadline: str  # RFC 3339 in UTC, empty if there is none
    severity: str
    at: int  # when the finding changed, by the clock of the process that recorded it
    appended: int  # when Kafka appended the event
    facts: dict[str, Any] = field(default_factory=dict)  # who, what and where as strings; ``evidence`` as an object

    @property
    def identity(self) -> str:
        """Rule, key, deadline, tenant and issuer as one text: findings that agree in them are one finding."""
        parts = [self.rule, self.key, self.deadline, self.facts.get("tenant", ""), *self.issuer]
        return json.dumps(parts, ensure_ascii=False)

    @property
    def rule_key(self) -> str:
        """Rule, key and deadline as one text."""
        return json.dumps([self.rule, self.key, self.deadline], ensure_ascii=False)

    @property
    def issuer(self) -> SourceName:
        """The source that issued the id in the key; two empty texts if the event does not name it."""
        fact = self.facts.get
        return key_issuer(self.rule, *((fact(f"{name}_system", ""), fact(f"{name}_instance", "")) for name in _ISSUERS))

    @property
    def finding_id(self) -> str:
        """The id by which commands name the finding."""
        at = datetime.fromisoformat(self.deadline) if self.deadline else None
        return finding_id(self.rule, self.key, at, self.facts.get("tenant", ""), self.issuer)

    def renamed(self, names: InstanceNames) -> FindingEvent:
        """Return it with the one name of each installation."""
        facts = dict(self.facts)
        for issuer in _ISSUERS:
            if system := facts.get(f"{issuer}_system", ""):
                facts[f"{issuer}_instance"] = names.of((system, facts.get(f"{issuer}_instance", "")))[1]
        return replace(self, facts=facts)

    @property
    def replay_key(self) -> str:
        """Tenant and event id, which identify an event."""
        return json.dumps([self.facts.get("tenant", ""), self.event_id], ensure_ascii=False)

    @property
    def summary(self) -> str:
        """The rule in plain English."""
        known = FINDING_RULES.get(self.rule)
        return known.summary if known else f"Finding of the unknown rule {self.rule}"

    def runbook_at(self, base_url: str) -> str:
        """Return the address of the rule's runbook: without a base URL, a path in the repository; empty if unknown."""
        known = FINDING_RULES.get(self.rule)
        if known is None:
            return ""
        return f"{base_url.rstrip('/')}/{known.runbook}" if base_url else known.runbook

    def as_text(self) -> str:
        """Return it as JSON for :func:`from_text`."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)


def from_text(text: str) -> FindingEvent:
    """Return the finding that :meth:`FindingEvent.as_text` wrote."""
    return FindingEvent(**json.loads(text))


def finding_of(datum: Mapping[str, Any], deployment: str, place: str, appended: int) -> FindingEvent | None:
    """Return the finding in a decoded event, None if the event is about something else.

    ``place`` is origin and index of the entry, so that people can trace an alert to its proof. An InvalidFindingError
    names a missing or wrong field.
    """
    change = TYPES.get(str(datum.get("event_type")))
    if change is None:
        return None
    try:
        finding, deadline = datum["finding"], datum["finding"].get("deadline")
        evidence = _evidence(finding.get("evidence") or "{}")
        facts = {name: _fact(datum, path) for name, path in _FACTS.items()} | {"deployment": deployment, "entry": place}
        if change in ("acknowledged", "closed"):
            facts["actor"] = _fact(datum, ("actor", "id"))
        facts["approved_by"] = _approved_by(datum.get("approvals") or [])
        return FindingEvent(
            event_id=_text(datum["event_id"]),
            change=change,
            rule=_text(finding["rule"]),
            key=_text(finding["key"]),
            deadline=rfc3339(micros_of(deadline)) if deadline is not None else "",
            severity=_text(finding["severity"]),
            at=micros_of(datum["occurred_at"]),
            appended=appended,
            facts={name: value for name, value in facts.items() if value} | {"evidence": evidence},
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise InvalidFindingError(f"{datum.get('event_type')}: {type(error).__name__} {error}"[:200]) from error


def message_id(finding: FindingEvent, channel: str) -> str:
    """Return the idempotency key of one message, which depends on nothing but its arguments."""
    name = [finding.identity, finding.change, finding.event_id, channel]
    return str(uuid.uuid5(MESSAGE_NAMESPACE, json.dumps(name, separators=(",", ":"), ensure_ascii=False)))


def rfc3339(micros: int) -> str:
    """Return microseconds since 1970 as RFC 3339 in UTC, with a fixed length."""
    seconds, rest = divmod(micros, 1_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest, tzinfo=None)
    return f"{moment.isoformat(timespec='microseconds')}Z"


def shown_text(text: str, limit: int) -> str:
    """Return a text of at most ``limit`` printable characters: no line ends and no direction marks."""
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def label(text: str) -> str:
    """Return a text as the value of a label. A changed text ends in a digest to stay unique."""
    shown = shown_text(text, LABEL_LENGTH)
    if shown == text:
        return text
    return f"{shown[: LABEL_LENGTH - 13]}~{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:12]}"


def severity_rank(severity: str) -> int:
    """Return the rank of a severity, 0 for the least. An unknown severity counts as the highest."""
    rank: dict[str, int] = {name: number for number, name in enumerate(SEVERITIES)}
    return rank.get(severity, len(SEVERITIES))


def at_least(severity: str, least: str) -> bool:
    """Whether a severity is at least another."""
    return severity_rank(severity) >= severity_rank(least)


def _approved_by(approvals: Sequence[Mapping[str, Any]]) -> str:
    """Return the reviewers whose last decision approved, as the watch counts them; ``forced`` marks break-glass.

    Decisions count by their own times, and a denial wins a tie. One without a time only repeats a dated one.
    """
    decided = [(plain_name(_text(one["reviewer"])), one) for one in approvals if one["decision"] in _DECIDED]
    dated = {reviewer for reviewer, one in decided if one["at"]}
    of_dated = [(reviewer, one) for reviewer, one in decided if one["at"] or reviewer not in dated]
    last = dict(sorted(of_dated, key=lambda each: (each[1]["at"] or _LONG_AGO, each[1]["decision"] == "denied")))
    approving = (one for one in last.values() if one["decision"] == "approved")
    return ", ".join(_text(one["reviewer"]) + (" (forced)" if one["forced"] else "") for one in approving)[:4096]


def _evidence(text: str) -> dict[str, Any]:
    """Return the evidence as an object. Anything that SQLite or JSON cannot represent is kept as plain text."""
    if len(text) > EVIDENCE_LENGTH:
        return {"cut": shown_text(text, EVIDENCE_LENGTH)}
    try:
        found = json.loads(text)
        # SQLite cannot store a lone surrogate, and NaN is not JSON.
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and _flat_enough(found, EVIDENCE_DEPTH):
        return found
    return {"text": shown_text(text, EVIDENCE_LENGTH)}


def _flat_enough(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_flat_enough(one, levels - 1) for one in inner)


def _fact(datum: Mapping[str, Any], path: tuple[str, ...]) -> str:
    value: Any = datum
    for name in path:
        value = (value or {}).get(name)
    return _text(value)


def _text(value: object) -> str:
    """Return a sender's value as text that SQLite and JSON can represent."""
    return "" if value is None else str(value).encode("utf-8", "replace").decode()[:4096]
