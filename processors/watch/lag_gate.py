"""Whether the watch may judge: only after it has applied everything that was in Kafka at the moment it judges."""

from __future__ import annotations

from typing import NamedTuple


class Question(NamedTuple):
    """May ``moment`` be judged?"""

    moment: int  # microseconds since 1970; taken before ``end``
    end: int  # offset after the last record of ``access.lifecycle`` at that time or later
    asked: int  # when it was asked, in microseconds since boot


class Permission(NamedTuple):
    """``moment`` may be judged. ``lag``: offsets not yet applied when the bound was reached, or 0."""

    moment: int
    lag: int


class LagGate:
    """Answers one question at a time.

    Args:
        bound: microseconds after which it gives permission despite the lag, so that our own lag hides nothing forever.
            Not while the past is still being read after a start: judged by half of it, everything would be overdue.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self.applied = 0
        """Offset up to which the records of ``access.lifecycle`` are applied."""
        self.question: Question | None = None
        self.live = False
        """Whether the end of the log was reached at any time since the start."""

    def ask(self, moment: int, end: int, asked: int) -> None:
        """Ask whether a moment may be judged."""
        self.question = Question(moment, end, asked)

    def advance(self, applied: int) -> None:
        """Note that the records below an offset are applied."""
        self.applied = max(applied, self.applied)

    def restart(self, first_offset: int) -> None:
        """Begin again at the first offset of a new epoch, which may have a new topic."""
        self.applied, self.question = first_offset, None

    @property
    def lag(self) -> int:
        """Offsets that the open question still waits for."""
        return max(0, self.question.end - self.applied) if self.question is not None else 0

    def answer(self, since_boot: int) -> Permission | None:
        """Close the question if it can be answered; None while it must wait."""
        if self.question is None:
            return None
        lag = self.lag
        if lag == 0:
            self.live = True
        elif not self.live or since_boot - self.question.asked < self._bound:
            return None
        moment, self.question = self.question.moment, None
        return Permission(moment, lag)
