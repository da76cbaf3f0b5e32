"""What is wrong with a source: silent, its clock fast, a number of its counter missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .episodes import NEVER
from .facts import Fact, Source
from .islands import Islands, Runs
from .policy import SECOND, SourceLimits
from .rules import Candidate

DAY = 86_400 * SECOND


@dataclass(slots=True)
class SourceLife:
    """What is known of one source."""

    key: str
    heard: Islands | None
    """Append times, joined where the silence between them is normal; None where no silence is too long."""
    numbers: Runs
    """Those of its counter, with their append times."""
    last: int = 0
    """Append time of the latest fact."""
    ahead: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By day: when the clock was first seen to be ahead, and by how much at most."""

    @classmethod
    def of(cls, source: Source, limits: SourceLimits) -> SourceLife:
        """Return a source of which nothing was heard."""
        silence = limits.silent_after_seconds
        heard = Islands(int(silence * SECOND)) if silence is not None else None
        return cls(str(source), heard, Runs(int(limits.gap_wait_seconds * SECOND)))

    def add(self, fact: Fact, limits: SourceLimits) -> None:
        """Take a fact that was not taken before."""
        self.last = max(self.last, fact.append)
        if self.heard is not None:
            self.heard.add(fact.append)
        if fact.seq is not None:
            self.numbers.add(fact.seq, fact.append)
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
        for gap in self.numbers.gaps():
            evidence = {"first_missing": gap.first, "last_missing": gap.last}
            yield Candidate("sequence_gap", f"{key}#{gap.first}", 0, gap.opens, gap.ends, evidence)
        for day, (first, most) in self.ahead.items():
            yield Candidate("clock_skew", key, day * DAY, first, (day + 1) * DAY, {"ahead_seconds": most / SECOND})
