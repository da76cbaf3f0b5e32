"""The thread of the store that refreshes the states of requests, grants and findings."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError

from . import metrics
from .clickhouse import StoreAddress, connect, explain
from .states import States

log = structlog.get_logger("grantledger.store")

INTERVAL = 1.0
"""Seconds between two refreshes, at least."""
SHARE = 8
"""Pause in multiples of the time that a refresh took, so that refreshing takes a small share of a processor."""
LONGEST_PAUSE = 5.0
BUSY_ENTRIES = 20_000
"""Entries per refresh while entries wait to be stored."""
RETRY_SECONDS = 5.0
"""Seconds until the next attempt if ClickHouse fails."""


class StateRefresher:
    """Refreshes until stopped. The store does its work without it; only what people see becomes older.

    Args:
        is_mine: whether this process refreshes: of the stores of one server, the one that reads the findings.
        is_busy: whether entries wait to be stored. They come first: the states catch up later.
    """

    def __init__(self, address: StoreAddress, is_mine: Callable[[], bool], is_busy: Callable[[], bool]) -> None:
        self._address, self._is_mine, self._is_busy = address, is_mine, is_busy
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="refresh-states", daemon=True)

    def start(self) -> None:
        """Begin, once the tables exist."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the current refresh and return."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._refresh_until_stopped()
            except (ClickHouseError, OSError) as error:
                metrics.REFRESH_FAILURES.inc()
                log.error("states_not_refreshed", reason=explain(self._address, error), action="retried")
                self._stop.wait(RETRY_SECONDS)

    def _refresh_until_stopped(self) -> None:
        with connect(self._address) as client:
            states = States(client)
            while not self._stop.is_set():
                started, began_at, busy, more = time.monotonic(), time.time(), self._is_busy(), False
                if self._is_mine() and not (more := states.refresh(BUSY_ENTRIES if busy else None)):
                    metrics.REFRESHED_AT.set(began_at)
                took = time.monotonic() - started
                self._stop.wait(0 if more and not busy else min(max(INTERVAL, SHARE * took), LONGEST_PAUSE))
