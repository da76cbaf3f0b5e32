"""The thread of the store that refreshes the states of requests, grants and findings."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError

from ..base.health import HEALTH, LONG_SECONDS
from . import metrics
from .clickhouse import StoreAddress, StoreUnavailableError, connect, explain
from .states import States

log = structlog.get_logger("grantledger.store")

INTERVAL = 1.0
"""Seconds between two refreshes, at least."""
SHARE, LONGEST_PAUSE = 8, 2.0
"""Pause in multiples of the time that a refresh took, and at most in seconds."""
SHARE_BEHIND, LONGEST_PAUSE_BEHIND, ENTRIES_BEHIND = 16, 15.0, 20_000
"""The same while more entries arrive than a refresh processes, and how many it then processes: entries come first."""
RETRY_SECONDS = 5.0
"""Seconds until the next attempt if ClickHouse fails."""
LOOP = "state"
"""The name of the loop in ``/livez``, and of what it waits for in ``/readyz``."""


class StateRefresher:
    """Refreshes until stopped. The store does its work without it; only what people see becomes older.

    Args:
        is_mine: whether this process refreshes: of the stores of one server, the one that reads the findings.
    """

    def __init__(self, address: StoreAddress, is_mine: Callable[[], bool]) -> None:
        self._address, self._is_mine = address, is_mine
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="refresh-states", daemon=True)

    def start(self) -> None:
        """Begin, once the tables exist."""
        self._thread.start()

    def check(self) -> None:
        """Raise what has ended the thread: without it, the states would become older and older."""
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Finish the current refresh and return."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    self._refresh_until_stopped()
                except StoreUnavailableError as error:
                    self._failed(str(error))
                except (ClickHouseError, OSError) as error:
                    self._failed(explain(self._address, error))
        except Exception as error:
            self._failure = error

    def _failed(self, reason: str) -> None:
        metrics.REFRESH_FAILURES.inc()
        log.error("states_not_refreshed", reason=reason, action="retried")
        HEALTH.waits(LOOP, f"does not refresh the states of grants, and tries again: {reason}")
        self._stop.wait(RETRY_SECONDS)

    def _refresh_until_stopped(self) -> None:
        with connect(self._address) as client:
            states = States(client)
            while not self._stop.is_set():
                HEALTH.turned(within=LONG_SECONDS, loop=LOOP)
                began_at, more, grows, computing = time.time(), False, states.grows(), states.computing
                started = time.monotonic()
                if self._is_mine() and not (more := states.refresh(ENTRIES_BEHIND if grows else None)):
                    metrics.REFRESHED_AT.set(began_at)
                HEALTH.settle(LOOP)
                took = time.monotonic() - started
                if computing or states.computing:  # until then, people see the states under the former policy
                    pause = 0.0
                elif not more:
                    pause = min(max(INTERVAL, SHARE * took), LONGEST_PAUSE)
                else:
                    pause = min(SHARE_BEHIND * took, LONGEST_PAUSE_BEHIND) if grows else 0.0
                self._stop.wait(pause)
