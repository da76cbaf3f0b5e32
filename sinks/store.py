"""The store: sealed batches, anchors and receipts go into ClickHouse, each exactly once.

On assignment, the entries that ClickHouse contains decide where to continue: a committed offset is only a hint.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pyarrow as pa
import structlog
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from ..base.health import HEALTH, LONG_SECONDS
from ..base.retry import retry
from ..kafka.errors import KafkaUnavailableError, is_fatal, raised_for_people
from ..kafka.identity import identify_topics
from ..kafka.membership import GroupMember
from ..kafka.offsets import Partition, committed_positions, first_offset, first_offsets
from ..kafka.options import reader_options
from ..kafka.sealed_log import SealedLogProblem, SealedLogs
from ..kafka.source_keys_reader import SourceKeysReader
from ..ledger.anchor import AnchorDiscontinuityError
from ..ledger.batch import BatchError, SealedBatch
from ..ledger.entry import epoch_of, split_origin
from ..ledger.log_verifier import check_contents
from ..ledger.note import Checkpoint
from ..ledger.source_keys import SourceKeys
from ..ledger.vectorized import check_hashes
from ..schemas.event import FINDINGS_TOPIC
from ..schemas.topics import ANCHORS_TOPIC, RECEIPTS_TOPIC, SEALED_SUFFIX, SEALED_TOPICS, store_group
from . import evidence, metrics
from .anchor_queue import AnchorQueue, continue_at, store_receipt
from .clickhouse import StoreAddress, StoreUnavailableError, connect, explain
from .continuity import StoredPartition, check_begins, contains, follows, is_stored_up_to
from .erasure import Erasures
from .evidence import Stored, StoringStoppedError
from .insert_attempt import InsertAttempt
from .inserts import Inserts
from .memory_plan import MemoryPlan
from .migrate import migrate
from .schemas_reader import SchemasReader
from .state_refresher import StateRefresher
from .waiting_records import WaitingRecords

log = structlog.get_logger("grantledger.store")

TOPICS = (*SEALED_TOPICS, ANCHORS_TOPIC, RECEIPTS_TOPIC)
_FINDINGS = FINDINGS_TOPIC + SEALED_SUFFIX, 0
ANSWER_SECONDS = 30.0
"""Seconds that a ClickHouse server may take to answer. After that, the store queries whether the insert happened."""
FLUSH_SECONDS = 10.0
"""Limit for storing the batches that wait when the store stops."""
RECHECK_SECONDS = 10.0
"""Seconds between checks whether a person has opened the next epoch of a stopped log."""


class _GivenUpError(Exception):
    """A stop was requested, or the partitions were reassigned: the current batches are dropped and read again."""


class Store:
    """The storing process. ``run`` returns after ``stop``; Kafka is used on the calling thread only.

    One insert runs at a time, on a second thread, while the next batches are decoded.
    """

    def __init__(
        self, logs: SealedLogs, address: StoreAddress, plan: MemoryPlan, *, on_ready: Callable[[], None] = lambda: None
    ) -> None:
        self._logs, self._cluster, self._deployment, self._address = logs, logs.cluster, logs.deployment, address
        self._on_ready = on_ready
        self._client: Client = connect(address, answer_seconds=ANSWER_SECONDS)
        # The embedded engine has one owner, which rejoins the group at once after a restart.
        member = f"{logs.deployment}-store" if address.embedded else ""
        group = store_group(logs.deployment)
        own = {"queued.max.messages.kbytes": plan.fetched >> 10, "on_commit": self._on_commit}
        self._consumer = Consumer({**reader_options(self._cluster, group, member=member), **own})
        self._member = GroupMember(self._cluster, group, self._consumer, TOPICS)
        self._partitions: dict[Partition, StoredPartition] = {}
        self._anchors = AnchorQueue(logs)
        self._stopped: dict[Partition, int] = {}
        """The epochs of stopped logs, by sealed partition."""
        self._recheck_at = 0.0
        self._waiting = WaitingRecords(plan.waiting)
        self._paused = self._stopping = False
        self._generation = 0
        self._failure: BaseException | None = None
        self._inserts = Inserts(
            self._cluster,
            self._client,
            most_bytes=plan.group,
            commit=lambda position: self._consumer.commit(offsets=[position], asynchronous=True),
            persist=self._persist,
            on_failure=self._failed,
            on_stored=self._carry_out_erasures,
        )
        self._states = StateRefresher(address, lambda: address.embedded or _FINDINGS in self._partitions)

    def stop(self) -> None:
        """Ask ``run`` to finish the current insert and to return. Safe in a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Store until stopped.

        Raises:
            StoringStoppedError: Kafka and ClickHouse contradict each other.
            KafkaUnavailableError: the brokers do not answer, or another process took over.
            StoreUnavailableError: ClickHouse does not answer.
            MigrationError: the store was written by another version.
        """
        try:
            with raised_for_people("storing cannot continue"):
                self._run()
        except ClickHouseError as error:
            raise StoreUnavailableError(explain(self._address, error)) from error
        finally:
            self._states.stop()
            self._inserts.close()
            self._consumer.close()
            self._client.close()

    def _run(self) -> None:
        HEALTH.turned(within=LONG_SECONDS)
        for migration in migrate(self._client):
            log.info("migrated", migration=migration.name)
        evidence.check_visible(self._client)
        self._states.start()
        # Sources are registered by what Kafka has, never by what ClickHouse has.
        prefix = f"{self._deployment}/{FINDINGS_TOPIC}/0/"
        catalog = evidence.read_catalog(self._client, prefix, SourceKeys(self._deployment))
        self._schemas = SchemasReader(self._logs, catalog, SourceKeysReader(self._logs))
        self._erasures = Erasures(self._client, self._deployment)
        self._on_ready()  # SQL queries do not depend on Kafka
        identify_topics(self._cluster, TOPICS)  # a consumer would wait for missing topics forever
        self._member.subscribe(self._on_assign, self._on_revoke)
        while not self._stopping:
            self._step()
            self._member.rejoin_if_forgotten()
        with suppress(_GivenUpError):
            self._flush()

    def _step(self) -> None:
        HEALTH.turned()
        self._states.check()
        if self._failure is not None:
            raise self._failure
        generation = self._generation
        try:
            if self._waiting and self._inserts.has_room:  # one at a time: meanwhile, an insert may end
                self._take(self._waiting.popleft())
                if generation != self._generation:  # the rest belongs to the old assignment and is read again
                    return
            if self._paused and not self._waiting.full:
                self._pause(paused=False)
            self._inserts.step()
            self._store_covered_anchors()
            self._resume_reopened()
        except _GivenUpError as reason:
            log.warning("given_up", reason=str(reason), action="the batches are read again")
            return
        if self._waiting and not self._inserts.has_room:  # an insert must end first
            self._inserts.wait(0.05) or self._poll(0.02)
        elif self._waiting:
            self._poll(0.0 if self._inserts.runs or self._inserts.idle else 0.005)
        elif not self._poll(0.0 if self._inserts.runs else 0.02 if not self._inserts.idle else 0.2):
            self._inserts.wait(0.05)

    def _poll(self, seconds: float) -> bool:
        if self._waiting.full and not self._paused:
            self._pause(paused=True)
        message = self._consumer.poll(seconds)
        if message is not None:
            self._waiting.append(message)
        return message is not None

    def _pause(self, *, paused: bool) -> None:
        """Stop taking records, or take them again. Callbacks are served all the same."""
        self._paused = paused
        (self._consumer.pause if paused else self._consumer.resume)(self._consumer.assignment())

    def _flush(self) -> None:
        """Store the batches that wait. Those that take longer than the limit are read again after the next start."""
        generation, until = self._generation, time.monotonic() + FLUSH_SECONDS
        while not self._inserts.idle and time.monotonic() < until:
            self._inserts.step(flush=True)
            self._inserts.wait(0.05) or self._poll(0.02)
            if self._failure is not None:
                raise self._failure
            if generation != self._generation:
                raise _GivenUpError("the partitions were reassigned")

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            if is_fatal(error):
                raise KafkaUnavailableError(f"this store lost its place in the group: {error.str()}")
            if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                raise StoringStoppedError(f"reading {message.topic()}: {error.str()}")
            log.warning("consume_error", error=error.name(), detail=error.str())
            return
        try:
            topic = self._cluster.logical(message.topic())
            if topic == ANCHORS_TOPIC:
                self._anchors.take(message)
            elif topic == RECEIPTS_TOPIC:
                self._persist(partial(store_receipt, message))
                self._commit(message)
            else:
                self._take_batch(message)
        except BatchError as problem:
            where = f"{message.topic()} partition {message.partition()} offset {message.offset()}"
            raise StoringStoppedError(f"{where}: {problem}") from problem

    def _take_batch(self, message: Message) -> None:
        where = self._cluster.logical(message.topic()), message.partition() or 0
        partition = self._partitions.get(where)
        if partition is None:  # revoked, or stopped
            return
        verified, problem = partition.verifier.accept(message), ""
        try:
            stored = self._begin_log(partition, verified.batch) if verified is not None else None
            if verified is not None and stored is not None and follows(stored, verified.batch):
                self._add(partition, verified.batch, message)
            elif verified is not None and verified.batch.count == 0:  # a restated head: the next start can skip it
                self._inserts.skip(partition, message)
            elif partition.verifier.stopped:
                problem = "a signed batch does not continue its log"
        except StoringStoppedError as error:
            time_ms, offset = message.timestamp()[1], message.offset() or 0
            self._logs.on_problem(SealedLogProblem("sealed_log_discontinuous", *where, offset, time_ms, str(error)))
            problem = str(error)
        if problem:
            self._stop_partition(where, message, problem)

    def _stop_partition(self, where: Partition, message: Message, reason: str) -> None:
        """Store no more of a log until a person has opened its next epoch. The others go on."""
        self._flush()
        topic, number = where
        head = self._partitions.pop(where).verifier.head
        self._stopped[where] = epoch_of(head.genesis.origin) if head is not None else 0
        self._recheck_at = time.monotonic() + RECHECK_SECONDS
        metrics.show_stop(topic, number, stopped=True)
        log.error("partition_stopped", topic=topic, partition=number, offset=message.offset(), reason=reason)
        if not self._partitions:
            raise StoringStoppedError(
                f"every log is stopped; the last: {topic} partition {number} at offset {message.offset()}: {reason}. "
                "Run `grantledger verify --from kafka`"
            )

    def _resume_reopened(self) -> None:
        """Store stopped logs again of which a person has opened the next epoch."""
        if not self._stopped or time.monotonic() < self._recheck_at:
            return
        self._recheck_at = time.monotonic() + RECHECK_SECONDS
        for where, epoch in list(self._stopped.items()):
            last = self._logs.last(where[0].removesuffix(SEALED_SUFFIX), where[1])
            if last is None or epoch_of(last.batch.origin) <= epoch:
                continue
            self._inserts.finish()
            del self._stopped[where]
            committed = committed_positions(self._cluster, self._consumer, [self._cluster.partition(*where)])[where]
            start = self._start_log(where, first_offset(self._cluster, *where), committed)
            self._consumer.seek(self._cluster.partition(*where, start))
            log.info("partition_reopened", topic=where[0], partition=where[1], start=start)

    def _begin_log(self, partition: StoredPartition, batch: SealedBatch) -> Stored:
        """Store the genesis of a log whose first batch this is; return how far the partition has been read."""
        if partition.read is not None and epoch_of(batch.origin) <= epoch_of(partition.read.origin):
            return partition.read
        check_begins(partition.read, batch)
        self._persist(lambda client: evidence.insert_origin(client, batch.genesis))
        partition.read = Stored(batch.origin, 0, batch.genesis.hash())
        return partition.read

    def _add(self, partition: StoredPartition, batch: SealedBatch, message: Message) -> None:
        table = self._schemas.entries_of(batch, idle=partial(self._wait, 0.1))
        self._inserts.add(partition, batch, table, message)

    def _carry_out_erasures(self, stored: pa.Table) -> None:
        self._persist(partial(self._erasures.follow, stored))

    def _on_commit(self, error: KafkaError | None, positions: list[TopicPartition]) -> None:
        self._inserts.on_commit(error, positions)

    def _failed(self, error: BaseException) -> None:
        metrics.show_failure(reason := explain(self._address, error))
        log.error("insert_failed", reason=reason, action="retried until it succeeds")
        try:
            self._client.ping()  # after an error the embedded engine prepends partial output to the next answer
        except (ClickHouseError, OSError):
            log.debug("ping_failed")

    def _persist(self, attempt: Callable[[Client], None]) -> None:
        """Retry a write to ClickHouse until it succeeds. Meanwhile Kafka keeps the backlog."""
        self._inserts.finish()  # a client does one thing at a time
        retry(
            lambda: attempt(self._client),
            retryable=lambda error: isinstance(error, ClickHouseError | OSError),
            first_wait=0.2,
            longest_wait=30.0,
            on_retry=self._failed,
            sleep=self._wait,
        )
        HEALTH.settle("clickhouse")

    def _wait(self, seconds: float) -> None:
        """Wait without taking records, and stay a member of the group. Raises :class:`_GivenUpError`."""
        generation, until = self._generation, time.monotonic() + seconds
        self._pause(paused=True)
        while not self._stopping and time.monotonic() < until:
            self._poll(min(0.1, seconds))  # what was fetched before the pause
            if self._failure is not None:
                raise self._failure
            if generation != self._generation:
                raise _GivenUpError("the partitions were reassigned")
        if self._stopping:
            raise _GivenUpError("stopped while waiting")
        self._pause(paused=False)

    def _store_covered_anchors(self) -> None:
        while (found := self._anchors.next(self._is_stored)) is not None:
            anchor, message = found
            try:
                self._persist(partial(self._anchors.insert, anchor))
            except AnchorDiscontinuityError as error:
                self._anchors.stop(message, error)
                return
            self._anchors.done()
            self._commit(message)

    def _is_stored(self, head: Checkpoint) -> bool:
        name = split_origin(head.origin)[0]
        for (topic, number), partition in self._partitions.items():
            if name == f"{self._deployment}/{topic.removesuffix(SEALED_SUFFIX)}/{number}":
                return is_stored_up_to(partition.stored, head)
        self._inserts.finish()  # a client does one thing at a time
        return is_stored_up_to(evidence.stored_log(self._client, name), head)

    def _commit(self, message: Message) -> None:
        self._consumer.commit(message=message, asynchronous=True)  # only a hint for the next start

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._generation += 1
        try:
            self._assign(consumer, partitions)
        except BaseException as error:  # librdkafka would swallow it: it is raised by the next step
            self._failure = error

    def _assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        starts = []
        positions = committed_positions(self._cluster, consumer, partitions)
        begins = first_offsets(self._cluster, positions)
        for where, committed in positions.items():
            begin = begins[where]
            if where[0] in SEALED_TOPICS:
                start = self._start_log(where, begin, committed)
            else:
                start = continue_at(self._logs, self._client, where, begin, committed.offset)
            if start < committed.offset:
                log.warning("partition_rewound", topic=where[0], partition=where[1], committed=committed.offset)
            starts.append(self._cluster.partition(*where, start))
            log.info("partition_assigned", topic=where[0], partition=where[1], start=start)
        consumer.assign(starts)
        consumer.resume(starts)  # a partition that was revoked while paused returns paused
        self._paused = False

    def _start_log(self, where: Partition, begin: int, position: TopicPartition) -> int:
        """Take over a sealed partition, and return where to continue."""
        topic, number, committed = where[0].removesuffix(SEALED_SUFFIX), where[1], position.offset
        stored = evidence.stored_log(self._client, f"{self._deployment}/{topic}/{number}")
        last = self._logs.last(topic, number, before=committed) if committed > begin else None
        resumes = last is None or contains(stored, last.batch)
        head = last.head if last is not None and resumes else None
        # The findings register schemas, so their payloads are verified before they are stored.
        check = check_contents if topic == FINDINGS_TOPIC else check_hashes
        verifier = self._logs.verifier(topic, number, check=check, begin=begin, head=head)
        attempted = InsertAttempt.of_metadata(position.metadata or "")
        if attempted is not None and not attempted.is_open(stored):
            attempted = None
        self._partitions[where] = StoredPartition(*where, verifier, stored, stored, attempted)
        metrics.STORED_SIZE.labels(topic, str(number)).set(stored.size if stored else 0)
        metrics.show_stop(topic, number, stopped=False)
        return max(begin, committed) if resumes else begin

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._generation += 1
        self._waiting.clear()
        for where in ((self._cluster.logical(one.topic), one.partition) for one in partitions):
            self._partitions.pop(where, None)
            self._stopped.pop(where, None)
            metrics.show_stop(*where, stopped=False)
        self._anchors.clear()
        self._inserts.drop()
