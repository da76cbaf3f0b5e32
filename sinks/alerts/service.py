"""The alerting process: reads sealed findings into the outbox, while one worker per channel delivers from it.

Kafka and the channels fail independently. The position is in the outbox, written in the transaction that stores the
findings before it; consumer group offsets are not used.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from ...kafka.cluster import Cluster
from ...kafka.errors import KafkaUnavailableError, is_fatal, is_transient
from ...kafka.identity import identify_topics
from ...kafka.offsets import end_offset, first_offset
from ...kafka.options import reader_options
from ...schemas.event import FINDINGS_TOPIC
from ...schemas.topics import sealed
from . import metrics
from .channel import Route
from .database import OutboxError, prepare
from .delivery import Worker
from .finding import printable
from .outbox import Outbox
from .reading import Read, SealedReader, starting_at

log = structlog.get_logger("grantledger.alert")

TOPIC = sealed(FINDINGS_TOPIC)
CHUNK = 100
"""Most batches in one transaction."""
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
    """The process. ``run`` returns after ``stop``. The caller holds the outbox lock.

    Args:
        path: the outbox file.
        first_start_hours: see :class:`.config.AlertConfig`.
        keep: retention of settled records in seconds.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        cluster: Cluster,
        deployment: str,
        path: Path,
        routes: Sequence[Route],
        *,
        first_start_hours: float,
        keep: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cluster, self._deployment, self._path = cluster, deployment, path
        self._routes, self._clock = list(routes), clock
        self._first_start_hours, self._keep = first_start_hours, keep
        self._stopping = threading.Event()
        self._workers: list[Worker] = []
        self._live = False
        self._reached = 0

    def stop(self) -> None:
        """Ask ``run`` to return after the current exchanges. Safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Deliver until stopped.

        Raises:
            OutboxError: the outbox cannot be used.
        """
        try:
            prepare(self._path)
            outbox = Outbox(self._path, self._routes)
            try:
                outbox.configure(self._clock())
                self._workers = [Worker(self._path, route, self._keep, self._clock) for route in self._routes]
                for worker in self._workers:
                    worker.start()
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
            until = time.monotonic() + PAUSE_SECONDS
            while not self._stopping.wait(0.2) and time.monotonic() < until:
                self._raise_worker_failure()

    def _read(self, outbox: Outbox) -> None:
        cluster = self._cluster
        # The calls below retry for long, which would delay a stop.
        cluster.admin.list_topics(cluster.physical(TOPIC), timeout=PROBE_SECONDS)
        identity = identify_topics(cluster, (TOPIC,))[TOPIC]
        first, end = first_offset(cluster, TOPIC, 0), end_offset(cluster, TOPIC, 0)
        position = starting_at(outbox.position(), identity.topic_id.hex(), first, end)
        reader = SealedReader(self._deployment, outbox.catalog())
        # A consumer needs a group name; the group is never joined.
        options = reader_options(self._cluster, f"{self._deployment}-alert") | {"enable.partition.eof": True}
        consumer = Consumer(options)
        try:
            consumer.assign([cluster.partition(TOPIC, 0, position.next_offset)])
            log.info("reading", position=position.next_offset, end=end, first_start=not outbox.caught_up)
            self._live, self._reached = False, position.next_offset
            look = 0.0
            while not self._stopping.is_set():
                self._raise_worker_failure()
                messages = consumer.consume(1, 0.2)
                messages += consumer.consume(CHUNK - 1, 0.0) if messages else []
                position = self._take(outbox, reader, messages, Read(position)).position
                if time.monotonic() >= look:
                    self._measure(consumer, position.next_offset)
                    look = time.monotonic() + LOOK_SECONDS
        finally:
            consumer.close()

    def _take(self, outbox: Outbox, reader: SealedReader, messages: Sequence[Message], read: Read) -> Read:
        ended, some = False, False
        for message in messages:
            error = message.error()
            if error is None:
                reader.add(read, message.value(), message.offset() or 0)
                ended, some = False, True
                if len(read.findings) >= MANY:
                    read, some = self._store(outbox, read), False
            elif error.code() == KafkaError._PARTITION_EOF:
                ended, self._reached = True, message.offset() or 0
            elif is_fatal(error) or not (error.retriable() or is_transient(KafkaException(error))):
                raise KafkaUnavailableError(f"reading {TOPIC}: {error.str()} (kafka_bootstrap_servers)")
        if some:
            read = self._store(outbox, read)
        if ended and not self._live:
            for reason, count in outbox.release(read.position, self._clock(), self._first_start_hours).items():
                metrics.SKIPPED.labels(reason).inc(count)
            self._live = True
            self._wake()
        return read

    def _store(self, outbox: Outbox, read: Read) -> Read:
        """Store the read findings in the outbox; return an empty ``Read`` at the same position."""
        now = self._clock()
        if read.oldest_sealed_at is not None and now - read.oldest_sealed_at / 1_000_000 > BACKLOG_SECONDS:
            self._live = False
        new = outbox.take(read.position, read.findings, read.schemas, live=self._live, now=now)
        metrics.POSITION.set(read.position.next_offset)
        metrics.UNREADABLE.inc(read.unreadable)
        metrics.MISSED.inc(read.missed)
        for finding in read.findings:
            metrics.FINDINGS.labels(printable(finding.rule, 60), finding.change).inc()
        if new:
            log.info("findings_stored", events=new, live=self._live, position=read.position.next_offset)
            self._wake()
        return Read(read.position)

    def _wake(self) -> None:
        for worker in self._workers:
            worker.wake()

    def _measure(self, consumer: Consumer, position: int) -> None:
        try:
            _low, high = consumer.get_watermark_offsets(self._cluster.partition(TOPIC, 0), timeout=5.0)
        except KafkaException as error:
            metrics.READING.set(0)
            log.warning("kafka_unavailable", reason=error.args[0].str())
            return
        metrics.READING.set(1)
        metrics.LAG.set(max(0, high - max(position, self._reached)))

    def _raise_worker_failure(self) -> None:
        for worker in self._workers:
            if worker.failure is not None:
                raise OutboxError(f"{worker.name} ended: {worker.failure}") from worker.failure
