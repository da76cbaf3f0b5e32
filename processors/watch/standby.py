"""Whether a process that stands by does so for another one.

After a broker restart, a group can give its only member no partition: the member computed the assignment while it did
not know the topic yet. Nothing in the group's protocol repairs that, so the process has to join again.
"""

from __future__ import annotations

from collections.abc import Callable

CHECK_SECONDS = 15.0
"""Seconds between two checks."""
MOST_MISSES = 2
"""Checks in a row without an owner after which the process ends: a handover takes less than one."""


class StandbyGuard:
    """Counts the checks in a row in which nobody had the partition."""

    def __init__(self, is_owned: Callable[[], bool]) -> None:
        self._is_owned = is_owned
        self._misses = 0

    def reset(self) -> None:
        """The process has just received an assignment."""
        self._misses = 0

    def is_forgotten(self) -> bool:
        """Check once; return whether the process must join the group again."""
        self._misses = 0 if self._is_owned() else self._misses + 1
        return self._misses >= MOST_MISSES
