"""The periods of a grant: they follow from its activations and removals. A deadline belongs to a period."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ...access import NEVER, SECOND, Source
from ...policy import AccessLimits
from .facts import Fact
from .reports import appended, replaced


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
    """Whether, by its source, the credential stops working at the deadline, whatever anybody does."""
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
    ends_by_itself: bool = False
    """Whether all credentials of the period stop working by its deadline, and the policy believes that."""
    undone: tuple[Removal, int] | None = None
    """The first removal that was unconfirmed for too long before the access was given back, and when it was."""

    def includes(self, activation: Activation, deadline: int, limits: AccessLimits, *, by_itself: bool) -> bool:
        """Whether the next activation or extension only repeats the same end, or adds a credential that ends earlier.

        ``by_itself``: whether it ends by itself.
        """
        if any(one.evidence in limits.removal for one in self.removals):
            return False
        if deadline == self.deadline:
            return activation.extended or not self.activation.extended
        earlier = self.activation.ends is not None and deadline < self.deadline
        return by_itself and not activation.extended and earlier

    def continued(
        self, activation: Activation, deadline: int, superseded: int, removals: tuple[Removal, ...],
        limits: AccessLimits, *, by_itself: bool,
    ) -> Period:  # fmt: skip
        """Return the period with an activation or extension that it includes, and the removals since that.

        An activation with the same end gives the access back, for example when a lock is lifted.
        """
        earlier = deadline < self.deadline
        together = self.ends_by_itself and (by_itself or earlier)
        kept, undone = self.removals, self.undone
        if kept and not earlier and not activation.extended:
            kept, until = (), activation.begins
            undone = undone or next(((one, until) for one in self.unconfirmed(limits, until)), None)
        return self._replace(
            superseded=superseded, removals=_first_of_each(*kept, *removals), ends_by_itself=together, undone=undone
        )  # fmt: skip

    def unconfirmed(self, limits: AccessLimits, until: int) -> Iterator[Removal]:
        """Yield the first removal that does not count if it stays unconfirmed for too long before a time."""
        weak = next((one for one in self.removals if one.evidence not in limits.removal), None)
        if weak is not None and self.is_unconfirmed_from(weak, limits) < until:
            yield weak

    def is_unconfirmed_from(self, weak: Removal, limits: AccessLimits) -> int:
        """Return when a removal that does not count has been unconfirmed for too long."""
        return max(weak.append, self.activation.append) + int(limits.confirm_wait_seconds * SECOND)

    def removed(self, limits: AccessLimits) -> int:
        """Return when a removal that counts was reported, or ``NEVER``."""
        ends_by_itself = self.deadline if self.ends_by_itself or "deadline" in limits.removal else NEVER
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


def with_removal(
    removals: Sequence[Removal], new: Removal, begin: int, given: Callable[[], Mapping[Source, int]]
) -> Sequence[Removal]:
    """Return the removals with the next one, without those that cannot matter, however often a tool repeats them.

    Since the last activation, the first of each source and evidence matters, and the last by the source's clock.
    Replayed ones count apart.

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
    if len(same) > 1:
        removals = replaced(removals, same[-1])
    return appended(removals, new)


class PeriodWalk:
    """Computes the periods of a grant, report by report in the order of the log.

    A grant that returns after its removal starts anew. An activation that repeats the current end starts no new period:
    otherwise overdue access would look settled.

    A removal belongs to the activation before it in the log, unless it is replayed. It also belongs to a later
    activation that came before it by the clock of their common source, because some tools do not keep order. If such a
    removal counts, the activation grants nothing and supersedes nothing. Otherwise the activation counts from when it
    was reported, as usual. Replayed extensions are left out.

    An extension that names only the request does not bring back a grant with a confirmed removal.

    Credentials that end by themselves add up: the grant lasts as long as the last of them. An extension replaces them.
    """

    def __init__(self, limits: AccessLimits, reports: Iterable[Activation | Removal]) -> None:
        self.limits = limits
        self.spans: list[tuple[int, int, int]] | None = None
        """The spans of :mod:`.rules`, since the last report."""
        self._late: list[Period] = []
        self._final: list[Period] = []
        self._unsettled: list[Period] = []
        """Those of the former that can still cause a finding."""
        self._before: Period | None = None
        """The one before the last activation, which may merely repeat its end."""
        self._last: Activation | None = None
        self._removals: tuple[Removal, ...] = ()
        self._first: Activation | None = None
        self._deadlines: set[int] = set()
        self._latest: dict[tuple[Source, str], Removal] = {}
        """By source and evidence: the latest so far by the source's clock."""
        self._given: dict[Source, int] = {}
        for one in sorted(reports, key=lambda one: one.index):
            self.add(one)

    def add(self, report: Activation | Removal) -> None:
        """Add the next report."""
        self.spans = None
        if isinstance(report, Removal):
            if self._last is not None and not is_replayed(report, self._given):
                self._removals = _first_of_each(*self._removals, report)
            if report.left > self._latest.setdefault((report.source, report.evidence), report).left:
                self._latest[report.source, report.evidence] = report
            return
        if is_replayed(report, self._given):
            return
        note_given(self._given, report)
        gone = self._last is None or any(removal.evidence == "confirmed" for removal in self._removals)
        if report.whole_request and gone:
            return
        preceded = sorted(removal for removal in self._latest.values() if report.precedes(removal))
        if any(removal.evidence in self.limits.removal for removal in preceded):
            deadline = _deadline(report, report, self.limits)
            late = Period(report, report, deadline, report.append, tuple(preceded), deadline, late=True)
            self._late.append(late)
            self._unsettled.append(late)
            return
        if self._last is not None:
            self._end_period(self._last, report.append)
        self._last, self._removals = report, _first_of_each(*preceded)

    def _end_period(self, last: Activation, superseded: int) -> None:
        period = self._period(last, superseded)
        if self._before is not None and period.activation is not self._before.activation:
            self._final.append(self._before)
            self._unsettled.append(self._before)
        self._before, self._first = period, self._first_of(last)
        self._deadlines.add(period.deadline)

    def _first_of(self, last: Activation) -> Activation:
        """Return the activation with which the access began: a repeated one does not restart the longest time."""
        before, first = self._before, self._first
        return last if first is None or before is None or before.removed(self.limits) <= last.append else first

    def _period(self, last: Activation, superseded: int) -> Period:
        first, before = self._first_of(last), self._before
        deadline = _deadline(last, first, self.limits)
        by_itself = last.ends_by_itself and self.limits.ends_by_itself
        if before is not None and before.includes(last, deadline, self.limits, by_itself=by_itself):
            return before.continued(last, deadline, superseded, self._removals, self.limits, by_itself=by_itself)
        if before is not None and not last.extended and before.removed(self.limits) > last.append:
            by_itself = by_itself and before.ends_by_itself  # an earlier credential may outlast its own end
        own_deadline = 0 if deadline == NEVER else deadline
        finding_deadline = last.append if deadline in self._deadlines else own_deadline
        return Period(
            last, first, deadline, superseded, self._removals, finding_deadline, ends_by_itself=by_itself
        )  # fmt: skip

    def _newest(self) -> list[Period]:
        """Return the periods that the next report may change."""
        before = [self._before] if self._before is not None else []
        if self._last is None:
            return before
        period = self._period(self._last, NEVER)
        return [period] if before and period.activation is before[0].activation else [*before, period]

    def periods(self) -> list[Period]:
        """Return all periods, those first that were reported too late."""
        return [*self._late, *self._final, *self._newest()]

    def unsettled(self) -> list[Period]:
        """Return the periods that can still cause or resolve a finding."""
        return [*self._unsettled, *self._newest()]

    def last(self) -> Period | None:
        """Return the last period."""
        return next(reversed(self._newest() or self._late), None)

    def settle(self, is_settled: Callable[[Period], bool]) -> None:
        """Leave out, from now on, the periods that can neither change nor cause a finding."""
        if self._unsettled:
            self._unsettled = [one for one in self._unsettled if not is_settled(one)]


def _first_of_each(*removals: Removal) -> tuple[Removal, ...]:
    """Return the first removal of each evidence: the others of one period do not matter."""
    first: dict[str, Removal] = {}
    for one in removals:
        first.setdefault(one.evidence, one)
    return tuple(first.values())


def periods_of(activations: Sequence[Activation], removals: Sequence[Removal], limits: AccessLimits) -> list[Period]:
    """Return the periods of a grant in order."""
    if len(activations) == 1 and not removals and not activations[0].whole_request:  # nearly all active grants
        only = activations[0]
        deadline = _deadline(only, only, limits)
        by_itself = only.ends_by_itself and limits.ends_by_itself
        return [Period(only, only, deadline, NEVER, (), 0 if deadline == NEVER else deadline, ends_by_itself=by_itself)]
    return PeriodWalk(limits, (*activations, *removals)).periods() if activations else []


def _deadline(activation: Activation, first: Activation, limits: AccessLimits) -> int:
    """Return when access must have ended: the reported end without the clock's lead, or else the policy's limit."""
    if activation.ends is not None:
        return activation.ends
    if limits.max_seconds is not None:
        return first.append + int(limits.max_seconds * SECOND)
    return NEVER
