"""Who has approved: of each reviewer, the last decision counts."""

from __future__ import annotations

from collections.abc import Set

from ....schemas.names import plain_name
from ...access import NEVER
from .facts import PLACEHOLDER_NAMES, Decision


def approved(
    decisions: tuple[tuple[int, int, Decision], ...], own: Set[str], needed: int, until: int
) -> tuple[set[str], int]:
    """Return the other people who have approved, and the append time from which on there are enough, or ``NEVER``.

    Decisions are ordered by their own times, and a denial wins a tie. Approvals after ``until`` count too: they end a
    finding. Denials after it change nothing, because the access was approved when it had to be.

    Args:
        decisions: index, append time and decision.
        own: names of the person who needs the approval.
    """
    last: dict[str, tuple[int, bool]] = {}
    """By reviewer: time of the last decision, and whether it denies."""
    dated = {plain_name(one.reviewer) for _, _, one in decisions if one.at is not None}
    enough, count = NEVER, 0
    for _, append, one in sorted(decisions, key=lambda each: each[:2]):
        reviewer = plain_name(one.reviewer)
        if reviewer in own or reviewer in PLACEHOLDER_NAMES or one.decision not in ("approved", "denied"):
            continue
        if one.at is None and reviewer in dated:  # only repeats what is known with a time
            continue
        at, denies = one.at or 0, one.decision == "denied"
        if denies and at > until:
            continue
        before = last.get(reviewer)
        if before is not None and (at, denies) < before:
            continue
        last[reviewer] = at, denies
        now = count + (not denies) - (before is not None and not before[1])
        if now < needed:
            enough = NEVER
        elif count < needed:
            enough = append
        count = now
    return {reviewer for reviewer, (_, denied) in last.items() if not denied}, enough
