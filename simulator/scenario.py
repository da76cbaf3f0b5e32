"""The stream of scenarios: random lifecycles, some of them with a fault."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .faults import FAULTS, Fault, Part
from .generator import lifecycles
from .lifecycle import TOOLS, Tool

DEFAULT_SHARE = 0.03
"""The share of scenarios with a fault."""


class Scenario(NamedTuple):
    """One or more lifecycles of one person, with a fault or without."""

    parts: tuple[Part, ...]
    fault: Fault | None = None


def scenarios(
    rng: random.Random,
    tools: tuple[Tool, ...] = TOOLS,
    share: float = 0.0,
    faults: Mapping[str, Fault] = FAULTS,
) -> Iterator[Scenario]:
    """Yield scenarios without end; the same generator state gives the same scenarios.

    ``share`` is the share of scenarios with a fault, from 0 to 1. The company's own programs only appear in faults.
    """
    ordinary = lifecycles(rng, tools)
    possible = [fault for fault in faults.values() if fault.TOOL in (*tools, "emit")]
    while True:
        # Draw nothing if no fault is wanted, so that a seed gives the same lifecycles.
        if share and possible and rng.random() < share:
            fault = rng.choice(possible)
            yield Scenario(fault.scenario(rng), fault)
        else:
            yield Scenario((Part(next(ordinary)),))
