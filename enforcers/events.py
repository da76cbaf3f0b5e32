"""Translates events into commands, and results into events.

The id of each event depends on the command's key and the number of the attempt, so that an event written twice counts
once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..schemas.codec import EventEncoder
from ..schemas.event import (
    OBSERVED,
    Actor,
    Event,
    EventSource,
    Finding,
    IssuingSource,
    Resource,
    Subject,
    make_event_id,
)
from ..schemas.finding_event import FindingEventType, finding_event
from ..schemas.own_sources import ENFORCER, OPERATOR, WATCH
from ..schemas.rules import InvalidEventError
from .command_rules import Breaker, Circuit, CommandHistory, FinalStatus
from .contract import InvalidCommandError, Key, Observation, Presence, RevokeCommand, as_text

SYSTEM = ENFORCER
"""``source.system`` of all events of the enforcer."""
COMMAND_TYPE = "revoke.requested"
LOOKUP_TYPE = "lookup.requested"
COMMAND_TYPES = (COMMAND_TYPE, LOOKUP_TYPE)
COMMANDERS = (WATCH, OPERATOR)
"""Who may command: the watch, and people."""
BREAKER_RULE = "enforcer_breaker"
INVALID_RULE = "enforcer_command_invalid"
LOST_RULE = "enforcer_commands_lost"
LONGEST_TEXT = 500
"""Characters of a recorded detail."""

_ENCODER = EventEncoder()


def command_of(datum: Mapping[str, Any]) -> RevokeCommand:
    """Return the command that a decoded event contains. An InvalidCommandError names the wrong field."""
    if datum.get("event_type") not in COMMAND_TYPES:
        raise InvalidCommandError(f"event_type is {datum.get('event_type')!r}, not {' or '.join(COMMAND_TYPES)}")
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
    key = _key(datum["grant_id"], datum)
    person, reason, due = "", datum.get("reason") or "", datum.get("expires_at")
    if datum["source"]["system"] == OPERATOR:
        if datum["event_type"] == LOOKUP_TYPE:
            raise InvalidCommandError("only the watch asks to look whether access exists")
        person = datum["actor"]["id"] if datum["actor"]["kind"] == "human" else ""
        if not person or not reason:
            raise InvalidCommandError("actor or reason is missing: a person's request names both")
    command = RevokeCommand(
        key=key,
        command_id=make_event_id(EventSource(SYSTEM, "", _identity(key), "command"), COMMAND_TYPE),
        rule=finding["rule"],
        severity=finding["severity"],
        subject=Subject(**subject),
        resource=Resource(**resource),
        entitlement=datum["entitlement"],
        grant_id_kind=datum["grant_id_kind"],
        request_id=datum["request_id"],
        requested_at=datum["occurred_at"].astimezone(UTC),
        requested_by=person,
        reason=reason if person else "",
        looks_only=datum["event_type"] == LOOKUP_TYPE,
        grant_deadline=due.astimezone(UTC) if person and due is not None else None,
    )
    try:
        # The sender may use values or types that our schema rejects. A command that cannot be recorded is not started.
        for event in Recorder(SYSTEM).confirmed(command, 0, "", command.requested_at, ""):
            _ENCODER.encode(event)
    except InvalidEventError as error:
        raise InvalidCommandError(str(error)) from error
    return command


def _key(grant_id: str, datum: Mapping[str, Any]) -> Key:
    issuer = datum.get("grant_source") or {"system": "", "instance": ""}
    deadline = datum["finding"]["deadline"].astimezone(UTC)
    return Key(grant_id, deadline, datum["tenant"], (issuer["system"], issuer["instance"]))


def _identity(key: Key, *more: int) -> str:
    parts = [key.tenant, *key.issuer, key.grant_id, as_text(key.deadline), *more]
    return json.dumps(parts, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Recorder:
    """Creates the enforcer's events. ``deployment`` is the instance of their source."""

    deployment: str

    def begun(self, command: RevokeCommand, number: int, target: str, at: datetime) -> Event:
        """``revoke.attempted``, outcome pending: recorded before the attempt starts, so that none is unrecorded."""
        evidence = {"attempt": number, "target": target}
        return self._event("revoke.attempted", command, number, at, evidence, outcome="pending")

    def attempted(
        self,
        command: RevokeCommand,
        number: int,
        target: str,
        at: datetime,
        *,
        ok: bool,
        final: bool,
        details: tuple[str, str],
    ) -> Event:
        """``revoke.attempted``: the result of an attempt.

        ``ok``: the target accepted the command. ``final``: nothing more will be done, and nothing can be read back.
        ``details``: of the attempt, and of reading back after it.
        """
        evidence = {"attempt": number, "target": target, "answer": details[0], "observed": details[1], "final": final}
        result: dict[str, Any] = {"outcome": "success", "removal_evidence": "api_accepted"}
        if not ok:
            result = {"outcome": "failure", "removal_evidence": "none", "error": details[0]}
        return self._event("revoke.attempted", command, number, at, evidence, ordinal=1, **result)

    def confirmed(
        self, command: RevokeCommand, number: int, target: str, at: datetime, observed: str
    ) -> tuple[Event, Event]:
        """``revoke.confirmed`` for the record, and ``grant.revoked`` for readers of the grant's lifecycle.

        The number of attempts is 0 if the access was gone before the first. ``observed``: the detail of reading back.
        """
        evidence = {"attempt": number, "target": target, "observed": observed}
        common: dict[str, Any] = {"outcome": "success", "removal_evidence": "confirmed"}
        confirmation = self._event("revoke.confirmed", command, number, at, evidence, **common)
        reason = f"removed after its deadline ({command.rule})"
        if command.requested_by:
            reason = f"requested by {command.requested_by}: {command.reason}"[:LONGEST_TEXT]
        return confirmation, self._event("grant.revoked", command, number, at, None, reason=reason, **common)

    def looked(
        self, command: RevokeCommand, number: int, target: str, at: datetime, found: Observation
    ) -> tuple[Event, ...]:
        """``lookup.answered`` for the record, and for readers of the grant's lifecycle what was found.

        That is ``grant.revoked`` if the access is gone, and ``grant.observed`` if it exists.
        """
        evidence = {"attempt": number, "target": target, "observed": found.detail}
        if found.presence not in (Presence.absent, Presence.present):
            fields: dict[str, Any] = {"outcome": "failure", "error": found.detail}
            return (self._event("lookup.answered", command, number, at, evidence, native_type="lookup", **fields),)
        gone = found.presence is Presence.absent
        common: dict[str, Any] = {"native_type": "lookup", "outcome": "success"}
        common["removal_evidence"] = "confirmed" if gone else "none"
        reason = "read back, because its records arrived long after its end"
        kind = "grant.revoked" if gone else OBSERVED
        answer = self._event("lookup.answered", command, number, at, evidence, **common)
        return answer, self._event(kind, command, number, at, None, reason=reason, **common)

    def failed(
        self, command: RevokeCommand, number: int, target: str, at: datetime, reason: str, *, superseded: bool = False
    ) -> Event:
        """``revoke.failed``: the command is given up. Unless it is superseded, a person must remove the access."""
        evidence = {"attempt": number, "target": target} | ({"superseded": True} if superseded else {})
        return self._event("revoke.failed", command, number, at, evidence, outcome="failure", error=reason)

    def rehearsed(self, command: RevokeCommand, at: datetime, target: str, obstacle: str) -> Event:
        """``revoke.dry_run``: what a dry run would do with a command. ``obstacle``: why it would not carry it out."""
        evidence = {"target": target, "obstacle": obstacle}
        return self._event("revoke.dry_run", command, 0, at, evidence, outcome="success")

    def breaker_opened(self, at: datetime, circuit: Circuit, breaker: Breaker, reason: str) -> Event:
        """``finding.opened`` of the breaker of a circuit."""
        evidence = {
            "source": f"{circuit.system}/{circuit.instance}", "target": circuit.target, "reason": reason,
            "max_per_window": breaker.limit, "window_seconds": breaker.window.total_seconds(),
        }  # fmt: skip
        return self._finding(BREAKER_RULE, str(circuit), at, as_text(at), evidence=evidence, reason=reason)

    def breaker_closed(self, at: datetime, circuit: Circuit, person: str, reason: str) -> Event:
        """``finding.closed`` of the breaker of a circuit, by a person."""
        return self._finding(
            BREAKER_RULE, str(circuit), at, as_text(at), "finding.closed", reason=reason[:LONGEST_TEXT],
            system=OPERATOR, actor=Actor(person, "human"),
        )  # fmt: skip

    def commands_lost(self, offset: int, at: datetime, reason: str) -> Event:
        """``finding.opened``: commands below an offset expired."""
        return self._finding(LOST_RULE, SYSTEM, at, str(offset), evidence={"offset": offset, "reason": reason})

    def command_invalid(self, source: str, offset: int, at: datetime, reason: str) -> Event:
        """``finding.opened``: an invalid command, the first one in the name of a source in an hour."""
        evidence = {"source": source, "offset": offset, "reason": reason[:LONGEST_TEXT]}
        return self._finding(INVALID_RULE, source, at, as_text(at), evidence=evidence)

    def _finding(
        self,
        rule: str,
        key: str,
        at: datetime,
        identity: str,
        event_type: FindingEventType = "finding.opened",
        *,
        system: str = SYSTEM,
        **fields: Any,
    ) -> Event:
        source = EventSource(system, self.deployment, f"{rule}:{key}:{identity}", "finding")
        return finding_event(event_type, source, (rule, key), at, **fields)

    def _event(
        self,
        event_type: str,
        command: RevokeCommand,
        number: int,
        at: datetime,
        evidence: dict[str, Any] | None,
        *,
        native_type: str = "revocation",
        **fields: Any,
    ) -> Event:
        key, finding = command.key, None
        if evidence is not None:
            short = {name: text[:LONGEST_TEXT] if isinstance(text, str) else text for name, text in evidence.items()}
            text = json.dumps(short, sort_keys=True)
            finding = Finding(command.rule, key.grant_id, command.severity, key.deadline, text)
        if fields.get("error"):
            fields["error"] = fields["error"][:LONGEST_TEXT]
        return Event(
            event_type=event_type,
            occurred_at=at,
            source=EventSource(SYSTEM, self.deployment, _identity(key, number), native_type),
            actor=Actor(SYSTEM, "system"),
            tenant=key.tenant,
            grant_source=IssuingSource(*key.issuer) if any(key.issuer) else None,
            subject=command.subject,
            resource=command.resource,
            entitlement=command.entitlement,
            grant_id=key.grant_id,
            grant_id_kind=command.grant_id_kind,
            request_id=command.request_id,
            finding=finding,
            **fields,
        )


def apply(history: CommandHistory, deployment: str, datum: Mapping[str, Any]) -> None:
    """Apply one decoded event of ``access.findings`` to the history. Events of others change nothing.

    The evidence that is parsed here was written by this module.
    """
    finding, source = datum["finding"], datum["source"]
    if finding is None or source["system"] not in (SYSTEM, OPERATOR) or source["instance"] != deployment:
        return
    kind, at = datum["event_type"], datum["occurred_at"].astimezone(UTC)
    if finding["rule"] == BREAKER_RULE:
        if datum["event_id"] in history.breaker_events:
            return
        history.breaker_events.add(datum["event_id"])
        circuit = history.circuit(Circuit.parse(finding["key"]))
        if kind == "finding.opened":
            history.open_since[circuit] = at
        elif kind in ("finding.closed", "finding.resolved"):
            history.close_breaker(circuit)
        return
    if source["system"] != SYSTEM:
        return
    if finding["rule"] == INVALID_RULE:
        history.add_invalid(finding["key"], at)
    if not kind.startswith(("revoke.", "lookup.")) or finding["deadline"] is None:
        return
    key = history.key(_key(finding["key"], datum))
    if kind == "lookup.answered":
        history.looked.add(key)
        return
    if kind == "revoke.dry_run":
        history.rehearsed.add(key)
        return
    evidence = json.loads(finding["evidence"])
    if kind == "revoke.attempted":
        history.add_attempt(Circuit(*key.issuer, evidence["target"]), key, int(evidence["attempt"]), at)
        if evidence.get("final"):
            history.add_end(key, FinalStatus.accepted)
    elif kind == "revoke.confirmed":
        history.add_end(key, FinalStatus.confirmed)
    elif kind == "revoke.failed":
        history.add_end(key, FinalStatus.superseded if evidence.get("superseded") else FinalStatus.failed)
