"""Plays scenarios in virtual time: records in the order in which a broker receives them, and the expected findings.

The same seed and count give the same records, byte for byte. Scenarios overlap, and records take a moment to arrive, so
records of one tool overtake those of another.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

from grantledger.base.times import micros_of
from grantledger.simulator.company import Employee
from grantledger.simulator.faults import FAULTS, Fault
from grantledger.simulator.lifecycle import CHECKS, TOOLS, Step, StepKind, Tool
from grantledger.simulator.records import WRITERS
from grantledger.simulator.records.program import Program
from grantledger.simulator.records.writer import NativeRecord
from grantledger.simulator.scenario import DEFAULT_SHARE, Scenario, scenarios

from .expected import EXPECTED, ExpectedFinding, RecordTimes, Trace

START = datetime(2030, 1, 1, 12, tzinfo=UTC)
_REST = timedelta(minutes=20)
"""How long a person waits between two scenarios, so that one cannot affect the other."""
_SESSION_STEPS = frozenset({StepKind.SESSION_STARTED, StepKind.ACTION, StepKind.ACTION_DENIED, StepKind.SESSION_ENDED})

_FIRST = ("lena", "milo", "nadia", "omar", "petra", "quinn", "rosa", "sven", "tomas", "uma", "vera", "wim")
_LAST = ("adler", "bruno", "castro", "dahl", "evers", "fiala", "gruber", "horvat", "ivanov", "jansen", "klein")


def person_number(number: int) -> Employee:
    """Return one of many people; each number is a different person."""
    name = f"{_FIRST[number % len(_FIRST)]}.{_LAST[number % len(_LAST)]}.{number}"
    return Employee(name, f"10.{30 + number // 62_500 % 200}.{number // 250 % 250}.{number % 250 + 1}")


class ArrivedRecord(NamedTuple):
    """A native record, and its append time in milliseconds since 1970. Records are in order of that time."""

    append_ms: int
    tool: Tool
    raw: bytes


class Outage(NamedTuple):
    """The collector of a tool hangs for a time, and then sends all it has. Times in milliseconds since 1970."""

    tool: Tool
    starts: int
    ends: int

    def arrival(self, append: int) -> int:
        """Return when a record arrives that would otherwise arrive at ``append``."""
        return self.ends if self.starts <= append < self.ends else append


@dataclass(slots=True, eq=False)
class _Run:
    """A scenario in progress.

    ``pending`` counts the steps and records still to come; ``last_append`` is the last append time, by stream.
    """

    scenario: Scenario
    person: Employee
    traces: list[Trace] = field(default_factory=list)
    pending: int = 0
    last_append: dict[str, int] = field(default_factory=dict)


class Simulation:
    """A number of scenarios from a seed. Iterate over it once; its attributes are complete afterwards.

    Attributes:
        expected: the findings that the watch must report.
        planted: how often each fault occurs.
        traces: every lifecycle as it was written.

    Args:
        count: the number of scenarios; some have more than one lifecycle.
        share: the share of scenarios with a fault.
        rate: scenarios started per second of virtual time.
        planted: faults by the number of their scenario, in addition to ``share``.
        staff: the number of people, who take turns; 0: as many as are needed.
        outage: a tool, and from when until when its records wait at their collector.
    """

    def __init__(
        self,
        seed: int,
        count: int,
        *,
        share: float = DEFAULT_SHARE,
        rate: float = 2.0,
        start: datetime = START,
        faults: Mapping[str, Fault] = FAULTS,
        tools: tuple[Tool, ...] = TOOLS,
        planted: Mapping[int, str] = MappingProxyType({}),
        staff: int = 0,
        outage: Outage | None = None,
    ) -> None:
        self.expected: list[ExpectedFinding] = []
        self.planted: Counter[str] = Counter()
        self.lifecycles = 0
        self.traces: list[Trace] = []
        self._count = count
        self._rate = rate
        self._start = start
        self._rng = random.Random(f"{seed} ids")
        self._scenarios = scenarios(random.Random(seed), tools, share, faults)
        self._checker = Program()
        self._order = itertools.count()
        self._people = staff
        self._resting = deque((start, person_number(number)) for number in range(staff))
        self._plan, self._outage = planted, outage
        self._steps: list[tuple[datetime, int, _Run, Trace, Step]] = []
        self._in_flight: list[tuple[int, int, _Run, NativeRecord]] = []
        self._last_check = 0

    def __iter__(self) -> Iterator[ArrivedRecord]:
        """Yield every record in the order of arrival."""
        for number in range(self._count):
            start = self._start + timedelta(seconds=number / self._rate)
            yield from self._advance(start)
            if fault := self._plan.get(number):
                self._begin(Scenario(FAULTS[fault].scenario(self._rng), FAULTS[fault]), start)
            else:
                self._begin(next(self._scenarios), start)
        yield from self._advance(None)

    @property
    def people(self) -> int:
        """The number of people who have had access so far."""
        return self._people

    def _begin(self, scenario: Scenario, start: datetime) -> None:
        run = _Run(scenario, self._free_person(start))
        if scenario.fault is not None:
            self.planted[scenario.fault.NAME] += 1
        for lifecycle, offset in scenario.parts:
            self.lifecycles += 1
            begins = start + timedelta(seconds=offset)
            trace = Trace(WRITERS[lifecycle.tool](lifecycle.of(run.person), begins, self._rng, self._checker))
            run.traces.append(trace)
            self.traces.append(trace)
            for step in lifecycle.steps:
                run.pending += 1
                at = begins + timedelta(seconds=step.after)
                heapq.heappush(self._steps, (at, next(self._order), run, trace, step))

    def _free_person(self, now: datetime) -> Employee:
        if self._resting and self._resting[0][0] <= now:
            return self._resting.popleft()[1]
        self._people += 1
        return person_number(self._people)

    def _advance(self, end: datetime | None) -> Iterator[ArrivedRecord]:
        """Let time pass until ``end``; yield the records that arrive."""
        while self._steps and (end is None or self._steps[0][0] < end):
            at, _, run, trace, step = heapq.heappop(self._steps)
            yield from self._arrivals(micros_of(at) // 1000)
            run.pending -= 1
            for record in trace.writer.write(step, at):
                self._send(run, trace, step, at, record)
            self._finish(run, at)
        yield from self._arrivals(None if end is None else micros_of(end) // 1000)

    def _send(self, run: _Run, trace: Trace, step: Step, at: datetime, record: NativeRecord) -> None:
        append = micros_of(at) // 1000 + 20 + round(self._latency() * 1000) + round(step.delay * 1000)
        stream = f"{run.traces.index(trace)} access"
        if step.delay:
            stream = "late"
        elif step.kind in CHECKS and trace.writer.checker is self._checker:
            # The checker is one program: its records keep their order across all lifecycles.
            append = self._last_check = max(append, self._last_check)
        elif step.kind in _SESSION_STEPS:
            stream = f"{run.traces.index(trace)} sessions"
        if self._outage and record.tool == self._outage.tool:
            append = self._outage.arrival(append)
        append = run.last_append[stream] = max(append, run.last_append.get(stream, 0))
        run.pending += 1
        trace.records.append(RecordTimes(step.kind, trace.writer.written_time(step.kind, at), append * 1000))
        heapq.heappush(self._in_flight, (append, next(self._order), run, record))

    def _latency(self) -> float:
        """Return how many seconds a record takes to arrive: usually a moment, sometimes longer."""
        return self._rng.uniform(1.5, 5.0) if self._rng.random() < 0.03 else self._rng.uniform(0.0, 1.5)

    def _arrivals(self, end_ms: int | None) -> Iterator[ArrivedRecord]:
        """Yield the records that arrive before a time. Records written after it cannot arrive earlier."""
        while self._in_flight and (end_ms is None or self._in_flight[0][0] < end_ms):
            append, _, run, record = heapq.heappop(self._in_flight)
            yield ArrivedRecord(append, *record)
            run.pending -= 1
            self._finish(run, datetime.fromtimestamp(append / 1000, UTC))

    def _finish(self, run: _Run, now: datetime) -> None:
        if run.pending:
            return
        if run.scenario.fault is None:
            self._resting.append((now + _REST, run.person))
        else:
            # The person is not used again: their access may still exist.
            name = run.scenario.fault.NAME
            found = EXPECTED[name](*run.traces) if name in EXPECTED else ()
            self.expected += [finding._replace(fault=name) for finding in found]
