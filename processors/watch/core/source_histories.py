"""The histories of all sources. A sender may invent sources, and each of them must not cause a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ...access import EVERY_TENANT, HOUR, OTHER_SOURCES, SECOND, Source, shorten, shorten_source
from ...watch_policy import EffectivePolicy
from .changed import ChangedEntities
from .entities import Entity
from .facts import Fact
from .sources import SKEW, SourceHistory

MAX_SOURCES = 10_000
"""Sources that are followed one by one, besides those that sign."""
MOST_SOURCES = 100
"""Tenants of sources with findings of one rule in one hour: of unsigned sources together, of others each. All further
ones share one finding."""


class SourceHistories:
    """The history of each source, and which sources have findings of their own in an hour.

    Args:
        silences: whether to judge silence. No watch that sees one shard of several can.
    """

    def __init__(self, policy: EffectivePolicy, changed: ChangedEntities, *, silences: bool = True) -> None:
        self._policy, self._changed, self._silences = policy, changed, silences
        self._histories: dict[Source, SourceHistory] = {}
        self._by_key: dict[str, Source] = {}
        self._violators: dict[tuple[str, int], dict[Source, set[str]]] = {}
        """The tenants of each source that have findings of their own, by rule and hour."""

    def __iter__(self) -> Iterator[SourceHistory]:
        """Yield the histories."""
        return iter(self._histories.values())

    def __contains__(self, key: str) -> bool:
        """Whether there is a history of the source that a finding's key names."""
        return key in self._by_key

    def of(self, key: str) -> SourceHistory:
        """Return the history of the source that a finding's key names."""
        return self._histories[self._by_key[key]]

    def add(self, fact: Fact, broken: str | None) -> None:
        """Add the next fact of the log. ``broken``: the rule that its source broke by sending it."""
        history = self._history(fact)
        limits = self._policy.source_limits(history.source)
        history.add(fact)
        if fact.received - fact.occurred < self._policy.stated.history_after_seconds * SECOND:
            history.note_activity(fact)
        self._changed.mark("source", str(history.source))
        if fact.clock_lead > limits.clock_skew_seconds * SECOND:
            self.count(SKEW, fact)
        if broken is not None:
            self.count(broken, fact)

    def count(self, rule: str, fact: Fact, mistake: str = "") -> None:
        """Count a fact that breaks a rule which is about its source. ``mistake``: what is wrong, if known."""
        source, tenant = self._history(fact).source, shorten(fact.tenant)
        if not self._has_own_finding(rule, fact, source, tenant):
            source, tenant = OTHER_SOURCES, EVERY_TENANT
        self._history_of(source).count(rule, fact, tenant, mistake)
        self._changed.mark("source", str(source))

    def _has_own_finding(self, rule: str, fact: Fact, source: Source, tenant: str) -> bool:
        if source == OTHER_SOURCES:
            return False
        known = self._violators.setdefault((rule, fact.append // HOUR), {})
        tenants = known.get(source, set())
        if tenant not in tenants:  # anyone can invent tenants as well
            count = len(tenants) if fact.signed else sum(map(len, known.values()))
            if count >= MOST_SOURCES:
                return False
        known.setdefault(source, set()).add(tenant)
        return True

    def _history(self, fact: Fact) -> SourceHistory:
        """Return the history of a fact's source, or the common one of all sources that are too many."""
        source = shorten_source(fact.source)
        if source not in self._histories and len(self._histories) >= MAX_SOURCES and not fact.signed:
            source = OTHER_SOURCES
        return self._history_of(source)

    def _history_of(self, source: Source) -> SourceHistory:
        history = self._histories.get(source)
        if history is None:
            history = self._histories[source] = SourceHistory.of(source, self._silence_of(source))
            self._by_key[str(source)] = source
        return history

    def _silence_of(self, source: Source) -> float | None:
        return self._policy.source_limits(source).silent_after_seconds if self._silences else None

    def to_json(self) -> list[dict[str, Any]]:
        """Return the histories as JSON."""
        return [history.to_json() for history in self]

    def restore(self, stored: Iterable[dict[str, Any]]) -> None:
        """Continue with stored histories."""
        for one in stored:
            source = Source(*one["source"])
            self._histories[source] = SourceHistory.from_json(one, source, self._silence_of(source))
            self._by_key[str(source)] = source
            self._changed.mark("source", str(source))
        self._find_violators()

    def forget(self, before: int, is_needed: Callable[[Entity], bool]) -> None:
        """Forget what ended before a time, and idle sources unless there are few."""
        for history in self:
            history.forget(before)
        if len(self._histories) > MAX_SOURCES // 2:
            for source in [one.source for one in self if one.is_idle(before)]:
                if not is_needed(("source", str(source))) and self._by_key.get(str(source)) == source:
                    del self._histories[source], self._by_key[str(source)]
        self._find_violators()

    def _find_violators(self) -> None:
        self._violators = {}
        for history in self:
            if history.source != OTHER_SOURCES:
                for rule, hour, tenant in history.violations:
                    known = self._violators.setdefault((rule, hour), {})
                    known.setdefault(history.source, set()).add(tenant)
