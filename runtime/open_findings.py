"""Counts open findings in the store, in the background: a slow store holds up nothing else."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from ..sinks.clickhouse import StoreUnavailableError
from .reading import reading
from .settings import Settings

PAUSE = 5.0
SHARE = 0.05
"""Upper bound of the share of time spent on counting: the store has other work."""
_COUNT = "SELECT count(), countIf(severity = 'critical') FROM findings WHERE open"
_UNAVAILABLE = (StoreUnavailableError, ClickHouseError, OSError)


class FindingCount(NamedTuple):
    """Number of open findings, and of the critical ones among them."""

    open: int
    critical: int


def count_open_findings(settings: Settings) -> FindingCount | None:
    """Count open findings once; None if the store does not answer."""
    try:
        with reading(settings, gated=True, shared=True) as client:
            return _count(client)
    except _UNAVAILABLE:
        return None


def _count(client: Client) -> FindingCount:
    row = client.query(_COUNT).result_rows[0]
    return FindingCount(int(row[0]), int(row[1]))


class OpenFindings:
    """Counts open findings in a thread. Call ``start`` and ``stop`` once each."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="open-findings", daemon=True)
        self._count: FindingCount | None = None
        self._valid_until = 0.0

    @property
    def count(self) -> FindingCount | None:
        """The latest count; None while the store does not answer."""
        return self._count if time.monotonic() < self._valid_until else None

    def start(self) -> None:
        """Start to count."""
        self._thread.start()

    def stop(self) -> None:
        """Stop counting, without waiting for a query that takes long."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with reading(self._settings, gated=True, shared=True) as client:
                    self._repeat(client)
            except _UNAVAILABLE:
                self._stop.wait(1.0)  # the store starts or restarts

    def _repeat(self, client: Client) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            count = _count(client)
            now = time.monotonic()
            pause = max(PAUSE, (now - began) / SHARE)
            self._count, self._valid_until = count, now + 4 * pause
            self._stop.wait(pause)
