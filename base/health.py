"""What a process waits for, in words, and whether its loops still turn: the facts behind ``/readyz`` and ``/livez``.

As with metrics there is one registry per process, :data:`HEALTH`, and the code that waits reports to it. It holds only
what was reported, or asks at the moment of the question: no text outlives its cause by a timer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

TURN_SECONDS = 120.0
"""A loop turns within this time, unless it has announced a longer step. Requests to Kafka and ClickHouse are repeated
every 30 s at most, so a dependency that is away does not stop a loop."""

LONG_SECONDS = 3600.0
"""For a step that may rewrite a large store: a migration, an erasure."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that a process reports about itself.

    Attributes:
        name: of the cause, for programs.
        text: for people; one line.
        since: when it was first reported, in seconds since 1970; None if it was asked for just now.
        waits: the process waits for it, so it is not ready. Otherwise it is only worth knowing.
    """

    name: str
    text: str
    since: float | None = None
    waits: bool = True


Ask = Callable[[], Condition | None]
"""Finds a condition at the moment of the question. It may be called in any thread."""


class Health:
    """The conditions of one process, by name, and its loops. Safe in several threads.

    Args:
        clock: seconds that only grow.
        now: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time) -> None:
        self._clock, self._now = clock, now
        self._lock = threading.Lock()
        self._conditions: dict[str, Condition] = {}
        self._asks: dict[str, Ask] = {}
        self._loops: dict[str, tuple[float, float]] = {}
        """When a loop turned last, and within which time it must turn again."""

    def begin(self) -> None:
        """Forget everything: a process starts. It is not ready before it says so."""
        with self._lock:
            self._conditions = {"start": Condition("start", "starts", self._now())}
            self._asks.clear()
            self._loops = {"main": (self._clock(), TURN_SECONDS)}

    def waits(self, name: str, text: str) -> None:
        """Report that the process waits for something: it is not ready until :meth:`settle`."""
        self._report(name, text, waits=True)

    def notes(self, name: str, text: str) -> None:
        """Report what is worth knowing, although the process is ready."""
        self._report(name, text, waits=False)

    def settle(self, *names: str) -> None:
        """Report that these conditions have ended."""
        with self._lock:
            for name in names:
                self._conditions.pop(name, None)

    def asks(self, name: str, ask: Ask) -> None:
        """Call ``ask`` whenever somebody wants to know."""
        with self._lock:
            self._asks[name] = ask

    def turned(self, within: float = TURN_SECONDS, *, loop: str = "main") -> None:
        """Report that a loop turns, and that it will turn again within so many seconds."""
        self._loops[loop] = self._clock(), within

    def progressed(self, loop: str = "main") -> None:
        """Report that a step of a loop goes on, for example that it tries again."""
        at, within = self._loops.get(loop, (self._clock(), 0.0))
        self._loops[loop] = at, max(within, self._clock() - at + TURN_SECONDS)

    def conditions(self) -> list[Condition]:
        """Return all conditions; those that the process waits for come first."""
        with self._lock:
            asks, found = list(self._asks.values()), list(self._conditions.values())
        found += [condition for ask in asks if (condition := ask()) is not None]
        return sorted(found, key=lambda condition: not condition.waits)

    def hanging(self) -> list[str]:
        """Return one sentence for each loop that has not turned in its time."""
        now, found = self._clock(), []
        for loop, (at, within) in list(self._loops.items()):
            if (age := now - at) > within:
                found.append(f"the {loop} loop has not turned for {age:.0f} s; it must turn within {within:.0f} s")
        return found

    def _report(self, name: str, text: str, *, waits: bool) -> None:
        with self._lock:
            known = self._conditions.get(name)
            since = known.since if known is not None and known.waits == waits else self._now()
            self._conditions[name] = Condition(name, " ".join(text.split()), since, waits)


HEALTH = Health()
"""The conditions of this process."""
