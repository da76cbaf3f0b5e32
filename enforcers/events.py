"""Commands in, outcomes out: the events of ``access.commands`` and what the enforcer puts on record.

Every event of the enforcer has an id made from the command's key and the number of the attempt, so that the same
outcome written twice is one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..schemas.codec import EventEncoder
from ..schemas.event import Actor, Event, Finding, Resource, Source, Subject, make_event_id
from ..schemas.rules import InvalidEventError
from .contract import InvalidCommandError, Key, Target, as_text
from .core import History, Outcome

SYSTEM = "grantledger-enforcer"
"""``source.system`` of everything the enforcer writes."""
ACTOR = Actor(SYSTEM, "system")
COMMAND_TYPE = "revoke.requested"
BREAKER_RULE = "enforcer_breaker"
INVALID_RULE = "enforcer_command_invalid"
LOST_RULE = "enforcer_commands_lost"
LONGEST_TEXT = 500
"""Characters of a detail that go on record."""

_ENCODER = EventEncoder()


def target_of(datum: Mapping[str, Any]) -> Target:
    """Return the access that a decoded command asks to take away.

    Raises:
        InvalidCommandError: something that a command must have is missing or wrong; names the field.
    """
    if datum.get("event_type") != COMMAND_TYPE:
        raise InvalidCommandError(f"event_type is {datum.get('event_type')!r}, not {COMMAND_TYPE}")
    for name in ("finding", "resource", "entitlement", "grant_id", "grant_id_kind"):
        if not datum.get(name):
            raise InvalidCommandError(f"{name} is missing")
    finding, subject, resource = datum["finding"], datum["subject"], datum["resource"]
    if finding["key"] != datum["grant_id"]:
        raise InvalidCommandError("finding.key is not grant_id")
    if finding["deadline"] is None:
        raise InvalidCommandError("finding.deadline is missing")
    if not subject["id"]:
        raise InvalidCommandError("subject.id is empty")
    key = Key(datum["grant_id"], finding["deadline"].astimezone(UTC))
    target = Target(
        key=key,
        command_id=make_event_id(Source(SYSTEM, "", _identity(key), "command"), COMMAND_TYPE),
        rule=finding["rule"],
        severity=finding["severity"],
        tenant=datum["tenant"],
        subject=Subject(subject["id"], subject["kind"], subject["email"]),
        resource=Resource(resource["kind"], resource["id"], resource["environment"]),
        entitlement=datum["entitlement"],
        grant_id_kind=datum["grant_id_kind"],
        request_id=datum["request_id"],
        requested_at=datum["occurred_at"].astimezone(UTC),
    )
    try:
        # Whoever wrote it may know other words than the schema allows, and numbers where it has text. What cannot be
        # put on record is not begun.
        for event in Recorder(SYSTEM).confirmed(target, 0, "", target.requested_at, ""):
            _ENCODER.encode(event)
    except InvalidEventError as error:
        raise InvalidCommandError(str(error)) from error
    return target


def _identity(key: Key, *more: int) -> str:
    return json.dumps([key.grant_id, as_text(key.deadline), *more], separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Recorder:
    """Makes the enforcer's events. ``deployment`` is the source's instance."""

    deployment: str

    def begun(self, target: Target, number: int, name: str, at: datetime) -> Event:
        """``revoke.attempted``, outcome pending: written before anything is done, so that no attempt goes unrecorded.

        Args:
            number: which attempt it is, from 1.
            name: the target in the policy that carries it out.
        """
        evidence = {"attempt": number, "target": name}
        return self._event("revoke.attempted", target, number, at, evidence, outcome="pending")

    def attempted(
        self, target: Target, number: int, name: str, at: datetime, *, ok: bool, final: bool, details: tuple[str, str]
    ) -> Event:
        """``revoke.attempted``: what an attempt came to.

        Args:
            ok: the other side took the command.
            final: nothing more will be done, and nothing can be read back.
            details: what the other side said, and what was seen after it.
        """
        evidence = {"attempt": number, "target": name, "answer": details[0], "seen": details[1], "final": final}
        return self._event(
            "revoke.attempted",
            target,
            number,
            at,
            evidence,
            outcome="success" if ok else "failure",
            error=None if ok else details[0],
            removal_evidence="api_accepted" if ok else "none",
            ordinal=1,
        )

    def confirmed(self, target: Target, number: int, name: str, at: datetime, seen: str) -> tuple[Event, Event]:
        """``revoke.confirmed`` for the record, and ``grant.revoked`` for everybody who follows the grant's life.

        Args:
            number: attempts begun; 0 where the access was gone before the first.
            seen: what was seen when reading back.
        """
        evidence = {"attempt": number, "target": name, "seen": seen}
        common: dict[str, Any] = {"outcome": "success", "removal_evidence": "confirmed"}
        record = self._event("revoke.confirmed", target, number, at, evidence, **common)
        removal = Event(
            event_type="grant.revoked",
            occurred_at=at,
            source=self._source(target, number),
            reason=f"taken away after its deadline ({target.rule})",
            **self._about(target),
            **common,
        )
        return record, removal

    def failed(
        self, target: Target, number: int, name: str, at: datetime, why: str, *, superseded: bool = False
    ) -> Event:
        """``revoke.failed``: the command is given up; a person must take the access away, unless it is superseded."""
        evidence = {"attempt": number, "target": name} | ({"superseded": True} if superseded else {})
        return self._event("revoke.failed", target, number, at, evidence, outcome="failure", error=why)

    def breaker(self, at: datetime, *, opened: bool, limit: int, seconds: float, who: str, why: str) -> Event:
        """The breaker opened, or a person has closed it.

        Args:
            who: the person who closes it; the enforcer itself where it opens.
            why: for the record.
        """
        evidence = {"max_per_window": limit, "window_seconds": seconds}
        return Event(
            event_type="finding.opened" if opened else "finding.resolved",
            occurred_at=at,
            source=Source(SYSTEM, self.deployment, f"{BREAKER_RULE}:{as_text(at)}", "finding"),
            subject=Subject(SYSTEM, "system"),
            actor=ACTOR if opened else Actor(who, "human"),
            outcome="failure" if opened else "success",
            reason=why[:LONGEST_TEXT],
            finding=Finding(BREAKER_RULE, SYSTEM, "critical", evidence=json.dumps(evidence, sort_keys=True)),
        )

    def finding(self, rule: str, offset: int, at: datetime, why: str) -> Event:
        """A finding about the commands' topic itself. ``offset``: of the record in question, which makes the id."""
        evidence = json.dumps({"offset": offset, "reason": why[:LONGEST_TEXT]}, sort_keys=True)
        return Event(
            event_type="finding.opened",
            occurred_at=at,
            source=Source(SYSTEM, self.deployment, f"{rule}:{offset}", "finding"),
            subject=Subject(SYSTEM, "system"),
            actor=ACTOR,
            outcome="failure",
            finding=Finding(rule, SYSTEM, "critical", evidence=evidence),
        )

    def _source(self, target: Target, number: int) -> Source:
        return Source(SYSTEM, self.deployment, _identity(target.key, number), "revocation")

    def _about(self, target: Target) -> dict[str, Any]:
        return {
            "tenant": target.tenant,
            "subject": target.subject,
            "actor": ACTOR,
            "resource": target.resource,
            "entitlement": target.entitlement,
            "grant_id": target.key.grant_id,
            "grant_id_kind": target.grant_id_kind,
            "request_id": target.request_id,
        }

    def _event(
        self, event_type: str, target: Target, number: int, at: datetime, evidence: dict[str, Any], **fields: Any
    ) -> Event:
        short = {name: text[:LONGEST_TEXT] if isinstance(text, str) else text for name, text in evidence.items()}
        if fields.get("error"):
            fields["error"] = fields["error"][:LONGEST_TEXT]
        told = json.dumps(short, sort_keys=True)
        return Event(
            event_type=event_type,
            occurred_at=at,
            source=self._source(target, number),
            finding=Finding(target.rule, target.key.grant_id, target.severity, target.key.deadline, told),
            **self._about(target),
            **fields,
        )


def note(history: History, deployment: str, datum: Mapping[str, Any]) -> None:
    """Fold one decoded event of ``access.findings`` into the history; events of others change nothing."""
    finding, source = datum["finding"], datum["source"]
    if finding is None or source["system"] != SYSTEM or source["instance"] != deployment:
        return
    kind, at = datum["event_type"], datum["occurred_at"].astimezone(UTC)
    if finding["rule"] == BREAKER_RULE and finding["key"] == SYSTEM:
        history.note_breaker(at, opened=kind == "finding.opened")
        return
    if not kind.startswith("revoke.") or finding["deadline"] is None:
        return
    key = Key(finding["key"], finding["deadline"].astimezone(UTC))
    evidence = json.loads(finding["evidence"])
    if kind == "revoke.attempted":
        history.note_attempt(key, int(evidence["attempt"]), at)
        if evidence.get("final"):
            history.note_outcome(key, Outcome.accepted)
    elif kind == "revoke.confirmed":
        history.note_outcome(key, Outcome.confirmed)
    elif kind == "revoke.failed":
        history.note_outcome(key, Outcome.superseded if evidence.get("superseded") else Outcome.failed)
