"""Plays scenarios in real time, or all at once as if they had just ended."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Protocol

from .lifecycle import Step, Tool
from .records import WRITERS
from .records.program import Program
from .records.writer import NativeRecord, RecordWriter
from .scenario import Scenario

RecordSink = Callable[[Tool, bytes], object]
"""Receives one native record."""


class Clock(Protocol):
    """The clock, which tests replace."""

    def now(self) -> datetime:
        """Return the current time, with a time zone."""

    def wait(self, seconds: float) -> bool:
        """Wait; return whether to stop."""


class Playback:
    """Writes scenarios to a sink.

    Unless the times are the same too, ``rng``, which generates ids, must differ between runs, because one id must not
    name two different records.
    """

    def __init__(self, scenarios: Iterator[Scenario], sink: RecordSink, clock: Clock, rng: random.Random) -> None:
        self._scenarios = scenarios
        self._sink = sink
        self._clock = clock
        self._rng = rng
        self._order = itertools.count()
        self._due: list[tuple[datetime, int, RecordWriter, Step, datetime]] = []
        # Its sequence numbers restart with each run, so each run is another instance.
        self._checker = Program(instance=f"sample-{rng.getrandbits(32):08x}")
        self.played = 0
        self.planted: Counter[str] = Counter()

    def all_at_once(self, count: int) -> None:
        """Play scenarios without waiting. The last step of each happens now, so nothing is overdue on arrival."""
        for scenario in itertools.islice(self._scenarios, count):
            if self._clock.wait(0):
                return
            seconds = max(offset + lifecycle.seconds for lifecycle, offset in scenario.parts)
            self._schedule(scenario, self._clock.now() - timedelta(seconds=seconds))
            while self._due:
                self._write_next()

    def in_real_time(self, rate: float, count: int | None = None) -> None:
        """Start ``rate`` scenarios per second, until stopped or until ``count`` scenarios have ended.

        If it is stopped, it ends all open sessions, certificates, leases and tokens.
        """
        interval = timedelta(seconds=1 / rate)
        started = 0
        next_start = self._clock.now()
        while True:
            now = self._clock.now()
            while next_start <= now and (count is None or started < count):
                self._schedule(next(self._scenarios), next_start)
                started += 1
                next_start += interval
            while self._due and self._due[0][0] <= now:
                self._write_next()
            more = count is None or started < count
            if not more and not self._due:
                return
            upcoming = [self._due[0][0]] if self._due else []
            upcoming += [next_start] if more else []
            if self._clock.wait(max(0.0, (min(upcoming) - now).total_seconds())):
                self._close_all()
                return

    def _schedule(self, scenario: Scenario, start: datetime) -> None:
        self.played += 1
        if scenario.fault is not None:
            self.planted[scenario.fault.NAME] += 1
        person = scenario.parts[0].lifecycle.person
        for lifecycle, offset in scenario.parts:
            begins = start + timedelta(seconds=offset)
            writer = WRITERS[lifecycle.tool](lifecycle.of(person), begins, self._rng, self._checker)
            for step in lifecycle.steps:
                at = begins + timedelta(seconds=step.after)
                sent = at + timedelta(seconds=step.delay)
                heapq.heappush(self._due, (sent, next(self._order), writer, step, at))

    def _write_next(self) -> None:
        _, _, writer, step, at = heapq.heappop(self._due)
        self._send(writer.write(step, at))

    def _close_all(self) -> None:
        now = self._clock.now()
        for writer in {id(writer): writer for _, _, writer, _, _ in self._due}.values():
            self._send(writer.close(now))

    def _send(self, records: list[NativeRecord]) -> None:
        for tool, raw in records:
            self._sink(tool, raw)


def utc_now() -> datetime:
    """Return the current time."""
    return datetime.now(UTC)
