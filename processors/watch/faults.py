"""What the watch could not process, until it is reported: each finding about it once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import structlog

from ..access import EVERY_TENANT, OTHER_SOURCES, shorten, tenant_key
from . import metrics
from .core.judge import Identity
from .core.source_histories import MOST_SOURCES
from .findings import FAULT, WatchFault

log = structlog.get_logger("grantledger.watch")


class MissingEntriesError(LookupError):
    """The sealed log has a gap: its entries cannot be judged."""


class Faults:
    """The faults that are not reported yet, and the findings about faults that are on record."""

    def __init__(self) -> None:
        self._waiting: list[WatchFault] = []
        self._reported: set[Identity] = set()
        self._sources = Counter[int]()
        """How many sources have a finding in a tenant, by hour; a fault that no source caused has none."""

    def __len__(self) -> int:
        """Return how many are not reported yet."""
        return len(self._waiting)

    def restore(self, known: Iterable[Identity]) -> None:
        """Continue with the findings on record."""
        for identity in known:
            if identity[0] == FAULT:
                self._note(identity)

    def add(self, fault: WatchFault) -> None:
        """Add a fault, and log it."""
        fault = fault._replace(where=shorten(fault.where))
        log.error("fault", where=fault.where, fault=type(fault.error).__name__, exc_info=fault.error)
        metrics.FAULTS.inc()
        self._waiting.append(fault)

    def take(self) -> dict[Identity, list[WatchFault]]:
        """Return the faults to report, by the identity of their finding."""
        faults, self._waiting = self._waiting, []
        new: dict[Identity, list[WatchFault]] = {}
        for fault in faults:
            identity = self._own_or_others(fault.identity)
            if identity not in self._reported or identity in new:
                new.setdefault(identity, []).append(fault)
                self._note(identity)
        return new

    def _own_or_others(self, identity: Identity) -> Identity:
        """Return the identity, or that of all further sources if enough have a finding in its hour."""
        rule, _, hour = identity
        if hour == 0 or identity in self._reported or self._sources[hour] < MOST_SOURCES:
            return identity
        return rule, tenant_key(EVERY_TENANT, str(OTHER_SOURCES)), hour

    def _note(self, identity: Identity) -> None:
        if identity not in self._reported:
            self._reported.add(identity)
            self._sources[identity[2]] += 1
