"""The sequence numbers of a source's counter: which of them are missing, and which were missing for too long."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from ...access import NEVER


class Gap(NamedTuple):
    """Numbers that were missing for too long. ``opens``: since when; ``ends``: when the first of them arrived."""

    first: int
    last: int
    opens: int
    ends: int


class Missing(NamedTuple):
    """Consecutive numbers that have not arrived.

    ``since``: from when both the number before them and a higher one had arrived. ``last_found``: the last of them when
    they had been missing for too long; until then the same as ``last``.
    """

    first: int
    last: int
    since: int
    last_found: int


class NumberSequence:
    """The numbers of a sequence, added in the order in which they arrived. ``wait``: how long a number may be late."""

    def __init__(self, wait: int, stored: Sequence[Any] = (None, None, (), ())) -> None:
        self._wait = wait
        self._lowest, self._highest, missing, late = stored
        self._missing = [Missing(*one) for one in missing]
        self._late = [Gap(*one) for one in late]
        """The gaps that have ended."""

    def to_json(self) -> Sequence[Any]:
        """Return the sequence as JSON."""
        return self._lowest, self._highest, self._missing, self._late

    def __contains__(self, number: int) -> bool:
        """Whether a number has arrived."""
        between = self._lowest is not None and self._lowest <= number <= self._highest
        return between and self._gap_at(number) is None

    def add(self, number: int, time: int) -> None:
        """Add a number. Of duplicates, the first call counts."""
        if self._lowest is None:
            self._lowest = self._highest = number
        elif number > self._highest:
            if number > self._highest + 1:
                self._missing.append(Missing(self._highest + 1, number - 1, time, number - 1))
            self._highest = number
        elif number < self._lowest:
            if number < self._lowest - 1:
                self._missing.insert(0, Missing(number + 1, self._lowest - 1, time, self._lowest - 1))
            self._lowest = number
        elif (at := self._gap_at(number)) is not None:
            self._missing[at : at + 1] = self._split(self._missing[at], number, time)

    def is_next(self, number: int) -> bool:
        """Whether a number neither leaves a gap nor fills one."""
        return self._lowest is None or number in (self._lowest - 1, self._highest + 1) or number in self

    def skip(self, number: int) -> bool:
        """Continue after a number as if all before it had arrived. Return whether some had not."""
        found: bool = number > self._highest
        self._highest = max(self._highest, number)
        return found

    def hours_of_gaps(self, hour: int) -> set[int]:
        """Return the hours in which its gaps began. ``hour``: its length."""
        return {(gap.opens - self._wait) // hour for gap in self.gaps()}

    def gaps(self) -> list[Gap]:
        """Return every gap that is open or was not forgotten, in order; an open one ends ``NEVER``."""
        return sorted([*self._late, *(Gap(one.first, one.last_found, one.since + self._wait, NEVER)
                                      for one in self._missing)])  # fmt: skip

    def forget(self, before: int, needed: Collection[Gap] = ()) -> None:
        """Forget the gaps that ended before a time, except some."""
        self._late = [gap for gap in self._late if gap.ends >= before or gap in needed]

    def _gap_at(self, number: int) -> int | None:
        at = bisect_right(self._missing, number, key=lambda one: one.first) - 1
        return at if at >= 0 and number <= self._missing[at].last else None

    def _split(self, gap: Missing, number: int, time: int) -> list[Missing]:
        """Return the rest of a gap in which a number has arrived. The numbers after it may be late from now on."""
        opens, rest = gap.since + self._wait, []
        if number > gap.first:
            found = gap.last_found if opens < time else number - 1
            rest.append(gap._replace(last=number - 1, last_found=found))
        elif opens < time:
            self._late.append(Gap(gap.first, gap.last_found, opens, time))
        if number < gap.last:
            rest.append(Missing(number + 1, gap.last, time, gap.last))
        return rest
