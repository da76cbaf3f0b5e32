"""What was given and what was taken away, and the episodes that follow from the two."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .facts import Fact, Source
from .policy import SECOND, Limits

NEVER = 1 << 62
"""A time that does not come."""


@dataclass(frozen=True, slots=True, order=True)
class Granted:
    """An activation or extension."""

    index: int
    append: int
    starts: int
    ends: int | None
    """The deadline: what the tool said, less by as much as its clock was fast (DESIGN section 6)."""
    extended: bool
    native: bool
    """Whether the tool itself ends the access at its deadline."""
    source: Source
    mark: int
    """When it occurred and what tells the event from others, in one number: there are a million of these."""

    @classmethod
    def of(cls, fact: Fact) -> Granted:
        """Return what a fact gives."""
        starts = fact.append if fact.starts is None else fact.starts
        ends = None if fact.expires is None else fact.expires - fact.fast_by
        mark = (fact.occurred << 64) + int.from_bytes(fact.told, "big")
        extended = fact.event_type == "grant.extended"
        native = fact.native and ends is not None
        return cls(fact.index, fact.append, starts, ends, extended, native, fact.source, mark)

    @property
    def occurred(self) -> int:
        """When it happened by the source's clock."""
        return self.mark >> 64

    @property
    def told(self) -> int:
        """What tells the event from others: the same one told again counts once, where it stands first."""
        return self.mark & ((1 << 64) - 1)

    def precedes(self, removal: Removal) -> bool:
        """Whether a removal came later by the word of the source of both, wherever they stand in the log.

        Of a time without a fraction of the second, or with three digits of it, nobody knows what followed.
        """
        occurred = self.occurred
        unknown = SECOND if occurred % SECOND == 0 else 1000 if occurred % 1000 == 0 else 1
        return self.source == removal.source and occurred + unknown <= removal.left


@dataclass(frozen=True, slots=True, order=True)
class Removal:
    """A revocation or expiry that a tool reported."""

    index: int
    append: int
    occurred: int
    evidence: str
    source: Source
    told: bytes = b""

    @property
    def left(self) -> int:
        """When the subject left by the source's word: a fast clock makes it no later than the broker heard of it."""
        return min(self.occurred, self.append)


class Episode(NamedTuple):
    """The time from one activation or extension to the next, or to the end.

    Attributes:
        deadline: when access must have ended, or ``NEVER`` where nobody says.
        superseded: append time of the activation or extension that followed, or ``NEVER``.
        name: what tells its findings from those of the grant's other episodes: the deadline, 0 without one; the time of
            the activation or extension where an earlier episode had the same.
        late: told when it was over: by its source's word it came before a removal that stands earlier in the log.
    """

    granted: Granted
    first: Granted
    deadline: int
    superseded: int
    removals: tuple[Removal, ...]
    name: int
    late: bool = False

    def is_restated_by(self, granted: Granted, deadline: int, limits: Limits) -> bool:
        """Whether an activation or extension that follows says nothing but the same end again."""
        gone = any(one.evidence in limits.removal for one in self.removals)
        return deadline == self.deadline and not gone and (granted.extended or not self.granted.extended)

    def removed(self, limits: Limits) -> int:
        """Return when a removal that counts was reported, or ``NEVER``."""
        by_itself = self.deadline if "deadline" in limits.removal else NEVER
        if not self.removals:
            return by_itself
        reported = next((one.append for one in self.removals if one.evidence in limits.removal), NEVER)
        return min(by_itself, max(reported, self.granted.append))  # nobody knew before both were heard

    def left(self, limits: Limits) -> int:
        """Return when the subject left by the word of the source that removed it, or ``NEVER``."""
        counting = (one for one in self.removals if one.evidence in limits.removal)
        return next((one.left for one in counting), NEVER)

    @property
    def best_evidence(self) -> str:
        """The strongest word for a removal so far."""
        return max((removal.evidence for removal in self.removals), key=_STRENGTH.__getitem__, default="")


_STRENGTH = {"none": 0, "deadline": 1, "api_accepted": 2, "confirmed": 3}


def thinned(given: Sequence[Granted], removals: Iterable[Removal]) -> tuple[Removal, ...]:
    """Return of removals that a tool repeats those that can matter, however often it does.

    They are, from one activation or extension to the next, of each source and evidence the first, and the last by the
    source's clock. Exact where everything in the log up to now is known, as it is when a judgement is asked for: what
    comes after stands later in the log and parts no removals that were told already.
    """
    starts = [granted.index for granted in given]
    first: dict[tuple[int, Source, str], Removal] = {}
    last: dict[tuple[int, Source, str], Removal] = {}
    for one in removals:
        key = bisect(starts, one.index), one.source, one.evidence
        if one.left > last.setdefault(key, first.setdefault(key, one)).left:
            last[key] = one
    return tuple(sorted({*first.values(), *last.values()}))


def episodes_of(given: Sequence[Granted], removals: Sequence[Removal], limits: Limits) -> list[Episode]:
    """Return the episodes of a grant in order. One that comes back after its removal begins anew.

    What gives the same end once more begins no new episode: else access that is overdue would pass for settled.
    """
    if len(given) == 1 and not removals:  # as nearly all that is active
        only = given[0]
        deadline = _deadline(only, only, limits)
        return [Episode(only, only, deadline, NEVER, (), 0 if deadline == NEVER else deadline)]
    live, found = _in_turn(given, removals, limits)
    first: Granted | None = None
    before: Episode | None = None
    named: set[int] = set()
    for at, (granted, own) in enumerate(live):
        if before is not None and before.removed(limits) <= granted.append:
            first = None
        first = granted if first is None else first  # giving it again does not begin its time anew
        deadline = _deadline(granted, first, limits)
        superseded = live[at + 1][0].append if at + 1 < len(live) else NEVER
        if before is not None and before.is_restated_by(granted, deadline, limits):
            before = found[-1] = before._replace(superseded=superseded, removals=(*before.removals, *own))
        else:
            name = granted.append if deadline in named else 0 if deadline == NEVER else deadline
            named.add(deadline)
            before = Episode(granted, first, deadline, superseded, tuple(own), name)
            found.append(before)
    return found


def _in_turn(
    given: Sequence[Granted], removals: Sequence[Removal], limits: Limits
) -> tuple[list[tuple[Granted, list[Removal]]], list[Episode]]:
    """Return what was given, each with its removals up to the next; and the episodes of what was told too late.

    A removal belongs to what stands before it in the log. It also belongs to what stands after it and came before it by
    the word of the source of both, because some tools keep no order. Where such a removal counts, what was told so late
    gives nothing and follows nothing. Else it holds from when it was told, as ever.
    """
    live: list[tuple[Granted, list[Removal]]] = []
    late: list[Episode] = []
    latest: dict[tuple[Source, str], Removal] = {}  # by source and evidence: the last so far by the source's clock
    told: list[Granted | Removal] = sorted((*given, *removals), key=lambda one: one.index)
    for one in told:
        if isinstance(one, Removal):
            if live:
                live[-1][1].append(one)
            if one.left > latest.setdefault((one.source, one.evidence), one).left:
                latest[one.source, one.evidence] = one
            continue
        missed = sorted(removal for removal in latest.values() if one.precedes(removal))
        if any(removal.evidence in limits.removal for removal in missed):
            deadline = _deadline(one, one, limits)
            late.append(Episode(one, one, deadline, one.append, tuple(missed), deadline, late=True))
        else:
            live.append((one, missed))
    return live, late


def _deadline(granted: Granted, first: Granted, limits: Limits) -> int:
    """Return when access must have ended: what the tool said less its clock's lead, else what the policy allows."""
    if granted.ends is not None:
        return granted.ends
    if limits.max_seconds is not None:
        return first.append + int(limits.max_seconds * SECOND)
    return NEVER
