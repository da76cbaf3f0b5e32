"""Historical grants: nothing of them was received until long after the deadline. They are counted, not judged.

Per source and day of receipt there is one finding, while some of its grants have no removal that counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ...access import DAY, NEVER, OTHER_SOURCES, SECOND, shorten_source
from ...policy import GrantLimits
from .changed import ChangedEntities
from .grants import Grant
from .rules import Candidate

LATE = "late_records"
IMPORTED = "#import"
"""The end of the key of a finding about records that were marked as an import of history."""
QUIET = 60 * SECOND
LONGEST_QUIET = 3600 * SECOND
"""A finding opens when no further late grant was received for a minute, and at the latest after an hour."""
MOST_SOURCES = 100
"""Sources with findings of their own on one day. All further sources share one finding."""


@dataclass(slots=True)
class LateDay:
    """The historical grants of one source that were received on one day."""

    first: int = NEVER
    last: int = 0
    latest: int = 0
    """How late the latest was."""
    unresolved: dict[str, bool] = field(default_factory=dict)
    """By access key, whether there was a removal that does not count."""
    removed: dict[str, int] = field(default_factory=dict)
    """By access key, when a removal was reported."""

    def candidate(self, key: str, day: int) -> Candidate:
        """Return the finding."""
        evidence: dict[str, object] = {
            "grants": len(self.unresolved) + len(self.removed), "unresolved": len(self.unresolved),
            "without_any_removal": sum(not weak for weak in self.unresolved.values()),
            "latest_seconds": self.latest / SECOND,
        }  # fmt: skip
        opens = min(self.last + QUIET, self.first + LONGEST_QUIET)
        ends = NEVER if self.unresolved else max(self.removed.values(), default=0)
        return Candidate(LATE, key, day * DAY, opens, ends, evidence, "info" if key.endswith(IMPORTED) else None)


class LateRecords:
    """The historical grants by source and day."""

    def __init__(self, changed: ChangedEntities) -> None:
        self._changed = changed
        self._days: dict[str, dict[int, LateDay]] = {}
        self._places: dict[str, tuple[str, int]] = {}
        """By access key of the grant."""
        self._sources: dict[int, set[str]] = {}
        """The keys with findings of their own, by day."""

    def update(self, grant: Grant, limits: GrantLimits) -> None:
        """Count a grant that has changed, or count it no longer."""
        if not grant.is_historical(limits):
            self.discard(grant.key)
            return
        place = self._places.get(grant.key) or self._place(grant)
        self._places[grant.key] = place
        day = self._days.setdefault(place[0], {}).setdefault(place[1], LateDay())
        day.first, day.last = min(day.first, grant.first_received), max(day.last, grant.first_received)
        day.latest = max(day.latest, grant.lateness(limits))
        removed = grant.removed(limits)
        day.unresolved.pop(grant.key, None)
        day.removed.pop(grant.key, None)
        if removed < NEVER:
            day.removed[grant.key] = removed
        else:
            day.unresolved[grant.key] = bool(grant.removals)
        self._changed.mark("late", place[0])

    def discard(self, grant: str) -> None:
        """Count a grant no longer: it was forgotten, or is not historical."""
        place = self._places.pop(grant, None)
        if place is None:
            return
        day = self._days[place[0]][place[1]]
        day.unresolved.pop(grant, None)
        day.removed.pop(grant, None)
        if not day.unresolved and not day.removed:
            del self._days[place[0]][place[1]]
            self._sources[place[1]].discard(place[0])
        self._changed.mark("late", place[0])

    def candidates(self, key: str) -> Iterator[Candidate]:
        """Yield every possible finding of a source."""
        for number, day in self._days.get(key, {}).items():
            yield day.candidate(key, number)

    def _place(self, grant: Grant) -> tuple[str, int]:
        """Return the key of the finding that counts a grant, and its day. A sender may invent sources."""
        key, day = str(shorten_source(grant.source)), grant.first_received // DAY
        known = self._sources.setdefault(day, set())
        mark = IMPORTED if grant.imported else ""
        if key + mark not in known and len(known) >= MOST_SOURCES:
            key = str(OTHER_SOURCES)
        known.add(key + mark)
        return key + mark, day
