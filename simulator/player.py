"""When sample lives happen: all at once and just over, or as time goes by."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Protocol

from .cloudtrail import CloudTrailTeller
from .deploys import DeployTeller
from .fault import played_by
from .faults import Story
from .hoop import HoopTeller
from .life import Life, Step, Tool
from .own import Own
from .teleport import TeleportTeller
from .teller import Line, Teller
from .vault import VaultTeller
from .world import Person

Sink = Callable[[Tool, bytes], object]
"""Takes one native line of a tool."""

TELLERS: dict[Tool, type[Teller]] = {
    "teleport": TeleportTeller,
    "vault": VaultTeller,
    "hoop": HoopTeller,
    "cloudtrail": CloudTrailTeller,
    "own": DeployTeller,
}


class Time(Protocol):
    """The clock and the wait, so that tests need neither."""

    def now(self) -> datetime:
        """Return the time, with a zone."""

    def wait(self, seconds: float) -> bool:
        """Wait; return whether the sample is to stop."""


class Player:
    """Tells stories to a sink.

    Args:
        stories: what is to happen.
        sink: takes the lines.
        time: clock and wait.
        rng: for ids; it must differ from run to run, unless the times are the same too: one id must not name two
            different records.
    """

    def __init__(self, stories: Iterator[Story], sink: Sink, time: Time, rng: random.Random) -> None:
        self._stories = stories
        self._sink = sink
        self._time = time
        self._rng = rng
        self._order = itertools.count()
        self._due: list[tuple[datetime, int, Teller, Step, datetime]] = []
        # It counts anew with every run, so every run is another program.
        self._checker = Own(instance=f"sample-{rng.getrandbits(32):08x}")
        self.told = 0
        self.planted: dict[str, int] = {}

    def at_once(self, count: int) -> None:
        """Tell so many stories, each as if its last step happened now: nothing is overdue when it arrives."""
        for story in itertools.islice(self._stories, count):
            if self._time.wait(0):
                return
            lasts = max(offset + life.seconds for life, offset in story.parts)
            self._schedule(story, self._time.now() - timedelta(seconds=lasts))
            while self._due:
                self._tell_next()

    def as_time_goes_by(self, rate: float, count: int | None = None) -> None:
        """Begin ``rate`` stories a second, each step at its own time, until stopped or ``count`` have ended.

        Stopping ends what is open: sessions, certificates, leases and tokens.
        """
        pause = timedelta(seconds=1 / rate)
        begun = 0
        next_story = self._time.now()
        while True:
            now = self._time.now()
            while next_story <= now and (count is None or begun < count):
                self._schedule(next(self._stories), next_story)
                begun += 1
                next_story += pause
            while self._due and self._due[0][0] <= now:
                self._tell_next()
            more = count is None or begun < count
            if not more and not self._due:
                return
            upcoming = [self._due[0][0]] if self._due else []
            upcoming += [next_story] if more else []
            if self._time.wait(max(0.0, (min(upcoming) - now).total_seconds())):
                self._wind_down({id(teller): teller for _, _, teller, _, _ in self._due}.values())
                return

    def _schedule(self, story: Story, begins: datetime) -> None:
        self.told += 1
        person: Person | None = None
        if story.fault is not None:
            self.planted[story.fault.NAME] = self.planted.get(story.fault.NAME, 0) + 1
        for part in story.parts:
            person = person or part.life.person
            start = begins + timedelta(seconds=part.offset)
            teller = self._begin(played_by(part.life, person), start)
            for step in part.life.steps:
                at = start + timedelta(seconds=step.after)
                sent = at + timedelta(seconds=step.delay)
                heapq.heappush(self._due, (sent, next(self._order), teller, step, at))

    def _begin(self, life: Life, start: datetime) -> Teller:
        return TELLERS[life.tool](life, start, self._rng, self._checker)

    def _tell_next(self) -> None:
        _, _, teller, step, at = heapq.heappop(self._due)
        self._say(teller.tell(step, at))

    def _say(self, lines: list[Line]) -> None:
        for tool, raw in lines:
            self._sink(tool, raw)

    def _wind_down(self, tellers: Iterable[Teller]) -> None:
        now = self._time.now()
        for teller in tellers:
            self._say(teller.wind_down(now))


def utc_now() -> datetime:
    """Return the time now."""
    return datetime.now(UTC)
