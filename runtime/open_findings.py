"""Counts open findings in the store, in the background: a slow store delays nothing else."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from ..base.errors import GrantledgerError
from .settings import Settings
from .store_access import ask_store

PAUSE = 5.0
SHARE = 0.05
"""Upper bound of the share of time that counting takes: the store has other work."""
_COUNT = "SELECT count() AS total, countIf(severity = 'critical') AS critical FROM findings WHERE open"


class FindingCount(NamedTuple):
    """Number of open findings, and of the critical ones among them."""

    open: int
    critical: int


def count_open_findings(settings: Settings) -> FindingCount | None:
    """Count open findings once; None if the store does not answer."""
    try:
        with ask_store(settings, shared=True) as ask:
            row = ask(_COUNT)[0]
            return FindingCount(row["total"], row["critical"])
    except GrantledgerError:
        return None


class OpenFindings:
    """Counts open findings in a thread, until ``stop``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self.count: FindingCount | None = None
        """The latest count; None while the store does not answer."""
        threading.Thread(target=self._run, name="open-findings", daemon=True).start()

    def stop(self) -> None:
        """Stop counting; do not wait for a query that is running."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            self.count = count_open_findings(self._settings)
            took = time.monotonic() - began
            self._stop.wait(max(PAUSE, took / SHARE) if self.count is not None else 1.0)
