"""One source: whether it is silent, its clock is fast, or it broke a rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ....schemas.finding_rules import FINDING_RULES, Severity
from ...access import HOUR, NEVER, OTHER_SOURCES, SECOND, Source, in_micros, shorten, tenant_key
from .candidate import Candidate
from .facts import Fact
from .intervals import IntervalUnion

CONFLICT = "event_conflict"
REMAPPED = "event_conflict by mapping"
"""Counted like a rule: events that another version of the adapter made, with the same content."""
OLD_CONFLICT = "event_conflict about history"
"""Counted like a rule: conflicts of events about historical access. They are warnings."""
HISTORY_SUFFIX = "#history"
SKEW = "clock_skew"
MOST_MISTAKES = 5
"""Different mistakes of a source that one finding names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedRule:
    """The finding about what a source did within an hour in one tenant.

    Attributes:
        suffix: the end of its key.
        severity: None for that of the policy.
    """

    rule: str
    persists: bool
    suffix: str = ""
    severity: Severity | None = None
    evidence: Mapping[str, object] = field(default_factory=dict)


SPECIAL_CONFLICTS = {
    REMAPPED: CountedRule(
        rule=CONFLICT, persists=False, suffix="#mapping", severity="info", evidence={"differs": "mapping"}
    ),
    OLD_CONFLICT: CountedRule(rule=CONFLICT, persists=True, suffix=HISTORY_SUFFIX, severity="warning"),
}
"""By what is counted: conflicts that are findings of their own. Everything else is counted by its rule."""


@dataclass(slots=True)
class Violations:
    """How often a source broke a rule within an hour in one tenant.

    Any sender can do that, so it makes one finding, not many. No tenant's finding tells of another tenant.
    """

    first: int  # append time
    count: int
    example: dict[str, Any]


@dataclass(slots=True)
class SourceHistory:
    """The history of one source. It is stored as JSON, because most of its facts are forgotten."""

    source: Source
    active: IntervalUnion | None
    """Append times, merged if the silence between them is normal. None if no silence is too long."""
    last: int = 0
    """Append time of the latest fact."""
    violations: dict[tuple[str, int, str], Violations] = field(default_factory=dict)
    """By rule, hour and tenant."""
    signed: bool = False
    """Whether it is registered and has signed an event: the operator limits the number of such sources."""

    @classmethod
    def of(cls, source: Source, silence: float | None) -> SourceHistory:
        """Return the history of a source that has reported nothing. ``silence``: how many seconds are too long."""
        active = IntervalUnion(in_micros(silence)) if silence is not None else None
        return cls(source, active)

    def add(self, fact: Fact) -> None:
        """Add the next fact."""
        self.last = max(self.last, fact.append)
        if self.source != OTHER_SOURCES:  # the silences of several sources mean nothing together
            self.signed |= fact.signed

    def note_activity(self, fact: Fact) -> None:
        """Note that the source reported something when it happened: it is not silent."""
        if self.active is not None and self.source != OTHER_SOURCES:
            self.active.add(fact.append)

    def count(self, rule: str, fact: Fact, tenant: str, mistake: str = "") -> None:
        """Count a fact that breaks a rule which is about its source. ``mistake``: what is wrong, if known."""
        place = rule, fact.append // HOUR, tenant
        found = self.violations.get(place)
        if found is None:
            example: dict[str, Any] = {"first_entry": fact.entry, "first_type": shorten(fact.event_type)}
            about = {"grant": fact.grant_key, "request": fact.request_key, "session": fact.session_key}
            example |= {name: shorten(key) for name, key in about.items() if key}
            found = self.violations[place] = Violations(fact.append, 0, example)
        found.count += 1
        found.first = min(found.first, fact.append)
        mistakes = found.example.get("mistakes", [])
        if mistake and mistake not in mistakes and len(mistakes) < MOST_MISTAKES:
            found.example["mistakes"] = [*mistakes, mistake]
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
        for (counted, hour, tenant), one in self.violations.items():
            kind = SPECIAL_CONFLICTS.get(counted) or CountedRule(rule=counted, persists=FINDING_RULES[counted].persists)
            ends = NEVER if kind.persists else (hour + 1) * HOUR
            evidence = {"count": one.count, **one.example, **kind.evidence}
            of_tenant = tenant_key(tenant, key + kind.suffix)
            yield Candidate(kind.rule, of_tenant, hour * HOUR, one.first, ends, evidence, kind.severity)

    def forget(self, before: int) -> None:
        """Forget silences and violations that ended before a time. Everything up to it must have been judged."""
        self.violations = {key: one for key, one in self.violations.items() if (key[1] + 1) * HOUR >= before}
        if self.active is not None:
            spells = list(self.active)
            over = sum(first < before for first, _ in spells[1:])
            if over:
                self.active = IntervalUnion(self.active.reach, spells[over:])

    def is_idle(self, before: int) -> bool:
        """Whether the source has sent nothing since a time, has not signed, and has no finding left."""
        return not (self.signed or self.last >= before or self.violations or self.active)

    def to_json(self) -> dict[str, Any]:
        """Return the history as JSON."""
        return {
            "source": list(self.source),
            "active": list(self.active) if self.active is not None else None,
            "last": self.last,
            "violations": [(*key, one.first, one.count, one.example) for key, one in self.violations.items()],
            "signed": self.signed,
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any], source: Source, silence: float | None) -> SourceHistory:
        """Return the history that was stored. The policy may have changed meanwhile."""
        history = cls.of(source, silence)
        if history.active is not None:
            last = [(stored["last"], stored["last"])] if stored["last"] else []
            spells = stored["active"] if stored["active"] is not None else last
            history.active = IntervalUnion(history.active.reach, spells)
        history.last, history.signed = stored["last"], stored["signed"]
        history.violations = {
            (rule, hour, tenant): Violations(*rest) for rule, hour, tenant, *rest in stored["violations"]
        }
        return history
