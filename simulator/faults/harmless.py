"""Scenarios that look wrong but are not: the watch must report nothing."""

from __future__ import annotations

import random
from dataclasses import replace

from ..lifecycle import Ending, Lifecycle, Step, StepKind
from .fault import Fault, Part


class ExpiryRepeats(Fault):
    """Teleport records the expiry of one request every five seconds for minutes, each time as a new record."""

    TOOL = "teleport"
    ENDING = Ending.EXPIRED

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        times = range(1, rng.randint(20, 60))
        return lifecycle.adding(*(Step(lifecycle.seconds + 5.0 * number, StepKind.EXPIRED) for number in times))


class RevokeEachOther(Fault):
    """Two requests for one Identity Center assignment overlap. The end of the first also removes the second's access.

    The elevation tool grants it again, and removes it at the end of the second. It is never held too long.
    """

    TOOL = "cloudtrail"
    NEEDS = (StepKind.REVOKED,)

    def scenario(self, rng: random.Random) -> tuple[Part, ...]:
        """Return two lifecycles; the second starts while the first is active."""
        first = self._draw(rng)
        ends, offset = first.when(StepKind.CHECKED), first.when(StepKind.REVOKED) * 0.5
        granted = (Step(0.0, StepKind.GRANTED), Step(ends - offset + 30, StepKind.GRANTED))
        removed = (Step(ends - offset + 90, StepKind.REVOKED), Step(ends - offset + 100, StepKind.CHECKED))
        return Part(first), Part(replace(first, steps=(*granted, *removed)), offset)


class CoveredBySecondReview(Fault):
    """Two hoop reviews give one person the same connection. The first ends unnoticed while the second is active.

    Both are found removed when the second has ended.
    """

    TOOL = "hoop"
    ENDING = Ending.EXPIRED

    def scenario(self, rng: random.Random) -> tuple[Part, ...]:
        """Return two overlapping lifecycles; the first is checked only at the end of the second."""
        first, second, offset = self._draw_overlapping(rng)
        seen = Step(offset + second.when(StepKind.CHECKED) - 0.1, StepKind.CHECKED)
        return Part(first.without(StepKind.CHECKED).adding(seen)), Part(second, offset)


class ImportedTwice(Fault):
    """A file is imported again after everything in it has ended."""

    TOOL = "hoop"

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        return lifecycle.adding(Step(lifecycle.seconds + rng.uniform(20, 600), StepKind.SENT_AGAIN))


class FirstHalfImportedAgain(Fault):
    """The first part of a file is imported again after the end: it contains the grant but not its removal."""

    TOOL = "hoop"

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        again = lifecycle.when(StepKind.GRANTED) + 0.001
        return lifecycle.adding(Step(again, StepKind.SENT_AGAIN, delay=lifecycle.seconds + rng.uniform(60, 300)))


class ActionsInBetween(Fault):
    """A program also reports actions in its sessions, which go to another topic with a separate counter."""

    TOOL = "emit"

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        before_end = lifecycle.when(StepKind.SESSION_ENDED) - 0.1
        return lifecycle.adding(Step(before_end, StepKind.ACTION, "systemctl restart payments"))


class EverythingArrivesLate(Fault):
    """All records of an access arrive together after its end, so the deadline has passed when the grant arrives."""

    TOOL = "hoop"

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        arrival = lifecycle.seconds + rng.uniform(60, 600)
        steps = tuple(replace(step, delay=arrival - step.after) for step in lifecycle.steps)
        return replace(lifecycle, steps=steps, checker=f"slow-{rng.getrandbits(48):012x}")


class RemovalArrivesFirst(Fault):
    """CloudTrail guarantees no order: the record that removes an assignment arrives before the one that grants it.

    The account is a sandbox, where no checker looks and the accepted deletion is enough.
    """

    TOOL = "cloudtrail"
    NEEDS = (StepKind.REVOKED,)

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        late = lifecycle.when(StepKind.REVOKED) - lifecycle.when(StepKind.GRANTED) + rng.uniform(6, 200)
        lifecycle = lifecycle.changing(StepKind.GRANTED, delay=late).without(StepKind.CHECKED)
        return replace(lifecycle, instance=f"sandbox-{rng.getrandbits(48):012x}")
