"""Faults: access that no second person approved, that has no end, or that lasts longer than the policy allows."""

from __future__ import annotations

import random
from dataclasses import replace

from ..lifecycle import Ending, Lifecycle, Step, StepKind
from ..records.teleport import ACCESS_LIST
from .fault import Fault


class SelfApproved(Fault):
    """The requester in Teleport is also the reviewer."""

    TOOL = "teleport"
    WITHOUT = (StepKind.RENEWED,)
    ENDING = Ending.EXPIRED

    def _suits(self, lifecycle: Lifecycle) -> bool:
        return super()._suits(lifecycle) and len(lifecycle.reviewers) == 1 and lifecycle.grant_ends > 45

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        # Lifecycle.of fills in the person, who has not been chosen yet.
        return replace(lifecycle, reviewers=())


class SelfApprovedInHoop(Fault):
    """The requester in hoop is also the reviewer, as a member of the reviewing group."""

    TOOL = "hoop"
    ENDING = Ending.EXPIRED

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        return replace(lifecycle, reviewers=())


class NotApproved(Fault):
    """A certificate is issued for an undecided request. Sometimes the approval follows too late."""

    TOOL = "teleport"
    WITHOUT = (StepKind.RENEWED,)
    ENDING = Ending.EXPIRED

    def _suits(self, lifecycle: Lifecycle) -> bool:
        return super()._suits(lifecycle) and lifecycle.grant_ends > 60

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        lifecycle = lifecycle.without(StepKind.REVIEWED, StepKind.APPROVED)
        late = lifecycle.when(StepKind.GRANTED) + rng.uniform(27, 40)
        return lifecycle if rng.random() < 0.5 else lifecycle.adding(Step(late, StepKind.APPROVED))


class RenewedTooLong(Fault):
    """A Vault token is renewed for longer than the policy allows, and revoked some time later."""

    TOOL = "vault"
    WITHOUT = (StepKind.RENEWED,)

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        ends = rng.uniform(400, 590)
        renewed = max(lifecycle.when(StepKind.REVOKED), 620 - ends) + rng.uniform(2, 90)
        lifecycle = replace(lifecycle, grant_ends=ends).without(StepKind.REVOKED)
        revoked = Step(renewed + rng.uniform(5, 200), StepKind.REVOKED)
        return lifecycle.adding(Step(renewed, StepKind.RENEWED), revoked)


class MemberForever(Fault):
    """A person joins a Teleport access list without an end date, and leaves it later or never."""

    TOOL = "teleport"
    ENDING = Ending.EXPIRED

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        joined = Step(0.0, StepKind.GRANTED, ACCESS_LIST)
        left = Step(rng.uniform(30, 500), StepKind.REVOKED, ACCESS_LIST)
        return replace(lifecycle, steps=(joined,) if rng.random() < 0.5 else (joined, left))
