"""The right answers to the twenty questions of docs/queries.md, computed from what truly happened."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from .truth import GrantedAccess, Truth


class Answer(NamedTuple):
    """These columns have these rows. ``ordered`` is how many of the first columns order them; ties are in any order."""

    columns: str
    rows: list[tuple[Any, ...]]
    ordered: int = 1


def text(moment: datetime | None) -> str | None:
    """Return a time as the store prints it."""
    return moment and f"{moment:%Y-%m-%d %H:%M:%S.%f}"


def _day(year: int, month: int, day: int, hour: int = 0) -> datetime:
    return datetime(year, month, day, hour, tzinfo=UTC)


def had_production_access(truth: Truth) -> Answer:
    """1. Who had production access at a moment?"""
    noon = _day(2026, 11, 18, 12)
    rows = [
        (
            one.person,
            text(one.activated),
            one.resource,
            one.reason,
            list(one.approvers),
            text(one.deadline),
            text(one.removed),
        )
        for one in truth.accesses
        if one.environment in ("production", "") and one.activated <= noon and (one.ended is None or one.ended > noon)
    ]
    return Answer("person activated_at resource_id reason approved_by deadline removed_at", rows, 2)


def approved_own(truth: Truth) -> Answer:
    """3. Who approved access for themselves?"""
    rows = [
        (text(one.activated), one.person, one.resource)
        for one in truth.accesses
        if one.person in one.approvers and one.activated >= _day(2026, 10, 1)
    ]
    return Answer("activated_at person resource_id", rows)


def without_ticket(truth: Truth) -> Answer:
    """5. Which access has no ticket?"""
    rows = [
        (text(one.activated), one.person, one.resource, one.reason, one.system)
        for one in truth.accesses
        if not one.ticket and one.environment in ("production", "")
    ]
    return Answer("activated_at person resource_id reason source_system", rows)


def approvers(truth: Truth) -> Answer:
    """6. Who approved most?"""
    approved: dict[str, list[GrantedAccess]] = defaultdict(list)
    for one in truth.accesses:
        if _day(2026, 10, 1) <= one.activated < _day(2027, 1, 1):
            for approver in one.approvers:
                approved[approver].append(one)
    rows = [
        (-len(some), approver, len({one.person for one in some}), len({one.resource for one in some}))
        for approver, some in approved.items()
    ]
    return Answer("-grants approver people resources", rows, 2)


def after_hours(truth: Truth) -> Answer:
    """7. Which access was given after hours?"""
    rows = []
    for one in truth.accesses:
        local = one.activated.astimezone(ZoneInfo("Europe/Berlin"))
        if not 8 <= local.hour <= 17 or local.weekday() >= 5:
            rows.append((text(local), one.person, one.resource, one.reason))
    return Answer("local_time person resource_id reason", rows)


def break_glass(truth: Truth) -> Answer:
    """8. How often was break-glass used in 90 days, and by whom?"""
    since = _day(2026, 11, 30) - timedelta(days=90)
    rows = [
        (text(one.activated), one.person, one.resource)
        for one in truth.accesses
        if one.forced and one.activated >= since
    ]
    return Answer("activated_at person resource_id", rows)


def agents(truth: Truth) -> Answer:
    """9. What did AI agents have, and what did they do?"""
    rows = [
        (-one.commands, one.subject, one.resource, text(one.removed)) for one in truth.accesses if one.kind == "agent"
    ]
    return Answer("-commands subject_id resource_id removed_at", rows)


def loose_sessions(truth: Truth) -> Answer:
    """10. Which sessions name no grant?"""
    rows = [(text(one.at), one.what, one.who, one.resource) for one in truth.loose_sessions]
    return Answer("occurred_at source_system subject_id resource_id", rows)


def time_to_removal(truth: Truth) -> Answer:
    """11. How long does removal take, per tool?"""
    late: dict[str, list[float]] = defaultdict(list)
    for one in truth.accesses:
        if one.late is not None:
            late[one.system].append(one.late)
    rows = [(system, len(some), _rounded(sum(some) / len(some)), _rounded(_p95(some))) for system, some in late.items()]
    return Answer("source_system grants mean_seconds_late p95_seconds_late", rows)


def review_of_the_quarter(truth: Truth) -> Answer:
    """12. How do I export the access review of a quarter?"""
    rows = [
        (
            text(one.activated), one.person, one.subject, one.resource, text(one.deadline), text(one.removed),
            one.evidence, one.ticket, list(one.approvers), None if one.late is None else _rounded(one.late), one.system,
        )
        for one in truth.accesses
        if one.activated < _day(2027, 1, 1) and (one.removed is None or one.removed >= _day(2026, 10, 1))
    ]  # fmt: skip
    return Answer(
        "activated_at person subject_id resource_id deadline removed_at removal_evidence ticket approved_by "
        "late_seconds source_system",
        rows,
    )


def rejected_requests(truth: Truth) -> Answer:
    """13. Which requests were rejected?"""
    rows = [(text(one.requested), *one[1:]) for one in truth.rejected]
    return Answer("requested_at requested_by resource_id entitlement reason approvals source_system", rows)


def erasures(truth: Truth) -> Answer:
    """14. What was erased, by whom and why?"""
    return Answer("occurred_at actor_id reason", [(text(one.at), one.who, one.reason) for one in truth.erased])


def changes(truth: Truth) -> Answer:
    """15. What changed between two dates?"""
    found = [(one.at, one.what, one.who, one.resource) for one in truth.changes]
    for one in truth.accesses:
        found.append((one.activated, "access given", one.person, one.resource))
        if one.removed:
            found.append((one.removed, "access removed", one.person, one.resource))
    rows = [(text(one[0]), *one[1:]) for one in found if _day(2026, 11, 17) <= one[0] < _day(2026, 11, 18)]
    return Answer("occurred_at event_type person_or_tool resource_id", rows, 2)


def per_week(truth: Truth) -> Answer:
    """16. How much access is given per week?"""
    weeks: dict[str, list[GrantedAccess]] = defaultdict(list)
    for one in truth.accesses:
        weeks[f"{one.activated.date() - timedelta(days=one.activated.weekday())}"].append(one)
    rows = [
        (week, len(some), len({one.person for one in some}), sum(one.forced for one in some))
        for week, some in weeks.items()
    ]
    return Answer("week grants people break_glass", rows)


def several_identities(truth: Truth) -> Answer:
    """17. Who has access under more than one identity?"""
    names: dict[str, set[str]] = defaultdict(set)
    for one in truth.accesses:
        names[one.person].add(one.subject)
    grants = Counter(one.person for one in truth.accesses)
    rows = [(person, sorted(known), grants[person]) for person, known in names.items() if len(known) > 1]
    return Answer("person identities grants", rows)


def ran(truth: Truth, wanted: str) -> Answer:
    """18. Who ran a certain text, in commands, arguments or queries?"""
    rows = [(text(one.at), one.who, one.resource) for one in truth.actions if wanted.lower() in one.what.lower()]
    return Answer("occurred_at subject_id resource_id", rows)


def two_quarters(truth: Truth) -> Answer:
    """19. How do two quarters compare?"""
    rows = []
    for system in {one.system for one in truth.accesses}:
        quarters = Counter((one.activated.month - 1) // 3 + 1 for one in truth.accesses if one.system == system)
        late = [
            one
            for one in truth.accesses
            if one.system == system and one.activated >= _day(2026, 10, 1)
            if one.late or (one.ended is None and not one.historical)
        ]
        rows.append((system, quarters[3], quarters[4], len(late)))
    return Answer("source_system third_quarter fourth_quarter fourth_quarter_late", rows)


def not_confirmed(truth: Truth) -> Answer:
    """20. What could not be confirmed?"""
    rows = [
        (text(one.deadline), one.person, one.resource, one.evidence, one.system)
        for one in truth.accesses
        if one.removed is None  # every one has an end before that day, from its tool or by the policy
    ]
    return Answer("deadline person resource_id removal_evidence source_system", rows, 0)


ANSWERS: dict[int, Callable[[Truth], Answer]] = {
    1: had_production_access, 3: approved_own, 5: without_ticket, 6: approvers, 7: after_hours, 8: break_glass,
    9: agents, 10: loose_sessions, 11: time_to_removal, 12: review_of_the_quarter, 13: rejected_requests,
    14: erasures, 15: changes, 16: per_week, 17: several_identities, 18: lambda truth: ran(truth, "drop table"),
    19: two_quarters, 20: not_confirmed,
}  # fmt: skip
"""By the number of the question. The answers to 2 and 4 depend on the grant and on the time of asking."""


def _p95(values: list[float]) -> float:
    """Return the 95th percentile, with linear interpolation."""
    ordered, place = sorted(values), 0.95 * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _rounded(seconds: float) -> float:
    return round(seconds, 1)
