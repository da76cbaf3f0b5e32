"""Runs the sweep: asks Kafka how far the logs go, waits until ClickHouse has that much, asks it, says what differs."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager
from typing import Any, Protocol

import structlog
from prometheus_client import Counter, Gauge

from ...base.errors import DependencyError
from ...kafka.cluster import Cluster
from ...kafka.publisher import Publisher, Record
from ...kafka.records import last_record
from ...ledger import batch as batches
from ...schemas.codec import EventEncoder
from ...schemas.event import FINDINGS_TOPIC, LIFECYCLE_TOPIC, Event
from ...schemas.topics import sealed
from ..watch.policy import Policy
from ..watch.reports import short
from . import compare as sweep

log = structlog.get_logger("grantledger.sweep")

DIFFERENCES = Gauge(
    "grantledger_watch_sweep_differences", "Grants on which the watch and the store do not agree, two sweeps in a row."
)
SWEEPS = Counter("grantledger_sweeps_total", "Sweeps, by result: done, or why not.", ["result"])
LAST_SWEEP = Gauge("grantledger_last_sweep_timestamp_seconds", "When the last sweep was done.")
PATIENCE = 50.0
"""Seconds to wait until the store has what is sealed."""


class Ask(Protocol):
    """Runs one SQL query with named parameters and returns its rows."""

    def __call__(self, sql: str, **values: object) -> list[dict[str, Any]]:
        """Return the rows.

        Raises:
            DependencyError: the store does not answer.
        """
        ...


class StoreReader(Protocol):
    """How the sweep reads the store. The runtime passes it in: a processor imports no sink."""

    def is_live(self) -> bool:
        """Whether something writes to the store now."""
        ...

    def open(self) -> AbstractContextManager[Ask]:
        """Open the store for reading.

        Raises:
            DependencyError: the store does not answer.
        """
        ...


class Sweeper:
    """The sweeping process. ``run`` returns after ``stop``.

    Args:
        interval: seconds between two sweeps.
    """

    def __init__(
        self,
        cluster: Cluster,
        deployment: str,
        *,
        store: StoreReader,
        policy: Policy,
        interval: float,
    ) -> None:
        self._cluster, self._deployment = cluster, deployment
        self._store, self._policy, self._interval = store, policy, interval
        self._ending = sweep.ending_by_themselves(policy)
        longest = (policy.default.max_seconds, *(rule.max_seconds for rule in policy.rule))
        self._endless = any(seconds is not None for seconds in longest)
        self._differences: sweep.Differences | None = None
        self._stop = threading.Event()

    def stop(self) -> None:
        """Ask ``run`` to return. Safe in a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Sweep until stopped.

        Raises:
            KafkaUnavailableError: the brokers do not answer.
        """
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
        """Sweep, and return ``done`` or why it could not be done."""
        if not self._store.is_live():
            return "no store is running"
        now = time.time_ns() // 1000
        sizes = [self._sealed(LIFECYCLE_TOPIC), self._sealed(FINDINGS_TOPIC)]
        with self._store.open() as ask:
            if not self._stored(ask, sizes):
                return "the store lags"
            values = {"now": now, "ending": self._ending, "endless": int(self._endless)}
            verdict = sweep.judged(ask(sweep.OPEN_GRANTS, **values), self._policy, now)
            said: dict[str, sweep.Cases] = {"overdue": {}, sweep.RULE: {}}
            for row in ask(sweep.OPEN_FINDINGS):
                said[row["rule"]][short(row["key"])] = row["due"]
        if self._differences is None:
            self._differences = sweep.Differences(said[sweep.RULE])
        found = said["overdue"]
        opened, resolved = self._differences.compare(verdict, found)
        self._say(
            [sweep.difference(self._deployment, (key, due), now, by=by) for key, due, by in opened]
            + [sweep.difference(self._deployment, case, now, resolved=True) for case in resolved]
        )
        DIFFERENCES.set(len(self._differences.open))
        log.info("swept", overdue=len(verdict.overdue), found=len(found), unsure=len(verdict.unsure), new=len(opened))
        return "done"

    def _sealed(self, topic: str) -> tuple[str, int]:
        """Return origin and size of a log as Kafka has it."""
        record = last_record(self._cluster, sealed(topic), 0)
        if record is None:
            return "", 0
        batch = batches.decode(record.value() or b"")
        return batch.origin, batch.size

    def _stored(self, ask: Ask, sizes: list[tuple[str, int]]) -> bool:
        until = time.monotonic() + PATIENCE
        while True:
            if all(size == 0 or ask(sweep.STORED, origin=origin)[0]["size"] >= size for origin, size in sizes):
                return True
            if time.monotonic() > until or self._stop.wait(0.5):
                return False

    def _say(self, found: list[Event]) -> None:
        if not found:
            return
        encoder = EventEncoder()
        Publisher(self._cluster).publish(Record(event.topic, encoder.encode(event), event.key) for event in found)
        for event in found:
            log.warning("difference", what=event.event_type, key=event.key)
