"""Historical grants: nothing of them was received until long after the deadline. They are counted, not judged.

Per tenant, source and day of receipt there is one finding, while some of its grants have no removal that counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ...access import DAY, EVERY_TENANT, NEVER, OTHER_SOURCES, SECOND, Source, shorten, shorten_source, tenant_key
from ...watch_policy import GrantLimits
from .candidate import Candidate
from .changed import ChangedEntities
from .entities import Entity
from .grants import Grant
from .sessions import Session

LATE = "late_records"
IMPORTED = "#import"
"""The end of the key of a finding about records that were marked as an import of history."""
QUIET = 60 * SECOND
LONGEST_QUIET = 3600 * SECOND
"""A finding opens when no further late grant was received for a minute, and at the latest after an hour."""
MOST_SOURCES = 100
"""Tenants of sources with findings of their own on one day. All further ones share one finding."""


class Received(NamedTuple):
    """For which tenant, from which source, when first, and whether that record was marked as an import of history."""

    tenant: str
    source: Source
    first: int
    imported: bool


@dataclass(slots=True)
class LateDay:
    """The historical grants and sessions of one tenant that were received from one source on one day."""

    first: int = NEVER
    last: int = 0
    latest: int = 0
    """How late the latest was."""
    unresolved: dict[str, bool] = field(default_factory=dict)
    """By access key, whether there was a removal that does not count."""
    removed: set[str] = field(default_factory=set)
    """Access keys of grants with a removal that counts."""
    sessions: set[str] = field(default_factory=set)
    """Access keys of sessions that no grant covers."""

    def candidate(self, key: str, day: int) -> Candidate:
        """Return the finding."""
        evidence: dict[str, object] = {
            "grants": len(self.unresolved) + len(self.removed), "unresolved": len(self.unresolved),
            "without_any_removal": sum(not weak for weak in self.unresolved.values()),
            "sessions_without_grant": len(self.sessions), "latest_seconds": self.latest / SECOND,
        }  # fmt: skip
        opens = min(self.last + QUIET, self.first + LONGEST_QUIET)
        return Candidate(LATE, key, day * DAY, opens, NEVER, evidence, "info" if key.endswith(IMPORTED) else None)


class LateRecords:
    """The historical grants by tenant, source and day."""

    def __init__(self, changed: ChangedEntities) -> None:
        self._changed = changed
        self._days: dict[str, dict[int, LateDay]] = {}
        self._places: dict[Entity, tuple[str, int]] = {}
        self._sources: dict[int, set[str]] = {}
        """The keys with findings of their own, by day."""

    def update(self, grant: Grant, limits: GrantLimits) -> bool:
        """Count a grant that has changed, or count it no longer. Return whether it is historical."""
        entity: Entity = ("grant", grant.key)
        if not grant.is_historical(limits):
            self.discard(entity)
            return False
        received = Received(grant.address.tenant, grant.source, grant.first_received, grant.imported)
        day = self._day(entity, received, grant.lateness(limits))
        removed = grant.removed(limits)
        day.unresolved.pop(grant.key, None)
        day.removed.discard(grant.key)
        if removed < NEVER:
            day.removed.add(grant.key)
        else:
            day.unresolved[grant.key] = bool(grant.removals)
        return True

    def add_session(self, session: Session) -> None:
        """Count a historical session that no grant covers."""
        first, newest, imported = session.reported
        received = Received(session.address.tenant, session.source, first, imported)
        self._day(("session", session.key), received, first - newest).sessions.add(session.key)

    def discard(self, entity: Entity) -> None:
        """Count a grant or session no longer: it was forgotten, or does not belong here."""
        place = self._places.pop(entity, None)
        if place is None:
            return
        day = self._days[place[0]][place[1]]
        if entity[0] == "session":
            day.sessions.discard(entity[1])
        else:
            day.unresolved.pop(entity[1], None)
            day.removed.discard(entity[1])
        if not (day.unresolved or day.removed or day.sessions):
            del self._days[place[0]][place[1]]
            self._sources[place[1]].discard(place[0])
        self._changed.mark("late", place[0])

    def candidates(self, key: str) -> Iterator[Candidate]:
        """Yield every possible finding of a source in a tenant."""
        for number, day in self._days.get(key, {}).items():
            if day.unresolved or day.sessions:
                yield day.candidate(key, number)

    def _day(self, entity: Entity, received: Received, late: int) -> LateDay:
        """Return the day that counts something, and note how late it was."""
        place = self._places.get(entity) or self._place(received)
        self._places[entity] = place
        day = self._days.setdefault(place[0], {}).setdefault(place[1], LateDay())
        day.first, day.last = min(day.first, received.first), max(day.last, received.first)
        day.latest = max(day.latest, late)
        self._changed.mark("late", place[0])
        return day

    def _place(self, received: Received) -> tuple[str, int]:
        """Return the key of the finding that counts something, and its day. A sender may invent sources and tenants."""
        key = tenant_key(shorten(received.tenant), str(shorten_source(received.source)))
        day = received.first // DAY
        known = self._sources.setdefault(day, set())
        mark = IMPORTED if received.imported else ""
        if key + mark not in known and len(known) >= MOST_SOURCES:
            key = tenant_key(EVERY_TENANT, str(OTHER_SOURCES))
        known.add(key + mark)
        return key + mark, day
