"""Runs the sweep: reads the ends of the sealed logs, waits until the store has them, compares and counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import structlog
from prometheus_client import Counter, Gauge

from ...base.errors import DependencyError
from ...base.health import HEALTH
from ...kafka.identity import all_partitions
from ...kafka.offsets import Partition, end_offsets
from ...kafka.publisher import Publisher
from ...kafka.records import is_empty
from ...kafka.sealed_log import SealedLogs, SealedLogStoppedError
from ...ledger.batch import Head
from ...schemas.event import FINDINGS_TOPIC, LIFECYCLE_TOPIC, Event
from ..access import in_micros
from ..watch_policy import EffectivePolicy, WatchPolicy
from . import compare, gaps, never_heard, silences
from .counters import Counters
from .numbered_events import TOPICS, Ask, NumberedEvents, erased_until

log = structlog.get_logger("grantledger.sweep")

DIFFERENCES = Gauge(
    "grantledger_watch_sweep_differences", "Grants on which watch and store differed in two sweeps in a row."
)
SWEEPS = Counter("grantledger_sweeps_total", "Sweeps by result: done, or the reason why not.", ["result"])
LAST_SWEEP = Gauge("grantledger_last_sweep_timestamp_seconds", "Time of the last completed sweep.")
LAST_COUNT = Gauge(
    "grantledger_last_count_timestamp_seconds", "Time of the last sweep that judged the numbers of senders."
)
STORE_WAIT_SECONDS = 50.0
"""How long to wait until the store has caught up with the sealed logs."""
SWEEP_SECONDS = 1800.0
"""Limit of one sweep: ClickHouse may take minutes to answer."""
SEAL_WAIT_SECONDS = 10.0
"""How long to wait until the records that carry numbers are sealed. Meanwhile no number is missing."""


class Sweeper:
    """The sweeping process. ``run`` returns after ``stop``.

    Args:
        logs: the sealed logs; they sign the findings.
        is_live: whether a process writes to the store now.
        open_store: opens the store for reading. Passed in, because a processor imports no sink. Queries raise
            DependencyError if the store does not answer.
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
        self._policy, self._interval = EffectivePolicy(policy), interval
        self._counters = Counters(lambda source: in_micros(self._policy.source_limits(source).gap_wait_seconds))
        self._numbered = NumberedEvents(self._counters, policy.names)
        self._gaps: gaps.GapFindings | None = None
        self._silences = silences.Silences(self._policy)
        self._never_heard = never_heard.NeverHeard(self._policy)
        self._heads: dict[Partition, Head] = {}
        """The heads of the sealed logs that have numbers, as last read."""
        self._expiring = compare.systems_that_expire(policy)
        longest = (policy.default.max_seconds, *(rule.max_seconds for rule in policy.rule))
        self._endless = any(seconds is not None for seconds in longest)
        self._differences: compare.Differences | None = None
        self._named: dict[str, Mapping[str, Any]] = {}
        """The names of the grants in open differences."""
        self._stop = threading.Event()

    def stop(self) -> None:
        """Ask ``run`` to return. Safe in a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Sweep until stopped."""
        HEALTH.waits("start", "sweeps for the first time")
        while not self._stop.is_set():
            HEALTH.turned(within=SWEEP_SECONDS)
            try:
                result = reason = self.sweep_once()
            except DependencyError as error:  # the next sweep may succeed
                log.error("store_fault", reason=str(error).split("\n", 1)[0][:500])
                result, reason = "the store does not answer", str(error)
                self._differences = self._gaps = None  # the next sweep finds unpublished changes again
                self._silences.forget()
                self._never_heard.forget()
            SWEEPS.labels(result).inc()
            HEALTH.settle("start")
            HEALTH.turned(within=self._interval + SWEEP_SECONDS)
            if result == "done":
                LAST_SWEEP.set_to_current_time()
                HEALTH.settle("sweep")
            else:
                HEALTH.waits("sweep", f"cannot sweep, and tries again: {reason}")
                log.warning("not_swept", reason=result)
            self._stop.wait(self._interval if result == "done" else min(self._interval, 5.0))

    def sweep_once(self) -> str:
        """Sweep, and return ``done`` or the reason why not."""
        if not self._is_live():
            return "no store is running"
        now = time.time_ns() // 1000
        partitions = all_partitions(self._logs.cluster, (*TOPICS, FINDINGS_TOPIC))
        inputs = end_offsets(self._logs.cluster, [one for one in partitions if one[0] in TOPICS], committed=False)
        ends = [self._logs.last(*one) for one in partitions if one[0] in (LIFECYCLE_TOPIC, FINDINGS_TOPIC)]
        sizes = [(end.batch.origin, end.head.size) for end in ends if end is not None]
        with self._open_store() as ask:
            if not self._stored(ask, sizes, compare.SHOWN):
                return "the store lags"
            values = {"now": now, "ending": self._expiring, "endless": int(self._endless)}
            view = compare.view_of_store(ask(compare.OPEN_GRANTS, **values), self._policy.stated, now)
            open_findings: dict[str, compare.Deadlines] = {"overdue": {}, compare.RULE: {}}
            rows: dict[str, dict[str, Mapping[str, Any]]] = {"overdue": {}, compare.RULE: {}}
            for row in ask(compare.OPEN_FINDINGS):
                # The key of a difference is an access key already.
                name = row["key"] if row["rule"] == compare.RULE else compare.grant_key_of(row, row["key"])
                if not row["open"]:  # the watch does not report this end again
                    view.leave_out(name, row["deadline_us"])
                    continue
                open_findings[row["rule"]][name], rows[row["rule"]][name] = row["deadline_us"], row
            about_sources = self._judge_sources(ask, inputs, now)
        if self._differences is None:
            self._differences, self._named = compare.Differences(open_findings[compare.RULE]), rows[compare.RULE]
        found = open_findings["overdue"]
        opened, resolved = self._differences.compare(view, found)
        self._named |= {key: view.rows.get(key) or rows["overdue"].get(key, {}) for key, _, _ in opened}
        difference = partial(compare.difference, self._deployment)
        self._publish(
            [difference((key, deadline), now, self._named[key], by=by) for key, deadline, by in opened]
            + [difference(one, now, self._named.pop(one[0], {}), resolved=True) for one in resolved]
            + [
                gaps.source_event(self._deployment, rule, one, now, self._policy.severity(rule))
                for rule, changes in about_sources.items()
                for one in changes
            ]
        )
        DIFFERENCES.set(len(self._differences.open))
        log.info("swept", overdue=len(view.overdue), found=len(found), undecided=len(view.undecided), new=len(opened))
        return "done"

    def _judge_sources(self, ask: Ask, inputs: Mapping[Partition, int], now: int) -> dict[str, list[gaps.SourceChange]]:
        """Read what sources sent up to the ends of the inputs, and return how the findings change, by their rule."""
        try:
            sizes = self._sealed_sizes(inputs)
        except SealedLogStoppedError as error:  # the comparison of access continues
            log.error("sources_not_judged", reason=str(error))
            return {}
        if sizes is None or not self._stored(ask, sizes, compare.STORED):
            log.warning("sources_not_judged", reason="not everything is sealed and stored yet")
            return {}
        self._numbered.read(ask)
        if self._gaps is None:
            self._gaps = gaps.GapFindings(gaps.known_findings(ask, gaps.RULE))
        LAST_COUNT.set_to_current_time()
        erased = erased_until(ask)
        found = {
            gaps.RULE: self._gaps.judge(self._counters.missing(), self._counters.forgotten, now, erased),
            never_heard.RULE: self._never_heard.judge(ask, now, erased),
        }
        if sum(topic == LIFECYCLE_TOPIC for topic, _ in inputs) > 1:
            found[silences.RULE] = self._silences.judge(ask, now, erased)
        return found

    def _sealed_sizes(self, inputs: Mapping[Partition, int]) -> list[tuple[str, int]] | None:
        """Return the size of each sealed log, or None if a log lacks records of its input."""
        until = time.monotonic() + SEAL_WAIT_SECONDS
        for where, end in inputs.items():
            if (head := self._heads.get(where)) is not None and head.next_offset == end:
                continue
            while True:
                last = self._logs.last(*where)
                sealed = last.head.next_offset if last is not None else 0
                if last is not None:
                    self._heads[where] = last.head
                if sealed >= end or is_empty(self._logs.cluster, *where, sealed, end):
                    break
                if time.monotonic() > until or self._stop.wait(0.5):
                    return None
        return [(head.genesis.origin, head.size) for head in self._heads.values()]

    def _stored(self, ask: Ask, sizes: list[tuple[str, int]], query: str) -> bool:
        until = time.monotonic() + STORE_WAIT_SECONDS
        while True:
            reached = ((size, ask(query, origin=origin)) for origin, size in sizes if size > 0)
            if all(rows and rows[0]["size"] >= size for size, rows in reached):
                return True
            if time.monotonic() > until or self._stop.wait(0.5):
                return False

    def _publish(self, found: list[Event]) -> None:
        if not found:
            return
        Publisher(self._logs.cluster, self._logs.signer).publish_events(found)
        for event in found:
            rule = event.finding.rule if event.finding is not None else ""
            log.warning("published", rule=rule, change=event.event_type, key=event.key)
