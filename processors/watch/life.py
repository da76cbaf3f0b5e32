"""One grant, one request, one session: the facts known of it, in the log's order, whatever order they came in."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple, TypeVar

from .facts import Access, Decision, Fact, Source
from .policy import SECOND, Limits

Item = TypeVar("Item")
NEVER = 1 << 62
"""A time that does not come."""


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


@dataclass(frozen=True, slots=True, order=True)
class Granted:
    """An activation or extension."""

    index: int
    append: int
    starts: int
    expires: int | None
    ahead: int
    """By how much the source's clock was fast: the deadline is that much earlier (DESIGN section 6)."""
    extended: bool
    native: bool = False
    """Whether the tool itself ends the access at ``expires``."""
    told: bytes = b""
    """Digest of the event: the same one told again counts once, where it stands first."""


@dataclass(frozen=True, slots=True, order=True)
class Removal:
    """A revocation or expiry that a tool reported."""

    index: int
    append: int
    occurred: int
    evidence: str
    told: bytes = b""


class Episode(NamedTuple):
    """The time from one activation or extension to the next, or to the end.

    Attributes:
        deadline: when access must have ended, or ``NEVER`` where nobody says.
        superseded: append time of the activation or extension that followed, or ``NEVER``.
        name: what tells its findings from those of the grant's other episodes: the deadline, 0 without one; the time of
            the activation or extension where an earlier episode had the same.
    """

    granted: Granted
    first: Granted
    deadline: int
    superseded: int
    removals: tuple[Removal, ...]
    name: int

    def is_restated_by(self, granted: Granted, deadline: int, limits: Limits) -> bool:
        """Whether an activation or extension that follows says nothing but the same end again."""
        gone = any(one.evidence in limits.removal for one in self.removals)
        return deadline == self.deadline and not gone and (granted.extended or not self.granted.extended)

    def removed(self, limits: Limits) -> int:
        """Return when a removal that counts was reported, or ``NEVER``."""
        by_itself = self.deadline if "deadline" in limits.removal else NEVER
        if not self.removals:
            return by_itself
        reported = (removal.append for removal in self.removals if removal.evidence in limits.removal)
        return min(by_itself, next(reported, NEVER))

    def left(self, limits: Limits) -> int:
        """Return when the subject left by the word of the source that removed it, or ``NEVER``."""
        counting = (one for one in self.removals if one.evidence in limits.removal)
        return next((min(one.occurred, one.append) for one in counting), NEVER)

    @property
    def best_evidence(self) -> str:
        """The strongest word for a removal so far."""
        return max((removal.evidence for removal in self.removals), key=_STRENGTH.__getitem__, default="")


_STRENGTH = {"none": 0, "deadline": 1, "api_accepted": 2, "confirmed": 3}


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
    removals: tuple[Removal, ...] = ()
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
            starts = fact.starts if fact.starts is not None else fact.append
            extended = fact.event_type == "grant.extended"
            native = fact.native and fact.expires is not None
            granted = Granted(
                fact.index, fact.append, starts, fact.expires, fact.fast_by, extended, native, fact.content
            )
            self.granted = _once(self.granted, granted)
        elif fact.event_type in ("grant.revoked", "grant.expired"):
            removal = Removal(fact.index, fact.append, fact.occurred, fact.removal, fact.content)
            self.removals = _once(self.removals, removal)
        elif fact.event_type == "grant.failed":
            self.failed = _with(self.failed, fact.index)
        for decision in fact.decisions:
            self.decisions = _with(self.decisions, (fact.index, fact.append, decision))

    def episodes(self, limits: Limits) -> Iterator[Episode]:
        """Yield the grant's episodes in order. One that comes back after its removal begins anew.

        What gives the same end once more begins no new episode: else access that is overdue would pass for settled.
        """
        first: Granted | None = None
        open_one: Episode | None = None
        named: set[int] = set()
        for at, granted in enumerate(self.granted):
            following = self.granted[at + 1] if at + 1 < len(self.granted) else None
            until = following.index if following else NEVER
            removals = self.removals and tuple(one for one in self.removals if granted.index < one.index < until)
            if open_one is not None and open_one.removed(limits) <= granted.append:
                first = None
            first = granted if first is None else first  # giving it again does not begin its time anew
            deadline = _deadline(granted, first, limits)
            superseded = following.append if following else NEVER
            if open_one is not None and open_one.is_restated_by(granted, deadline, limits):
                removals = open_one.removals + removals
                open_one = open_one._replace(superseded=superseded, removals=removals)
            else:
                if open_one is not None:
                    yield open_one
                name = granted.append if deadline in named else 0 if deadline == NEVER else deadline
                named.add(deadline)
                open_one = Episode(granted, first, deadline, superseded, removals, name)
        if open_one is not None:
            yield open_one

    def last(self, limits: Limits) -> Episode | None:
        """Return the episode that counts now."""
        return next(iter(deque(self.episodes(limits), maxlen=1)), None)

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


def _deadline(granted: Granted, first: Granted, limits: Limits) -> int:
    """Return when access must have ended: what the tool said less its clock's lead, else what the policy allows."""
    if granted.expires is not None:
        return granted.expires - granted.ahead
    if limits.max_seconds is not None:
        return first.append + int(limits.max_seconds * SECOND)
    return NEVER


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
