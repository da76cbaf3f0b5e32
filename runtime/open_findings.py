"""How many findings are open, asked of the store now and then, aside: a slow answer holds up nobody."""

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
"""Of the time, at most so much is spent asking: the store has other work."""
_COUNT = "SELECT count(), countIf(severity = 'critical') FROM findings WHERE open"


class Count(NamedTuple):
    """Open findings, and how many of them are critical."""

    open: int
    critical: int


class OpenFindings:
    """Counts open findings in a thread. ``start`` and ``stop`` once each."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="open-findings", daemon=True)
        self._count: Count | None = None
        self._good_until = 0.0

    @property
    def count(self) -> Count | None:
        """The latest count; None while the store does not answer."""
        return self._count if time.monotonic() < self._good_until else None

    def start(self) -> None:
        """Count from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Stop counting; a question that is under way is left to itself."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with reading(self._settings, gated=True, shared=True) as client:
                    self._ask(client)
            except (StoreUnavailableError, ClickHouseError, OSError):
                self._stop.wait(1.0)  # it starts, or starts again

    def _ask(self, client: Client) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            row = client.query(_COUNT).result_rows[0]
            now = time.monotonic()
            pause = max(PAUSE, (now - began) / SHARE)
            self._count, self._good_until = Count(int(row[0]), int(row[1])), now + 4 * pause
            self._stop.wait(pause)
