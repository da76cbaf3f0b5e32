"""One request and one session: the facts known of each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ....schemas.access_key import AccessKey, id_of, parse_access_key
from ...access import NEVER, Access, Source
from .facts import Decision, Fact, is_same_person, names_someone
from .grants import agreed_decisions

OUTCOMES = ("request.approved", "request.denied")


@dataclass(slots=True)
class Request:
    """The facts of one request. The person is named by the earliest event of its source that names someone."""

    key: str
    """Its access key."""
    person: tuple[str, ...] = ()
    own_decisions: tuple[tuple[int, int, Decision], ...] = ()
    """(index, append time, decision)."""
    others: tuple[tuple[int, int, Decision, tuple[str, ...]], ...] = ()
    """Decisions that another system reported, each with the person whose request it decided."""
    outcomes: tuple[tuple[int, int, bool], ...] = ()
    """Index and time of each event that approved or denied it as a whole, and whether it denied."""
    about_grants: Sequence[Fact] = ()
    """The facts about all its grants: they name no grant."""
    last_append: int = 0

    @property
    def address(self) -> AccessKey:
        """The parts of its access key."""
        return parse_access_key(self.key)

    @property
    def decisions(self) -> tuple[tuple[int, int, Decision], ...]:
        """Index, append time and decision of each decision that counts: those of other systems for the same person."""
        if not self.others:
            return self.own_decisions
        found = [one[:3] for one in self.others if is_same_person(one[3], self.person)]
        return tuple(sorted((*self.own_decisions, *found)))

    def is_denied(self, until: int) -> bool:
        """Whether it was last denied, not approved, up to a time or since then."""
        ordered = sorted((at, denied) for _, at, denied in self.outcomes if not denied or at <= until)
        return bool(ordered) and ordered[-1][1]

    def add(self, fact: Fact) -> None:
        """Add the next fact of its source."""
        if not names_someone(self.person):
            self.person = fact.person
        self.last_append = max(self.last_append, fact.append)
        if fact.event_type in OUTCOMES:
            self.outcomes += ((fact.index, fact.occurred, fact.event_type == "request.denied"),)
        self.own_decisions += tuple((fact.index, fact.append, one) for one in fact.decisions)

    def add_other(self, fact: Fact) -> None:
        """Add the decisions that another system reports."""
        self.last_append = max(self.last_append, fact.append)
        self.others += tuple((fact.index, fact.append, one, fact.person) for one in fact.decisions)

    def add_about_grants(self, fact: Fact, earlier: Collection[int]) -> None:
        """Add a fact about all its grants. If its event had other contents before, later grants get none of them."""
        self.last_append = max(self.last_append, fact.append)
        if earlier:
            self.about_grants = [one for one in self.about_grants if one.index not in earlier]
        elif isinstance(self.about_grants, list):
            self.about_grants.append(fact)
        else:  # most requests have none, and an empty tuple takes no memory
            self.about_grants = [fact]

    def add_disputed(self, fact: Fact, earlier: Collection[int]) -> None:
        """Add a fact whose event had other contents before: approvals count only where all contents agree."""
        self.last_append = max(self.last_append, fact.append)
        self.own_decisions = agreed_decisions(self.own_decisions, fact, earlier)
        if fact.event_type != "request.approved":
            self.outcomes = tuple(one for one in self.outcomes if one[0] not in earlier or one[2])
        if fact.event_type == "request.denied":
            self.outcomes += ((fact.index, fact.occurred, True),)
        self.others = tuple(one for one in self.others if one[0] not in earlier or one[2] in fact.decisions)

    def reports(self, indexes: Collection[int]) -> bool:
        """Whether it has anything from the facts at some indexes."""
        decided = any(one[0] in indexes for one in (*self.own_decisions, *self.others))
        return decided or any(one.index in indexes for one in self.about_grants)

    def withdraw(self, indexes: Collection[int]) -> bool:
        """Forget the facts at some indexes. Return whether there was anything."""
        before = self.own_decisions, self.others, self.outcomes, self.about_grants
        self.about_grants = [one for one in self.about_grants if one.index not in indexes]
        self.own_decisions = tuple(one for one in self.own_decisions if one[0] not in indexes)
        self.others = tuple(one for one in self.others if one[0] not in indexes)
        self.outcomes = tuple(one for one in self.outcomes if one[0] not in indexes)
        decided = self.own_decisions, self.others, self.outcomes
        return before[:3] != decided or len(before[3]) != len(self.about_grants)


@dataclass(slots=True)
class Session:
    """The facts of one session; the first event describes it. Times are append times, ``NEVER`` if not reported."""

    key: str
    """Its access key."""
    access: Access | None
    environment: str
    subject_kind: str
    source: Source
    grant_key: str = ""
    """Access key of the grant that the earliest event names, or empty."""
    request_key: str = ""
    """Access key of the request that the earliest event names, or empty."""
    started: int = NEVER
    ended: int = NEVER
    last_append: int = 0
    ended_index: int = -1
    """Index of the event that reported the end."""

    @property
    def session_id(self) -> str:
        """The id that its source issued."""
        return id_of(self.key)

    @property
    def address(self) -> AccessKey:
        """The parts of its access key."""
        return parse_access_key(self.key)

    @property
    def access_link(self) -> str:
        """Access key of the grant, or else of the request, that gives it access."""
        return self.grant_key or self.request_key

    def add(self, fact: Fact) -> None:
        """Add the next fact."""
        self.last_append = max(self.last_append, fact.append)
        self.grant_key = self.grant_key or fact.grant_key
        self.request_key = self.request_key or fact.request_key
        if fact.event_type == "session.started":
            self.started = min(self.started, fact.append)
        elif fact.event_type == "session.ended" and fact.append < self.ended:
            self.ended, self.ended_index = fact.append, fact.index

    def add_disputed(self, fact: Fact, earlier: Collection[int]) -> None:
        """Add a fact whose event had other contents before: an end counts only where all contents agree."""
        if fact.event_type != "session.ended":
            self.withdraw(earlier)
            self.add(fact)
        elif self.ended_index in earlier:
            self.ended = max(self.ended, fact.append)

    def reports(self, indexes: Collection[int]) -> bool:
        """Whether the fact at one of some indexes reported its end."""
        return self.ended_index in indexes

    def withdraw(self, indexes: Collection[int]) -> bool:
        """Forget the end if the fact at one of some indexes reported it. Return whether it did."""
        found = self.ended_index in indexes
        if found:
            self.ended, self.ended_index = NEVER, -1
        return found
