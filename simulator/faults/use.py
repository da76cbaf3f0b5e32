"""Faults: access that is used without a grant, or after its end."""

from __future__ import annotations

import random

from ..lifecycle import Ending, Lifecycle, Step, StepKind
from .fault import Fault


class SessionOutlivesGrant(Fault):
    """A Teleport session continues after its certificate expired, or after a lock that should have ended it."""

    TOOL = "teleport"
    NEEDS = (StepKind.SESSION_STARTED,)

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        revoked = lifecycle.ending is Ending.REVOKED
        ends = lifecycle.when(StepKind.REVOKED) if revoked else lifecycle.grant_ends
        lifecycle = lifecycle.without(StepKind.SESSION_ENDED)
        if rng.random() < 0.3:
            return lifecycle
        return lifecycle.adding(Step(ends + rng.uniform(30, 300), StepKind.SESSION_ENDED))


class ShellOutlivesGrant(Fault):
    """A Session Manager shell stays open for minutes after its credentials expired."""

    TOOL = "cloudtrail"
    NEEDS = (StepKind.SESSION_STARTED,)

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        ended = Step(lifecycle.grant_ends + rng.uniform(30, 300), StepKind.SESSION_ENDED)
        return lifecycle.without(StepKind.SESSION_ENDED).adding(ended)


class UsedAfterTheEnd(Fault):
    """A session starts under a request whose certificate expired long ago: someone kept a way in."""

    TOOL = "teleport"
    ENDING = Ending.EXPIRED

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        starts = lifecycle.grant_ends + rng.uniform(40, 300)
        session = (StepKind.SESSION_STARTED, StepKind.ACTION, StepKind.ACTION_DENIED, StepKind.SESSION_ENDED)
        ended = Step(starts + rng.uniform(40, 200), StepKind.SESSION_ENDED)
        return lifecycle.without(*session).adding(Step(starts, StepKind.SESSION_STARTED), ended)


class NeverGranted(Fault):
    """A session names a request for which no certificate was ever issued. It never ends."""

    TOOL = "teleport"
    NEEDS = (StepKind.SESSION_STARTED,)

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        lifecycle = lifecycle.without(StepKind.GRANTED, StepKind.RENEWED, StepKind.SESSION_ENDED)
        return lifecycle.without(StepKind.REVOKED, StepKind.EXPIRED)


class UsedBriefly(NeverGranted):
    """The same, but the session ends within seconds, usually before it is certain that no grant will arrive."""

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        return lifecycle.without(StepKind.GRANTED, StepKind.RENEWED, StepKind.REVOKED, StepKind.EXPIRED)
