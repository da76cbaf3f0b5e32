"""The sequence numbers of a source's counter: which were missing, from when and until when."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ...access import NEVER

MAX_PAUSES = 64
"""Recent pauses in a sequence that are kept unmerged, because a late number may still fall into one of them."""


class Run(NamedTuple):
    """Consecutive numbers that arrived in order. ``begin`` and ``end``: when the first and the last arrived."""

    first: int
    last: int
    begin: int
    end: int


class Gap(NamedTuple):
    """Numbers that were missing for too long. ``opens``: since when; ``ends``: when the first of them arrived."""

    first: int
    last: int
    opens: int
    ends: int


class SequenceRuns:
    """The numbers of a sequence and when each arrived, stored as runs: memory grows with the pauses, not the numbers.

    A number is missing once a higher one has arrived. It is missing for too long from ``wait`` after that; if its
    predecessor is missing too, from ``wait`` after that arrives. So nothing in a run was missing for too long.

    Args:
        wait: how long a number may be late.
        runs: the runs of another instance, to restore it.
    """

    def __init__(self, wait: int, runs: Iterable[Sequence[int]] = ()) -> None:
        self._wait = wait
        self._runs = [Run(*run) for run in runs]
        self._newest = max((run.end for run in self._runs), default=0)
        self._pauses = 0
        """Runs that began after a pause since runs were last merged."""
        self._gaps: list[Gap] | None = None

    def __iter__(self) -> Iterator[Run]:
        """Yield the runs, merged across pauses in which no number was missing."""
        return iter(self._merge(self._runs))

    def add(self, number: int, time: int) -> None:
        """Add a number. Of duplicates, the first call counts."""
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
        elif self._gaps is not None and before is not None and before.last + 1 < number:  # the usual case
            self._gaps.append(Gap(before.last + 1, number - 1, time + self._wait, NEVER))
        self._newest = max(self._newest, time)

    def gaps(self) -> list[Gap]:
        """Return every gap so far, filled ones included; an open gap ends ``NEVER``."""
        if self._pauses > MAX_PAUSES:  # only the latest numbers may arrive out of order
            self._runs[:-MAX_PAUSES] = self._merge(self._runs[:-MAX_PAUSES])
            self._pauses = 0
        if self._gaps is None:
            self._gaps = list(self._find_gaps())[::-1]
        return self._gaps

    def _find_gaps(self) -> Iterator[Gap]:
        """Yield the gaps, the highest first."""
        soonest = NEVER
        """When the first of the higher numbers arrived."""
        for at in range(len(self._runs) - 1, 0, -1):
            before, run = self._runs[at - 1], self._runs[at]
            soonest = min(soonest, run.begin)
            opens = max(soonest, before.end) + self._wait
            first = before.last + 1
            ends = run.begin if run.first == first else NEVER
            if opens < ends:
                filled = at
                while self._runs[filled].begin > opens:
                    filled += 1
                yield Gap(first, self._runs[filled].first - 1, opens, ends)

    def _merge(self, runs: Sequence[Run]) -> list[Run]:
        late = {gap.first for gap in self._find_gaps()}
        merged: list[Run] = []
        for run in runs:
            before = merged[-1] if merged else None
            if before and before.last + 1 == run.first and before.end <= run.begin and run.first not in late:
                merged[-1] = before._replace(last=run.last, end=run.end)
            else:
                merged.append(run)
        return merged
