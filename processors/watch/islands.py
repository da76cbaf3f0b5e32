"""Sets of numbers, kept as stretches: whatever order they came in, the same stretches."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from .episodes import NEVER

PAUSES = 64
"""So many pauses of a counter are remembered; of older ones it is not asked again what came before what."""


class Islands:
    """Numbers, joined where the next one is at most ``reach`` away. Memory grows with the breaks, not the numbers."""

    __slots__ = ("_ends", "_starts", "reach")

    def __init__(self, reach: int = 1) -> None:
        self.reach = reach
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __contains__(self, number: int) -> bool:
        """Whether the number lies in a stretch; exact where ``reach`` is 1."""
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number <= self._ends[at]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (first, last) of each stretch, in order."""
        return zip(self._starts, self._ends, strict=True)

    def add(self, number: int) -> None:
        """Take one number."""
        ends = self._ends
        if ends and ends[-1] < number <= ends[-1] + self.reach:  # the next one, as nearly always
            ends[-1] = number
        else:
            self.add_stretch(number, number)

    def add_stretch(self, first: int, last: int) -> None:
        """Take all numbers from first to last."""
        low = bisect_right(self._ends, first - self.reach - 1)
        high = bisect_right(self._starts, last + self.reach)
        if low < high:
            first, last = min(first, self._starts[low]), max(last, self._ends[high - 1])
        self._starts[low:high] = [first]
        self._ends[low:high] = [last]

    def end_of(self, number: int) -> int:
        """Return the end of the stretch that the number lies in, or the number itself."""
        at = bisect_right(self._starts, number) - 1
        return max(number, self._ends[at]) if at >= 0 and number <= self._ends[at] else number


def joined(stretches: Iterable[tuple[int, int]]) -> Islands:
    """Return stretches joined where they touch or overlap."""
    islands = Islands(0)
    starts, ends = islands._starts, islands._ends
    for first, last in sorted(stretches):
        if ends and first <= ends[-1]:
            ends[-1] = max(ends[-1], last)
        else:
            starts.append(first)
            ends.append(last)
    return islands


class Run(NamedTuple):
    """Numbers without a gap that came one after the other. Times are those of the first and of the last of them."""

    first: int
    last: int
    begin: int
    end: int


class Gap(NamedTuple):
    """Numbers that were missing for too long. ``opens``: since when; ``ends``: when the first of them came."""

    first: int
    last: int
    opens: int
    ends: int


class Runs:
    """The numbers of a counter and when each came, kept as runs: memory grows with the pauses, not the numbers.

    A number is missing once a higher one has come, for too long from ``wait`` later on; but where the one before it is
    missing too, from ``wait`` after that has come. It follows that in a run nothing was missing for too long.

    Args:
        wait: how long a number may be on its way.
        runs: what another one held.
    """

    def __init__(self, wait: int, runs: Iterable[Sequence[int]] = ()) -> None:
        self._wait = wait
        self._runs = [Run(*run) for run in runs]
        self._newest = max((run.end for run in self._runs), default=0)
        self._pauses = 0
        """So many runs have begun after a pause since it was last asked which of them are needed."""
        self._gaps: list[Gap] | None = None

    def __iter__(self) -> Iterator[Run]:
        """Yield as few runs as do: where there was but a pause they are one."""
        return iter(self._joined(self._runs))

    def add(self, number: int, time: int) -> None:
        """Take a number. Told again, that counts which was taken first: the one that came first."""
        at = bisect_left(self._runs, (number + 1,))
        before = self._runs[at - 1] if at else None
        after = self._runs[at] if at < len(self._runs) else None
        if before is not None and number <= before.last:
            return
        run = Run(number, number, time, time)
        low = high = at
        if before is not None and before.last + 1 == number:
            if before.end <= time <= before.end + self._wait:
                low, run = at - 1, run._replace(first=before.first, begin=before.begin)
            else:
                self._pauses += 1
        if after is not None and after.first - 1 == number and time <= after.begin <= time + self._wait:
            high, run = at + 1, run._replace(last=after.last, end=after.end)
        self._runs[low:high] = [run]
        if after is not None or time < self._newest:
            self._gaps = None
        elif self._gaps is not None and before is not None and before.last + 1 < number:  # as nearly always
            self._gaps.append(Gap(before.last + 1, number - 1, time + self._wait, NEVER))
        self._newest = max(self._newest, time)

    def gaps(self) -> list[Gap]:
        """Return every gap that there was, also one that was filled since; with ``NEVER`` as its end where none was."""
        if self._pauses > PAUSES:  # numbers come in the order of their time, but for the latest
            self._runs[:-PAUSES] = self._joined(self._runs[:-PAUSES])
            self._pauses = 0
        if self._gaps is None:
            self._gaps = list(self._found())[::-1]
        return self._gaps

    def _found(self) -> Iterator[Gap]:
        """Yield the gaps, the highest first."""
        soonest = NEVER
        """When the first of the higher numbers came."""
        for at in range(len(self._runs) - 1, 0, -1):
            before, run = self._runs[at - 1], self._runs[at]
            soonest = min(soonest, run.begin)
            opens = max(soonest, before.end) + self._wait
            first = before.last + 1
            ends = run.begin if run.first == first else NEVER
            if opens < ends:
                there = at
                while self._runs[there].begin > opens:
                    there += 1
                yield Gap(first, self._runs[there].first - 1, opens, ends)

    def _joined(self, runs: Sequence[Run]) -> list[Run]:
        late = {gap.first for gap in self._found()}
        joined: list[Run] = []
        for run in runs:
            before = joined[-1] if joined else None
            if before and before.last + 1 == run.first and before.end <= run.begin and run.first not in late:
                joined[-1] = before._replace(last=run.last, end=run.end)
            else:
                joined.append(run)
        return joined
