"""The rules: what is wrong with a grant or a request, given everything reported so far; :mod:`.session_rules` has more.

Each rule yields candidates: from when something is wrong, and when that ended. :mod:`.judge` decides which of them are
findings at a given time. A later fact may end a finding, but never undoes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from ...access import NEVER, SECOND, in_micros, to_datetime
from ...watch_policy import GrantLimits
from .approvals import approved
from .candidate import Candidate
from .commands import access_evidence, revoke_commands
from .facts import plain_names
from .grants import Grant
from .periods import Period
from .reports import Timed, decision_index, first_approvals
from .sessions import Request

Approvals = Callable[[int], tuple[set[str], int]]
"""Returns, for the time until which denials count, who has approved, and since when that is enough, or ``NEVER``."""


def grant_candidates(
    grant: Grant,
    request: Request | None,
    limits: GrantLimits,
    covered_until: Callable[[int], int],
    *,
    alone: bool = False,
) -> list[Candidate]:
    """Return every possible finding about a grant that is not historical, and the commands to the enforcers.

    Args:
        request: the request that led to the grant, if known.
        covered_until: until when all grants of the same access cover it without a break, from a time on.
        alone: no other grant of the same access is known.
    """
    found: list[Candidate] = []
    for period in grant.unsettled(limits):
        found += _period_candidates(
            grant, period, limits, covered_until, lambda until: _approved(grant, request, limits, until), alone=alone
        )
    if grant.decisions or request is not None:
        found += _self_approved_grant(grant, request, limits)
    return found


def is_settled(grant: Grant, period: Period, limits: GrantLimits, *, alone: bool, now: int) -> bool:
    """Whether no later fact can change what is wrong with a period that was superseded, and all of it was judged.

    Other grants of the same access can only make it less. Decisions may still come, so none of them counts.
    """
    candidates = _period_candidates(
        grant, period, limits, lambda time: time, lambda _: (set(), NEVER), alone=True
    )  # fmt: skip
    return all(one.opens >= one.ends or (alone and one.ends <= now) for one in candidates)


def _period_candidates(
    grant: Grant,
    period: Period,
    limits: GrantLimits,
    covered_until: Callable[[int], int],
    approved_until: Approvals,
    *,
    alone: bool,
) -> list[Candidate]:
    removed = period.removed(limits)
    over = min(removed, period.superseded)
    found = _overdue(grant, period, limits, over, covered_until, alone=alone)
    if period.removals or period.undone:
        found += _unconfirmed(grant, period, limits, over)
    if period.activation.ends is not None:
        found += _too_long(grant, period, limits, over)
    if period.deadline == NEVER:
        evidence = {"index": period.activation.index}
        found.append(_about("no_deadline", grant, period.finding_deadline, (period.activation.append, over), evidence))
    if limits.approvals and not period.activation.extended:
        found += _no_approval(grant, period, limits, approved_until, removed)
    return found


def request_candidates(request: Request, grants: Iterable[Grant], history_after_seconds: float) -> Iterator[Candidate]:
    """Yield every possible finding about a request. One that is history has none.

    Args:
        grants: the grants that name the request, except historical ones.
    """
    if request.reported.is_historical(history_after_seconds):
        return
    own = _own_approvals(request.person, request.approvals)
    if own and not any(_is_before(_approvals_of_grant(one), own) for one in grants):
        yield _self_approved(request.key, own)


def _overdue(
    grant: Grant,
    period: Period,
    limits: GrantLimits,
    over: int,
    covered_until: Callable[[int], int],
    *,
    alone: bool,
) -> list[Candidate]:
    """Judge a deadline: access is overdue if nothing ended it (``over``) by the deadline plus the grace."""
    due = period.overdue_after(limits)
    if due < over:  # while another grant of this access lasts, the access may still be there
        due = covered_until(due)
    if due == NEVER:
        return []
    due = max(due, grant.observed_since(limits))
    evidence = (_lateness_evidence, grant, period, limits, over)
    overdue = Candidate("overdue", grant.key, period.finding_deadline, due, over, evidence)
    return [overdue, *revoke_commands(grant, period, limits, overdue, alone=alone)]


def _lateness_evidence(grant: Grant, period: Period, limits: GrantLimits, over: int) -> dict[str, object]:
    evidence = {**access_evidence(grant), "removal": period.best_evidence or "not reported"}
    if over < NEVER:
        evidence["late_seconds"] = (min(over, period.left(limits)) - period.deadline) / SECOND
    if period.finding_deadline != period.deadline:
        evidence["deadline"] = to_datetime(period.deadline).isoformat()
    return evidence


def _unconfirmed(grant: Grant, period: Period, limits: GrantLimits, over: int) -> Iterator[Candidate]:
    found = (period.undone,) if period.undone else ((one, NEVER) for one in period.unconfirmed(limits, over))
    for weak, until in found:
        span = (period.is_unconfirmed_from(weak, limits), min(over, until))
        yield _about("removal_unconfirmed", grant, period.finding_deadline, span, {"evidence": weak.evidence})


def _too_long(grant: Grant, period: Period, limits: GrantLimits, over: int) -> Iterator[Candidate]:
    begin = min(period.first.starts, period.first.append)
    if period.deadline > limits.longest_end(begin):
        evidence = {"allowed_seconds": limits.max_seconds, "seconds": (period.deadline - begin) / SECOND}
        yield _about(
            "extended_beyond_policy", grant, period.finding_deadline, (period.activation.append, over), evidence
        )


def _approved(grant: Grant, request: Request | None, limits: GrantLimits, until: int) -> tuple[set[str], int]:
    """Return who has approved, and since when there are enough of them."""
    decisions = (*grant.decisions, *(request.decisions if request is not None else ()))
    reviewers, enough = approved(decisions, plain_names(grant.person), limits.approvals, until)
    return reviewers, NEVER if request is not None and request.is_denied(until) else enough


def _no_approval(
    grant: Grant, period: Period, limits: GrantLimits, approved_until: Approvals, removed: int
) -> Iterator[Candidate]:
    opens = period.activation.append + in_micros(limits.approval_wait_seconds)
    reviewers, enough = approved_until(opens)
    evidence = {"needed": limits.approvals, "approved_by": sorted(reviewers)}
    yield _about("no_approval", grant, period.activation.append, (opens, min(enough, removed)), evidence)


def _self_approved_grant(grant: Grant, request: Request | None, limits: GrantLimits) -> Iterator[Candidate]:
    """Judge the approvals of a grant. If the log had one in its request first, the request has the finding."""
    own = _approvals_of_grant(grant)
    if request is not None:
        asked = _own_approvals(request.person, request.approvals)
        if grant.request_key == grant.key:  # some tools use one id for both: they share one finding
            own = sorted((*own, *_own_approvals(grant.person, request.approvals)), key=decision_index)
        elif _is_before(asked, own) and not request.reported.is_historical(limits.history_after_seconds):
            return
    if own:
        yield _self_approved(grant.key, own)


def _approvals_of_grant(grant: Grant) -> list[Timed]:
    return _own_approvals(grant.person, [first_approvals(grant.decisions)]) if grant.decisions else []


def _own_approvals(person: tuple[str, ...], approvals: list[Mapping[str, Timed]]) -> list[Timed]:
    """Return the first approvals of people for themselves, in the order of the log."""
    found = [one[name] for one in approvals for name in plain_names(person) if name in one]
    return sorted(found, key=decision_index)


def _is_before(some: list[Timed], others: list[Timed]) -> bool:
    return bool(some) and (not others or decision_index(some[0]) < decision_index(others[0]))


def _self_approved(key: str, own: list[Timed]) -> Candidate:
    _, append, decision = own[0]
    evidence = {"reviewer": decision.reviewer, "forced": decision.forced}
    return Candidate("self_approved", key, 0, append, NEVER, evidence)


def _about(rule: str, grant: Grant, deadline: int, span: tuple[int, int], evidence: Mapping[str, object]) -> Candidate:
    return Candidate(rule, grant.key, deadline, *span, {**access_evidence(grant), **evidence})
