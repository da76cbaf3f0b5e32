"""One grant, one request, one session: the facts known of it, in the log's order, whatever order they came in."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TypeVar

from . import episodes
from .episodes import Episode, Granted, Removal, episodes_of, thinned
from .facts import Access, Decision, Fact, Source
from .policy import Limits

Item = TypeVar("Item")
NEVER = episodes.NEVER
"""A time that does not come."""
FEW = 16
"""So many removals are kept without asking whether they matter."""


NOBODY = Source("", "")
NOBODYS_NAMES = ("", "unknown")
"""What stands where a record names nobody (DESIGN section 3)."""


def _rank(fact: Fact) -> int:
    """Return an order of facts by what they say of who and what: first those that name somebody, by the log's order."""
    return fact.index if fact.person and fact.person[0] not in NOBODYS_NAMES else fact.index + NEVER


class Stage(StrEnum):
    """Where a grant is in its life."""

    REQUESTED = "requested"
    APPROVED = "approved"
    DENIED = "denied"
    CANCELLED = "cancelled"
    LAPSED = "lapsed"
    ACTIVE = "active"
    EXTENDED = "extended"
    FAILED = "failed"
    REMOVAL_ACCEPTED = "removal accepted"
    REMOVED = "removed"


@dataclass(slots=True)
class Grant:
    """What is known of one grant. Who and what come from the first event that names somebody."""

    grant_id: str
    first: int
    access: Access
    environment: str
    source: Source
    person: tuple[str, ...]
    kinds: tuple[str, str]
    """Kind of the subject, and of the grant's id."""
    named_at: int = NEVER
    request_id: str = ""
    """The request it came from, by the earliest fact that names one, whose index ``named_at`` is; or nothing."""
    # Tuples, because an empty one takes no memory, and most grants have few of each.
    granted: tuple[Granted, ...] = ()
    removals: tuple[Removal, ...] | list[Removal] = ()
    heard: dict[bytes, int] | None = None
    """Of a grant with more than a few removals, where each was told first: also those that are not kept."""
    decisions: tuple[tuple[int, int, Decision], ...] = ()
    failed: tuple[int, ...] = ()

    @classmethod
    def of(cls, fact: Fact) -> Grant:
        """Return a grant of which this is the first thing heard."""
        access = fact.access or Access("", "", "", "", "")
        kinds = _kinds(fact.subject_kind, fact.grant_id_kind)
        return cls(fact.grant_id, _rank(fact), access, fact.environment, fact.source, fact.person, kinds)

    def add(self, fact: Fact) -> None:
        """Take a fact that was not taken before."""
        if _rank(fact) < self.first and fact.access is not None:
            self.first, self.access, self.environment = _rank(fact), fact.access, fact.environment
            self.source, self.person = fact.source, fact.person
            self.kinds = _kinds(fact.subject_kind, fact.grant_id_kind)
        if fact.request_id and fact.index < self.named_at:
            self.named_at, self.request_id = fact.index, fact.request_id
        if fact.event_type in ("grant.activated", "grant.extended"):
            self.granted = _once(self.granted, Granted.of(fact))
        elif fact.event_type in ("grant.revoked", "grant.expired"):
            self._add_removal(Removal(fact.index, fact.append, fact.occurred, fact.removal, fact.source, fact.told))
        elif fact.event_type == "grant.failed":
            self.failed = _with(self.failed, fact.index)
        for decision in fact.decisions:
            self.decisions = _with(self.decisions, (fact.index, fact.append, decision))

    def _add_removal(self, removal: Removal) -> None:
        if self.heard is None:
            self.removals = _once(tuple(self.removals), removal)
            if len(self.removals) > FEW:
                self.heard = {one.told: one.index for one in self.removals}
            return
        before = self.heard.get(removal.told, NEVER)
        if before <= removal.index:
            return
        self.heard[removal.told] = removal.index
        kept = self.removals if isinstance(self.removals, list) else list(self.removals)
        if before < NEVER:  # of facts in the log's order never so
            kept = [one for one in kept if one.told != removal.told]
        insort(kept, removal)
        self.removals = kept

    def episodes(self, limits: Limits) -> list[Episode]:
        """Return the grant's episodes in order. Everything in the log up to now must be known."""
        if len(self.removals) > FEW:
            self.removals = thinned(self.granted, self.removals)
        return episodes_of(self.granted, self.removals, limits)

    def last(self, limits: Limits) -> Episode | None:
        """Return the episode that counts now."""
        episodes = self.episodes(limits)
        return episodes[-1] if episodes else None

    def stage(self, limits: Limits) -> Stage:
        """Return where the grant is in its life, by what was reported. A passed deadline is not a removal."""
        episode = self.last(limits)
        if episode is None:
            return Stage.FAILED if self.failed else Stage.REQUESTED
        if any(one.evidence in limits.removal for one in episode.removals):
            return Stage.REMOVED
        if episode.removals:
            return Stage.REMOVAL_ACCEPTED
        return Stage.EXTENDED if episode.granted.extended else Stage.ACTIVE


@lru_cache(maxsize=256)
def _kinds(subject: str, grant_id: str) -> tuple[str, str]:
    """Return one object for all grants of the same kinds."""
    return subject or "unknown", grant_id or "synthesized"


Event = TypeVar("Event", Granted, Removal)


def _once(events: tuple[Event, ...], event: Event) -> tuple[Event, ...]:
    """Return the events with one more in its place; of the same one told twice, the first stays."""
    for known in events:
        if known.told == event.told:
            if known.index <= event.index:
                return events
            events = tuple(other for other in events if other is not known)
            break
    return _with(events, event)


def _with(sorted_items: tuple[Item, ...], item: Item) -> tuple[Item, ...]:
    """Return the items with one more in its place; nearly always that is the end."""
    if not sorted_items or sorted_items[-1] <= item:  # type: ignore[operator]
        return (*sorted_items, item)
    return tuple(sorted((*sorted_items, item)))  # type: ignore[type-var]


@dataclass(slots=True)
class Request:
    """What is known of one request."""

    request_id: str
    person: tuple[str, ...] = ()
    first: int = 2 * NEVER
    decisions: tuple[tuple[int, int, Decision], ...] = ()
    ends: tuple[tuple[int, str, str], ...] = ()
    """(index, event type, outcome) of what closes it."""

    def add(self, fact: Fact) -> None:
        """Take a fact that was not taken before."""
        if _rank(fact) < self.first:
            self.first, self.person = _rank(fact), fact.person
        if fact.event_type != "request.created":
            self.ends = _with(self.ends, (fact.index, fact.event_type, fact.outcome))
        for decision in fact.decisions:
            self.decisions = _with(self.decisions, (fact.index, fact.append, decision))

    @property
    def stage(self) -> Stage:
        """Where the request is. The first of several reviews is an approval that is still pending."""
        stage = Stage.REQUESTED
        for _, kind, outcome in self.ends:
            if (kind, outcome) != ("request.approved", "pending"):
                stage = _DECIDED[kind]
        return stage


_DECIDED = {
    "request.approved": Stage.APPROVED,
    "request.denied": Stage.DENIED,
    "request.cancelled": Stage.CANCELLED,
    "request.expired": Stage.LAPSED,
}


@dataclass(slots=True)
class Session:
    """What is known of one session. Times are append times; ``NEVER`` where nothing was reported."""

    session_id: str
    started: int = NEVER
    ended: int = NEVER
    named: tuple[int, str] = (NEVER, "")
    """The earliest fact that names a grant, and the grant."""
    access: Access | None = None
    environment: str = ""
    source: Source = NOBODY
    first: int = NEVER

    @property
    def grant_id(self) -> str:
        """The grant it runs under, or nothing."""
        return self.named[1]

    def add(self, fact: Fact) -> None:
        """Take a fact that was not taken before."""
        if fact.index < self.first:
            self.first, self.access, self.environment, self.source = (
                fact.index, fact.access, fact.environment, fact.source,
            )  # fmt: skip
        if fact.grant_id:
            self.named = min(self.named, (fact.index, fact.grant_id))
        if fact.event_type == "session.started":
            self.started = min(self.started, fact.append)
        elif fact.event_type == "session.ended":
            self.ended = min(self.ended, fact.append)
