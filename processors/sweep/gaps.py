"""Findings about missing numbers of senders: one per source and hour, with the number of gaps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, NamedTuple

from ...schemas.event import Event, EventSource, Subject
from ...schemas.finding_event import finding_event
from ...schemas.finding_rules import Severity
from ..access import HOUR, OTHER_SOURCES, Source, to_datetime
from .compare import SYSTEM
from .counters import MissingNumbers
from .numbered_events import Ask

RULE = "sequence_gap"
MOST_SOURCES = 100
"""Unsigned sources with a finding of their own in one hour. All further sources share one finding."""
Identity = tuple[str, int]
"""The source, and the deadline of the finding in microseconds since 1970: of gaps, the hour in which they opened."""

KNOWN = """
SELECT key, toUnixTimestamp64Micro(assumeNotNull(deadline)) AS since, open
FROM findings
WHERE rule = {rule:String} AND deadline IS NOT NULL
"""


def known_findings(ask: Ask, rule: str) -> dict[Identity, bool]:
    """Return the findings about sources on record, each open or not."""
    return {(row["key"], row["since"]): bool(row["open"]) for row in ask(KNOWN, rule=rule)}


class SourceChange(NamedTuple):
    """A finding that opens or is resolved."""

    kind: Literal["opened", "resolved"]
    identity: Identity
    evidence: Mapping[str, object]


class GapFindings:
    """The findings on record, each open or not. A finding opens once and resolves once."""

    def __init__(self, known: Mapping[Identity, bool]) -> None:
        self._known = dict(known)
        self._before: set[Identity] = set()
        """Source and hour of all gaps at the last call, late or not."""

    def judge(
        self,
        missing: Iterable[MissingNumbers],
        forgotten: Collection[tuple[Source, int]],
        now: int,
        erased_until: int = 0,
    ) -> list[SourceChange]:
        """Return the changes. A finding opens if its numbers were missing at the call before, and are late now.

        Args:
            forgotten: source and hour of gaps that are no longer followed: their findings stay open.
            erased_until: gaps that opened before this time open no finding, because their events may be erased ones.
        """
        found: dict[Identity, list[MissingNumbers]] = {}
        own = Counter(hour for name, hour in self._known if name != str(OTHER_SOURCES))
        before, self._before = self._before, set()
        lasting: set[Identity] = set()
        for one in sorted(missing, key=lambda one: (one.opens, one.gap)):
            hour = one.opens // HOUR * HOUR
            source = identity = (str(one.counter.source), hour)
            self._before.add(source)
            if one.opens > now:
                continue
            if identity not in found and identity not in self._known:
                if own[hour] >= MOST_SOURCES and not one.counter.signed:
                    identity = (str(OTHER_SOURCES), hour)
                else:
                    own[hour] += 1
            found.setdefault(identity, []).append(one)
            if source in before and one.opens >= erased_until and identity not in self._known:
                lasting.add(identity)
        changes = [SourceChange("opened", one, _evidence(found[one])) for one in found if one in lasting]
        left = found.keys() | {(str(source), hour) for source, hour in forgotten}
        if forgotten:
            left |= {(str(OTHER_SOURCES), hour) for _, hour in forgotten}
        changes += [
            SourceChange("resolved", one, {})
            for one, is_open in self._known.items()
            if is_open and one not in left and one[1] + HOUR <= now
        ]
        self._known |= {one.identity: one.kind == "opened" for one in changes}
        return changes


def source_event(deployment: str, rule: str, change: SourceChange, at: int, severity: Severity) -> Event:
    """Return the event about a change of a finding about a source."""
    key, since = change.identity
    return finding_event(
        "finding.opened" if change.kind == "opened" else "finding.resolved",
        EventSource(SYSTEM, deployment, json.dumps([rule, key, since]), "finding"),
        (rule, key),
        to_datetime(at),
        severity=severity,
        deadline=to_datetime(since),
        evidence=change.evidence,
        subject=Subject(key, "system"),
    )


def _evidence(gaps: list[MissingNumbers]) -> dict[str, object]:
    first = gaps[0]
    evidence: dict[str, object] = {
        "count": len(gaps),
        "missing": sum(one.gap.last - one.gap.first + 1 for one in gaps),
        "first_missing": first.gap.first,
        "last_missing": first.gap.last,
        "topics": sorted(first.counter.topics),
    }
    if first.counter.sender.name:
        evidence["sender"] = first.counter.sender.name
    sources = len({one.counter.source for one in gaps})
    return evidence | ({"sources": sources} if sources > 1 else {})
