"""Which source has the finding about a violation: a sender may invent sources, and each must not cause one."""

from __future__ import annotations

from collections.abc import Iterable

from ...access import OTHER_SOURCES, Source
from .facts import Fact
from .sources import CONFLICT, HOUR, MOST_SOURCES, SourceHistory


class ViolationSources:
    """The sources that have findings of their own, by rule and hour. All further sources share one."""

    def __init__(self) -> None:
        self._sources: dict[tuple[str, int], set[Source]] = {}

    def restore(self, histories: Iterable[SourceHistory]) -> None:
        """Continue with the violations that the histories have."""
        self._sources = {}
        for history in histories:
            for named in history.violations:
                if history.source != OTHER_SOURCES:
                    self._sources.setdefault(named, set()).add(history.source)

    def source_for(self, rule: str, fact: Fact, source: Source) -> Source:
        """Return the source whose history counts a violation by a source."""
        if rule == CONFLICT:  # a person decides each of them
            return source
        known = self._sources.setdefault((rule, fact.append // HOUR), set())
        if source == OTHER_SOURCES or (source not in known and len(known) >= MOST_SOURCES):
            return OTHER_SOURCES
        known.add(source)
        return source
