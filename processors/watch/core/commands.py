"""The commands to the enforcers: which access is to be revoked, and of which to look whether it still exists.

They are decided and remembered like findings, and each is sent once. A person's command begins at ``grants revoke``.
"""

from __future__ import annotations

from ...access import NEVER, in_micros
from ...watch_policy import GrantLimits
from .candidate import Candidate
from .grants import Grant
from .periods import Period

REVOKE = "revoke"
"""Revoke the access of a grant."""
LOOK = "look"
"""Look whether the access of a historical grant still exists."""
COMMANDS = frozenset({REVOKE, LOOK})


def revoke_commands(
    grant: Grant, period: Period, limits: GrantLimits, overdue: Candidate, *, alone: bool
) -> list[Candidate]:
    """Return the command to revoke access, unless the policy says ``revoke = "never"``.

    Args:
        overdue: the finding about it. The command is due at the same time, or at the deadline.
        alone: no other grant can cover the access meanwhile.
    """
    if limits.revoke == "never":
        return []
    due = overdue.opens
    # Before the grace is over, only if no other grant can cover the access meanwhile.
    if alone and (limits.revoke == "deadline" or (limits.revoke == "auto" and not period.activation.native)):
        due = max(period.deadline, period.activation.append, grant.observed_since(limits))
    return [Candidate(REVOKE, grant.key, period.finding_deadline, due, overdue.ends, (access_evidence, grant))]


def look_commands(grant: Grant, limits: GrantLimits) -> tuple[Candidate, ...]:
    """Return the command to look whether the access of a historical grant exists, if it has no removal that counts."""
    period = next(reversed(grant.periods(limits)), None)
    if period is None or period.deadline == NEVER or period.removed(limits) < NEVER:
        return ()
    # Late records of a removal may follow.
    opens = grant.last_append + in_micros(limits.confirm_wait_seconds)
    return (Candidate(LOOK, grant.key, period.finding_deadline, opens, NEVER, (access_evidence, grant)),)


def access_evidence(grant: Grant) -> dict[str, object]:
    """Return whose access to what it is."""
    access = grant.access
    return {"subject": access.subject, "resource": access.resource, "entitlement": access.entitlement}
