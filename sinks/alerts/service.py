"""The alerting process: the sealed findings into the outbox, while each channel has a worker that empties it.

Channels go on while Kafka is away, and reading goes on while they are. The position stands in the outbox, in the
transaction with what was read there: no consumer group has a say.
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
from .database import OutboxError, prepare
from .delivery import Worker
from .finding import printable
from .outbox import Outbox, Route
from .reading import Read, SealedReader, starting_at

log = structlog.get_logger("grantledger.alert")

TOPIC = sealed(FINDINGS_TOPIC)
CHUNK = 100
"""Most batches in one transaction."""
MANY = 1000
"""Findings after which a transaction ends before its time: the channels wait while it lasts."""
BACKLOG_SECONDS = 60.0
"""A batch sealed longer ago than this is backlog: what it opens waits until the end has been read."""
LOOK_SECONDS = 15.0
"""How often the brokers are asked whether they are there and how far behind we are."""
PROBE_SECONDS = 3.0
"""How long the brokers have to say that they are there."""
PAUSE_SECONDS = 5.0
"""Before Kafka is asked again after it was away."""
DRAIN_SECONDS = 70.0
"""Longest exchange with a channel (60 s), and a little: what is under way at a stop is let finish."""


class Alerting:
    """The process. ``run`` returns after ``stop``. Whoever starts it holds the outbox's lock.

    Args:
        path: the outbox's file.
        first_start_hours: see :class:`.config.AlertConfig`.
        keep: seconds for which what is settled is kept.
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
        """Ask ``run`` to return once what is under way has been told or has failed. Safe in a signal handler."""
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
                    self._read_while_kafka_is_there(outbox)
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

    def _read_while_kafka_is_there(self, outbox: Outbox) -> None:
        try:
            self._read(outbox)
        except (KafkaUnavailableError, KafkaException) as error:
            metrics.READING.set(0)
            reason = error.args[0].str() if isinstance(error, KafkaException) else str(error)
            log.error("kafka_away", reason=reason, action="channels go on; asked again")
            until = time.monotonic() + PAUSE_SECONDS
            while not self._stopping.wait(0.2) and time.monotonic() < until:
                self._raise_a_workers_failure()

    def _read(self, outbox: Outbox) -> None:
        cluster = self._cluster
        cluster.admin.list_topics(
            cluster.physical(TOPIC), timeout=PROBE_SECONDS
        )  # what follows is patient, and would keep a stop waiting
        identity = identify_topics(cluster, (TOPIC,))[TOPIC]
        first, end = first_offset(cluster, TOPIC, 0), end_offset(cluster, TOPIC, 0)
        position = starting_at(outbox.position(), identity.topic_id.hex(), first, end)
        reader = SealedReader(self._deployment, outbox.catalog())
        # The group is named because a consumer must name one; it is never joined.
        options = reader_options(self._cluster, f"{self._deployment}-alert") | {"enable.partition.eof": True}
        consumer = Consumer(options)
        try:
            consumer.assign([cluster.partition(TOPIC, 0, position.next_offset)])
            log.info("reading", position=position.next_offset, end=end, first_start=not outbox.caught_up)
            self._live, self._reached = False, position.next_offset
            look = 0.0
            while not self._stopping.is_set():
                self._raise_a_workers_failure()
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
        """Put what was read into the outbox; return what to go on with."""
        now = self._clock()
        if read.oldest_sealed_at is not None and now - read.oldest_sealed_at / 1_000_000 > BACKLOG_SECONDS:
            self._live = False
        new = outbox.take(read.position, read.findings, read.schemas, live=self._live, now=now)
        metrics.POSITION.set(read.position.next_offset)
        metrics.UNREADABLE.inc(read.unreadable)
        metrics.MISSED.inc(read.missed)
        for finding in read.findings:
            metrics.FINDINGS.labels(printable(finding.rule, 60), finding.what).inc()
        if new:
            log.info("taken", findings=new, live=self._live, position=read.position.next_offset)
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
            log.warning("kafka_silent", reason=error.args[0].str())
            return
        metrics.READING.set(1)
        metrics.LAG.set(max(0, high - max(position, self._reached)))

    def _raise_a_workers_failure(self) -> None:
        for worker in self._workers:
            if worker.failure is not None:
                raise OutboxError(f"{worker.name} ended: {worker.failure}") from worker.failure
