"""The periods of a grant: they follow from its activations and removals. A deadline belongs to a period."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ...access import NEVER, SECOND, Source
from ...policy import AccessLimits
from .facts import Fact


@dataclass(frozen=True, slots=True, order=True)
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
    """Whether the credential stops working at the deadline, whatever anybody does."""
    whole_request: bool
    """Whether it names only the request, and so extends all of its grants that are active."""
    source: Source
    packed: int
    """``occurred`` and ``event_key`` in one integer: there may be a million of these."""
    signed: bool
    """Whether its source is registered and signed it."""

    @classmethod
    def of(cls, fact: Fact) -> Activation:
        """Return the activation that a fact reports."""
        starts = fact.append if fact.starts is None else fact.starts
        # At least 1: 0 stands for no deadline, and a finding has no field for a deadline before 1970.
        ends = None if fact.expires is None else max(1, fact.expires - fact.clock_lead)
        packed = (fact.occurred << 64) + int.from_bytes(fact.event_key, "big")
        extended = fact.event_type == "grant.extended"
        native, by_itself = (one and ends is not None for one in (fact.native, fact.ends_by_itself))
        return cls(
            fact.index, fact.append, starts, ends, extended, native, by_itself, not fact.grant_id, fact.source, packed,
            fact.signed,
        )  # fmt: skip

    @property
    def begins(self) -> int:
        """From when it gives the access, as far as is known: not before it was reported."""
        return max(self.append, self.starts)

    @property
    def occurred(self) -> int:
        """When it happened, by the source's clock."""
        return self.packed >> 64

    @property
    def event_key(self) -> int:
        """Digest of the event id. Of duplicates, the first in the log counts."""
        return self.packed & ((1 << 64) - 1)

    def stricter(self, other: Activation) -> Activation:
        """Return what is certain of two contents of one event: the earlier end, and how it ends if both agree."""
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
    event_key: bytes = b""
    signed: bool = False
    """Whether its source is registered and signed it."""

    @classmethod
    def of(cls, fact: Fact) -> Removal:
        """Return the removal that a fact reports."""
        return cls(fact.index, fact.append, fact.occurred, fact.removal, fact.source, fact.event_key, fact.signed)

    @property
    def left(self) -> int:
        """When the subject lost the access: by the source's clock, but not after the broker received the report."""
        return min(self.occurred, self.append)


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


class Period(NamedTuple):
    """The time from one activation or extension to the next, or to the end."""

    activation: Activation
    first: Activation  # with which this continuous access began
    deadline: int  # when access must have ended, or ``NEVER``
    superseded: int  # append time of the next activation or extension, or ``NEVER``
    removals: tuple[Removal, ...]
    finding_deadline: int
    """The deadline in its findings, unlike that of any other period: its own, or 0 without one. If an earlier
    period had the same, the append time of its activation."""
    late: bool = False
    """Already over when it was reported: by the source's clock, a removal earlier in the log came after it."""

    def is_repeated_by(self, activation: Activation, deadline: int, limits: AccessLimits) -> bool:
        """Whether the next activation or extension only repeats the same end."""
        gone = any(one.evidence in limits.removal for one in self.removals)
        return deadline == self.deadline and not gone and (activation.extended or not self.activation.extended)

    def removed(self, limits: AccessLimits) -> int:
        """Return when a removal that counts was reported, or ``NEVER``."""
        ends_by_itself = self.deadline if "deadline" in limits.removal else NEVER
        if not self.removals:
            return ends_by_itself
        reported = next((one.append for one in self.removals if one.evidence in limits.removal), NEVER)
        return min(ends_by_itself, max(reported, self.activation.append))  # both reports must have arrived

    def left(self, limits: AccessLimits) -> int:
        """Return when the subject lost the access, by the source that removed it, or ``NEVER``."""
        counting = (one for one in self.removals if one.evidence in limits.removal)
        return next((one.left for one in counting), NEVER)

    def overdue_after(self, limits: AccessLimits) -> int:
        """Return the last moment at which a removal is on time. If the grant arrived late, it counts from then."""
        return add_grace(max(self.deadline, self.activation.append), limits)

    def cover(self, limits: AccessLimits) -> tuple[int, int]:
        """Return from when to when it rightly gives its subject the access."""
        return self.activation.begins, min(self.removed(limits), self.superseded, self.overdue_after(limits))

    @property
    def best_evidence(self) -> str:
        """The strongest evidence of a removal so far."""
        return max((removal.evidence for removal in self.removals), key=_STRENGTH.__getitem__, default="")


_STRENGTH = {"none": 0, "deadline": 1, "api_accepted": 2, "confirmed": 3}


def weaker(removal: Removal, evidence: str, append: int, occurred: int) -> Removal:
    """Return what is certain of two contents of one removal: the weaker evidence, and the later times."""
    evidence = min(removal.evidence, evidence, key=_STRENGTH.__getitem__)
    return replace(
        removal, evidence=evidence, append=max(removal.append, append), occurred=max(removal.occurred, occurred)
    )


def add_grace(time: int, limits: AccessLimits) -> int:
    """Return a time plus the grace."""
    return NEVER if time >= NEVER else time + int(limits.grace_seconds * SECOND)


def with_removal(removals: tuple[Removal, ...], new: Removal, activations: Sequence[Activation]) -> tuple[Removal, ...]:
    """Return the removals with the next one, without those that cannot matter, however often a tool repeats them.

    Since the last activation, the first of each source and evidence matters, and the last by the source's clock.
    Replayed ones count apart.
    """
    begin = activations[-1].index if activations else -1
    same = [one for one in removals if one.index > begin and (one.source, one.evidence) == (new.source, new.evidence)]
    if same and new.signed:
        given: dict[Source, int] = {}
        for activation in activations:
            note_given(given, activation)
        same = [one for one in same if is_replayed(one, given) == is_replayed(new, given)]
    if same and new.left <= same[-1].left:
        return removals
    if len(same) > 1:
        removals = tuple(one for one in removals if one is not same[-1])
    return (*removals, new)


def periods_of(activations: Sequence[Activation], removals: Sequence[Removal], limits: AccessLimits) -> list[Period]:
    """Return the periods of a grant in order. A grant that returns after its removal starts anew.

    An activation that repeats the current end starts no new period: otherwise overdue access would look settled.
    """
    if len(activations) == 1 and not removals and not activations[0].whole_request:  # nearly all active grants
        only = activations[0]
        deadline = _deadline(only, only, limits)
        return [Period(only, only, deadline, NEVER, (), 0 if deadline == NEVER else deadline)]
    live, periods = _assign_removals(activations, removals, limits)
    first: Activation | None = None
    before: Period | None = None
    deadlines: set[int] = set()
    for at, (activation, own) in enumerate(live):
        if before is not None and before.removed(limits) <= activation.append:
            first = None
        first = activation if first is None else first  # a repeated activation does not restart the longest time
        deadline = _deadline(activation, first, limits)
        superseded = live[at + 1][0].append if at + 1 < len(live) else NEVER
        if before is not None and before.is_repeated_by(activation, deadline, limits):
            before = periods[-1] = before._replace(superseded=superseded, removals=(*before.removals, *own))
        else:
            own_deadline = 0 if deadline == NEVER else deadline
            finding_deadline = activation.append if deadline in deadlines else own_deadline
            deadlines.add(deadline)
            before = Period(activation, first, deadline, superseded, tuple(own), finding_deadline)
            periods.append(before)
    return periods


def _assign_removals(
    activations: Sequence[Activation], removals: Sequence[Removal], limits: AccessLimits
) -> tuple[list[tuple[Activation, list[Removal]]], list[Period]]:
    """Return the activations, each with its removals up to the next; and the periods that were reported too late.

    A removal belongs to the activation before it in the log, unless it is replayed. It also belongs to a later
    activation that came before it by the clock of their common source, because some tools do not keep order. If such a
    removal counts, the activation grants nothing and supersedes nothing. Otherwise the activation counts from when it
    was reported, as usual. Replayed extensions are left out.

    An extension that names only the request does not bring back a grant with a confirmed removal.
    """
    live: list[tuple[Activation, list[Removal]]] = []
    late: list[Period] = []
    latest: dict[tuple[Source, str], Removal] = {}  # by source and evidence: the latest so far by the source's clock
    given: dict[Source, int] = {}
    reports: list[Activation | Removal] = sorted((*activations, *removals), key=lambda one: one.index)
    for one in reports:
        if isinstance(one, Removal):
            if live and not is_replayed(one, given):
                live[-1][1].append(one)
            if one.left > latest.setdefault((one.source, one.evidence), one).left:
                latest[one.source, one.evidence] = one
            continue
        if is_replayed(one, given):
            continue
        note_given(given, one)
        if one.whole_request and (not live or any(removal.evidence == "confirmed" for removal in live[-1][1])):
            continue
        preceded = sorted(removal for removal in latest.values() if one.precedes(removal))
        if any(removal.evidence in limits.removal for removal in preceded):
            deadline = _deadline(one, one, limits)
            late.append(Period(one, one, deadline, one.append, tuple(preceded), deadline, late=True))
        else:
            live.append((one, preceded))
    return live, late


def _deadline(activation: Activation, first: Activation, limits: AccessLimits) -> int:
    """Return when access must have ended: the reported end without the clock's lead, or else the policy's limit."""
    if activation.ends is not None:
        return activation.ends
    if limits.max_seconds is not None:
        return first.append + int(limits.max_seconds * SECOND)
    return NEVER
