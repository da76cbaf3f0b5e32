"""The time by which deadlines are judged: the wall clock, checked against the time since boot, which cannot be set.

The brokers' clock decides, because they stamp the records. When the wall clock jumps, the earlier of
the two possible times counts until the brokers confirm one, so that nothing is found early.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from ..access import SECOND

LEEWAY = SECOND // 5
"""Microseconds by which the wall clock may deviate between two readings, in addition to a slew of one tenth."""
TOLERANCE = 2 * SECOND
"""Microseconds by which the brokers' time may differ: their answer takes a while to arrive."""


class Jump(NamedTuple):
    """A step of the wall clock or a suspension of the machine. ``seconds``: how far or how long."""

    kind: str
    at: int
    seconds: float


def since_boot() -> int:
    """Return microseconds since boot, suspension included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


class WatchClock:
    """Microseconds since 1970; after a jump, never ahead of the time that the brokers confirm.

    ``wall`` may be set; ``boot`` and ``awake`` count from the boot, with and without suspension.
    """

    def __init__(
        self,
        wall: Callable[[], int] = lambda: time.time_ns() // 1000,
        boot: Callable[[], int] = since_boot,
        awake: Callable[[], int] = lambda: time.monotonic_ns() // 1000,
    ) -> None:
        self._wall, self.boot, self._awake = wall, boot, awake
        self._last, now, up = self._read()
        self._wall_lead = now - self._last
        """The wall clock minus the time since boot, at the last reading."""
        self._lead = self._wall_lead
        """The offset that is added to the time since boot."""
        self._asleep = self._last - up
        self.unsure = False
        """Whether the wall clock has jumped and the brokers have not confirmed a time yet."""
        self.jumps: list[Jump] = []
        """Jumps that were not collected yet."""

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
        """Read the three clocks at one moment: a process that is suspended between two of them must not see a step."""
        for _ in range(5):
            boot, wall, awake = self.boot(), self._wall(), self._awake()
            if self.boot() - boot < LEEWAY // 4:
                break
        return boot, wall, awake

    def _time(self, boot: int) -> int:
        return boot + (min(self._lead, self._wall_lead) if self.unsure else self._lead)

    def _notice_sleep(self, boot: int, awake: int) -> None:
        asleep = boot - awake
        if asleep - self._asleep > SECOND:
            self.jumps.append(Jump("suspend", self._time(boot), (asleep - self._asleep) / SECOND))
        self._asleep = asleep

    def start_from(self, brokers: int, asked: int | None = None) -> None:
        """Take the brokers' time at a start, when the wall clock cannot be trusted.

        ``asked``: when they were asked, in microseconds since boot.
        """
        off = self.confirm(brokers, asked)
        if abs(off) > TOLERANCE:
            self.jumps.append(Jump("step", self._time(self.boot()), off / SECOND))

    def confirm(self, brokers: int, asked: int | None = None) -> int:
        """Take the brokers' time: they stamped a record since they were asked.

        Return by how many microseconds our time was ahead of any possible time; negative: behind.
        """
        boot = self.boot()
        earliest, latest = brokers - boot, brokers - (boot if asked is None else asked)
        off = self._lead - min(max(self._lead, earliest), latest)
        if abs(off) > TOLERANCE or (off and self.unsure):
            self._lead = earliest
        self.unsure = False
        return off
