"""Unions of closed intervals of integers: the result does not depend on the order of insertion."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class IntervalUnion:
    """Intervals, merged if the next one starts at most ``reach`` after the end. Memory grows with the gaps only."""

    __slots__ = ("_ends", "_starts", "reach")

    def __init__(self, reach: int, intervals: Iterable[tuple[int, int]] = ()) -> None:
        self.reach = reach
        self._starts: list[int] = []
        self._ends: list[int] = []
        for first, last in sorted(intervals):
            self.add_interval(first, last)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (first, last) of each interval, in order."""
        return zip(self._starts, self._ends, strict=True)

    def add(self, number: int) -> None:
        """Add one number."""
        ends = self._ends
        if ends and ends[-1] < number <= ends[-1] + self.reach:  # the usual case: the next number
            ends[-1] = number
        else:
            self.add_interval(number, number)

    def add_interval(self, first: int, last: int) -> None:
        """Add all numbers from first to last."""
        low = bisect_left(self._ends, first - self.reach)
        high = bisect_right(self._starts, last + self.reach)
        if low < high:
            first, last = min(first, self._starts[low]), max(last, self._ends[high - 1])
        self._starts[low:high] = [first]
        self._ends[low:high] = [last]

    def end_of(self, number: int) -> int:
        """Return the end of the interval that contains the number, or else the number."""
        at = bisect_right(self._starts, number) - 1
        return max(number, self._ends[at]) if at >= 0 and number <= self._ends[at] else number
