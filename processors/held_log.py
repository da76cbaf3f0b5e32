"""A partition in the sealer's hands."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..ledger.batch import Head, Records, SealedBatch
from ..schemas.event import ACTIVITY_TOPIC

QUICK = 0.2
"""Seconds of waiting in the logs that people wait for: deadlines are judged by what is sealed, findings told by it."""


def linger_of(topic: str, linger: float) -> float:
    """Return for how many seconds a record of a topic waits for company. ``linger`` is for the high rate."""
    return linger if topic == ACTIVITY_TOPIC else min(linger, QUICK)


@dataclass(slots=True)
class HeldLog:
    """One partition in hand: the committed head, and what has been read since."""

    head: Head
    restated: float
    linger: float
    """Seconds that a record waits for company."""
    since: float | None = None
    """When the oldest record in hand came."""
    records: Records = field(default_factory=Records)
    payload: int = 0
    unwritten: bool = False
    full: list[tuple[SealedBatch, Head]] = field(default_factory=list)

    def ripe_at(self) -> float:
        """Return when what is in hand is to be written; infinite where nothing is."""
        return math.inf if self.since is None else self.since + self.linger

    @property
    def next_head(self) -> Head:
        """Where the log stands once the full batches are committed."""
        return self.full[-1][1] if self.full else self.head
