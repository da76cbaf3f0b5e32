"""One source: whether it is silent, its clock is fast, or numbers of its sequence are missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ....schemas.finding_rules import FINDING_RULES
from ...access import NEVER, OTHER_SOURCES, SECOND, Source, shorten
from ...policy import SourceLimits
from .facts import Fact
from .intervals import IntervalUnion
from .rules import Candidate
from .sequences import Gap, NumberSequence

HOUR = 3600 * SECOND
CONFLICT = "event_conflict"
REMAPPED = "event_conflict by mapping"
"""Counted like a rule: events that another version of the adapter made, with the same content."""
SKEW = "clock_skew"
GAP = "sequence_gap"


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
    violations: dict[tuple[str, int], Violations] = field(default_factory=dict)
    """By rule and hour."""
    signed: bool = False
    """Whether it is registered and has signed an event: the operator limits the number of such sources."""

    @classmethod
    def of(cls, source: Source, limits: SourceLimits) -> SourceHistory:
        """Return the history of a source that has reported nothing."""
        silence = limits.silent_after_seconds
        active = IntervalUnion(int(silence * SECOND)) if silence is not None else None
        return cls(source, active, NumberSequence(int(limits.gap_wait_seconds * SECOND)))

    def add(self, fact: Fact) -> None:
        """Add the next fact. Its number is added to the sequence apart."""
        self.last = max(self.last, fact.append)
        if self.source != OTHER_SOURCES:  # the silences of several sources mean nothing together
            self.signed |= fact.signed
            if self.active is not None:
                self.active.add(fact.append)

    def count(self, rule: str, fact: Fact) -> None:
        """Count a fact that breaks a rule which is about its source."""
        found = self.violations.get((rule, fact.append // HOUR))
        if found is None:
            example: dict[str, Any] = {"first_entry": fact.entry}
            example |= {"first_type": shorten(fact.event_type), "tenant": shorten(fact.tenant)}
            about = {"grant": fact.grant_key, "request": fact.request_key, "session": fact.session_key}
            example |= {name: shorten(key) for name, key in about.items() if key}
            found = self.violations[rule, fact.append // HOUR] = Violations(fact.append, 0, example)
        found.count += 1
        found.first = min(found.first, fact.append)
        if rule == SKEW:
            found.example["ahead_seconds"] = max(found.example.get("ahead_seconds", 0), fact.clock_lead / SECOND)

    def candidates(self) -> Iterator[Candidate]:
        """Yield every possible finding about the source."""
        key = str(self.source)
        if self.active is not None:
            spells = list(self.active)
            for at, (_, last) in enumerate(spells):
                opens = last + self.active.reach
                ends = spells[at + 1][0] if at + 1 < len(spells) else NEVER
                yield Candidate("source_silent", key, opens, opens, ends, {"last_event": last})
        for gaps in self._gaps_by_hour().values():
            first, hour = gaps[0], gaps[0].opens // HOUR
            evidence = {"first_missing": first.first, "last_missing": first.last}
            if len(gaps) > 1:
                evidence["gaps"] = len(gaps)
            # A gap that opens later in this hour belongs to this finding, so it lasts until the hour is over.
            ends = max((hour + 1) * HOUR, *(gap.ends for gap in gaps))
            yield Candidate(GAP, f"{key}#{first.first}", 0, first.opens, ends, evidence)
        for (rule, hour), one in self.violations.items():
            counted: dict[str, Any] = {"count": one.count, **one.example}
            if rule == REMAPPED:
                counted["differs"] = "mapping"
                yield Candidate(CONFLICT, f"{key}#mapping", hour * HOUR, one.first, (hour + 1) * HOUR, counted, "info")
                continue
            ends = NEVER if FINDING_RULES[rule].persists else (hour + 1) * HOUR
            about = f"{key}#0" if rule == GAP else key
            yield Candidate(rule, about, hour * HOUR, one.first, ends, counted)

    def broken_rules(self) -> Iterator[tuple[str, int]]:
        """Yield each rule that the source broke, and the hour."""
        yield from self.violations
        yield from ((GAP, hour) for hour in self.sequence.hours_of_gaps(HOUR))

    def _gaps_by_hour(self) -> dict[int, list[Gap]]:
        """Return the gaps by the hour in which they open, each hour in the order in which they open."""
        hours: dict[int, list[Gap]] = {}
        for gap in sorted(self.sequence.gaps(), key=lambda one: (one.opens, one.first)):
            hours.setdefault(gap.opens // HOUR, []).append(gap)
        return hours

    def forget(self, before: int) -> None:
        """Forget gaps, silences and violations that ended before a time. Everything up to it must have been judged."""
        needed = [gaps for gaps in self._gaps_by_hour().values() if any(gap.ends >= before for gap in gaps)]
        self.sequence.forget(before, {gap for gaps in needed for gap in gaps})  # the first one names their finding
        self.violations = {key: one for key, one in self.violations.items() if (key[1] + 1) * HOUR >= before}
        if self.active is not None:
            spells = list(self.active)
            over = sum(first < before for first, _ in spells[1:])
            if over:
                self.active = IntervalUnion(self.active.reach, spells[over:])

    def is_idle(self, before: int) -> bool:
        """Whether the source has sent nothing since a time, has not signed, and has no finding left."""
        return not (self.signed or self.last >= before or self.violations or self.active or self.sequence.gaps())

    def to_json(self) -> dict[str, Any]:
        """Return the history as JSON."""
        return {
            "source": list(self.source),
            "active": list(self.active) if self.active is not None else None,
            "last": self.last,
            "sequence": self.sequence.to_json(),
            "violations": [(*key, one.first, one.count, one.example) for key, one in self.violations.items()],
            "signed": self.signed,
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any], source: Source, limits: SourceLimits) -> SourceHistory:
        """Return the history that was stored. The policy may have changed meanwhile."""
        history = cls.of(source, limits)
        if history.active is not None:
            last = [(stored["last"], stored["last"])] if stored["last"] else []
            spells = stored["active"] if stored["active"] is not None else last
            history.active = IntervalUnion(history.active.reach, spells)
        history.last, history.signed = stored["last"], stored["signed"]
        history.sequence = NumberSequence(int(limits.gap_wait_seconds * SECOND), stored["sequence"])
        history.violations = {(rule, hour): Violations(*rest) for rule, hour, *rest in stored["violations"]}
        return history
