"""What the watch could not process, until it is reported: each finding about it once."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from ..access import shorten
from . import metrics
from .core.judge import Identity
from .findings import FAULT, Fault

log = structlog.get_logger("grantledger.watch")


class MissingEntriesError(LookupError):
    """The sealed log has a gap: its entries cannot be judged."""


class Faults:
    """The faults that are not reported yet, and the findings about faults that are on record."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []
        self._reported: set[Identity] = set()

    def __len__(self) -> int:
        """Return how many are not reported yet."""
        return len(self._waiting)

    def restore(self, known: Iterable[Identity]) -> None:
        """Continue with the findings on record."""
        self._reported.update(one for one in known if one[0] == FAULT)

    def add(self, fault: Fault) -> None:
        """Add a fault, and log it."""
        fault = fault._replace(where=shorten(fault.where))
        log.error("fault", where=fault.where, fault=type(fault.error).__name__, exc_info=fault.error)
        metrics.FAULTS.inc()
        self._waiting.append(fault)

    def take(self) -> dict[Identity, list[Fault]]:
        """Return the faults to report, by the identity of their finding."""
        faults, self._waiting = self._waiting, []
        new: dict[Identity, list[Fault]] = {}
        for fault in faults:
            if fault.identity not in self._reported:
                new.setdefault(fault.identity, []).append(fault)
        self._reported.update(new)
        return new
