"""Sample lives as hoop tells them: reviews as its API returns them, events of its catalogue, webhooks of sessions."""

from __future__ import annotations

import base64
import random
from datetime import datetime, timedelta
from typing import Any

from ..schemas.event import Resource
from .life import Deed, Life, Step
from .own import Own
from .teller import Held, Teller, cut, micros, stamp
from .world import Person

_LAPSES_AFTER = timedelta(minutes=30)
_TYPE_OF = {"ledger-mysql": "mysql"}


class HoopTeller(Teller):
    """Tells a life as hoop's gateway would: the review is the request and, once approved, the grant."""

    DIGITS = 3

    def __init__(self, life: Life, start: datetime, rng: random.Random, checker: Own | None = None) -> None:
        super().__init__(life, start, rng, checker)
        self._review = self.new_id()
        self._session = self.new_id()
        self._decided: str | None = None
        self._created = self.clock(self.start)
        self._until: datetime | None = None

    @property
    def grant_id(self) -> str:
        """The review."""
        return self._review

    @property
    def session_id(self) -> str:
        """The session that the review lets in."""
        return self._session

    @property
    def until(self) -> int:
        """The planned end in the approved review, in microseconds."""
        return micros(cut(self._until or self.ends, self.DIGITS))

    def held(self, deed: Deed) -> Held:
        """Return the grant as the checker knows it."""
        return Held(self._review, self.life.person.email, Resource("connection", self.life.target.name), "unknown")

    def records(self, step: Step, at: datetime) -> list[dict[str, Any]]:
        """Return the records of a step."""
        deed = step.deed
        if deed is Deed.REQUESTED:
            self._created = at
            return [self._state("PENDING", at)]
        if deed is Deed.APPROVED:
            return [self._decision("access.jit_approved", at)]
        if deed is Deed.GRANTED:
            # Set at the approval: the plan of the end, long before anybody takes anything away.
            self._until = max(self.ends, at)
            return [self._state("APPROVED", at)]
        if deed is Deed.DENIED:
            return [self._decision("access.jit_denied", at, reason=step.detail), self._state("REJECTED", at)]
        if deed is Deed.LAPSED:
            return [self._state("EXPIRED", at)]
        if deed is Deed.REVOKED:
            return [self._state("REVOKED", at)]
        if deed is Deed.ACTED:
            return self._run(step.detail, at)
        if deed is Deed.REFUSED:
            rule = {"rule": step.detail, "query_excerpt": "TRUNCATE TABLE"}
            return [self._event("session.guardrail_violation", at, session_id=self._session, **rule)]
        if deed is Deed.SESSION_STARTED:
            return [self._event("session.started", at, session_id=self._session, verb="connect")]
        lasted = {"exit_code": "0", "duration_ms": 1000}
        return [self._event("session.closed", at, session_id=self._session, **lasted)]

    def open_ends(self) -> list[Deed]:
        """Return what is left to say: the session's end, the revocation, the look that finds the access gone."""
        told = set(self.told)
        ends = []
        if Deed.SESSION_STARTED in told and Deed.SESSION_ENDED not in told:
            ends.append(Deed.SESSION_ENDED)
        if Deed.GRANTED in told and Deed.CHECKED not in told:
            ends += [Deed.CHECKED] if Deed.REVOKED in told else [Deed.REVOKED, Deed.CHECKED]
        if Deed.REQUESTED in told and not told & {Deed.APPROVED, Deed.DENIED, Deed.LAPSED}:
            ends.append(Deed.DENIED)
        if Deed.APPROVED in told and Deed.GRANTED not in told:
            ends += [Deed.GRANTED, Deed.REVOKED, Deed.CHECKED]
        return ends

    def _event(self, event_type: str, at: datetime, **members: Any) -> dict[str, Any]:
        who = {"user": self.life.person.email, "connection": self.life.target.name}
        return {"event_type": event_type, "payload": {**who, **members, "occurred_at": stamp(at, self.DIGITS)}}

    def _decision(self, event_type: str, at: datetime, **members: Any) -> dict[str, Any]:
        ids = {"review_id": self._review, "session_id": self._session}
        return self._event(event_type, at, **ids, reviewer=self.life.reviewers[0].email, **members)

    def _state(self, status: str, at: datetime) -> dict[str, Any]:
        life = self.life
        decided = status not in ("PENDING", "EXPIRED")
        group: dict[str, Any] = {"id": self._review[::-1], "group": "production-owners", "status": "PENDING"}
        if decided:
            group |= {"status": status, "review_date": stamp(at, self.DIGITS), "reviewed_by": _user(life.reviewers[0])}
        lasts = round((self.ends - self.clock(self.start)).total_seconds()) or 300
        review: dict[str, Any] = {
            "id": self._review,
            "session": self._session,
            "type": "jit",
            "status": status,
            "created_at": stamp(self._created, self.DIGITS),
            "access_duration": lasts * 1_000_000_000,
            "revoke_at": stamp(self._until, self.DIGITS) if self._until else None,
            "review_owner": _user(life.person),
            "review_connection": {"id": self._session[::-1], "name": life.target.name},
            "review_groups_data": [group],
        }
        if status == "EXPIRED":
            review["expires_at"] = stamp(at, self.DIGITS)
        return review

    def _run(self, statement: str, at: datetime) -> list[dict[str, Any]]:
        """One statement, run in a session of its own, as the webhooks show it."""
        session = self.new_id()
        kind = _TYPE_OF.get(self.life.target.name, "postgres")
        common = {
            "id": session,
            "connection": self.life.target.name,
            "connection_type": "database",
            "connection_subtype": kind,
            "user_email": self.life.person.email,
            "verb": "exec",
        }
        given = base64.b64encode(statement.encode()).decode()
        opened = {**common, "event_type": "session.open", "command": [], "input": given, "is_input_truncated": False}
        closed = {"id": session, "event_type": "session.close", "exit_code": 0, "exit_err": None}
        # Webhooks hold no time: whoever keeps them puts one beside.
        return [
            {"event_type": "session.open", "timestamp": stamp(at, self.DIGITS), "payload": opened},
            {"event_type": "session.close", "timestamp": stamp(at, self.DIGITS), "payload": closed},
        ]


def _user(person: Person) -> dict[str, str]:
    name = person.login.replace(".", " ").title()
    return {"id": f"oidc|{person.login}", "name": name, "email": person.email}
