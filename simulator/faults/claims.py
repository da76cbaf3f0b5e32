"""Faults: programs that report about access of others, and tenants that use the same ids."""

from __future__ import annotations

import random
from dataclasses import replace

from ..lifecycle import Ending, Lifecycle, Step, StepKind
from .fault import Fault, Part


def _intruder(rng: random.Random, *, names_source: bool) -> tuple[str, bool]:
    """Return an instance of its own, so that each fault makes one finding."""
    return f"job-{rng.getrandbits(48):012x}", names_source


class ForeignRemoval(Fault):
    """A program that no policy names reports the removal of a hoop connection, which stays.

    Some of these programs name the source of the grant, and others claim the id as their own.
    """

    TOOL = "hoop"
    ENDING = Ending.EXPIRED

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        claimed = Step(lifecycle.when(StepKind.GRANTED) + rng.uniform(8, 20), StepKind.FALSELY_REMOVED)
        lifecycle = replace(lifecycle, intruder=_intruder(rng, names_source=rng.random() < 0.5))
        return lifecycle.without(StepKind.CHECKED).adding(claimed)


class ForeignExtension(Fault):
    """Such a program reports that a hoop connection lasts until 2090. It is removed minutes after its true end."""

    TOOL = "hoop"
    ENDING = Ending.EXPIRED

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        claimed = Step(lifecycle.when(StepKind.GRANTED) + rng.uniform(8, 20), StepKind.FALSELY_EXTENDED)
        gone = Step(lifecycle.grant_ends + rng.uniform(30, 300), StepKind.CHECKED)
        lifecycle = replace(lifecycle, intruder=_intruder(rng, names_source=True))
        return lifecycle.without(StepKind.CHECKED).adding(claimed, gone)


class OtherTenantEnds(Fault):
    """One program gives grants with the same id in two tenants. Only the one in the other tenant is removed."""

    TOOL = "emit"

    def scenario(self, rng: random.Random) -> tuple[Part, ...]:
        """Return two lifecycles with the same id, the second in another tenant."""
        shared, instance = f"g-{rng.getrandbits(48):012x}", f"job-{rng.getrandbits(48):012x}"
        drawn = [self._draw(rng).without(StepKind.SESSION_STARTED, StepKind.SESSION_ENDED) for _ in range(2)]
        first, second = (replace(one, shared_id=shared, instance=instance) for one in drawn)
        return Part(first.without(StepKind.CHECKED)), Part(replace(second, tenant="globex"), rng.uniform(1, 10))
