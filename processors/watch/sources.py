"""What is wrong with a source: silent, its clock fast, a number of its counter missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from .facts import Fact, Source
from .islands import Islands
from .life import NEVER
from .policy import SECOND, SourceLimits
from .rules import Candidate

DAY = 86_400 * SECOND


@dataclass(slots=True)
class SourceLife:
    """What is known of one source."""

    key: str
    heard: Islands | None
    """Append times, joined where the silence between them is normal; None where no silence is too long."""
    last: int = 0
    """Append time of the latest fact."""
    numbers: Islands = field(default_factory=Islands)
    revealed: dict[int, int] = field(default_factory=dict)
    """Append time of the first number after each gap."""
    ahead: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By day: when the clock was first seen to be ahead, and by how much at most."""

    @classmethod
    def of(cls, source: Source, limits: SourceLimits) -> SourceLife:
        """Return a source of which nothing was heard."""
        silence = limits.silent_after_seconds
        return cls(str(source), Islands(int(silence * SECOND)) if silence is not None else None)

    def add(self, fact: Fact, limits: SourceLimits) -> None:
        """Take a fact that was not taken before."""
        self.last = max(self.last, fact.append)
        if self.heard is not None:
            self.heard.add(fact.append)
        if fact.seq is not None:
            self.numbers.add(fact.seq)
            self.revealed[fact.seq] = min(fact.append, self.revealed.get(fact.seq, NEVER))
            starts = {first for first, _ in self.numbers}
            self.revealed = {seq: append for seq, append in self.revealed.items() if seq in starts}
        if fact.fast_by > limits.clock_skew_seconds * SECOND:
            day = fact.append // DAY
            first, most = self.ahead.get(day, (NEVER, 0))
            self.ahead[day] = (min(first, fact.append), max(most, fact.fast_by))

    def candidates(self, limits: SourceLimits) -> Iterator[Candidate]:
        """Yield what is wrong with the source."""
        key = self.key
        if self.heard is not None:
            spells = list(self.heard)
            for at, (_, last) in enumerate(spells):
                opens = last + self.heard.reach
                ends = spells[at + 1][0] if at + 1 < len(spells) else NEVER
                yield Candidate("source_silent", key, opens, opens, ends, {"last_event": last})
        stretches = list(self.numbers)
        for (_, before), (after, _) in pairwise(stretches):
            opens = self.revealed.get(after, NEVER) + int(limits.gap_wait_seconds * SECOND)
            evidence = {"first_missing": before + 1, "last_missing": after - 1}
            yield Candidate("sequence_gap", f"{key}#{before + 1}", 0, opens, NEVER, evidence)
        for day, (first, most) in self.ahead.items():
            yield Candidate("clock_skew", key, day * DAY, first, (day + 1) * DAY, {"ahead_seconds": most / SECOND})
