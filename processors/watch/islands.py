"""Sets of numbers that lie close together, kept as stretches: whatever order they came in, the same stretches."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator


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
