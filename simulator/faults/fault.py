"""The base class of faults: a scenario in which something goes wrong."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, NamedTuple

from ..generator import GENERATORS
from ..lifecycle import Ending, Lifecycle, StepKind, Tool


class Part(NamedTuple):
    """One lifecycle of a scenario, which starts ``offset`` seconds after the scenario."""

    lifecycle: Lifecycle
    offset: float = 0.0


FAULTS: dict[str, Fault] = {}
"""All faults by name, in the order of their definition. Each class registers itself."""


class Fault:
    """Something that goes wrong in a lifecycle, as it has in real installations.

    The docstring of each class describes the scenario. ``NEEDS``, ``WITHOUT`` and ``ENDING`` restrict the lifecycles in
    which it can happen.
    """

    NAME: ClassVar[str]
    TOOL: ClassVar[Tool]
    NEEDS: ClassVar[tuple[StepKind, ...]] = (StepKind.GRANTED,)
    WITHOUT: ClassVar[tuple[StepKind, ...]] = ()
    ENDING: ClassVar[Ending | None] = None

    def __init_subclass__(cls) -> None:
        cls.NAME = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        FAULTS[cls.NAME] = cls()

    def scenario(self, rng: random.Random) -> tuple[Part, ...]:
        """Return the lifecycles of the scenario, all of the same person. By default one, with the fault in it."""
        return (Part(self._alter(rng, self._draw(rng))),)

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        return lifecycle

    def _suits(self, lifecycle: Lifecycle) -> bool:
        steps = lifecycle.has(*self.NEEDS) and not any(lifecycle.has(kind) for kind in self.WITHOUT)
        return steps and self.ENDING in (None, lifecycle.ending)

    def _draw(self, rng: random.Random, also: Callable[[Lifecycle], bool] = lambda _: True) -> Lifecycle:
        while True:
            lifecycle = GENERATORS[self.TOOL](rng)
            if self._suits(lifecycle) and also(lifecycle):
                return lifecycle

    def _draw_overlapping(self, rng: random.Random) -> tuple[Lifecycle, Lifecycle, float]:
        """Return two lifecycles with one target, and the offset of the second, which outlasts the first."""
        first = self._draw(rng, lambda lifecycle: lifecycle.grant_ends < 110)
        second = self._draw(rng, lambda lifecycle: lifecycle.grant_ends > first.grant_ends + 15)
        return first, replace(second, target=first.target), rng.uniform(5, 20)
