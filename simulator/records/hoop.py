"""Lifecycles as hoop records them: reviews from its API, catalog events and session webhooks."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from ...base.times import micros_of
from ...schemas.event import Resource
from ..company import Employee
from ..lifecycle import Step, StepKind
from .program import GrantName
from .writer import RecordWriter, rfc3339, truncate

_TYPE_OF = {"ledger-mysql": "mysql"}
_STATES = {
    StepKind.REQUESTED: "PENDING",
    StepKind.GRANTED: "APPROVED",
    StepKind.REQUEST_EXPIRED: "EXPIRED",
    StepKind.REVOKED: "REVOKED",
}


class HoopWriter(RecordWriter):
    """Writes a lifecycle as hoop records. The review is the request and, once approved, the grant."""

    DIGITS = 3
    closings = (
        (StepKind.SESSION_STARTED, StepKind.SESSION_ENDED),
        (StepKind.APPROVED, StepKind.GRANTED),
        (StepKind.GRANTED, StepKind.REVOKED, StepKind.CHECKED),
        (StepKind.GRANTED, StepKind.CHECKED),
        (StepKind.REQUESTED, StepKind.DENIED, StepKind.APPROVED, StepKind.REQUEST_EXPIRED),
    )

    def prepare(self) -> None:
        """Generate the ids of the lifecycle."""
        self.grant_id = self.new_id()
        self.session_id = self.new_id()
        self._created = self.clock(self.start)
        self._until: datetime | None = None

    @property
    def until(self) -> int:
        """The planned end in the approved review, in microseconds since 1970."""
        return micros_of(truncate(self._until or self.ends, self.DIGITS))

    def grant(self, kind: StepKind) -> GrantName:
        """Return the grant as the access checker identifies it."""
        return GrantName(
            self.grant_id, self.lifecycle.person.email, Resource("connection", self.lifecycle.target.name), "unknown",
            self.source,
        )  # fmt: skip

    @property
    def source(self) -> tuple[str, str]:
        """System and instance in the events of the tool."""
        return "hoop", "hoop"

    def records(self, step: Step, at: datetime) -> list[dict[str, Any]]:
        """Return the records of a step."""
        kind = step.kind
        if kind is StepKind.REQUESTED:
            self._created = at
        if kind is StepKind.GRANTED:
            # The planned end, which hoop sets at the approval.
            self._until = max(self.ends, at)
        if kind in _STATES:
            return [self._state(_STATES[kind], at)]
        if kind is StepKind.APPROVED:
            return [self._decision("access.jit_approved", at)]
        if kind is StepKind.DENIED:
            return [self._decision("access.jit_denied", at, reason=step.detail), self._state("REJECTED", at)]
        if kind is StepKind.ACTION:
            return self._run(step.detail, at)
        if kind is StepKind.ACTION_DENIED:
            rule = {"rule": step.detail, "query_excerpt": "TRUNCATE TABLE"}
            return [self._event("session.guardrail_violation", at, session_id=self.session_id, **rule)]
        if kind is StepKind.SESSION_STARTED:
            return [self._event("session.started", at, session_id=self.session_id, verb="connect")]
        lasted = {"exit_code": "0", "duration_ms": 1000}
        return [self._event("session.closed", at, session_id=self.session_id, **lasted)]

    def _event(self, event_type: str, at: datetime, **members: Any) -> dict[str, Any]:
        who = {"user": self.lifecycle.person.email, "connection": self.lifecycle.target.name}
        return {"event_type": event_type, "payload": {**who, **members, "occurred_at": rfc3339(at, self.DIGITS)}}

    def _decision(self, event_type: str, at: datetime, **members: Any) -> dict[str, Any]:
        ids = {"review_id": self.grant_id, "session_id": self.session_id}
        return self._event(event_type, at, **ids, reviewer=self.lifecycle.reviewers[0].email, **members)

    def _state(self, status: str, at: datetime) -> dict[str, Any]:
        lifecycle = self.lifecycle
        decided = status not in ("PENDING", "EXPIRED")
        group: dict[str, Any] = {"id": self.grant_id[::-1], "group": "production-owners", "status": "PENDING"}
        if decided:
            group |= {
                "status": status,
                "review_date": rfc3339(at, self.DIGITS),
                "reviewed_by": _user(lifecycle.reviewers[0]),
            }
        lasts = round((self.ends - self.clock(self.start)).total_seconds()) or 300
        review: dict[str, Any] = {
            "id": self.grant_id,
            "session": self.session_id,
            "type": "jit",
            "status": status,
            "created_at": rfc3339(self._created, self.DIGITS),
            "access_duration": lasts * 1_000_000_000,
            "revoke_at": rfc3339(self._until, self.DIGITS) if self._until else None,
            "review_owner": _user(lifecycle.person),
            "review_connection": {"id": self.session_id[::-1], "name": lifecycle.target.name},
            "review_groups_data": [group],
        }
        if status == "EXPIRED":
            review["expires_at"] = rfc3339(at, self.DIGITS)
        return review

    def _run(self, statement: str, at: datetime) -> list[dict[str, Any]]:
        """Return the webhooks of one statement, which hoop runs in a separate session."""
        session = self.new_id()
        kind = _TYPE_OF.get(self.lifecycle.target.name, "postgres")
        common = {
            "id": session,
            "connection": self.lifecycle.target.name,
            "connection_type": "database",
            "connection_subtype": kind,
            "user_email": self.lifecycle.person.email,
            "verb": "exec",
        }
        given = base64.b64encode(statement.encode()).decode()
        opened = {**common, "event_type": "session.open", "command": [], "input": given, "is_input_truncated": False}
        closed = {"id": session, "event_type": "session.close", "exit_code": 0, "exit_err": None}
        # Webhooks contain no time; the program that stores them adds one.
        return [
            {"event_type": "session.open", "timestamp": rfc3339(at, self.DIGITS), "payload": opened},
            {"event_type": "session.close", "timestamp": rfc3339(at, self.DIGITS), "payload": closed},
        ]


def _user(person: Employee) -> dict[str, str]:
    name = person.login.replace(".", " ").title()
    return {"id": f"oidc|{person.login}", "name": name, "email": person.email}
