"""The sealer: chains and signs every committed record in partition order (DESIGN sections 4 and 5).

It never decodes a value. One Kafka transaction carries the sealed batches and the input offsets, so what is sealed and
what is read can never disagree. All of its memory is the tail of the sealed partitions: kill it at any point, and the
next one goes on from there.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import structlog
from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from ..base.errors import DependencyError
from ..kafka.cluster import Cluster
from ..kafka.errors import is_fatal, is_transient, unavailable
from ..kafka.identity import TopicIdentity
from ..kafka.offsets import committed_offsets
from ..kafka.options import reader_options, transactional_options
from ..kafka.transactions import insist
from ..ledger import batch as batches
from ..ledger.batch import MAX_ENTRIES, MAX_PAYLOAD_BYTES, Records, SealedBatch
from ..ledger.entry import FLAG_LOG_APPEND_TIME, NO_HEADERS, encode_headers, origin_of
from ..ledger.keys import Signer
from ..schemas.codec import EventEncoder
from ..schemas.event import FINDINGS_TOPIC, Event
from ..schemas.topics import INPUT_TOPICS, seal_group, sealed
from . import metrics
from .held_log import HeldLog, linger_of
from .notices import finding_opened
from .partition_state import anchored_heads, identify, read_state
from .resume import SealingStoppedError, resume

log = structlog.get_logger("grantledger.seal")

CONSUME_AT_ONCE = 1000
"""Records a poll: 100 to 1,000 is where confluent-kafka is fastest (DESIGN section 7)."""
BATCHES_PER_TRANSACTION = 4
"""Full batches that share one commit under load; a commit costs about as much as hashing a thousand entries."""
UNREADABLE_HEADERS: list[tuple[str, bytes | None]] = [("grantledger/unreadable-headers", None)]
"""Sealed in the place of headers that the client library cannot read, so that such a record stops nobody."""
_headers_of = operator.methodcaller("headers")
"""For a name that is no UTF-8, confluent-kafka 2.16 returns a tuple with a hole in it and leaves an exception behind.
Called this way that is a SystemError; as a method call in a hot loop, Python does not look, and crashes on the hole."""

Partition = tuple[str, int]


class SealerLostError(DependencyError):
    """This process may not go on: fenced off by another one, or its transaction failed. Starting again is safe."""


@dataclass(frozen=True, slots=True)
class SealerConfig:
    """What a sealer needs to know. Times in seconds."""

    deployment: str
    instance: str = "0"
    linger: float = 1.0
    restate: float = 86_400.0


class Sealer:
    """One sealing process. ``run`` returns after ``stop``; everything happens on the calling thread."""

    def __init__(
        self,
        cluster: Cluster,
        config: SealerConfig,
        signer: Signer,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster, self._config, self._signer = cluster, config, signer
        self._clock, self._now = clock, now
        member = f"{config.deployment}-seal-{config.instance}"
        self._producer = Producer(transactional_options(self._cluster, member))
        self._consumer = Consumer(reader_options(self._cluster, seal_group(config.deployment), member=member))
        self._encoder = EventEncoder()
        self._logs: dict[Partition, HeldLog] = {}
        self._notices: list[Event] = []
        self._noticed: set[tuple[str, str]] = set()
        self._stopping = False
        self._failure: BaseException | None = None
        self._moved = False
        self._identities: dict[str, TopicIdentity] = {}
        self._topics = {cluster.physical(topic): topic for topic in INPUT_TOPICS}

    def stop(self) -> None:
        """Ask ``run`` to seal what it has read, and to return. Safe in a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Seal until stopped.

        Raises:
            SealerLostError: another process took this one's place, or a transaction cannot be finished.
            SealingStoppedError: no partition may be sealed until a person has looked.
            KafkaUnavailableError: the brokers do not answer.
        """
        try:
            insist(self._producer.init_transactions, lambda: self._stopping)
            self._identities = identify(self._cluster)
            names, on_revoke = list(self._topics), self._on_revoke
            self._consumer.subscribe(names, on_assign=self._on_assign, on_revoke=on_revoke, on_lost=on_revoke)
            while not self._stopping:
                self._step()
            self._flush()
        except SealingStoppedError as error:
            self._record_stop(error)
            raise
        except KafkaException as error:
            if is_transient(error):
                raise unavailable("sealing cannot go on", error) from error
            raise SealerLostError(f"sealing cannot go on: {error.args[0].str()}") from error
        finally:
            self._consumer.close()

    def _check_topics(self) -> None:
        """Make sure that what was read came from the topics that were assigned.

        Nothing else tells: a topic that was deleted and made again is read on at the old offset as if nothing were. A
        topic id never comes back, so an id that is still the same now was the same while we read.
        """
        if identify(self._cluster) != self._identities:
            raise SealerLostError("a topic was deleted and made again, or has other partitions: start again")

    def _record_stop(self, stop: SealingStoppedError) -> None:
        """Put the findings on record although this process seals nothing any more."""
        if not self._notices:
            deployment, at = self._config.deployment, self._now().isoformat()
            self._notice(stop.rule, deployment, "critical", {"reason": str(stop)}, at)
        try:
            self._transact({}, None)
        except KafkaException as error:
            log.error("findings_not_recorded", reason=error.args[0].str(), findings=len(self._notices))

    def _step(self) -> None:
        # Captured before polling: if the group moves on while we hold records, the commit is refused, not forked.
        membership = self._consumer.consumer_group_metadata()
        ripe = min((held.ripe_at() for held in self._logs.values()), default=math.inf)
        wait = max(0.0, min(0.1, ripe - self._clock()))
        messages = self._consumer.consume(CONSUME_AT_ONCE, wait)
        if self._failure is not None:
            raise self._failure
        if messages:
            self._take(messages)
        if self._moved:  # the membership captured above is of before: write with the next one
            self._moved = False
        elif self._due():
            self._flush(membership, self._clock())

    def _due(self) -> bool:
        if sum(len(log.full) for log in self._logs.values()) >= BATCHES_PER_TRANSACTION:
            return True
        if any(log.unwritten for log in self._logs.values()) or self._notices:
            return True
        now = self._clock()
        return any(log.ripe_at() <= now or now - log.restated >= self._config.restate for log in self._logs.values())

    def _take(self, messages: list[Message]) -> None:
        """Put records into their logs' columns. The hot path: a method call a field, and nothing else."""
        logs, topics, headers_of = self._logs, self._topics, _headers_of
        for message in messages:
            error = message.error()
            if error is not None:
                self._on_error(error, message)
                continue
            where = (topics[message.topic()], message.partition())  # type: ignore[index]
            held = logs.get(where)  # type: ignore[arg-type]
            if held is None:  # a stopped partition, paused a moment ago
                continue
            kind, time_ms = message.timestamp()
            key, value = message.key(), message.value()
            try:
                headers = headers_of(message)
            except SystemError:
                headers = UNREADABLE_HEADERS
            encoded = encode_headers(headers) if headers else NO_HEADERS
            size = (len(value) if value else 0) + (len(key) if key else 0) + len(encoded)
            records = held.records
            if records.offsets and (len(records.offsets) >= MAX_ENTRIES or held.payload + size > MAX_PAYLOAD_BYTES):
                self._close_batch(held)
                records = held.records
            records.flags.append(FLAG_LOG_APPEND_TIME if kind == TIMESTAMP_LOG_APPEND_TIME else 0)
            records.offsets.append(message.offset())  # type: ignore[arg-type]
            records.append_times.append(time_ms)
            records.keys.append(key)
            records.values.append(value)
            records.headers.append(encoded)
            held.payload += size
        now = self._clock()
        for held in logs.values():
            if held.since is None and held.records.offsets:
                held.since = now

    def _close_batch(self, held: HeldLog, position: int = 0) -> None:
        """Seal what has been read of a partition.

        Args:
            position: where reading goes on, when everything read is in hand: transaction markers and aborted records
                behind the last record are passed, or retention would one day seem to have taken unsealed records.
        """
        records = held.records
        next_offset = held.next_head.next_offset
        if records.offsets:
            if records.offsets[0] < next_offset or any(map(operator.ge, records.offsets, records.offsets[1:])):
                raise SealerLostError(f"{held.head.genesis.origin}: records came out of order; they are read again")
            next_offset = records.offsets[-1] + 1
        next_offset = max(next_offset, position)
        held.full.append(batches.seal(held.next_head, records, next_offset, self._now(), self._signer))
        held.records, held.payload = Records(), 0

    def _flush(self, membership: Any = None, ripe: float = math.inf) -> None:
        """Write what was read of the logs that are ripe by a time, and all full batches, in one transaction."""
        now = self._clock()
        positions = {
            (self._topics[at.topic], at.partition): at.offset
            for at in self._consumer.position([self._cluster.partition(*where) for where in self._logs])
        }
        for where, held in self._logs.items():
            if (
                (held.records.offsets and held.ripe_at() <= ripe)
                or held.unwritten
                or now - held.restated >= self._config.restate
            ):
                self._close_batch(held, positions[where])
        work = {where: held for where, held in self._logs.items() if held.full}
        if not work and not self._notices:
            return
        for where, held in work.items():
            self._look_at_flags(where, held)
        self._check_topics()
        started = time.perf_counter()
        try:
            self._transact(work, membership or self._consumer.consumer_group_metadata())
        except KafkaException as error:
            metrics.SEAL_TRANSACTIONS.labels("failed").inc()
            self._recover(error)
            return
        metrics.SEAL_TRANSACTIONS.labels("committed").inc()
        metrics.SEAL_SECONDS.observe(time.perf_counter() - started)
        metrics.LAST_CHECKPOINT.set_to_current_time()
        self._notices.clear()
        for (topic, partition), held in work.items():
            entries = sum(batch.count for batch, _ in held.full)
            metrics.SEALED_ENTRIES.labels(topic).inc(entries)
            metrics.SEALED_BATCHES.labels(topic).inc(len(held.full))
            held.head = held.full[-1][1]
            metrics.stands_at((topic, partition), held.head.size, held.head.next_offset)
            held.full, held.unwritten, held.restated = [], False, now
            held.since = now if held.records.offsets else None

    def _transact(self, work: dict[Partition, HeldLog], membership: Any) -> None:
        producer = self._producer
        producer.begin_transaction()
        positions = []
        for (topic, partition), held in work.items():
            for batch, _ in held.full:
                value = batches.encode(batch)
                metrics.SEALED_BYTES.labels(topic).inc(len(value))
                self._produce(sealed(topic), value, batch.origin, partition)
            positions.append(self._cluster.partition(topic, partition, held.full[-1][1].next_offset))
        for notice in self._notices:
            self._produce(FINDINGS_TOPIC, self._encoder.encode(notice), notice.key, 0)
        if positions:
            send = partial(producer.send_offsets_to_transaction, positions, membership)
            insist(send, lambda: self._stopping)
        insist(producer.commit_transaction, lambda: self._stopping)

    def _produce(self, topic: str, value: bytes, key: str, partition: int) -> None:
        while True:
            try:
                self._producer.produce(self._cluster.physical(topic), value, key, partition)
            except BufferError:
                self._producer.poll(0.5)
            else:
                return

    def _recover(self, error: KafkaException) -> None:
        """Throw the unfinished transaction away and read again from the last committed head, or give up the process."""
        problem: KafkaError = error.args[0]
        if problem.retriable() and not problem.txn_requires_abort():
            raise unavailable("the sealing transaction did not get through", error) from error
        if problem.fatal() or not problem.txn_requires_abort():
            raise SealerLostError(
                f"the sealing transaction failed: {problem.str()}. If another sealer runs, give each its own "
                "GRANTLEDGER_SEALER_INSTANCE."
            ) from error
        log.warning("transaction_aborted", error=problem.name())
        insist(self._producer.abort_transaction, lambda: self._stopping)
        for (topic, partition), held in self._logs.items():
            held.full, held.records, held.payload, held.since = [], Records(), 0, None
            self._consumer.seek(self._cluster.partition(topic, partition, held.head.next_offset))

    def _on_error(self, error: KafkaError, message: Message) -> None:
        if is_fatal(error):
            raise SealerLostError(
                f"this sealer lost its place in the group: {error.str()}. If another sealer runs, give each its own "
                "GRANTLEDGER_SEALER_INSTANCE."
            )
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise SealerLostError(f"reading {message.topic()} partition {message.partition()}: {error.str()}")
        log.warning("consume_error", error=error.name(), detail=error.str())

    def _look_at_flags(self, where: Partition, held: HeldLog) -> None:
        """A record whose time the sender set is sealed all the same, and somebody hears of it."""
        for batch, _ in held.full:
            odd = batch.flags.count(0)
            if not odd:
                continue
            metrics.SENDER_TIMED.labels(where[0]).inc(odd)
            index = batch.first_index + batch.flags.find(0)
            self._notice("sender_timed", batch.origin, "warning", {"first_index": index, "entries": odd}, str(index))

    def _notice(self, rule: str, key: str, severity: str, evidence: dict[str, object], identity: str) -> None:
        """Open a finding, once a process for each rule and key."""
        if (rule, key) not in self._noticed:
            self._noticed.add((rule, key))
            self._notices.append(
                finding_opened(
                    self._config.deployment,
                    rule=rule,
                    key=key,
                    severity=severity,
                    evidence=evidence,
                    at=self._now(),
                    identity=identity,
                )
            )

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._moved = True
        try:
            self._assign(consumer, partitions)
        except BaseException as error:  # librdkafka would swallow it: raise it on our own stack instead
            self._failure = error

    def _assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        starts: list[TopicPartition] = []
        stopped: list[SealingStoppedError] = []
        self._identities = identify(self._cluster)
        anchored = anchored_heads(self._cluster)
        committed = committed_offsets(self._cluster, consumer, partitions)
        for partition in partitions:
            where = (self._topics[partition.topic], partition.partition)
            try:
                state = read_state(
                    self._cluster,
                    self._config.deployment,
                    where,
                    topic_id=self._identities[where[0]].topic_id,
                    committed=committed[where],
                    anchored=anchored,
                )
                head = resume(state, self._signer.public_key)
            except SealingStoppedError as error:
                stopped.append(error)
                metrics.SEAL_STOPPED.labels(*map(str, where)).set(1)
                log.error("partition_stopped", topic=where[0], partition=where[1], rule=error.rule, reason=str(error))
                origin = origin_of(self._config.deployment, *where)
                self._notice(error.rule, origin, "critical", {"reason": str(error)}, self._now().isoformat())
                continue
            metrics.SEAL_STOPPED.labels(*map(str, where)).set(0)
            restated, linger = self._clock() - self._age(state.tail), linger_of(where[0], self._config.linger)
            self._logs[where] = HeldLog(head, restated, linger, unwritten=state.tail is None)
            metrics.stands_at(where, head.size, head.next_offset)
            starts.append(self._cluster.partition(*where, head.next_offset))
            log.info("partition_assigned", origin=head.genesis.origin, size=head.size, next_offset=head.next_offset)
        if stopped and not starts:
            raise SealingStoppedError(stopped[0].rule, f"every partition is stopped; the first: {stopped[0]}")
        consumer.assign(starts)

    def _age(self, tail: SealedBatch | None) -> float:
        """Seconds since the head was stated last, by whichever sealer: many short runs must not put it off for ever."""
        return max(0.0, (self._now() - tail.sealed_at).total_seconds()) if tail is not None else 0.0

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Whatever is in hand belongs to the next owner, who reads it again."""
        del consumer
        self._moved = True
        for partition in partitions:
            self._logs.pop((self._topics[partition.topic], partition.partition), None)
