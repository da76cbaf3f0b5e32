"""Whether the watch may judge: only when it has applied everything that was in Kafka after the moment it judges."""

from __future__ import annotations

from typing import NamedTuple


class Ticket(NamedTuple):
    """One question: may ``moment`` be judged?

    Attributes:
        moment: microseconds since 1970; read before ``end`` was.
        end: offset after the last record of ``access.lifecycle`` at that time or later.
        asked: when it was asked, in microseconds since boot.
    """

    moment: int
    end: int
    asked: int


class Verdict(NamedTuple):
    """The answer. ``lag``: offsets whose records had not been applied when the bound was reached; 0 where all were."""

    moment: int
    lag: int


class Gate:
    """One question at a time.

    Args:
        bound: microseconds after which a judgement is made all the same, so that our own lag can hide nothing for
            ever. Not while the past is still being read after a start: judged by half of it, all would be overdue.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self.applied = 0
        """Offset up to which the records of ``access.lifecycle`` are applied."""
        self.ticket: Ticket | None = None
        self.live = False
        """Whether everything was applied at some time since the start."""

    def ask(self, moment: int, end: int, asked: int) -> None:
        """Put the question."""
        self.ticket = Ticket(moment, end, asked)

    def take(self, applied: int) -> None:
        """Records below this offset are applied."""
        self.applied = max(applied, self.applied)

    @property
    def lag(self) -> int:
        """Offsets that the open question still waits for."""
        return max(0, self.ticket.end - self.applied) if self.ticket is not None else 0

    def answer(self, since_boot: int) -> Verdict | None:
        """Return what may be judged now, and close the question; None while it must wait."""
        if self.ticket is None:
            return None
        lag = self.lag
        if lag == 0:
            self.live = True
        elif not self.live or since_boot - self.ticket.asked < self._bound:
            return None
        moment, self.ticket = self.ticket.moment, None
        return Verdict(moment, lag)

    def waited(self, since_boot: int) -> int:
        """Return for how many microseconds the open question has waited."""
        return since_boot - self.ticket.asked if self.ticket is not None else 0
