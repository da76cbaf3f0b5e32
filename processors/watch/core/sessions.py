"""One request and one session: the facts known of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from ....schemas.access_key import AccessKey, id_of, is_issuer, parse_access_key
from ....schemas.event import REMOVING
from ...access import NEVER, Access, Source
from .activations import STRENGTH
from .facts import Fact, is_same_person, names_someone
from .report_times import NOT_REPORTED, ReportTimes
from .reports import (
    Timed,
    agreed_decisions,
    appended,
    decision_index,
    decisions_of,
    first_approvals,
    positions_of,
    with_decisions,
    without_facts,
)  # fmt: skip

OUTCOMES = ("request.approved", "request.denied")
MOST_EARLIER = 100
"""Facts about all grants of a request that count for its later grants: the newest."""
MOST_SEARCHED = 10_000
"""Grants of a request that facts about all of them may concern in all, besides eight times as many as it has."""


class TooManyReportsError(ValueError):
    """Too many events name only a request with many grants: one sender could occupy the watch."""


@dataclass(slots=True)
class Request:
    """The facts of one request. The person is named by the earliest event of its source that names someone."""

    key: str
    """Its access key."""
    person: tuple[str, ...] = ()
    own_decisions: Sequence[Timed] = ()
    """(index, append time, decision)."""
    others: dict[tuple[str, ...], Sequence[Timed]] | None = None
    """Decisions that another system reported, by the person whose request it decided."""
    outcomes: Sequence[tuple[int, int, bool]] = ()
    """Index and time of each event that approved or denied it as a whole, and whether it denied."""
    about_grants: Sequence[Fact] = ()
    """The newest facts about all its grants: they name no grant."""
    searched: tuple[int, int] = (0, 0)
    """How many grants such facts may have concerned: those of its own source, and those of others."""
    last_append: int = 0
    reported: ReportTimes = NOT_REPORTED
    reason: str = ""

    @property
    def address(self) -> AccessKey:
        """The parts of its access key."""
        return parse_access_key(self.key)

    @property
    def decisions(self) -> Sequence[Timed]:
        """Index, append time and decision of each decision that counts: those of other systems for the same person."""
        counting = self._counting()
        if len(counting) == 1:
            return counting[0]
        return sorted((one for known in counting for one in known), key=lambda one: one[:2])

    @property
    def approvals(self) -> list[Mapping[str, Timed]]:
        """The first approvals by each reviewer among the decisions that count."""
        return [first_approvals(known) for known in self._counting() if known]

    def _counting(self) -> list[Sequence[Timed]]:
        others = self.others or {}
        return [self.own_decisions, *(known for who, known in others.items() if is_same_person(who, self.person))]

    def is_denied(self, until: int) -> bool:
        """Whether it was last denied, not approved, up to a time or since then."""
        return max(((at, denied) for _, at, denied in self.outcomes if not denied or at <= until), default=(0, False))[
            1
        ]

    def add(self, fact: Fact) -> None:
        """Add the next fact of its source."""
        if not names_someone(self.person):
            self.person = fact.person
        self.last_append = max(self.last_append, fact.append)
        if fact.event_type == "request.created":
            self.reason = self.reason or fact.reason
        self.reported = self.reported.with_fact(fact)
        if fact.event_type in OUTCOMES:
            self.outcomes = appended(self.outcomes, (fact.index, fact.occurred, fact.event_type == "request.denied"))
        if fact.decisions:
            self.own_decisions = with_decisions(self.own_decisions, decisions_of(fact))

    def add_other(self, fact: Fact) -> None:
        """Add the decisions that another system reports."""
        self.last_append = max(self.last_append, fact.append)
        self.reported = self.reported.with_fact(fact)
        if fact.decisions:
            self.others = self.others or {}
            self.others[fact.person] = with_decisions(self.others.get(fact.person, ()), decisions_of(fact))

    def add_about_grants(self, fact: Fact, earlier: Collection[int]) -> None:
        """Add a fact about all its grants. Of an event with several contents, later grants get what all agree on."""
        self.last_append = max(self.last_append, fact.append)
        if not earlier:
            self.about_grants = appended(self.about_grants[1 - MOST_EARLIER :], fact)
            return
        contents = ([one] if one.index not in earlier else _agreed(one, fact) for one in self.about_grants)
        self.about_grants = [one for agreed in contents for one in agreed]

    def search(self, fact: Fact, grants: int) -> None:
        """Count the grants that a fact may concern.

        Raises:
            TooManyReportsError: they are so many that the fact counts for none.
        """
        own = is_issuer(fact.source, self.address.issuer)
        searched = self.searched[not own] + grants
        if searched > MOST_SEARCHED + 8 * grants:
            raise TooManyReportsError("too many events name only this request, which has many grants")
        self.searched = (searched, self.searched[1]) if own else (self.searched[0], searched)

    def add_disputed(self, fact: Fact, earlier: Collection[int]) -> None:
        """Add a fact whose event had other contents before: approvals count only where all contents agree."""
        self.last_append = max(self.last_append, fact.append)
        self.reported = self.reported.with_fact(fact)
        self.own_decisions = agreed_decisions(self.own_decisions, fact, earlier)
        if fact.event_type != "request.approved" and positions_of(self.outcomes, earlier, _outcome_index):
            self.outcomes = [one for one in self.outcomes if one[0] not in earlier or one[2]]
        if fact.event_type == "request.denied":
            self.outcomes = appended(self.outcomes, (fact.index, fact.occurred, True))
        for who, known in (self.others or {}).items():
            disputed = [known[at] for at in positions_of(known, earlier, decision_index)]
            if self.others is not None and any(one[2] not in fact.decisions for one in disputed):
                kept = tuple(one for one in known if one[0] not in earlier or one[2] in fact.decisions)
                self.others[who] = with_decisions((), kept)

    def reports(self, indexes: Collection[int]) -> bool:
        """Whether it has anything from the facts at some indexes."""
        decided = (self.own_decisions, *(self.others or {}).values())
        return bool(
            positions_of(self.about_grants, indexes, _index)
            or any(positions_of(known, indexes, decision_index) for known in decided)
        )

    def withdraw(self, indexes: Collection[int]) -> bool:
        """Forget the facts at some indexes. Return whether there was anything."""
        if not self.reports(indexes) and not positions_of(self.outcomes, indexes, _outcome_index):
            return False
        self.about_grants = [one for one in self.about_grants if one.index not in indexes]
        self.own_decisions = without_facts(self.own_decisions, indexes)
        self.outcomes = [one for one in self.outcomes if one[0] not in indexes]
        if self.others is not None:
            self.others = {who: without_facts(known, indexes) for who, known in self.others.items()}
        return True


def _index(fact: Fact) -> int:
    return fact.index


def _outcome_index(outcome: tuple[int, int, bool]) -> int:
    return outcome[0]


@dataclass(slots=True)
class Session:
    """The facts of one session; the first event describes it. Times are ``NEVER`` if not reported."""

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
    """Append time of the report."""
    ended: int = NEVER
    began: int = NEVER
    """By the source's clock, but not after the broker received the report."""
    over: int = NEVER
    last_append: int = 0
    reported: ReportTimes = NOT_REPORTED
    ended_index: int = -1
    """Index of the event that reported the end."""
    reason: str = ""

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
        self.reason = self.reason or fact.reason
        self.reported = self.reported.with_fact(fact)
        happened = min(fact.occurred, fact.append)
        if fact.event_type == "session.started":
            self.started, self.began = min(self.started, fact.append), min(self.began, happened)
        elif fact.event_type == "session.ended" and fact.append < self.ended:
            self.ended, self.over, self.ended_index = fact.append, happened, fact.index

    def add_disputed(self, fact: Fact, earlier: Collection[int]) -> None:
        """Add a fact whose event had other contents before: an end counts only where all contents agree."""
        if fact.event_type != "session.ended":
            self.withdraw(earlier)
            self.add(fact)
        elif self.ended_index in earlier:
            self.ended = max(self.ended, fact.append)
            self.over = max(self.over, min(fact.occurred, fact.append))

    def reports(self, indexes: Collection[int]) -> bool:
        """Whether the fact at one of some indexes reported its end."""
        return self.ended_index in indexes

    def withdraw(self, indexes: Collection[int]) -> bool:
        """Forget the end if the fact at one of some indexes reported it. Return whether it did."""
        found = self.ended_index in indexes
        if found:
            self.ended, self.over, self.ended_index = NEVER, NEVER, -1
        return found


def _agreed(one: Fact, other: Fact) -> list[Fact]:
    """Return the removal on which two contents of an event agree: the weaker evidence and the later times."""
    if one.event_type not in REMOVING or other.event_type not in REMOVING:
        return []
    removal = min(one.removal, other.removal, key=STRENGTH.__getitem__)
    append, occurred = max(one.append, other.append), max(one.occurred, other.occurred)
    return [replace(one, removal=removal, append=append, occurred=occurred)]
