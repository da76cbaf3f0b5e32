"""Faults: a source whose clock is wrong, that falls silent, loses a record or sends an altered one."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

from ..company_policy import SECOND, SILENCE
from ..lifecycle import Ending, Lifecycle, Step, StepKind
from ..records.cloudtrail import ALTERED
from ..records.deploy_bot import LOST
from .fault import Fault, Part

DAY = 86_400 * SECOND
CLOCK_AHEAD = 600.0
"""Seconds by which a wrong clock is ahead."""


def _unique(rng: random.Random, name: str) -> str:
    """Return an instance of its own, so that the fault affects no other lifecycle."""
    return f"{name}-{rng.getrandbits(48):012x}"


class ClockFast(Fault):
    """The clock of one Vault is ten minutes fast, so its ends are ten minutes too late. It gives no one more access."""

    TOOL = "vault"
    WITHOUT = (StepKind.LEASED, StepKind.RENEWED)

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        return replace(lifecycle, clock_ahead=CLOCK_AHEAD, instance=_unique(rng, "vault") + "/")


class ClockHidesTheEnd(Fault):
    """A program whose clock is ten minutes fast grants access, which is removed minutes after its true end.

    According to the program's clock, the access ended in time.
    """

    TOOL = "emit"

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        lifecycle = replace(lifecycle, clock_ahead=CLOCK_AHEAD, instance=_unique(rng, "job"))
        gone = Step(lifecycle.grant_ends + rng.uniform(30, 400), StepKind.CHECKED)
        return lifecycle.without(StepKind.CHECKED, StepKind.SESSION_STARTED, StepKind.SESSION_ENDED).adding(gone)


class ClockHidesASession(Fault):
    """A session continues after its certificate expired. The cluster's clock, ten minutes fast, hides it."""

    TOOL = "teleport"
    WITHOUT = (StepKind.RENEWED,)
    ENDING = Ending.EXPIRED

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        lifecycle = replace(lifecycle, clock_ahead=CLOCK_AHEAD, instance=_unique(rng, "fast"))
        ended = Step(lifecycle.grant_ends + rng.uniform(30, 400), StepKind.SESSION_ENDED)
        return lifecycle.without(StepKind.SESSION_ENDED).adding(ended)


class FallsSilent(Fault):
    """The collector of one Teleport cluster hangs for minutes, recovers, and then hangs forever."""

    TOOL = "teleport"
    NEEDS = ()

    def _suits(self, lifecycle: Lifecycle) -> bool:
        return lifecycle.ending in (Ending.DENIED, Ending.CANCELLED)

    def scenario(self, rng: random.Random) -> tuple[Part, ...]:
        """Return six lifecycles at normal intervals, and one more after a long silence."""
        instance = _unique(rng, "branch")
        offsets = list(itertools.accumulate((rng.uniform(20, 90) for _ in range(5)), initial=0.0))
        offsets.append(offsets[-1] + SILENCE / SECOND + rng.uniform(40, 400))
        return tuple(Part(replace(self._draw(rng), instance=instance), offset) for offset in offsets)


class RecordLost(Fault):
    """One event of a program never arrives, but the sequence numbers around it do.

    It is the end of a session, so the session never ends.
    """

    TOOL = "emit"

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        renewed = Step(lifecycle.when(StepKind.SESSION_ENDED) + 1, StepKind.RENEWED)
        lifecycle = replace(lifecycle.changing(StepKind.SESSION_ENDED, detail=LOST), instance=_unique(rng, "job"))
        gone = max(lifecycle.when(StepKind.CHECKED), renewed.after + 1)
        return lifecycle.without(StepKind.CHECKED).adding(renewed, Step(gone, StepKind.CHECKED))


class RecordLate(Fault):
    """One event of a program arrives minutes after later ones. Until then a sequence number is missing."""

    TOOL = "emit"

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        delay = lifecycle.seconds + rng.uniform(60, 200)
        return replace(lifecycle.changing(StepKind.SESSION_STARTED, delay=delay), instance=_unique(rng, "job"))


class RecordAltered(Fault):
    """A record arrives again with its own id but another content: someone has edited the file."""

    TOOL = "cloudtrail"
    ENDING = Ending.EXPIRED

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        lifecycle = replace(lifecycle, instance=_unique(rng, "trail"))
        return lifecycle.adding(Step(lifecycle.seconds + rng.uniform(5, 300), StepKind.GRANTED, ALTERED))
