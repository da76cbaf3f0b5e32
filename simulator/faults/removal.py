"""Faults: access that should have been removed but was not."""

from __future__ import annotations

import random
from dataclasses import replace

from ..company_policy import ASSIGNMENT, GRACE, LEASE, SECOND
from ..lifecycle import Ending, Lifecycle, Step, StepKind
from ..records.vault import UNREACHABLE
from .fault import Fault, Part


def _seconds_with_grace(limit: int) -> float:
    return (limit + GRACE) / SECOND


class LeaseStays(Fault):
    """Vault cannot reach the database to revoke a lease: it returns an error and the account stays.

    Sometimes a second attempt succeeds much later, and the checker finds the account removed.
    """

    TOOL = "vault"
    NEEDS = (StepKind.LEASED,)

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        lifecycle = lifecycle.changing(StepKind.LEASE_REVOKED, detail=UNREACHABLE).without(StepKind.LEASE_CHECKED)
        if rng.random() < 0.5:
            return lifecycle
        again = lifecycle.when(StepKind.LEASED) + _seconds_with_grace(LEASE) + rng.uniform(20, 400)
        return lifecycle.adding(Step(again, StepKind.LEASE_REVOKED), Step(again + 2, StepKind.LEASE_CHECKED))


class LeaseOnlyAccepted(Fault):
    """Vault accepts and queues the revocation of a lease, but the database never executes it."""

    TOOL = "vault"
    NEEDS = (StepKind.LEASED,)

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        return lifecycle.without(StepKind.LEASE_CHECKED)


class RenewedWhileOverdue(Fault):
    """An overdue lease is renewed. The renewal has no end, so the lease stays overdue under the policy."""

    TOOL = "vault"
    NEEDS = (StepKind.LEASED,)
    WITHOUT = (StepKind.LEASE_RENEWED,)

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        renewed = lifecycle.when(StepKind.LEASED) + _seconds_with_grace(LEASE) + rng.uniform(20, 100)
        lifecycle = lifecycle.without(StepKind.LEASE_REVOKED, StepKind.LEASE_CHECKED)
        gone = renewed + rng.uniform(300, 400)
        return lifecycle.adding(Step(renewed, StepKind.LEASE_RENEWED), Step(gone, StepKind.LEASE_CHECKED))


class RevokeInProgress(Fault):
    """Identity Center answers the deletion of an assignment with IN_PROGRESS and never completes it.

    Sometimes the checker finds the assignment removed much later.
    """

    TOOL = "cloudtrail"
    NEEDS = (StepKind.REVOKED,)

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        lifecycle = lifecycle.without(StepKind.CHECKED)
        if rng.random() < 0.5:
            return lifecycle
        return lifecycle.adding(Step(_seconds_with_grace(ASSIGNMENT) + rng.uniform(20, 400), StepKind.CHECKED))


class ApprovalLooksLikeRevocation(Fault):
    """hoop's review has ``revoke_at`` from its approval on. It is a plan, which is not carried out here.

    A reader that mistakes it for a revocation believes that the access was removed before it was ever used.
    """

    TOOL = "hoop"
    ENDING = Ending.EXPIRED

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        lifecycle = lifecycle.without(StepKind.CHECKED)
        if rng.random() < 0.5:
            return lifecycle
        return lifecycle.adding(Step(lifecycle.grant_ends + rng.uniform(20, 300), StepKind.CHECKED))


class RemovalReportedLate(Fault):
    """The access ended on time, but the record of its removal is delayed by minutes.

    The finding opens because the removal is not on record yet, and is resolved with the true lateness, which is zero.
    """

    TOOL = "hoop"
    ENDING = Ending.EXPIRED

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        lifecycle = lifecycle.changing(StepKind.CHECKED, delay=rng.uniform(30, 300))
        return replace(lifecycle, checker=f"slow-{rng.getrandbits(48):012x}")


class FirstOfTwoStays(Fault):
    """Two reviews give one person the same connection. Both end, but only the later one is ever removed.

    Nothing is wrong while the later one is active: access is overdue only when the union of its grants has ended.
    """

    TOOL = "hoop"
    ENDING = Ending.EXPIRED

    def scenario(self, rng: random.Random) -> tuple[Part, ...]:
        """Return two overlapping lifecycles; the first is never found removed."""
        first, second, offset = self._draw_overlapping(rng)
        return Part(first.without(StepKind.CHECKED)), Part(second, offset)


class BothStay(Fault):
    """Two reviews give one person the same connection, and neither is ever removed."""

    TOOL = "hoop"
    ENDING = Ending.EXPIRED

    def scenario(self, rng: random.Random) -> tuple[Part, ...]:
        """Return two overlapping lifecycles; neither is found removed."""
        first, second, offset = self._draw_overlapping(rng)
        return Part(first.without(StepKind.CHECKED)), Part(second.without(StepKind.CHECKED), offset)
