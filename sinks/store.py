"""The store: sealed batches, anchors and receipts go into ClickHouse, each exactly once (DESIGN section 5, rules 2-4).

On assignment it decides where to continue: at the committed offset if ClickHouse contains everything before it, else at
the beginning. A committed offset is only a hint. ClickHouse itself is asked which entries it contains.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pyarrow as pa
import structlog
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from ..base.retry import retry
from ..kafka.errors import KafkaUnavailableError, is_fatal, is_transient, unavailable
from ..kafka.identity import identify_topics
from ..kafka.offsets import Partition, committed_offsets, first_offset
from ..kafka.options import reader_options
from ..kafka.records import last_record
from ..kafka.sealed_log import SealedLogs
from ..ledger import batch as batches
from ..ledger.anchor import Anchor, AnchorError, anchor_origin, decode_anchor, decode_receipt
from ..ledger.batch import BatchError, SealedBatch
from ..ledger.log_verifier import check_contents, check_hashes
from ..schemas.event import FINDINGS_TOPIC
from ..schemas.topics import ANCHORS_TOPIC, RECEIPTS_TOPIC, SEALED_SUFFIX, SEALED_TOPICS, sealed, store_group
from . import evidence, metrics
from .clickhouse import StoreAddress, StoreUnavailableError, connect, explain
from .erasure import Erasures
from .evidence import Stored
from .follow import StoredPartition, StoringStoppedError, check_stored_leaf, epoch_of, follows
from .migrate import migrate
from .rows import entries_table, lacks_schema, newest_append_time, rejected_codes
from .schemas_reader import SchemasReader

log = structlog.get_logger("grantledger.store")

LONGEST_WAIT = 30.0
"""Seconds between attempts while ClickHouse keeps failing."""
ANSWER_SECONDS = 30.0
"""Seconds that a ClickHouse server may take to answer. After that the store asks whether the insert happened."""


class _GivenUpError(Exception):
    """A stop was requested, or the partitions were reassigned: the current batches are dropped and read again."""


class Store:
    """The storing process. ``run`` returns after ``stop``; Kafka is used on the calling thread only.

    One insert runs at a time, on a second thread, while the next batch is decoded.
    """

    def __init__(self, logs: SealedLogs, address: StoreAddress, *, on_ready: Callable[[], None] = lambda: None) -> None:
        self._logs, self._cluster, self._deployment, self._address = logs, logs.cluster, logs.deployment, address
        self._on_ready = on_ready
        self._client: Client = connect(address, answer_seconds=ANSWER_SECONDS)
        # The embedded engine has one owner, which rejoins the group at once after a restart.
        member = f"{logs.deployment}-store" if address.embedded else ""
        options = reader_options(self._cluster, store_group(logs.deployment), member=member)
        self._consumer = Consumer({**options, "queued.max.messages.kbytes": 32 << 10})
        self._partitions: dict[Partition, StoredPartition] = {}
        self._anchors: list[tuple[Anchor, Message]] = []
        self._waiting: list[Message] = []
        self._generation = 0
        self._stopping = False
        self._failure: BaseException | None = None
        self._worker = ThreadPoolExecutor(1, "insert")
        self._inserting: tuple[Future[None], SealedBatch, pa.Table, StoredPartition, Message] | None = None

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
            for migration in migrate(self._client):
                log.info("migrated", migration=migration.name)
            catalog = evidence.read_catalog(self._client, f"{self._deployment}/{FINDINGS_TOPIC}/0/")
            self._schemas = SchemasReader(self._logs, catalog)
            self._erasures = Erasures(self._client, self._deployment)
            self._on_ready()  # SQL queries do not depend on Kafka
            topics = (*SEALED_TOPICS, ANCHORS_TOPIC, RECEIPTS_TOPIC)
            identify_topics(self._cluster, topics)  # a consumer would wait for missing topics forever
            names, on_revoke = [self._cluster.physical(topic) for topic in topics], self._on_revoke
            self._consumer.subscribe(names, on_assign=self._on_assign, on_revoke=on_revoke, on_lost=on_revoke)
            while not self._stopping:
                self._step()
        except KafkaException as error:
            if is_transient(error):
                raise unavailable("storing cannot continue", error) from error
            raise KafkaUnavailableError(f"storing cannot continue: {error.args[0].str()}") from error
        except ClickHouseError as error:
            raise StoreUnavailableError(explain(self._address, error)) from error
        finally:
            self._worker.shutdown()
            self._consumer.close()
            self._client.close()

    def _step(self) -> None:
        # One at a time: a sealed batch may be 8 MiB. Messages that arrived while waiting for ClickHouse come first.
        messages, self._waiting = self._waiting, []
        if not messages:
            message = self._consumer.poll(0.0 if self._inserting is not None else 0.2)
            messages = [message] if message is not None else []
        if self._failure is not None:
            raise self._failure
        generation = self._generation
        try:
            for message in messages:
                self._take(message)
                if generation != self._generation:  # the rest belongs to the old assignment and is read again
                    return
                if self._stopping:
                    break
            if not messages or self._stopping:
                self._finish()
            if not self._stopping:
                self._store_covered_anchors()
        except _GivenUpError as reason:
            log.warning("given_up", reason=str(reason), action="the batches are read again")

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
                self._anchors.append((decode_anchor(message.value() or b""), message))
            elif topic == RECEIPTS_TOPIC:
                receipt = decode_receipt(message.value() or b"")
                self._persist(lambda client: evidence.insert_receipt(client, receipt, message.offset() or 0))
                self._commit(message)
            else:
                self._take_batch(message)
        except (AnchorError, BatchError) as problem:
            where = f"{message.topic()} partition {message.partition()} offset {message.offset()}"
            raise StoringStoppedError(f"{where}: {problem}") from problem

    def _take_batch(self, message: Message) -> None:
        held = self._partitions.get((self._cluster.logical(message.topic()), message.partition() or 0))
        batch = held.sealed.accept(message) if held is not None else None
        if held is None or batch is None:  # of a revoked or stopped partition, or not valid: the verifier reports it
            return
        if self._is_new(held, batch):
            self._store(held, batch, message)
        elif batch.count == 0:  # a restated head: the next start can skip it
            self._finish()
            self._commit(message)

    def _is_new(self, held: StoredPartition, batch: SealedBatch) -> bool:
        """Decide whether a batch is the next one to store.

        Raises:
            StoringStoppedError: it contradicts the stored entries, or leaves a gap.
        """
        stored = held.stored
        if stored is None or epoch_of(batch.origin) > epoch_of(stored.origin):
            if batch.first_index != 0:
                raise StoringStoppedError(
                    f"{held.topic} partition {held.partition} begins at index {batch.first_index} of {batch.origin}, "
                    "and the store contains no earlier entry: batches were deleted"
                )
            self._persist(lambda client: evidence.insert_origin(client, batch.genesis))
            held.stored = stored = Stored(batch.origin, 0, batch.genesis.hash())
        elif batch.origin != stored.origin:  # an epoch before the stored one
            return False
        return follows(stored, batch)

    def _store(self, held: StoredPartition, batch: SealedBatch, message: Message) -> None:
        if held.topic == sealed(FINDINGS_TOPIC):
            self._schemas.learn(batch.records())
        table = entries_table(batch, self._schemas.catalog)
        if lacks_schema(table):
            self._schemas.catch_up(newest_append_time(table), idle=partial(self._wait, 0.1))
            table = entries_table(batch, self._schemas.catalog)
        self._finish()
        future = self._worker.submit(self._insert, batch, table)
        self._inserting = (future, batch, table, held, message)
        # The next batch may rely on this: it is inserted only once this one is known to be stored.
        held.stored = Stored(batch.origin, batch.size, batch.last_leaf)

    def _insert(self, batch: SealedBatch, table: pa.Table) -> None:
        started = time.perf_counter()
        evidence.insert_entries(self._client, table, batch.origin, batch.first_index, batch.size - 1)
        metrics.INSERT_SECONDS.observe(time.perf_counter() - started)

    def _finish(self) -> None:
        """Wait for the current insert. If its result is unknown, ask ClickHouse, and insert again if necessary."""
        if self._inserting is None:
            return
        future, batch, table, held, message = self._inserting
        self._inserting = None
        try:
            future.result()
        except (ClickHouseError, OSError) as error:
            self._insert_again(error, batch, table)
        topic = held.topic.removesuffix(SEALED_SUFFIX)
        metrics.STORED_ENTRIES.labels(topic).inc(batch.count)
        metrics.STORED_BATCHES.labels(topic).inc()
        metrics.STORED_SIZE.labels(topic, str(held.partition)).set(batch.size)
        metrics.LAST_STORED.set_to_current_time()
        for code in rejected_codes(table):
            metrics.REJECTED.labels(topic, code).inc()
        self._persist(partial(self._erasures.follow, table))
        self._commit(message)

    def _insert_again(self, error: Exception, batch: SealedBatch, table: pa.Table) -> None:
        def attempt(client: Client) -> None:
            found = evidence.stored_log(client, batch.origin.rpartition("/")[0])
            if found is not None and found.origin == batch.origin and found.size >= batch.size:
                check_stored_leaf(found, batch)
                return
            evidence.insert_entries(client, table, batch.origin, batch.first_index, batch.size - 1)

        self._failed(error)
        self._persist(attempt)

    def _failed(self, error: BaseException) -> None:
        metrics.INSERT_FAILURES.inc()
        log.error("insert_failed", reason=explain(self._address, error), action="retried until it succeeds")
        try:
            self._client.ping()  # after an error the embedded engine prepends partial output to the next answer
        except (ClickHouseError, OSError):
            log.debug("ping_failed")

    def _persist(self, attempt: Callable[[Client], None]) -> None:
        """Retry a write to ClickHouse until it succeeds. Meanwhile Kafka keeps the backlog.

        Raises:
            _GivenUpError: a stop was requested, or the partitions were reassigned meanwhile.
        """
        self._finish()  # a client does one thing at a time
        retry(
            lambda: attempt(self._client),
            retryable=lambda error: isinstance(error, ClickHouseError | OSError),
            first_wait=0.2,
            longest_wait=LONGEST_WAIT,
            on_retry=self._failed,
            sleep=self._wait,
        )

    def _wait(self, seconds: float) -> None:
        self._idle(seconds)
        if self._stopping:
            raise _GivenUpError("stopped while waiting")

    def _idle(self, seconds: float) -> None:
        """Wait without taking records, and stay a member of the group.

        Raises:
            _GivenUpError: the partitions were reassigned meanwhile.
        """
        generation = self._generation
        held = self._consumer.assignment()
        self._consumer.pause(held)
        until = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < until:
            message = self._consumer.poll(min(0.1, seconds))
            if self._failure is not None:
                raise self._failure
            if message is not None:  # fetched before the pause
                self._waiting.append(message)
            if generation != self._generation:
                raise _GivenUpError("the partitions were reassigned")
        self._consumer.resume(held)

    def _store_covered_anchors(self) -> None:
        """Store an anchor once every entry that it covers is stored, so that no table is ever ahead of another."""
        while self._anchors:
            anchor, message = self._anchors[0]
            if not all(self._stored_size(c.origin) >= c.size for c in anchor.checkpoints()):
                return
            self._persist(partial(self._insert_anchor, anchor))
            self._anchors.pop(0)
            self._commit(message)

    def _insert_anchor(self, anchor: Anchor, client: Client) -> None:
        count = evidence.anchors_stored(client, anchor.origin)
        if anchor.origin != anchor_origin(self._deployment) or anchor.index > count:
            raise StoringStoppedError(f"anchor {anchor.index} of {anchor.origin} instead of anchor {count}")
        if anchor.index == count:
            evidence.insert_anchor(client, anchor)
            metrics.STORED_ANCHORS.inc()

    def _stored_size(self, origin: str) -> int:
        for held in self._partitions.values():
            if held.stored is not None and held.stored.origin == origin:
                return held.stored.size
        self._finish()  # a client does one thing at a time
        found = evidence.stored_log(self._client, origin.rpartition("/")[0])
        return found.size if found is not None and found.origin == origin else 0

    def _commit(self, message: Message) -> None:
        """Commit the offset. It is only a hint for the next start."""
        self._consumer.commit(message=message, asynchronous=True)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._generation += 1
        try:
            self._assign(consumer, partitions)
        except BaseException as error:  # librdkafka would swallow it: it is raised by the next step
            self._failure = error

    def _assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        committed = committed_offsets(self._cluster, consumer, partitions)
        starts = []
        for partition in partitions:
            where = topic, number = self._cluster.logical(partition.topic), partition.partition
            source, stored = topic.removesuffix(SEALED_SUFFIX), None
            if topic in SEALED_TOPICS:
                stored = evidence.stored_log(self._client, f"{self._deployment}/{source}/{number}")
                metrics.STORED_SIZE.labels(source, str(number)).set(stored.size if stored else 0)
            start, before = self._start(where, committed[where], stored)
            if topic in SEALED_TOPICS:
                # The findings register schemas, so their payloads are verified before they are stored.
                check = check_contents if source == FINDINGS_TOPIC else check_hashes
                verified = self._logs.partition(source, number, check=check, begin=start)
                if before is not None:
                    verified.start_at(before)
                self._partitions[where] = StoredPartition(*where, verified, stored)
            starts.append(self._cluster.partition(*where, start))
            log.info("partition_assigned", topic=topic, partition=number, size=stored.size if stored else 0)
        consumer.assign(starts)
        consumer.resume(starts)  # a partition that was revoked while paused returns paused

    def _start(self, where: Partition, committed: int, stored: Stored | None) -> tuple[int, Message | None]:
        """Return where to continue, and the record before: the committed offset, unless something before is missing."""
        begin = first_offset(self._cluster, *where)
        if committed <= begin:
            return begin, None
        last = last_record(self._cluster, *where, before=committed)
        try:
            if last is None or self._has(where[0], last.value() or b"", stored):
                return committed, last
        except (AnchorError, BatchError) as problem:
            raise StoringStoppedError(
                f"{where[0]} partition {where[1]} offset {last.offset() if last else committed}: {problem}"
            ) from problem
        log.warning("partition_rewound", topic=where[0], partition=where[1], committed=committed, begin=begin)
        return begin, None

    def _has(self, topic: str, value: bytes, stored: Stored | None) -> bool:
        """Whether ClickHouse contains the contents of a record that the group has passed, and so everything before it.

        Raises:
            StoringStoppedError: it contains something else instead.
        """
        if topic == ANCHORS_TOPIC:
            anchor = decode_anchor(value)
            return evidence.anchors_stored(self._client, anchor.origin) > anchor.index
        if topic == RECEIPTS_TOPIC:
            return evidence.has_receipt(self._client, decode_receipt(value))
        batch = batches.decode(value)
        if batch.size == 0:
            return True
        if stored is None or epoch_of(stored.origin) < epoch_of(batch.origin):
            return False
        if stored.origin == batch.origin:
            check_stored_leaf(stored, batch)
        return stored.origin != batch.origin or stored.size >= batch.size

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        del consumer
        self._generation += 1
        self._waiting.clear()
        for partition in partitions:
            self._partitions.pop((self._cluster.logical(partition.topic), partition.partition), None)
        self._anchors.clear()
        if self._inserting is not None:  # let it end; the next owner asks ClickHouse for its result
            self._inserting[0].exception()
            self._inserting = None
