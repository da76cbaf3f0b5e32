"""A group that never answers a member.

After a broker was killed, the client of Faust can wait forever for the answer to its request to join. Nothing in it
ends that wait, so the process ends and is started again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

JOIN_SECONDS = 120.0
"""How long an answer may take: twice the time that the group gives its members to join again."""


class JoiningGroup:
    """Measures how long the process has been without an assignment of its group. An empty assignment is one, too."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = clock()

    def began(self) -> None:
        """The group rebalances: the process joins again."""
        self._since = self._clock()

    def ended(self) -> None:
        """The group answered."""
        self._since = None

    @property
    def is_overdue(self) -> bool:
        """Whether the group should have answered by now."""
        return self._since is not None and self._clock() - self._since > JOIN_SECONDS
