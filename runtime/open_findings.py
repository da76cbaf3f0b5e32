"""Counts open findings in the store, in the background: a slow store delays nothing else."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from ..base.errors import GrantledgerError
from .settings import Settings
from .store_access import Ask, ask_store

PAUSE = 5.0
SHARE = 0.05
"""Upper bound of the share of time that counting takes: the store has other work."""
_COUNT = "SELECT count() AS total, countIf(severity = 'critical') AS critical FROM findings WHERE open"
_EVENTS = "SELECT count() AS total FROM finding_events"
"""Costs a fraction of the other query. Only these events change the findings."""


class FindingCount(NamedTuple):
    """Number of open findings, and of the critical ones among them."""

    open: int
    critical: int


def count_open_findings(settings: Settings) -> FindingCount | None:
    """Count open findings once; None if the store does not answer."""
    try:
        with ask_store(settings, shared=True) as ask:
            return _count(ask)
    except GrantledgerError:
        return None


def _count(ask: Ask) -> FindingCount:
    row = ask(_COUNT)[0]
    return FindingCount(row["total"], row["critical"])


class OpenFindings:
    """Counts open findings in a thread, until ``stop``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._events = -1
        self.count: FindingCount | None = None
        """The latest count; None while the store does not answer."""
        threading.Thread(target=self._run, name="open-findings", daemon=True).start()

    def stop(self) -> None:
        """Stop counting; do not wait for a query that is running."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            self.count = self._counted()
            took = time.monotonic() - began
            self._stop.wait(max(PAUSE, took / SHARE) if self.count is not None else 1.0)

    def _counted(self) -> FindingCount | None:
        """Count open findings, unless no event has changed them since the last count."""
        try:
            with ask_store(self._settings, shared=True) as ask:
                events = ask(_EVENTS)[0]["total"]
                if self.count is None or events != self._events:
                    self.count, self._events = _count(ask), events
                return self.count
        except GrantledgerError:
            return None
