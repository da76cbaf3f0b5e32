"""When sample lives happen: all at once and just over, or as time goes by."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Protocol

from .life import Life, Step, Tool
from .teleport import TeleportTeller
from .teller import Teller
from .vault import VaultTeller

Sink = Callable[[Tool, bytes], object]
"""Takes one native line of a tool."""

TELLERS: dict[Tool, type[Teller]] = {"teleport": TeleportTeller, "vault": VaultTeller}


class Time(Protocol):
    """The clock and the wait, so that tests need neither."""

    def now(self) -> datetime:
        """Return the time, with a zone."""

    def wait(self, seconds: float) -> bool:
        """Wait; return whether the sample is to stop."""


class Player:
    """Tells lives to a sink.

    Args:
        lives: what is to happen.
        sink: takes the lines.
        time: clock and wait.
        rng: for ids; it must differ from run to run, unless the times are the same too: one id must not name two
            different records.
    """

    def __init__(self, lives: Iterator[Life], sink: Sink, time: Time, rng: random.Random) -> None:
        self._lives = lives
        self._sink = sink
        self._time = time
        self._rng = rng
        self._order = itertools.count()
        self._due: list[tuple[datetime, int, Teller, Step]] = []
        self.told = 0

    def at_once(self, count: int) -> None:
        """Tell so many lives, each as if its last step happened now: nothing is overdue when it arrives."""
        for life in itertools.islice(self._lives, count):
            if self._time.wait(0):
                return
            teller = self._begin(life, self._time.now() - timedelta(seconds=life.seconds))
            for step in life.steps:
                self._say(teller, teller.tell(step))

    def as_time_goes_by(self, rate: float, count: int | None = None) -> None:
        """Begin ``rate`` lives a second, each step at its own time, until stopped or ``count`` lives have ended.

        Stopping ends what is open: sessions, certificates, leases and tokens.
        """
        pause = timedelta(seconds=1 / rate)
        begun = 0
        next_life = self._time.now()
        while True:
            now = self._time.now()
            while next_life <= now and (count is None or begun < count):
                self._schedule(next(self._lives), next_life)
                begun += 1
                next_life += pause
            while self._due and self._due[0][0] <= now:
                _, _, teller, step = heapq.heappop(self._due)
                self._say(teller, teller.tell(step))
            more = count is None or begun < count
            if not more and not self._due:
                return
            upcoming = [self._due[0][0]] if self._due else []
            upcoming += [next_life] if more else []
            if self._time.wait(max(0.0, (min(upcoming) - now).total_seconds())):
                self._wind_down({id(teller): teller for _, _, teller, _ in self._due}.values())
                return

    def _schedule(self, life: Life, start: datetime) -> None:
        teller = self._begin(life, start)
        for step in life.steps:
            heapq.heappush(self._due, (start + timedelta(seconds=step.after), next(self._order), teller, step))

    def _begin(self, life: Life, start: datetime) -> Teller:
        self.told += 1
        return TELLERS[life.tool](life, start, self._rng)

    def _say(self, teller: Teller, lines: list[bytes]) -> None:
        for line in lines:
            self._sink(teller.life.tool, line)

    def _wind_down(self, tellers: Iterable[Teller]) -> None:
        now = self._time.now()
        for teller in tellers:
            self._say(teller, teller.wind_down(now))


def utc_now() -> datetime:
    """Return the time now."""
    return datetime.now(UTC)
