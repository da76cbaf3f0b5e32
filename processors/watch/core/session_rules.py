"""The rules about sessions: each needs a grant, and must end with it.

Whether a session lies inside its grant is decided by the clocks of the sources, however late the records arrive. When a
finding opens is decided by the broker's clock: not before the records that may explain the session should be there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ....schemas.access_key import id_of
from ...access import NEVER, SECOND, in_micros, to_datetime
from ...watch_policy import GrantLimits
from .candidate import Candidate
from .grants import Grant
from .periods import Period
from .sessions import Session

WITHOUT_GRANT = "used_without_grant"
ONE_CLOCK = 2 * SECOND
"""Microseconds by which two times of one source may be in the wrong order."""


class Span(NamedTuple):
    """When sessions may run: adjacent periods of a grant form one span."""

    begin: int
    end: int
    deadline: int
    judged: int
    """When its end is certain, by the broker's clock: the earliest time at which a session outlives it."""
    reports: list[tuple[int, int]]
    """How far it reached at most, and since which report (append time), in order."""

    def known_since(self, began: int) -> int:
        """Return since when it is known that a session which began then lies inside."""
        return self.reports[min(bisect_left(self.reports, (began,)), len(self.reports) - 1)][1]


def session_candidates(
    session: Session, limits: GrantLimits, grants: Sequence[tuple[Grant, GrantLimits]]
) -> Iterator[Candidate]:
    """Yield every possible finding about a session. However short it was, it needed a grant.

    ``limits`` are those of the session's own resource. ``grants`` are the known grants that it may use, with theirs.
    """
    if session.started == NEVER:
        return
    delivery = in_micros(max(limits.delivery_seconds, *(own.delivery_seconds for _, own in grants), 0))
    wait = in_micros(max((own.approval_wait_seconds for _, own in grants), default=limits.approval_wait_seconds))
    opens = max(session.started, min(session.started, session.ended) + max(wait, delivery))
    named = session.access_link and id_of(session.access_link)
    if not named:
        if limits.sessions_need_grant:
            yield _without_grant(session, opens, {"named": "no grant"})
        return
    began = min(session.began, session.over)  # the end may have arrived first
    known = [(span, _tolerance(session, grant, own, limits)) for grant, own in grants for span in _spans_of(grant, own)]
    covering = [(one, within) for one, within in known if one.begin - within <= began <= one.end + within]
    if not covering:
        yield _without_grant(session, opens, {"grant": named, "known": bool(known)})
        return
    known_since = min(one.known_since(began - within) for one, within in covering)
    historical = session.reported.is_historical(limits.history_after_seconds)
    if known_since > opens and not historical:  # the report of its grant arrived late, and resolves the finding
        yield _without_grant(session, opens, {"grant": named, "known": False}, known_since)
    # Of one grant, a span that begins after this one leaves a gap between the two.
    span, within = min(covering) if len(grants) == 1 else max(covering, key=lambda one: one[0].end)
    if span.judged >= NEVER or session.over <= span.end + within:
        return
    if session.reported.first >= span.end + in_micros(limits.history_after_seconds):
        return
    evidence = {"grant": named, "session_started": to_datetime(session.began).isoformat()}
    opens = max(span.judged, span.end + in_micros(limits.delivery_seconds))
    if session.started > span.end:  # it was reported late, and so may its end be
        opens = max(opens, session.started + wait)
    yield Candidate("session_outlived_grant", session.key, span.deadline, opens, session.ended, evidence)


def _tolerance(session: Session, grant: Grant, own: GrantLimits, limits: GrantLimits) -> int:
    """Return by how much a session may lie outside of a grant: clocks of two sources differ, and so do their delays."""
    if session.source == grant.source:
        return ONE_CLOCK
    return ONE_CLOCK + in_micros(max(own.approval_wait_seconds, own.delivery_seconds + limits.delivery_seconds))


def _without_grant(session: Session, opens: int, evidence: Mapping[str, object], known_since: int = NEVER) -> Candidate:
    ends = min(max(session.ended, opens + 1), known_since)
    return Candidate(WITHOUT_GRANT, session.key, 0, opens, ends, evidence)


def _spans_of(grant: Grant, limits: GrantLimits) -> list[Span]:
    """Return the spans in which sessions of a grant may run."""
    if grant.many is None:
        return list(_spans(grant.periods(limits), limits))
    walk = grant.walk(limits)
    if walk.spans is None:
        walk.spans = list(_spans(walk.periods(), limits))
    return walk.spans


def _spans(periods: list[Period], limits: GrantLimits) -> Iterator[Span]:
    span: Span | None = None
    for period in sorted(periods, key=lambda one: one.activation.index):
        judged = min(limits.with_grace(period.removed(limits)), period.overdue_after(limits))
        deadline = 0 if period.deadline == NEVER else period.deadline
        begin, end = period.activation.began, min(judged, limits.with_grace(period.ended(limits)))
        if span is None or begin > span.end:
            if span is not None:
                yield span
            span = Span(begin, end, deadline, judged, [(end, period.activation.append)])
            continue
        if end > span.reports[-1][0]:
            span.reports.append((end, period.activation.append))
        if not period.late or end > span.end:  # a period that was reported too late does not end another one
            span = span._replace(end=end, deadline=deadline, judged=judged)
    if span is not None:
        yield span
