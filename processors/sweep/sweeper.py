"""Runs the sweep: reads the ends of the sealed logs, waits until the store has them, and compares."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import structlog
from prometheus_client import Counter, Gauge

from ...base.errors import DependencyError
from ...kafka.publisher import Publisher, Record
from ...kafka.sealed_log import SealedLogs
from ...schemas.codec import EventEncoder
from ...schemas.event import FINDINGS_TOPIC, LIFECYCLE_TOPIC, Event
from ..policy import WatchPolicy
from . import compare

log = structlog.get_logger("grantledger.sweep")

DIFFERENCES = Gauge(
    "grantledger_watch_sweep_differences", "Grants on which watch and store differed in two sweeps in a row."
)
SWEEPS = Counter("grantledger_sweeps_total", "Sweeps by result: done, or the reason why not.", ["result"])
LAST_SWEEP = Gauge("grantledger_last_sweep_timestamp_seconds", "Time of the last completed sweep.")
STORE_WAIT_SECONDS = 50.0
"""How long to wait until the store has caught up with the sealed logs."""

Ask = Callable[..., list[dict[str, Any]]]
"""``ask(sql, name=value, …)`` returns the rows of one query. Raises DependencyError if the store does not answer."""


class Sweeper:
    """The sweeping process. ``run`` returns after ``stop``.

    Args:
        is_live: whether a process writes to the store now.
        open_store: opens the store for reading. Passed in, because a processor imports no sink.
        interval: seconds between two sweeps.
    """

    def __init__(
        self,
        logs: SealedLogs,
        *,
        is_live: Callable[[], bool],
        open_store: Callable[[], AbstractContextManager[Ask]],
        policy: WatchPolicy,
        interval: float,
    ) -> None:
        self._logs, self._deployment = logs, logs.deployment
        self._is_live, self._open_store = is_live, open_store
        self._policy, self._interval = policy, interval
        self._expiring = compare.systems_that_expire(policy)
        longest = (policy.default.max_seconds, *(rule.max_seconds for rule in policy.rule))
        self._endless = any(seconds is not None for seconds in longest)
        self._differences: compare.Differences | None = None
        self._stop = threading.Event()

    def stop(self) -> None:
        """Ask ``run`` to return. Safe in a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Sweep until stopped."""
        while not self._stop.is_set():
            try:
                result = self.sweep_once()
            except DependencyError as error:  # the next sweep may succeed
                log.error("store_fault", reason=str(error).split("\n", 1)[0][:500])
                result = "the store does not answer"
            SWEEPS.labels(result).inc()
            if result == "done":
                LAST_SWEEP.set_to_current_time()
            else:
                log.warning("not_swept", reason=result)
            self._stop.wait(self._interval if result == "done" else min(self._interval, 5.0))

    def sweep_once(self) -> str:
        """Sweep, and return ``done`` or the reason why not."""
        if not self._is_live():
            return "no store is running"
        now = time.time_ns() // 1000
        ends = [self._logs.last(topic) for topic in (LIFECYCLE_TOPIC, FINDINGS_TOPIC)]
        sizes = [(end.batch.origin, end.head.size) for end in ends if end is not None]
        with self._open_store() as ask:
            if not self._stored(ask, sizes):
                return "the store lags"
            values = {"now": now, "ending": self._expiring, "endless": int(self._endless)}
            view = compare.view_of_store(ask(compare.OPEN_GRANTS, **values), self._policy, now)
            open_findings: dict[str, compare.Deadlines] = {"overdue": {}, compare.RULE: {}}
            for row in ask(compare.OPEN_FINDINGS):
                # The key of a difference is an access key already.
                name = row["key"] if row["rule"] == compare.RULE else compare.name_of(row, row["key"])
                open_findings[row["rule"]][name] = row["deadline_us"]
        if self._differences is None:
            self._differences = compare.Differences(open_findings[compare.RULE])
        found = open_findings["overdue"]
        opened, resolved = self._differences.compare(view, found)
        self._publish(
            [compare.difference(self._deployment, (key, deadline), now, by=by) for key, deadline, by in opened]
            + [compare.difference(self._deployment, grant, now, resolved=True) for grant in resolved]
        )
        DIFFERENCES.set(len(self._differences.open))
        log.info("swept", overdue=len(view.overdue), found=len(found), undecided=len(view.undecided), new=len(opened))
        return "done"

    def _stored(self, ask: Ask, sizes: list[tuple[str, int]]) -> bool:
        until = time.monotonic() + STORE_WAIT_SECONDS
        while True:
            if all(size == 0 or ask(compare.STORED, origin=origin)[0]["size"] >= size for origin, size in sizes):
                return True
            if time.monotonic() > until or self._stop.wait(0.5):
                return False

    def _publish(self, found: list[Event]) -> None:
        if not found:
            return
        encoder, publisher = EventEncoder(), Publisher(self._logs.cluster, self._logs.signer)
        publisher.publish(Record(event.topic, encoder.encode(event), event.key) for event in found)
        for event in found:
            log.warning("difference", change=event.event_type, key=event.key)
