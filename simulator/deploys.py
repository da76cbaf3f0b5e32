"""Sample lives as a program of the company's own reports them through the client library: access it gives and takes."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

from ..schemas.event import Resource
from .life import Deed, Life, Step
from .own import Own
from .teller import Held, Teller

PROGRAM = "deploy-bot"
UNSENT = "unsent"
"""Detail of a step whose record is numbered and then lost on its way."""


class DeployTeller(Teller):
    """Tells a life as events of the program, each with the next number of its counter."""

    DIGITS = 6

    def __init__(self, life: Life, start: datetime, rng: random.Random, checker: Own | None = None) -> None:
        super().__init__(life, start, rng, checker)
        self._program = Own(PROGRAM, life.place or f"job-{self.new_id()[:8]}")
        self._grant = self.new_id()
        self._session = self.new_id()

    @property
    def grant_id(self) -> str:
        """The grant, named by the program."""
        return self._grant

    @property
    def session_id(self) -> str:
        """The session, named by the program."""
        return self._session

    def held(self, deed: Deed) -> Held:
        """Return the grant as the checker knows it."""
        target = self.life.target
        return Held(self._grant, self.life.person.email, Resource(target.kind, target.name), target.role)

    def records(self, step: Step, at: datetime) -> list[dict[str, Any]]:
        """Return the event of a step."""
        target = self.life.target
        kinds = {
            Deed.GRANTED: "grant.activated",
            Deed.RENEWED: "grant.extended",
            Deed.SESSION_STARTED: "session.started",
            Deed.ACTED: "session.command",
            Deed.SESSION_ENDED: "session.ended",
        }
        record = {
            **self._program.record(kinds[step.deed], at, self.new_id()),
            "subject": {"id": self.life.person.email, "kind": "human"},
            "resource": {"kind": target.kind, "id": target.name, "environment": "prod"},
            "entitlement": target.role,
            "grant_id": self._grant,
            "grant_id_kind": "native",
            "ticket": self.life.ticket,
        }
        if step.deed in (Deed.GRANTED, Deed.RENEWED):
            until = self.ends if step.deed is Deed.GRANTED else at + timedelta(seconds=self.life.grant_ends)
            approval = {"reviewer": self.life.reviewers[0].email, "decision": "approved"}
            record |= {"expires_at": until.isoformat(), "approvals": [approval]}
        else:
            record["session_id"] = self._session
        if step.deed is Deed.ACTED:
            record["action"] = {"command": step.detail}
        return [] if step.detail == UNSENT else [record]

    def open_ends(self) -> list[Deed]:
        """Return what is left to say: the session's end, and the look that finds the access gone."""
        told = set(self.told)
        ends = []
        if Deed.SESSION_STARTED in told and Deed.SESSION_ENDED not in told:
            ends.append(Deed.SESSION_ENDED)
        if Deed.GRANTED in told and Deed.CHECKED not in told:
            ends.append(Deed.CHECKED)
        return ends
