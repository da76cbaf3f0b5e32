"""The numbers that senders give their events: which of them have not arrived. Pure.

A sender counts per topic or over all topics. One that used a number in two topics counts per topic, unless it also used
a number for two events of one topic: then it has restarted, and only numbers that are in no topic are missing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import NamedTuple

from ..access import HOUR, OTHER_SOURCES, Source

MOST_RUNS = 1000
"""Runs of one counter in one topic. The numbers of a sender that does not count make a run each."""
MOST_RUNS_IN_ALL = 100_000
"""Runs of all counters of unsigned sources, and of all others: anyone can invent senders."""


class Run(NamedTuple):
    """Consecutive numbers that have arrived. ``since``: the append time of the earliest of them."""

    first: int
    last: int
    since: int


class Gap(NamedTuple):
    """Consecutive numbers that have not arrived. ``since``: from when a number below and one above had arrived."""

    first: int
    last: int
    since: int


class Numbers:
    """A set of numbers, as runs in order. It is the same in whatever order they are added."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def add(self, run: Run) -> None:
        """Add consecutive numbers."""
        begin = end = bisect_left(self.runs, run.first - 1, key=lambda one: one.last)
        while end < len(self.runs) and self.runs[end].first <= run.last + 1:
            end += 1
        together = [run, *self.runs[begin:end]]
        first, last = min(one.first for one in together), max(one.last for one in together)
        self.runs[begin:end] = [Run(first, last, min(one.since for one in together))]

    def shares(self, other: Numbers) -> bool:
        """Whether a number is in both sets."""
        few, many = sorted((self.runs, other.runs), key=len)
        for run in few:
            at = bisect_left(many, run.first, key=lambda one: one.last)
            if at < len(many) and many[at].first <= run.last:
                return True
        return False

    def gaps(self) -> list[Gap]:
        """Return the gaps, in order."""
        below = accumulate((one.since for one in self.runs), min)
        above = list(accumulate((one.since for one in reversed(self.runs)), min))[-2::-1]
        return [
            Gap(one.last + 1, other.first - 1, max(since, until))
            for (one, other), since, until in zip(pairwise(self.runs), below, above, strict=False)
        ]

    def forget_lower_half(self) -> list[Gap]:
        """Take the lower half of the gaps for arrived, and return them."""
        gaps = self.gaps()[: len(self.runs) // 2]
        self.add(Run(gaps[0].first, gaps[-1].last, gaps[0].since))
        return gaps


class Sender(NamedTuple):
    """The system, instance and sender that events name."""

    system: str
    instance: str
    name: str


@dataclass(slots=True)
class Counter:
    """The numbers of one sender, by topic. ``source``: its system and instance by their names in findings."""

    sender: Sender
    source: Source
    signed: bool
    topics: dict[str, Numbers] = field(default_factory=dict)
    restarted: bool = False
    """Whether it used a number for several events of a topic."""
    asked: bool = False
    """Whether the store was asked that after the last of its numbers."""

    @property
    def size(self) -> int:
        """The number of runs."""
        return sum(len(one.runs) for one in self.topics.values())

    @property
    def counts_per_topic(self) -> bool:
        """Whether it used a number in two topics."""
        one, *others = self.topics.values()
        return any(one.shares(other) for other in others)

    @property
    def is_doubtful(self) -> bool:
        """Whether the store must be asked if it restarted: which numbers are missing depends on that."""
        return (
            not self.restarted
            and not self.asked
            and self.counts_per_topic
            and any(one.gaps() for one in self.topics.values())
        )

    def gaps(self) -> list[Gap]:
        """Return the numbers that are missing."""
        if len(self.topics) > 1 and (self.restarted or not self.counts_per_topic):
            union = Numbers()
            for one in self.topics.values():
                for run in one.runs:
                    union.add(run)
            return union.gaps()
        return [gap for one in self.topics.values() for gap in one.gaps()]


class MissingNumbers(NamedTuple):
    """A gap of a counter. ``opens``: from when its numbers are late."""

    counter: Counter
    gap: Gap
    opens: int


class Counters:
    """The counters of all senders, as far as they fit into the limits.

    Args:
        wait: returns how many microseconds a number of a source may be late.
    """

    def __init__(self, wait: Callable[[Source], int]) -> None:
        self._wait = wait
        # Signed and unsigned ones have limits of their own. The one that was used last stands last.
        self._counters: dict[bool, dict[Sender, Counter]] = {False: {}, True: {}}
        self._sizes = {False: 0, True: 0}
        self.forgotten: set[tuple[Source, int]] = set()
        """Source, and the hour in which a gap opened that is no longer followed."""

    def __iter__(self) -> Iterator[Counter]:
        """Yield the counters, signed ones first."""
        for signed in (True, False):
            yield from self._counters[signed].values()

    def add(self, sender: Sender, source: Source, topic: str, run: Run, *, signed: bool) -> None:
        """Add numbers that have arrived."""
        counters = self._counters[signed]
        counter = counters.pop(sender, None) or Counter(sender, source, signed)
        counters[sender] = counter
        before, numbers = counter.size, counter.topics.setdefault(topic, Numbers())
        numbers.add(run)
        counter.asked = False
        if len(numbers.runs) > MOST_RUNS:
            self._note_forgotten(counter, numbers.forget_lower_half())
        self._sizes[signed] += counter.size - before
        while self._sizes[signed] > MOST_RUNS_IN_ALL and len(counters) > 1:
            oldest = counters.pop(next(iter(counters)))
            self._sizes[signed] -= oldest.size
            self._note_forgotten(oldest, oldest.gaps())

    def missing(self) -> Iterator[MissingNumbers]:
        """Yield every gap."""
        for counter in self:
            for gap in counter.gaps():
                yield MissingNumbers(counter, gap, gap.since + self._wait(counter.source))

    def _note_forgotten(self, counter: Counter, gaps: Iterable[Gap]) -> None:
        for gap in gaps:
            source = counter.source if len(self.forgotten) < MOST_RUNS_IN_ALL else OTHER_SOURCES
            self.forgotten.add((source, (gap.since + self._wait(counter.source)) // HOUR * HOUR))
