"""The alerting process: reads verified findings into the outbox, while one worker per channel delivers from it.

Kafka and the channels fail independently. The position is in the outbox, written in the transaction that stores the
findings before it; consumer group offsets are not used.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import structlog
from confluent_kafka import KafkaException

from ...base.health import HEALTH
from ...kafka.errors import KafkaUnavailableError
from ...kafka.identity import identify_topics
from ...kafka.offsets import end_offset, first_offset
from ...kafka.sealed_log import SealedLogProblem, SealedLogReader, SealedLogs
from ...kafka.source_keys_reader import SourceKeysReader
from ...schemas.event import FINDINGS_TOPIC
from ...schemas.topics import sealed
from . import metrics
from .channel import NamedChannel
from .database import OutboxError, prepare
from .delivery import Worker
from .finding import shown_text
from .outbox import Outbox, OutboxPosition
from .reading import FindingsReader, Read, finding_of_problem, starting_at

log = structlog.get_logger("grantledger.alert")

TOPIC = sealed(FINDINGS_TOPIC)
MANY = 1000
"""Findings after which a transaction ends early, because channels wait for it."""
BACKLOG_SECONDS = 60.0
"""A batch sealed longer ago is backlog: its messages wait until the end of the topic has been read."""
LOOK_SECONDS = 15.0
"""Interval of the check of brokers and lag."""
PROBE_SECONDS = 3.0
"""Timeout of the first request to the brokers."""
PAUSE_SECONDS = 5.0
"""Before Kafka is tried again after a failure."""
DRAIN_SECONDS = 70.0
"""At a stop, the current exchange may finish: the longest one takes 60 s."""


class Alerting:
    """The process. ``run`` returns after ``stop``. The caller holds the lock of the outbox at ``path``.

    Settled records are kept for ``keep`` seconds. ``clock``: seconds since 1970.
    """

    def __init__(
        self,
        logs: SealedLogs,
        path: Path,
        channels: Sequence[NamedChannel],
        *,
        first_start_hours: float,
        keep: float,
        storm_after: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._problems: list[SealedLogProblem] = []
        self._logs, self._path = replace(logs, on_problem=self._on_problem), path
        self._publish_problem = logs.on_problem
        self._channels, self._clock = list(channels), clock
        self._first_start_hours, self._keep, self._storm_after = first_start_hours, keep, storm_after
        self._stopping = threading.Event()
        self._workers: list[Worker] = []
        self._live = False

    def stop(self) -> None:
        """Ask ``run`` to return after the current exchanges. Safe in a signal handler."""
        self._stopping.set()

    def _on_problem(self, problem: SealedLogProblem) -> None:
        self._publish_problem(problem)
        if problem.rule == "sealed_log_discontinuous":
            self._problems.append(problem)

    def run(self) -> None:
        """Deliver until stopped.

        Raises:
            SealedLogStoppedError: the sealed log of findings is discontinuous, and an alert reports it.
            OutboxError: the outbox cannot be used.
        """
        try:
            prepare(self._path)
            outbox = Outbox(self._path, self._channels, storm_after=self._storm_after)
            try:
                outbox.configure(self._clock())
                self._workers = [Worker(self._path, named, self._keep, self._clock) for named in self._channels]
                for worker in self._workers:
                    worker.start()
                HEALTH.settle("start")
                while not self._stopping.is_set():
                    self._read_until_failure(outbox)
            finally:
                self._end_workers()
                outbox.close()
        except sqlite3.Error as error:
            raise OutboxError(f"the outbox {self._path} cannot be used: {error}") from error

    def _end_workers(self) -> None:
        for worker in self._workers:
            worker.stop()
        until = time.monotonic() + DRAIN_SECONDS
        for worker in self._workers:
            if worker.ident is not None:
                worker.join(max(0.0, until - time.monotonic()))

    def _read_until_failure(self, outbox: Outbox) -> None:
        try:
            self._read(outbox)
        except (KafkaUnavailableError, KafkaException) as error:
            metrics.READING.set(0)
            reason = error.args[0].str() if isinstance(error, KafkaException) else str(error)
            log.error("kafka_unavailable", reason=reason, action="channels continue; Kafka is retried")
            HEALTH.waits("reading", f"cannot read findings, and tries again: {reason}")
            until = time.monotonic() + PAUSE_SECONDS
            while not self._stopping.wait(0.2) and time.monotonic() < until:
                HEALTH.turned()
                self._raise_worker_failure()

    def _read(self, outbox: Outbox) -> None:
        cluster = self._logs.cluster
        # The calls below retry for long, which would delay a stop.
        cluster.admin.list_topics(cluster.physical(TOPIC), timeout=PROBE_SECONDS)
        topic_id = identify_topics(cluster, (TOPIC,))[TOPIC].topic_id.hex()
        position = starting_at(
            outbox.position(), topic_id, first_offset(cluster, TOPIC, 0), end_offset(cluster, TOPIC, 0)
        )
        findings = FindingsReader(self._logs.deployment, outbox.catalog())
        self._live, measured = False, 0.0
        with (
            closing(SourceKeysReader(self._logs)) as sources,
            self._logs.open(FINDINGS_TOPIC, start=position.next_offset) as reader,
        ):
            log.info("reading", position=reader.position, first_start=not outbox.caught_up)
            HEALTH.waits("reading", "reads the backlog of findings")
            while not self._stopping.is_set():
                self._raise_worker_failure()
                read = Read(position)
                for found in reader.poll(0.2):
                    findings.add(read, found, sources.until(found.batch.newest_append_time_ms()))
                    if len(read.findings) >= MANY:
                        read = Read(self._store(outbox, read))
                if read.oldest_sealed_at is not None:
                    read.position = replace(read.position, next_offset=reader.position)
                    self._store(outbox, read)
                position = read.position
                if reader.at_end or reader.stopped:
                    self._release(outbox, position)
                if reader.stopped:
                    self._alert_and_stop(outbox, position, reader)
                if time.monotonic() >= measured + LOOK_SECONDS:
                    measured = time.monotonic()
                    metrics.READING.set(1)
                    metrics.LAG.set(max(0, end_offset(cluster, TOPIC, 0) - reader.position))

    def _store(self, outbox: Outbox, read: Read) -> OutboxPosition:
        """Store the read findings in the outbox; return the position after them."""
        now = self._clock()
        if read.oldest_sealed_at is not None and now - read.oldest_sealed_at / 1_000_000 > BACKLOG_SECONDS:
            self._live = False
        new = outbox.take(read.position, read.findings, read.schemas, live=self._live, now=now, policy=read.policy)
        metrics.POSITION.set(read.position.next_offset)
        metrics.UNREADABLE.inc(read.unreadable)
        metrics.UNSIGNED.inc(read.unsigned)
        metrics.MISSED.inc(read.missed)
        for finding in read.findings:
            metrics.FINDINGS.labels(shown_text(finding.rule, 60), finding.change).inc()
        if new:
            log.info("findings_stored", events=new, live=self._live, position=read.position.next_offset)
            self._wake()
        return read.position

    def _release(self, outbox: Outbox, position: OutboxPosition) -> None:
        """Release the messages of the backlog at its end."""
        HEALTH.settle("reading")
        if not self._live:
            for reason, count in outbox.release(position, self._clock(), self._first_start_hours).items():
                metrics.SKIPPED.labels(reason).inc(count)
            self._live = True
            self._wake()

    def _alert_and_stop(self, outbox: Outbox, position: OutboxPosition, reader: SealedLogReader) -> None:
        """Alert that the log of findings cannot be read any more, wait until all channels have it, and stop."""
        problems = [finding_of_problem(self._logs.deployment, one) for one in self._problems]
        outbox.take(position, problems, [], live=True, now=self._clock())
        self._wake()
        metrics.READING.set(0)
        HEALTH.waits("reading", f"{TOPIC} is discontinuous: see docs/runbooks/sealed_log_discontinuous.md")
        while outbox.undelivered() and not self._stopping.wait(0.2):
            self._raise_worker_failure()
        reader.check_not_stopped()

    def _wake(self) -> None:
        for worker in self._workers:
            worker.wake()

    def _raise_worker_failure(self) -> None:
        for worker in self._workers:
            if worker.failure is not None:
                raise OutboxError(f"{worker.name} ended: {worker.failure}") from worker.failure
