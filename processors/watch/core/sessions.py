"""One request and one session: the facts known of each, whatever order they arrived in."""

from __future__ import annotations

from dataclasses import dataclass

from ...access import NEVER, Access, Source
from .facts import Decision, Fact
from .grants import naming_rank, with_item

NO_SOURCE = Source("", "")


@dataclass(slots=True)
class Request:
    """What is known of one request."""

    request_id: str
    person: tuple[str, ...] = ()
    rank: int = 2 * NEVER
    decisions: tuple[tuple[int, int, Decision], ...] = ()
    """(index, append time, decision)."""
    last_append: int = 0
    """Append time of the latest fact about the request."""

    def add(self, fact: Fact) -> None:
        """Add a fact that was not added before."""
        if naming_rank(fact) < self.rank:
            self.rank, self.person = naming_rank(fact), fact.person
        self.last_append = max(self.last_append, fact.append)
        for decision in fact.decisions:
            self.decisions = with_item(self.decisions, (fact.index, fact.append, decision))


@dataclass(slots=True)
class Session:
    """What is known of one session. Times are append times, or ``NEVER`` if nothing was reported."""

    session_id: str
    started: int = NEVER
    ended: int = NEVER
    grant_named_at: tuple[int, str] = (NEVER, "")
    """Index of the earliest fact that names a grant, and the grant."""
    access: Access | None = None
    environment: str = ""
    subject_kind: str = "unknown"
    source: Source = NO_SOURCE
    first_index: int = NEVER
    last_append: int = 0
    """Append time of the latest fact about the session."""

    @property
    def grant_id(self) -> str:
        """The grant that the session uses, or empty."""
        return self.grant_named_at[1]

    def add(self, fact: Fact) -> None:
        """Add a fact that was not added before."""
        if fact.index < self.first_index:
            self.first_index, self.access = fact.index, fact.access
            self.environment, self.subject_kind, self.source = fact.environment, fact.subject_kind, fact.source
        self.last_append = max(self.last_append, fact.append)
        if fact.grant_id:
            self.grant_named_at = min(self.grant_named_at, (fact.index, fact.grant_id))
        if fact.event_type == "session.started":
            self.started = min(self.started, fact.append)
        elif fact.event_type == "session.ended":
            self.ended = min(self.ended, fact.append)
