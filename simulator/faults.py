"""The planted faults by name, and the stream of stories in which a few go wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .fault import Fault, Part
from .faults_removal import REMOVAL_FAULTS
from .faults_rights import RIGHTS_FAULTS
from .faults_sources import SOURCE_FAULTS
from .faults_use import USE_FAULTS
from .life import TOOLS, Tool
from .oddities import ODDITIES
from .plots import imagine

FAULTS: Mapping[str, Fault] = {
    kind.NAME: kind() for kind in (*REMOVAL_FAULTS, *USE_FAULTS, *RIGHTS_FAULTS, *SOURCE_FAULTS, *ODDITIES)
}
DEFAULT_SHARE = 0.03
"""Which part of the stories goes wrong."""


class Story(NamedTuple):
    """One or more lives of one person; ``fault`` is what goes wrong in them."""

    parts: tuple[Part, ...]
    fault: Fault | None = None


def stories(
    rng: random.Random,
    tools: tuple[Tool, ...] = TOOLS,
    share: float = 0.0,
    faults: Mapping[str, Fault] = FAULTS,
) -> Iterator[Story]:
    """Yield stories without end.

    Args:
        rng: the same state gives the same stories.
        tools: whose lives. The company's own programs stand in only where a fault needs them.
        share: how many stories of all go wrong, from 0 to 1.
        faults: what may go wrong.
    """
    lives = imagine(rng, tools)
    possible = [fault for fault in faults.values() if fault.TOOL in (*tools, "own")]
    while True:
        # Nothing is drawn where no fault is wanted: a seed keeps its lives.
        if share and possible and rng.random() < share:
            fault = rng.choice(possible)
            yield Story(fault.story(rng), fault)
        else:
            yield Story((Part(next(lives)),))
