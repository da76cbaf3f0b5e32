"""Activations and removals: what sources report about a grant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ...access import NEVER, SECOND, Source, in_micros
from ...watch_policy import GrantLimits
from .facts import Fact
from .reports import appended, replaced


@dataclass(slots=True, order=True)  # frozen, it takes twice as long to make, and there may be a million
class Activation:
    """An activation or extension."""

    index: int
    append: int
    starts: int
    ends: int | None
    """The deadline: the reported end, minus the lead of the source's clock."""
    extended: bool
    native: bool
    """Whether the tool itself ends the access at the deadline."""
    ends_by_itself: bool
    """Whether its source reports that the credential stops working at the deadline without any action."""
    whole_request: bool
    """Whether it names only a request. It then extends every active grant of that request."""
    source: Source
    occurred: int
    """When it happened, by the source's clock."""
    event: int
    """Digest of the event's identity. Of duplicates, the first in the log counts."""
    signed: bool
    """Whether its source is registered and signed it."""
    received: int

    @classmethod
    def of(cls, fact: Fact) -> Activation:
        """Return the activation that a fact reports."""
        starts = fact.append if fact.starts is None else fact.starts
        # At least 1, because 0 means no deadline. Findings cannot represent a deadline before 1970.
        ends = None if fact.expires is None else max(1, fact.expires - fact.clock_lead)
        has_end = ends is not None
        return cls(
            fact.index, fact.append, starts, ends, fact.event_type == "grant.extended", fact.native and has_end,
            fact.ends_by_itself and has_end, not fact.grant_id, fact.source, fact.occurred, fact.event, fact.signed,
            fact.received,
        )  # fmt: skip

    @property
    def begins(self) -> int:
        """From when it gives the access, as far as is known: not before it was reported."""
        return max(self.append, self.starts)

    @property
    def began(self) -> int:
        """From when it gives the access, by the source's clock, but not after the broker received the report."""
        return self.happened if self.starts == self.append else max(self.happened, self.starts)

    @property
    def happened(self) -> int:
        """When it happened, by the source's clock, but not after the broker received the report."""
        return min(self.occurred, self.append)

    def is_stale(self, limits: GrantLimits) -> bool:
        """Whether it was received so long after its end that only history has it."""
        end = last_end(self.ends or 0, self.happened, limits, endless=self.ends is None)
        return self.received >= history_begins(end, limits)

    def stricter(self, other: Activation) -> Activation:
        """Combine two contents of one event: the earlier end; ``native`` and ``ends_by_itself`` only if both agree."""
        ends = [one.ends for one in (self, other) if one.ends is not None]
        by_itself = self.ends_by_itself and other.ends_by_itself
        native = self.native and other.native
        return replace(self, ends=min(ends, default=None), native=native, ends_by_itself=by_itself)

    def precedes(self, removal: Removal) -> bool:
        """Whether a removal came later by the clock of their common source, whatever their order in the log."""
        return self.source == removal.source and end_of_moment(self.occurred) <= removal.left


@dataclass(frozen=True, slots=True, order=True)
class Removal:
    """A revocation or expiry that a tool reported."""

    index: int
    append: int
    occurred: int
    evidence: str
    source: Source
    event: int = 0
    """Digest of the event's identity."""
    signed: bool = False
    """Whether its source is registered and signed it."""

    @classmethod
    def of(cls, fact: Fact) -> Removal:
        """Return the removal that a fact reports."""
        return cls(fact.index, fact.append, fact.occurred, fact.removal, fact.source, fact.event, fact.signed)

    @property
    def left(self) -> int:
        """When the subject lost the access: by the source's clock, but not after the broker received the report."""
        return min(self.occurred, self.append)


def last_end(end: int, newest: int, limits: GrantLimits, *, endless: bool) -> int:
    """Return the end by which lateness counts: the latest deadline, but not before the access was last given.

    ``newest``: when it was last given, by the source's clock. ``endless``: whether some of it has no end.
    """
    longest = limits.max_seconds if endless and limits.max_seconds is not None else 0
    return max(end, newest + in_micros(longest))


def history_begins(end: int, limits: GrantLimits) -> int:
    """Return when records about access that ended at a time are history if none was received before."""
    return end + in_micros(limits.history_after_seconds)


def end_of_moment(occurred: int) -> int:
    """Return when a later moment begins: a time in whole seconds or milliseconds may have been truncated."""
    return occurred + (SECOND if occurred % SECOND == 0 else 1000 if occurred % 1000 == 0 else 1)


def is_replayed(report: Activation | Removal, given: Mapping[Source, int]) -> bool:
    """Whether a removal or extension is older than access that its registered source gave since: it changes nothing.

    Anyone who can write to the topic can send an old signed record again.

    Args:
        given: by source, the latest time, by its own clock, at which it gave this grant earlier in the log.
    """
    acts = isinstance(report, Removal) or report.extended
    return acts and report.signed and end_of_moment(report.occurred) <= given.get(report.source, -NEVER)


def note_given(given: dict[Source, int], activation: Activation) -> None:
    """Note when a source gave a grant, by its own clock, but not after the broker received the report."""
    time = min(activation.occurred, activation.append)
    given[activation.source] = max(time, given.get(activation.source, -NEVER))


STRENGTH = {"none": 0, "deadline": 1, "api_accepted": 2, "confirmed": 3}
"""From the weakest to the strongest evidence of a removal."""


def weaker(removal: Removal, evidence: str, append: int, occurred: int) -> Removal:
    """Combine two contents of one removal: the weaker evidence and the later times."""
    evidence = min(removal.evidence, evidence, key=STRENGTH.__getitem__)
    return replace(
        removal, evidence=evidence, append=max(removal.append, append), occurred=max(removal.occurred, occurred)
    )


def with_removal(
    removals: Sequence[Removal], new: Removal, begin: int, given: Callable[[], Mapping[Source, int]]
) -> Sequence[Removal]:
    """Return the removals with the next one, without those that cannot matter, however often a tool repeats them.

    Since the last activation, the first of each source and evidence matters, and the last by the source's clock. The
    one before the last stays, because another content may make the last one weaker. Replayed ones count apart.

    Args:
        begin: index of the last activation, or -1.
        given: returns when each source gave the grant, by its own clock.
    """
    same: list[int] = []
    for at in range(len(removals) - 1, -1, -1):
        if removals[at].index <= begin:
            break
        if (removals[at].source, removals[at].evidence) == (new.source, new.evidence):
            same.insert(0, at)
    if same and new.signed:
        times = given()
        same = [at for at in same if is_replayed(removals[at], times) == is_replayed(new, times)]
    if same and new.left <= removals[same[-1]].left:
        return removals
    if len(same) > 2:
        removals = replaced(removals, same[-2])
    return appended(removals, new)
