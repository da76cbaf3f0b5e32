"""The time that deadlines are judged by: the wall's, held against the time since boot, which nobody can set.

The brokers' clock is the law, because they stamp what happened (DESIGN section 6). Where the wall clock jumps, the
earlier of the two possible times holds until the brokers have said what time it is: nothing is found early.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from .policy import SECOND

LEEWAY = SECOND // 5
"""Microseconds by which the wall may part from the time since boot between two looks, beside a slew of a tenth."""
AGREED = 2 * SECOND
"""Microseconds by which the brokers may differ: their word takes a while to arrive."""


class Jump(NamedTuple):
    """What was noticed. ``seconds``: how far the wall clock jumped, or how long the machine was suspended."""

    kind: str
    at: int
    seconds: float


def since_boot() -> int:
    """Return microseconds since boot, suspension included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


class Clock:
    """Microseconds since 1970, never ahead of what the brokers confirm after a jump.

    Args:
        wall: the wall clock in microseconds since 1970.
        boot: microseconds since boot, suspension included.
        awake: microseconds since boot, suspension left out.
    """

    def __init__(
        self,
        wall: Callable[[], int] = lambda: time.time_ns() // 1000,
        boot: Callable[[], int] = since_boot,
        awake: Callable[[], int] = lambda: time.monotonic_ns() // 1000,
    ) -> None:
        self._wall, self._boot, self._awake = wall, boot, awake
        self._last, now, up = self._read()
        self._wall_lead = now - self._last
        """The wall clock less the time since boot, at the last look."""
        self._lead = self._wall_lead
        """What is added to the time since boot."""
        self._asleep = self._last - up
        self.unsure = False
        """Whether the wall clock has jumped and the brokers have not said yet what time it is."""
        self.jumps: list[Jump] = []
        """What was noticed and not taken note of yet."""

    def now(self) -> int:
        """Return the time."""
        boot, wall, awake = self._read()
        self._notice_sleep(boot, awake)
        moved = wall - boot - self._wall_lead
        allowed = LEEWAY + (boot - self._last) // 10
        self._last, self._wall_lead = boot, wall - boot
        if abs(moved) <= allowed:
            self._lead += moved
        else:
            self.unsure = True
            self.jumps.append(Jump("step", self._time(boot), moved / SECOND))
        return self._time(boot)

    def _read(self) -> tuple[int, int, int]:
        """Return the three clocks as of one moment: a process that is held up between two of them saw no step."""
        for _ in range(5):
            boot, wall, awake = self._boot(), self._wall(), self._awake()
            if self._boot() - boot < LEEWAY // 4:
                break
        return boot, wall, awake

    def _time(self, boot: int) -> int:
        return boot + (min(self._lead, self._wall_lead) if self.unsure else self._lead)

    def _notice_sleep(self, boot: int, awake: int) -> None:
        asleep = boot - awake
        if asleep - self._asleep > SECOND:
            self.jumps.append(Jump("suspend", self._time(boot), (asleep - self._asleep) / SECOND))
        self._asleep = asleep

    def meet(self, brokers: int, asked: int | None = None) -> None:
        """Take the brokers' word at a start, when nothing is known of how the wall clock came to say what it says.

        Args:
            brokers: what time they said it was, in microseconds since 1970.
            asked: time since boot at which they were asked; None for just now.
        """
        off = self.hear(brokers, asked)
        if abs(off) > AGREED:
            self.jumps.append(Jump("step", self._time(self._boot()), off / SECOND))

    def hear(self, brokers: int, asked: int | None = None) -> int:
        """Take the brokers' word for what time it is: they stamped something since they were asked.

        Returns:
            by how many microseconds our time was ahead of any that it can be; negative: behind.
        """
        boot = self._boot()
        earliest, latest = brokers - boot, brokers - (boot if asked is None else asked)
        off = self._lead - min(max(self._lead, earliest), latest)
        if abs(off) > AGREED or (off and self.unsure):
            self._lead = earliest
        self.unsure = False
        return off
