"""The periods of a grant: they follow from its activations and removals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from ...access import NEVER, Source
from ...watch_policy import GrantLimits
from .activations import Activation, Removal, is_replayed, note_given
from .periods import Period, first_of_each

if TYPE_CHECKING:
    from .session_rules import Span

LateReports = Literal["all", "activations", "none"]
"""Which late activations and extensions of a grant count. ``all``: the grant is historical. ``activations``: not
extensions that were past their end when they were received. ``none``: also none that is so old that it is history,
because a newer one was received in time."""


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

    Reports that arrive late must not hide that access lasts (:data:`LateReports`). But the access was given: an older
    removal of the same source does not end it, and an extension that names only the request extends it.
    """

    def __init__(
        self, limits: GrantLimits, reports: Iterable[Activation | Removal], late_reports: LateReports = "all"
    ) -> None:
        self.limits, self.late_reports = limits, late_reports
        self._latest_end = -NEVER
        """Of the activations and extensions so far."""
        self.spans: list[Span] | None = None
        """The spans of :mod:`.session_rules`, since the last report."""
        self._late: list[Period] = []
        self._final: list[Period] = []
        self._unsettled: list[Period] = []
        """The periods in ``_final`` that can still cause a finding."""
        self._before: Period | None = None
        """The one before the last activation, which may merely repeat its end."""
        self._last: Activation | None = None
        self._removals: tuple[Removal, ...] = ()
        self._first: Activation | None = None
        self._exists = False
        """Whether a report about the grant itself gave it, perhaps too late, and no confirmed removal came since."""
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
            self._add_removal(report)
            return
        if is_replayed(report, self._given):
            return
        note_given(self._given, report)
        too_late = self._is_too_late(report)
        if not too_late:
            self._latest_end = max(self._latest_end, NEVER if report.ends is None else report.ends)
        if report.whole_request and (too_late or not self._exists):
            return
        preceded = sorted(removal for removal in self._latest.values() if report.precedes(removal))
        gone = any(removal.evidence in self.limits.removal for removal in preceded)
        self._exists |= not gone
        if too_late:
            return
        if gone:
            deadline = _deadline(report, report, self.limits)
            late = Period(report, report, deadline, report.append, tuple(preceded), deadline, late=True)
            self._late.append(late)
            self._unsettled.append(late)
            return
        if self._last is not None:
            self._end_period(self._last, report.append)
        self._last, self._removals = report, first_of_each(*preceded)

    def _add_removal(self, report: Removal) -> None:
        if not is_replayed(report, self._given):
            if self._last is not None:
                self._removals = first_of_each(*self._removals, report)
            self._exists &= report.evidence != "confirmed"
        if report.left > self._latest.setdefault((report.source, report.evidence), report).left:
            self._latest[report.source, report.evidence] = report

    def _is_too_late(self, report: Activation) -> bool:
        """Whether an activation or extension changes nothing, because it was received too late."""
        if self.late_reports == "all":
            return False
        passed = report.extended and report.ends is not None and report.ends <= report.received
        if passed and -NEVER < self._latest_end <= report.received:
            return True
        return self.late_reports == "none" and report.is_stale(self.limits)

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
        alone_from = 0
        if before is not None and not last.extended:
            alone_from, removed = before.alone_from, before.removed(self.limits)
            if any(one.evidence in self.limits.removal for one in before.removals):
                alone_from = removed
            elif removed > last.append:
                by_itself = by_itself and before.ends_by_itself  # an earlier credential may outlast its own end
        own_deadline = 0 if deadline == NEVER else deadline
        finding_deadline = last.append if deadline in self._deadlines else own_deadline
        return Period(
            last, first, deadline, superseded, self._removals, finding_deadline, ends_by_itself=by_itself,
            alone_from=alone_from,
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


def periods_of(
    activations: Sequence[Activation], removals: Sequence[Removal], limits: GrantLimits, late_reports: LateReports
) -> list[Period]:
    """Return the periods of a grant in order."""
    if len(activations) == 1 and not removals and not activations[0].whole_request:  # nearly all active grants
        only = activations[0]
        deadline = _deadline(only, only, limits)
        by_itself = only.ends_by_itself and limits.ends_by_itself
        return [Period(only, only, deadline, NEVER, (), 0 if deadline == NEVER else deadline, ends_by_itself=by_itself)]
    return PeriodWalk(limits, (*activations, *removals), late_reports).periods() if activations else []


def _deadline(activation: Activation, first: Activation, limits: GrantLimits) -> int:
    """Return when access must have ended: the reported end without the clock's lead, or else the policy's limit."""
    return activation.ends if activation.ends is not None else limits.longest_end(first.append)
