"""The requested revocations of a grant, and what enforcers did about each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..schemas.finding_event import PERSON_REQUEST
from .grant_event_text import finding_text
from .output import Output, Row

MOST_ROWS = 200
PATIENCE = timedelta(minutes=1)
"""How long an enforcer may take to begin."""
MAX_AGE = timedelta(days=1)
"""An enforcer starts no older request."""
QUERY = """
SELECT append_time, event_type, outcome, actor_id, reason, error, finding_rule, finding_deadline, finding_evidence
FROM entries
WHERE grant_id = {id:String} AND startsWith(event_type, 'revoke.') AND (origin, `index`) IN (
    SELECT origin, `index` FROM events
    WHERE grant_id = {id:String} AND grant_key = {grant:String} AND startsWith(event_type, 'revoke.') AND believed
)
ORDER BY append_time DESC, `index` DESC
LIMIT {limit:UInt32}
"""


@dataclass(frozen=True, slots=True)
class Revocation:
    """One request. ``person`` and ``reason`` are empty if the watch made it. ``answer``: the latest event about it.

    ``rehearsed``: the answer of an enforcer in dry run.
    """

    requested_at: datetime
    person: str
    reason: str
    answer: Row | None
    rehearsed: Row | None = None

    @property
    def ended(self) -> bool:
        """Whether it was confirmed or given up."""
        return self.answer is not None and self.answer["event_type"] in ("revoke.confirmed", "revoke.failed")

    def is_pending(self, now: datetime) -> bool:
        """Whether an enforcer may still carry it out."""
        accepted = self.answer is not None and self.answer["outcome"] == "success"
        return not self.ended and not accepted and now - self.requested_at < MAX_AGE

    def is_late(self, now: datetime) -> bool:
        """Whether no enforcer has begun although it should have, or only one in dry run has answered."""
        return self.answer is None and (self.rehearsed is not None or now - self.requested_at > PATIENCE)

    def text(self, output: Output, now: datetime) -> str:
        """Return who asked and when, and the answer."""
        by = f" by {self.person} ({self.reason})" if self.person else " by the watch"
        return f"asked for{by} at {output.moment(self.requested_at)}: {self._answer(output, now)}"

    def _answer(self, output: Output, now: datetime) -> str:
        if self.answer is None and self.rehearsed is not None:
            return f"an enforcer in dry run answered at {output.moment(self.rehearsed['append_time'])}: " + (
                finding_text(self.rehearsed).removeprefix("dry run: ") + "; only `run enforce --carry-out` acts"
            )
        if self.answer is None:
            return "no enforcer has attempted it" if self.is_late(now) else "waiting for an enforcer"
        kind, outcome = self.answer["event_type"], self.answer["outcome"]
        when, error = output.moment(self.answer["append_time"]), self.answer["error"]
        if kind == "revoke.confirmed":
            return f"confirmed at {when}: the access is gone"
        if kind == "revoke.failed":
            return f"given up at {when}: {error}"
        if outcome == "success":
            return f"the target accepted it at {when}; whether the access is gone was not confirmed"
        if outcome == "failure":
            return f"an attempt failed at {when}: {error}; the enforcer tries again"
        return f"an attempt began at {when} and has no result yet"


def revocations_of(rows: Sequence[Row]) -> list[Revocation]:
    """Return the requests, the newest first. ``rows``: those of ``QUERY``."""
    answers: dict[tuple[object, bool], Row] = {}
    rehearsed: dict[tuple[object, bool], Row] = {}
    for row in reversed(rows):
        if row["event_type"] == "revoke.dry_run":
            rehearsed[_request(row)] = row
        elif row["event_type"] != "revoke.requested":
            answers[_request(row)] = row
    return [
        Revocation(row["append_time"], *_asker(row), answers.get(_request(row)), rehearsed.get(_request(row)))
        for row in rows
        if row["event_type"] == "revoke.requested"
    ]


def _request(row: Row) -> tuple[object, bool]:
    """Return what a request and its answers share."""
    return row["finding_deadline"], row["finding_rule"] == PERSON_REQUEST


def _asker(row: Row) -> tuple[str, str]:
    return (row["actor_id"], row["reason"]) if row["finding_rule"] == PERSON_REQUEST else ("", "")
