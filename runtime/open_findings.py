"""Counts open findings in the store, in the background: a slow store delays nothing else."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from ..base.errors import GrantledgerError
from ..schemas.event import FINDINGS_TOPIC
from ..sinks.clickhouse import Ask, Row
from .settings import Settings
from .store_access import ask_store

PAUSE = 5.0
SHARE = 0.05
"""Share of time that counting takes, until the pause is the longest: the store has other work."""
LONGEST_PAUSE = 8.0
"""The store itself takes some seconds to compute the states of findings. The sum must stay below 15 s."""
_COUNT = "SELECT count() AS total, countIf(severity = 'critical') AS critical FROM findings WHERE open"
_PROCESSED = f"""
SELECT
    generation, arraySum((origin, size) -> if(splitByChar('/', origin)[-3] = '{FINDINGS_TOPIC}', size, 0),
        mapKeys(sizes), mapValues(sizes)) AS processed
FROM state_refreshes WHERE complete ORDER BY generation DESC, version DESC LIMIT 1
"""  # noqa: S608 - our own text
"""What the view ``findings`` contains. It is some seconds behind the stored entries, so their number is no sign."""


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
        self._processed: Row | None = None
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
            self._stop.wait(pause_after(took) if self.count is not None else 1.0)

    def _counted(self) -> FindingCount | None:
        """Count open findings, unless the view has not changed since the last count."""
        try:
            with ask_store(self._settings, shared=True) as ask:
                processed = next(iter(ask(_PROCESSED)), None)
                if self.count is None or processed is None or processed != self._processed:
                    self.count, self._processed = _count(ask), processed
                return self.count
        except GrantledgerError:
            return None


def pause_after(took: float) -> float:
    """Return the seconds between a count that took some seconds and the next one."""
    return min(max(PAUSE, took / SHARE), LONGEST_PAUSE)
