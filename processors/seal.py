"""The sealer: chains and signs every committed record in partition order.

It never decodes a value. One Kafka transaction contains the sealed batches and the input offsets, so they can never
disagree. The sealer's only memory is the end of the sealed partitions: after ``kill -9`` the next one resumes there.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from ..base.errors import DependencyError
from ..base.health import HEALTH
from ..kafka.errors import is_fatal, raised_for_people, unavailable
from ..kafka.identity import TopicIdentity
from ..kafka.membership import GroupMember
from ..kafka.offsets import Partition, committed_offsets
from ..kafka.options import reader_options
from ..kafka.sealed_log import SealedLogs
from ..kafka.transactional_writer import TransactionalWriter
from ..ledger import batch as batches
from ..ledger.batch import MAX_ENTRIES, MAX_PAYLOAD_BYTES
from ..ledger.entry import FLAG_LOG_APPEND_TIME, NO_HEADERS, encode_headers, origin_of
from ..ledger.keys import LogSigners
from ..schemas.codec import EventEncoder
from ..schemas.event import FINDINGS_TOPIC, Event
from ..schemas.topics import INPUT_TOPICS, seal_group, sealed
from . import metrics
from .notices import SEALING, finding_opened
from .partition_buffer import PartitionBuffer, RecordOrderError, linger_of
from .partition_state import anchored_heads, identify, read_heads
from .resume import SealingStoppedError

log = structlog.get_logger("grantledger.seal")

RECORDS_PER_POLL = 1000
"""confluent-kafka is fastest at 100 to 1,000."""
BATCHES_PER_TRANSACTION = 4
"""Full batches per transaction under load; a commit costs about as much as hashing a thousand entries."""
UNREADABLE_HEADERS: list[tuple[str, bytes | None]] = [("grantledger/unreadable-headers", None)]
"""Sealed instead of headers that the client library cannot read. Such a record blocks nothing."""
RECHECK_SECONDS = 10.0
"""Seconds between checks of the topics, and whether a person has opened the next epoch of a stopped log."""
SHOW_SECONDS = 1.0
"""Seconds between two updates of the positions while no records arrive."""
SAME_INSTANCE = "If another sealer runs, give each its own GRANTLEDGER_SEALER_INSTANCE."
_headers_of = operator.methodcaller("headers")
"""If a header name is not UTF-8, confluent-kafka 2.16 returns a tuple with a null pointer and leaves an exception set.
``methodcaller`` turns that into a SystemError. A plain method call in a hot loop does not check, and crashes."""


class SealerLostError(DependencyError):
    """This process cannot continue: another one fenced it off, or a transaction failed. A restart is safe."""


@dataclass(frozen=True, slots=True)
class SealerConfig:
    """Settings of a sealer. Times in seconds."""

    instance: str = "0"
    linger: float = 1.0
    restate: float = 86_400.0


class Sealer:
    """One sealing process. ``run`` returns after ``stop``; everything happens on the calling thread."""

    def __init__(
        self,
        logs: SealedLogs,
        config: SealerConfig,
        signers: LogSigners,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._logs, self._cluster, self._config, self._signers = logs, logs.cluster, config, signers
        self._clock, self._now = clock, now
        member = f"{logs.deployment}-seal-{config.instance}"
        self._writer = TransactionalWriter(self._cluster, member, signer=logs.signer, stopping=lambda: self._stopping)
        group = seal_group(logs.deployment)
        self._consumer = Consumer(reader_options(self._cluster, group, member=member))
        self._member = GroupMember(self._cluster, group, self._consumer, INPUT_TOPICS)
        self._topics = {self._cluster.physical(topic): topic for topic in INPUT_TOPICS}
        self._encoder = EventEncoder()
        self._buffers: dict[Partition, PartitionBuffer] = {}
        self._findings: list[Event] = []
        self._reported: set[tuple[str, str]] = set()
        self._stopping = False
        self._failure: BaseException | None = None
        self._rebalanced = False
        self._stopped: list[Partition] = []
        self._recheck_at = self._check_topics_at = self._show_at = 0.0
        self._identities: dict[str, TopicIdentity] = {}

    def stop(self) -> None:
        """Ask ``run`` to seal the records it has read, and to return. Safe in a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Seal until stopped.

        Raises:
            SealerLostError: another process took over, or a transaction cannot be finished.
            SealingStoppedError: every partition is stopped until a person has examined it.
            KafkaUnavailableError: the brokers do not answer.
        """
        try:
            with raised_for_people("sealing cannot continue", lambda why: SealerLostError(f"{why}. {SAME_INSTANCE}")):
                self._run()
        except SealingStoppedError as error:
            self._record_stop(error)
            raise
        except RecordOrderError as error:
            raise SealerLostError(str(error)) from error
        finally:
            self._consumer.close()

    def _run(self) -> None:
        self._writer.init()
        self._identities = identify(self._cluster)
        self._member.subscribe(self._on_assign, self._on_revoke)
        while not self._stopping:
            self._step()
            self._member.rejoin_if_forgotten()
            if self._clock() >= self._check_topics_at:  # an idle log would commit nothing, and notice nothing
                self._check_topics_at = self._clock() + RECHECK_SECONDS
                self._check_topics()
        self._flush()

    def _check_topics(self) -> None:
        """Make sure that the records came from the topics that were assigned.

        Clients do not notice when a topic is deleted and created again: they continue at the old offset. Topic ids are
        never reused, so an id that is unchanged now was unchanged while we read. Stopped topics may change.
        """
        now, sealing = identify(self._cluster), {topic for topic, _ in self._buffers}
        if any(now[name] != self._identities[name] for topic in sealing for name in (topic, sealed(topic))):
            raise SealerLostError("a topic was deleted and created again, or its partitions changed: restart")

    def _record_stop(self, stop: SealingStoppedError) -> None:
        """Write the findings although this process seals nothing any more."""
        if not self._findings:
            deployment, at = self._logs.deployment, self._now().isoformat()
            self._report(stop.rule, deployment, {"reason": str(stop)}, at)
        try:
            self._transact({}, None)
        except KafkaException as error:
            log.error("findings_not_recorded", reason=error.args[0].str(), findings=len(self._findings))

    def _step(self) -> None:
        HEALTH.turned()
        # Captured before polling: if the group moves on while we hold records, the commit is refused and nothing forks.
        membership = self._consumer.consumer_group_metadata()
        due_at = min((buffer.due_at() for buffer in self._buffers.values()), default=math.inf)
        messages = self._consumer.consume(RECORDS_PER_POLL, max(0.0, min(0.1, due_at - self._clock())))
        if self._failure is not None:
            raise self._failure
        if messages:
            self._take(messages)
        elif self._clock() >= self._show_at:
            self._show_at = self._clock() + SHOW_SECONDS
            self._show_positions()
        if self._rebalanced:  # the membership above is outdated: write with the next one
            self._rebalanced = False
        elif self._stopped and self._clock() >= self._recheck_at:
            self._resume_reopened()
        elif self._is_due():
            self._flush(membership, self._clock())

    def _is_due(self) -> bool:
        buffers, now = self._buffers.values(), self._clock()
        if self._findings or sum(len(buffer.batches) for buffer in buffers) >= BATCHES_PER_TRANSACTION:
            return True
        return any(buffer.is_due(now, self._config.restate, self._signers) for buffer in buffers)

    def _take(self, messages: list[Message]) -> None:
        """Append records to the columns of their buffers. The hot path: one method call per field, nothing else."""
        buffers, topics, headers_of = self._buffers, self._topics, _headers_of
        for message in messages:
            error = message.error()
            if error is not None:
                self._on_error(error, message)
                continue
            buffer = buffers.get((topics[message.topic()], message.partition()))  # type: ignore[index, arg-type]
            if buffer is None:  # of a stopped partition, or of one that was revoked a moment ago
                continue
            kind, time_ms = message.timestamp()
            key, value = message.key(), message.value()
            try:
                headers = headers_of(message)
            except SystemError:
                headers = UNREADABLE_HEADERS
            encoded = encode_headers(headers) if headers else NO_HEADERS
            size = (len(value) if value else 0) + (len(key) if key else 0) + len(encoded)
            records = buffer.records
            if records.offsets and (len(records.offsets) >= MAX_ENTRIES or buffer.payload + size > MAX_PAYLOAD_BYTES):
                buffer.seal(self._signers, self._now())
                records = buffer.records
            records.flags.append(FLAG_LOG_APPEND_TIME if kind == TIMESTAMP_LOG_APPEND_TIME else 0)
            records.offsets.append(message.offset())  # type: ignore[arg-type]
            records.append_times.append(time_ms)
            records.keys.append(key)
            records.values.append(value)
            records.headers.append(encoded)
            buffer.payload += size
        now = self._clock()
        for buffer in buffers.values():
            if buffer.oldest_at is None and buffer.records.offsets:
                buffer.oldest_at = now

    def _flush(self, membership: Any = None, due_by: float = math.inf) -> None:
        """Commit everything that is due in one transaction. The order of the steps makes it exactly once.

        Args:
            membership: this process's place in the group from before the records were read.
            due_by: seal the records of buffers that are due at this time or earlier.
        """
        # 1. Seal the buffers that are due. All records before a consumer position are in the buffers.
        now = self._clock()
        positions = self._positions()
        for partition, buffer in self._buffers.items():
            records_due = buffer.records.offsets and buffer.due_at() <= due_by
            if records_due or buffer.must_state_head(now, self._config.restate, self._signers):
                buffer.seal(self._signers, self._now(), positions[partition])
        sealed_buffers = {partition: buffer for partition, buffer in self._buffers.items() if buffer.batches}
        if not sealed_buffers and not self._findings:
            return
        # 2. Report records whose sender set the time. The findings go into the same transaction.
        for (topic, _), buffer in sealed_buffers.items():
            self._report_sender_times(topic, buffer)
        # 3. Check that the topics are still those that were read.
        self._check_topics()
        # 4. Write the transaction. If it fails, discard the batches and read the records again.
        started = time.perf_counter()
        try:
            self._transact(sealed_buffers, membership or self._consumer.consumer_group_metadata())
        except KafkaException as error:
            metrics.SEAL_TRANSACTIONS.labels("failed").inc()
            self._recover(error)
            return
        # 5. Only now advance the heads.
        metrics.SEAL_TRANSACTIONS.labels("committed").inc()
        metrics.SEAL_SECONDS.observe(time.perf_counter() - started)
        metrics.LAST_CHECKPOINT.set_to_current_time()
        self._findings.clear()
        for (topic, number), buffer in sealed_buffers.items():
            metrics.SEALED_ENTRIES.labels(topic).inc(sum(batch.count for batch, _ in buffer.batches))
            metrics.SEALED_BATCHES.labels(topic).inc(len(buffer.batches))
            buffer.committed(now)
            metrics.show_head((topic, number), buffer.head.size, buffer.head.next_offset)

    def _positions(self) -> dict[Partition, int]:
        """Return the offset from which each partition is read next; negative before the first record."""
        partitions = [self._cluster.partition(*partition) for partition in self._buffers]
        return {(self._topics[at.topic], at.partition): at.offset for at in self._consumer.position(partitions)}

    def _show_positions(self) -> None:
        """Let the gauge pass transaction markers after the last record, which no batch contains."""
        positions = self._positions()
        for partition, buffer in self._buffers.items():
            if not buffer.records.offsets and not buffer.batches:
                metrics.show_head(partition, buffer.head.size, max(positions[partition], buffer.head.next_offset))

    def _transact(self, sealed_buffers: dict[Partition, PartitionBuffer], membership: Any) -> None:
        writer = self._writer
        # 1. Begin.
        writer.begin()
        # 2. Add the sealed batches, and the findings.
        for (topic, partition), buffer in sealed_buffers.items():
            for batch, _ in buffer.batches:
                value = batches.encode(batch)
                metrics.SEALED_BYTES.labels(topic).inc(len(value))
                writer.produce(sealed(topic), value, batch.origin, partition)
        for finding in self._findings:
            writer.produce(FINDINGS_TOPIC, self._encoder.encode(finding), finding.key, 0)
        # 3. Add the input offsets at which these batches end. The broker refuses them if the group has moved on.
        offsets = {partition: buffer.next_head.next_offset for partition, buffer in sealed_buffers.items()}
        if offsets:
            writer.send_offsets(offsets, membership)
        # 4. Commit. Batches and offsets become visible together.
        writer.commit()

    def _recover(self, error: KafkaException) -> None:
        """Abort a failed transaction and return to the committed heads, or give up the process."""
        problem: KafkaError = error.args[0]
        # 1. Give up if the brokers did not answer in time: the result is unknown, and only a new start finds it out.
        if problem.retriable() and not problem.txn_requires_abort():
            raise unavailable("the sealing transaction did not succeed", error) from error
        # 2. Give up if another process has fenced this one off.
        if problem.fatal() or not problem.txn_requires_abort():
            raise SealerLostError(f"the sealing transaction failed: {problem.str()}. {SAME_INSTANCE}") from error
        # 3. Abort the transaction.
        log.warning("transaction_aborted", error=problem.name())
        self._writer.abort()
        # 4. Discard the records read since the committed heads, and read them again.
        for (topic, partition), buffer in self._buffers.items():
            buffer.discard()
            self._consumer.seek(self._cluster.partition(topic, partition, buffer.head.next_offset))

    def _on_error(self, error: KafkaError, message: Message) -> None:
        if is_fatal(error):
            raise SealerLostError(f"this sealer lost its place in the group: {error.str()}. {SAME_INSTANCE}")
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise SealerLostError(f"reading {message.topic()} partition {message.partition()}: {error.str()}")
        log.warning("consume_error", error=error.name(), detail=error.str())

    def _report_sender_times(self, topic: str, buffer: PartitionBuffer) -> None:
        """Report records whose time the sender set. They are sealed all the same."""
        for batch, _ in buffer.batches:
            if count := batch.flags.count(0):
                metrics.SENDER_TIMED.labels(topic).inc(count)
                index = batch.first_index + batch.flags.find(0)
                self._report("sender_timed", batch.origin, {"first_index": index, "entries": count}, str(index))

    def _report(self, rule: str, key: str, evidence: dict[str, object], identity: str) -> None:
        """Open a finding, once per process for each rule and key."""
        if (rule, key) not in self._reported:
            self._reported.add((rule, key))
            deployment, at = self._logs.deployment, self._now()
            self._findings.append(
                finding_opened(deployment, SEALING, rule=rule, key=key, evidence=evidence, at=at, identity=identity)
            )

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._rebalanced = True
        try:
            self._assign(consumer, partitions)
        except BaseException as error:  # librdkafka would swallow it: it is raised by the next step
            self._failure = error

    def _assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._stopped = []
        starts: list[TopicPartition] = []
        stopped: list[SealingStoppedError] = []
        self._identities = identify(self._cluster)
        anchored = anchored_heads(self._logs)
        committed = committed_offsets(self._cluster, consumer, partitions)
        for partition, found in read_heads(self._logs, committed, self._identities, anchored).items():
            topic, number = partition
            if isinstance(found, SealingStoppedError):
                stopped.append(found)
                self._stopped.append(partition)
                metrics.show_stop(partition, found.rule)
                log.error("partition_stopped", topic=topic, partition=number, rule=found.rule, reason=str(found))
                origin = origin_of(self._logs.deployment, *partition)
                self._report(found.rule, origin, {"reason": str(found)}, self._now().isoformat())
                continue
            head, sealed_at = found
            metrics.show_stop(partition, None)
            # Seconds since any sealer stated the head: many short runs must not postpone the next statement forever.
            age = max(0.0, (self._now() - sealed_at).total_seconds()) if sealed_at is not None else 0.0
            linger = linger_of(topic, self._config.linger)
            self._buffers[partition] = PartitionBuffer(head, self._clock() - age, linger, is_new=sealed_at is None)
            metrics.show_head(partition, head.size, head.next_offset)
            starts.append(self._cluster.partition(*partition, head.next_offset))
            log.info("partition_assigned", origin=head.genesis.origin, size=head.size, next_offset=head.next_offset)
        self._recheck_at = self._clock() + RECHECK_SECONDS
        if stopped and not starts:
            raise SealingStoppedError(stopped[0].rule, f"every partition is stopped; the first: {stopped[0]}")
        consumer.assign(starts)

    def _resume_reopened(self) -> None:
        """Take over all partitions again once a person has opened the next epoch of a stopped one."""
        self._recheck_at = self._clock() + RECHECK_SECONDS
        anchored, identities = anchored_heads(self._logs), identify(self._cluster)
        partitions = [self._cluster.partition(*partition) for partition in self._stopped]
        committed = committed_offsets(self._cluster, self._consumer, partitions)
        heads = read_heads(self._logs, committed, identities, anchored)
        if reopened := [at for at, found in heads.items() if not isinstance(found, SealingStoppedError)]:
            log.info("partitions_reopened", partitions=[f"{topic}/{number}" for topic, number in reopened])
            everything = [self._cluster.partition(*each) for each in (*self._buffers, *self._stopped)]
            self._buffers.clear()  # the records are read again
            self._assign(self._consumer, everything)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Discard the buffers: the next owner reads the records again."""
        del consumer
        self._rebalanced = True
        for partition in partitions:
            self._buffers.pop((self._topics[partition.topic], partition.partition), None)
        for where in self._stopped:
            metrics.show_stop(where, None)
        self._stopped = []
