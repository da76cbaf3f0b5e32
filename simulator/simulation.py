"""Lives in virtual time, as a broker would take their records: in order of arrival, with what must be found in them.

The same seed and count give the same records, byte for byte. Lives begin one after the other and run beside each other;
records are on their way for a moment, so that those of one tool overtake those of another.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from .fault import Expected, Fault, Moment, Told, played_by
from .faults import DEFAULT_SHARE, FAULTS, Story, stories
from .life import TOOLS, Deed, Step, Tool
from .own import CHECKS, Own
from .player import TELLERS
from .teller import Line, micros
from .world import Person, somebody

START = datetime(2030, 1, 1, 12, tzinfo=UTC)
_REST = timedelta(minutes=20)
"""A person who has ended one story waits so long before the next: nothing of the one reaches into the other."""
_OF_SESSIONS = frozenset({Deed.SESSION_STARTED, Deed.ACTED, Deed.REFUSED, Deed.SESSION_ENDED})


class Delivery(NamedTuple):
    """One native line, and when the broker takes it, in milliseconds since 1970. Deliveries come in that order."""

    append_ms: int
    tool: Tool
    raw: bytes


@dataclass(slots=True, eq=False)
class _Run:
    """A story that is under way."""

    story: Story
    person: Person
    told: list[Told] = field(default_factory=list)
    open: int = 0
    """Steps and lines that are still to come."""
    last: dict[str, int] = field(default_factory=dict)
    """By stream: when its last record arrived."""


class Simulation:
    """So many stories from a seed. Iterate once; ``expected`` and ``planted`` are whole when that has ended.

    Args:
        seed: which stories.
        count: how many; a few have more than one life.
        share: which part of them goes wrong.
        rate: how many begin in a second of virtual time.
        start: when the first begins.
        faults: what may go wrong.
        tools: whose lives.
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
    ) -> None:
        self.expected: list[Expected] = []
        self.planted: dict[str, int] = {}
        self.lives = 0
        self._count = count
        self._rate = rate
        self._start = start
        self._rng = random.Random(f"{seed} ids")  # noqa: S311 - a story, not a secret
        self._stories = stories(random.Random(seed), tools, share, faults)  # noqa: S311
        self._checker = Own()
        self._order = itertools.count()
        self._people = 0
        self._resting: deque[tuple[datetime, Person]] = deque()
        self._due: list[tuple[datetime, int, _Run, Told, Step]] = []
        self._under_way: list[tuple[int, int, _Run, Line]] = []
        self._last_check = 0

    def __iter__(self) -> Iterator[Delivery]:
        """Yield every record in the order in which the broker takes it."""
        for number in range(self._count):
            begins = self._start + timedelta(seconds=number / self._rate)
            yield from self._until(begins)
            self._begin(next(self._stories), begins)
        yield from self._until(None)

    def _begin(self, story: Story, begins: datetime) -> None:
        run = _Run(story, self._somebody(begins))
        if story.fault is not None:
            self.planted[story.fault.NAME] = self.planted.get(story.fault.NAME, 0) + 1
        for life, offset in story.parts:
            self.lives += 1
            start = begins + timedelta(seconds=offset)
            told = Told(TELLERS[life.tool](played_by(life, run.person), start, self._rng, self._checker))
            run.told.append(told)
            for step in life.steps:
                run.open += 1
                at = start + timedelta(seconds=step.after)
                heapq.heappush(self._due, (at, next(self._order), run, told, step))

    def _somebody(self, now: datetime) -> Person:
        if self._resting and self._resting[0][0] <= now:
            return self._resting.popleft()[1]
        self._people += 1
        return somebody(self._people)

    def _until(self, end: datetime | None) -> Iterator[Delivery]:
        """Let time pass; yield what arrives."""
        while self._due and (end is None or self._due[0][0] < end):
            at, _, run, told, step = heapq.heappop(self._due)
            yield from self._arrived(micros(at) // 1000)
            run.open -= 1
            for line in told.teller.tell(step, at):
                self._send(run, told, step, at, line)
            self._end_if_over(run, at)
        yield from self._arrived(None if end is None else micros(end) // 1000)

    def _send(self, run: _Run, told: Told, step: Step, at: datetime, line: Line) -> None:
        append = micros(at) // 1000 + 20 + round(self._delay() * 1000) + round(step.delay * 1000)
        stream = f"{run.told.index(told)} access"
        if step.delay:
            stream = "late"
        elif step.deed in CHECKS and told.teller.checker is self._checker:
            # One program sends one after the other, whomever it is about.
            append = self._last_check = max(append, self._last_check)
        elif step.deed in _OF_SESSIONS:
            stream = f"{run.told.index(told)} sessions"
        append = run.last[stream] = max(append, run.last.get(stream, 0))
        run.open += 1
        told.moments.append(Moment(step.deed, told.teller.written(step.deed, at), append * 1000))
        heapq.heappush(self._under_way, (append, next(self._order), run, line))

    def _delay(self) -> float:
        """Return how long a record is on its way: a moment, sometimes seconds."""
        return self._rng.uniform(1.5, 5.0) if self._rng.random() < 0.03 else self._rng.uniform(0.0, 1.5)

    def _arrived(self, end_ms: int | None) -> Iterator[Delivery]:
        """Yield what arrives before a time: nothing that is told from then on can arrive earlier."""
        while self._under_way and (end_ms is None or self._under_way[0][0] < end_ms):
            append, _, run, line = heapq.heappop(self._under_way)
            yield Delivery(append, *line)
            run.open -= 1
            self._end_if_over(run, datetime.fromtimestamp(append / 1000, UTC))

    def _end_if_over(self, run: _Run, now: datetime) -> None:
        if run.open:
            return
        if run.story.fault is None:
            self._resting.append((now + _REST, run.person))
            return
        # Whoever was in a story that went wrong is in no other: their access may still be there.
        found = run.story.fault.expects(run.told)
        self.expected += (one._replace(fault=run.story.fault.NAME) for one in found)
