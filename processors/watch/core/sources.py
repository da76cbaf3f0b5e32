"""One source: whether it is silent, its clock is fast, or numbers of its sequence are missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ....schemas.finding_rules import FINDING_RULES
from ...access import DAY, NEVER, SECOND, Source
from ...policy import SourceLimits
from .facts import Fact
from .intervals import IntervalUnion
from .rules import Candidate
from .sequences import NumberSequence

HOUR = 3600 * SECOND


@dataclass(slots=True)
class Violations:
    """How often a source broke a rule within an hour: any sender can do that, so it makes one finding, not many."""

    first: int  # append time
    count: int
    example: dict[str, Any]


@dataclass(slots=True)
class SourceHistory:
    """The history of one source. It is stored as JSON, because most of its facts are forgotten."""

    source: Source
    active: IntervalUnion | None
    """Append times, merged if the silence between them is normal. None if no silence is too long."""
    sequence: NumberSequence
    """The numbers of its counter."""
    last: int = 0
    """Append time of the latest fact."""
    fast_days: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By day: when the clock was first seen ahead, and the largest lead."""
    violations: dict[tuple[str, int], Violations] = field(default_factory=dict)
    """By rule and hour."""

    @classmethod
    def of(cls, source: Source, limits: SourceLimits) -> SourceHistory:
        """Return the history of a source that has reported nothing."""
        silence = limits.silent_after_seconds
        active = IntervalUnion(int(silence * SECOND)) if silence is not None else None
        return cls(source, active, NumberSequence(int(limits.gap_wait_seconds * SECOND)))

    def add(self, fact: Fact, limits: SourceLimits) -> None:
        """Add the next fact."""
        self.last = max(self.last, fact.append)
        if self.active is not None:
            self.active.add(fact.append)
        if fact.seq is not None:
            self.sequence.add(fact.seq, fact.append)
        if fact.clock_lead > limits.clock_skew_seconds * SECOND:
            day = fact.append // DAY
            first, most = self.fast_days.get(day, (NEVER, 0))
            self.fast_days[day] = (min(first, fact.append), max(most, fact.clock_lead))

    def count(self, rule: str, fact: Fact) -> None:
        """Count a fact that breaks a rule which is about its source."""
        found = self.violations.get((rule, fact.append // HOUR))
        if found is None:
            example = {"first_entry": fact.entry, "first_type": fact.event_type, "tenant": fact.tenant}
            about = {"grant": fact.grant_key, "request": fact.request_key, "session": fact.session_key}
            example |= {name: key for name, key in about.items() if key}
            found = self.violations[rule, fact.append // HOUR] = Violations(fact.append, 0, example)
        found.count += 1
        found.first = min(found.first, fact.append)

    def candidates(self) -> Iterator[Candidate]:
        """Yield every possible finding about the source."""
        key = str(self.source)
        if self.active is not None:
            spells = list(self.active)
            for at, (_, last) in enumerate(spells):
                opens = last + self.active.reach
                ends = spells[at + 1][0] if at + 1 < len(spells) else NEVER
                yield Candidate("source_silent", key, opens, opens, ends, {"last_event": last})
        for gap in self.sequence.gaps():
            evidence = {"first_missing": gap.first, "last_missing": gap.last}
            yield Candidate("sequence_gap", f"{key}#{gap.first}", 0, gap.opens, gap.ends, evidence)
        for day, (first, most) in self.fast_days.items():
            yield Candidate("clock_skew", key, day * DAY, first, (day + 1) * DAY, {"ahead_seconds": most / SECOND})
        for (rule, hour), one in self.violations.items():
            ends = NEVER if FINDING_RULES[rule].persists else (hour + 1) * HOUR
            yield Candidate(rule, key, hour * HOUR, one.first, ends, {"count": one.count, **one.example})

    def forget(self, before: int) -> None:
        """Forget gaps, silences and clock leads that ended before a time. Everything up to it must have been judged."""
        self.sequence.forget(before)
        self.fast_days = {day: lead for day, lead in self.fast_days.items() if (day + 1) * DAY >= before}
        self.violations = {key: one for key, one in self.violations.items() if (key[1] + 1) * HOUR >= before}
        if self.active is not None:
            spells = list(self.active)
            over = sum(first < before for first, _ in spells[1:])
            if over:
                self.active = IntervalUnion(self.active.reach, spells[over:])

    def to_json(self) -> dict[str, Any]:
        """Return the history as JSON."""
        return {
            "source": list(self.source),
            "active": list(self.active) if self.active is not None else None,
            "last": self.last,
            "sequence": self.sequence.to_json(),
            "fast_days": [(day, *lead) for day, lead in self.fast_days.items()],
            "violations": [(*key, one.first, one.count, one.example) for key, one in self.violations.items()],
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any], source: Source, limits: SourceLimits) -> SourceHistory:
        """Return the history that was stored. The policy may have changed meanwhile."""
        history = cls.of(source, limits)
        if history.active is not None:
            spells = stored["active"] if stored["active"] is not None else [(stored["last"], stored["last"])]
            history.active = IntervalUnion(history.active.reach, spells)
        history.last = stored["last"]
        history.sequence = NumberSequence(int(limits.gap_wait_seconds * SECOND), stored["sequence"])
        history.fast_days = {day: (first, most) for day, first, most in stored["fast_days"]}
        history.violations = {(rule, hour): Violations(*rest) for rule, hour, *rest in stored["violations"]}
        return history
