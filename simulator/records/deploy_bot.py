"""Lifecycles of access that a deployment program grants and removes, and reports with the client library."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from ..lifecycle import Step, StepKind
from .program import Program
from .writer import RecordWriter

DEPLOY_BOT = "deploy-bot"
LOST = "lost"
"""The detail of a step whose event gets a sequence number but never arrives."""


class DeployBotWriter(RecordWriter):
    """Writes a lifecycle as events of the program."""

    DIGITS = 6
    closings = (
        (StepKind.SESSION_STARTED, StepKind.SESSION_ENDED),
        (StepKind.GRANTED, StepKind.CHECKED),
    )

    def prepare(self) -> None:
        """Generate the ids of the lifecycle."""
        self._program = Program(DEPLOY_BOT, self.lifecycle.instance or f"job-{self.new_id()[:8]}")
        self.grant_id = self.lifecycle.shared_id or self.new_id()
        self.session_id = self.new_id()

    @property
    def source(self) -> tuple[str, str]:
        """System and instance in the events of the program."""
        return self._program.system, self._program.instance

    def records(self, step: Step, at: datetime) -> list[dict[str, Any]]:
        """Return the event of a step."""
        target = self.lifecycle.target
        kinds = {
            StepKind.GRANTED: "grant.activated",
            StepKind.RENEWED: "grant.extended",
            StepKind.SESSION_STARTED: "session.started",
            StepKind.ACTION: "session.command",
            StepKind.SESSION_ENDED: "session.ended",
        }
        record = {
            **self._program.event(kinds[step.kind], at, self.new_id()),
            "tenant": self.lifecycle.tenant,
            "subject": {"id": self.lifecycle.person.email, "kind": "human"},
            "resource": {"kind": target.kind, "id": target.name, "environment": "prod"},
            "entitlement": target.role,
            "grant_id": self.grant_id,
            "grant_id_kind": "native",
            "ticket": self.lifecycle.ticket,
        }
        if step.kind in (StepKind.GRANTED, StepKind.RENEWED):
            until = self.ends if step.kind is StepKind.GRANTED else at + timedelta(seconds=self.lifecycle.grant_ends)
            approval = {"reviewer": self.lifecycle.reviewers[0].email, "decision": "approved"}
            record |= {"expires_at": until.isoformat(), "approvals": [approval]}
        else:
            record["session_id"] = self.session_id
        if step.kind is StepKind.ACTION:
            record["action"] = {"command": step.detail}
        return [] if step.detail == LOST else [record]
