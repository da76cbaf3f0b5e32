"""One request and one session: the facts known of each."""

from __future__ import annotations

from dataclasses import dataclass

from ...access import NEVER, Access, Source
from .facts import Decision, Fact, names_someone


@dataclass(slots=True)
class Request:
    """The facts of one request. The person is named by the earliest event that names someone."""

    request_id: str
    person: tuple[str, ...] = ()
    decisions: tuple[tuple[int, int, Decision], ...] = ()
    """(index, append time, decision)."""
    last_append: int = 0

    def add(self, fact: Fact) -> None:
        """Add the next fact."""
        if not names_someone(self.person):
            self.person = fact.person
        self.last_append = max(self.last_append, fact.append)
        self.decisions += tuple((fact.index, fact.append, one) for one in fact.decisions)


@dataclass(slots=True)
class Session:
    """The facts of one session; the first event describes it. Times are append times, ``NEVER`` if not reported."""

    session_id: str
    access: Access | None
    environment: str
    subject_kind: str
    source: Source
    grant_id: str = ""
    """The grant that the earliest event names, or empty."""
    started: int = NEVER
    ended: int = NEVER
    last_append: int = 0

    def add(self, fact: Fact) -> None:
        """Add the next fact."""
        self.last_append = max(self.last_append, fact.append)
        self.grant_id = self.grant_id or fact.grant_id
        if fact.event_type == "session.started":
            self.started = min(self.started, fact.append)
        elif fact.event_type == "session.ended":
            self.ended = min(self.ended, fact.append)
