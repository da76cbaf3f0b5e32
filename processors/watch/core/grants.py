"""One grant: the facts known of it in the order of the log, whatever order they arrived in."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from ...access import NEVER, Access, Source
from ...policy import AccessLimits
from .facts import Decision, Fact
from .periods import Activation, Period, Removal, periods_of, thin_removals

Item = TypeVar("Item")
MAX_UNTHINNED = 16
"""Removals that a grant keeps before it drops those that cannot matter."""
PLACEHOLDER_NAMES = ("", "unknown")
"""The subject of a record that names no one (DESIGN section 3)."""


def naming_rank(fact: Fact) -> int:
    """Return a sort key that decides which fact names subject and resource: the earliest one that names a subject."""
    return fact.index if fact.person and fact.person[0] not in PLACEHOLDER_NAMES else fact.index + NEVER


@dataclass(slots=True)
class Grant:
    """What is known of one grant. Subject and resource come from the earliest event that names a subject."""

    grant_id: str
    rank: int
    access: Access
    environment: str
    source: Source
    person: tuple[str, ...]
    kinds: tuple[str, str]
    """Kind of the subject, and kind of the grant id."""
    request_named_at: int = NEVER
    request_id: str = ""
    """The request in the earliest fact that names one (at index ``request_named_at``), or empty."""
    # Tuples, because an empty one takes no memory, and most grants have few items.
    activations: tuple[Activation, ...] = ()
    removals: tuple[Removal, ...] | list[Removal] = ()
    removals_seen: dict[bytes, int] | None = None
    """If there are many removals: the first index of each by event key, also of those that were dropped."""
    decisions: tuple[tuple[int, int, Decision], ...] = ()
    """(index, append time, decision)."""
    last_append: int = 0
    """Append time of the latest fact about the grant."""

    @classmethod
    def of(cls, fact: Fact) -> Grant:
        """Return a new grant that the fact names."""
        access = fact.access or Access("", "", "", "", "")
        kinds = _kinds(fact.subject_kind, fact.grant_id_kind)
        return cls(fact.grant_id, naming_rank(fact), access, fact.environment, fact.source, fact.person, kinds)

    def add(self, fact: Fact) -> None:
        """Add a fact that was not added before."""
        self.last_append = max(self.last_append, fact.append)
        if naming_rank(fact) < self.rank and fact.access is not None:
            self.rank, self.access, self.environment = naming_rank(fact), fact.access, fact.environment
            self.source, self.person = fact.source, fact.person
            self.kinds = _kinds(fact.subject_kind, fact.grant_id_kind)
        if fact.request_id and fact.index < self.request_named_at:
            self.request_named_at, self.request_id = fact.index, fact.request_id
        if fact.event_type in ("grant.activated", "grant.extended"):
            self.activations = _with_unique(self.activations, Activation.of(fact))
        elif fact.event_type in ("grant.revoked", "grant.expired"):
            self._add_removal(
                Removal(fact.index, fact.append, fact.occurred, fact.removal, fact.source, fact.event_key)
            )
        for decision in fact.decisions:
            self.decisions = with_item(self.decisions, (fact.index, fact.append, decision))

    def _add_removal(self, removal: Removal) -> None:
        if self.removals_seen is None:
            self.removals = _with_unique(tuple(self.removals), removal)
            if len(self.removals) > MAX_UNTHINNED:
                self.removals_seen = {one.event_key: one.index for one in self.removals}
            return
        before = self.removals_seen.get(removal.event_key, NEVER)
        if before <= removal.index:
            return
        self.removals_seen[removal.event_key] = removal.index
        kept = self.removals if isinstance(self.removals, list) else list(self.removals)
        if before < NEVER:  # only if facts do not arrive in the order of the log
            kept = [one for one in kept if one.event_key != removal.event_key]
        insort(kept, removal)
        self.removals = kept

    def periods(self, limits: AccessLimits) -> list[Period]:
        """Return the grant's periods in order. Everything in the log so far must have been added."""
        if len(self.removals) > MAX_UNTHINNED:
            self.removals = thin_removals(self.activations, self.removals)
        return periods_of(self.activations, self.removals, limits)

    def removed(self, limits: AccessLimits) -> int:
        """Return when a removal that counts ended the last period, or ``NEVER``; 0 if the grant was never active."""
        periods = self.periods(limits)
        return periods[-1].removed(limits) if periods else 0

    def keeps(self, index: int, event_type: str) -> bool:
        """Whether the grant still uses the fact at an index: it drops most repeated removals."""
        if event_type not in {"grant.revoked", "grant.expired"}:
            return True
        return any(removal.index == index for removal in self.removals)


@lru_cache(maxsize=256)
def _kinds(subject: str, grant_id: str) -> tuple[str, str]:
    """Return one object for all grants of the same kinds."""
    return subject or "unknown", grant_id or "synthesized"


Report = TypeVar("Report", Activation, Removal)


def _with_unique(reports: tuple[Report, ...], report: Report) -> tuple[Report, ...]:
    """Return the reports with one more in its place; of duplicates, the first in the log stays."""
    for known in reports:
        if known.event_key == report.event_key:
            if known.index <= report.index:
                return reports
            reports = tuple(other for other in reports if other is not known)
            break
    return with_item(reports, report)


def with_item(items: tuple[Item, ...], item: Item) -> tuple[Item, ...]:
    """Return sorted items with one more in its place; nearly always that is the end."""
    if not items or items[-1] <= item:  # type: ignore[operator]
        return (*items, item)
    return tuple(sorted((*items, item)))  # type: ignore[type-var]
