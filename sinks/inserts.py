"""The inserts of entries: one at a time, on a second thread, each recorded in Kafka before it starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial

import pyarrow as pa
import structlog
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from ..kafka.cluster import Cluster
from ..kafka.offsets import Partition
from ..ledger.batch import SealedBatch
from ..ledger.entry import split_origin
from ..schemas.topics import SEALED_SUFFIX
from . import evidence, metrics
from .continuity import StoredPartition
from .evidence import Stored, StoringStoppedError
from .insert_group import InsertGroup
from .rows import rejected_codes

log = structlog.get_logger("grantledger.store")

INTERVAL = 0.5
"""Seconds between two inserts of one log, unless the waiting batches fill an insert: small ones are merged."""
COMMIT_SECONDS = 30.0
"""Seconds after which a commit without a result is repeated."""

Persist = Callable[[Callable[[Client], None]], None]
"""Writes to ClickHouse on the calling thread, again and again until it succeeds."""


class Inserts:
    """Groups of batches that wait, and the one that is being inserted.

    A group becomes current, its attempt is committed to Kafka, and once Kafka has confirmed that, it is inserted. One
    commit is under way at a time, so that a repeated one cannot replace a newer one.
    All methods are called on the thread that uses the client and the consumer.

    Args:
        most_bytes: limit of an insert of several batches in memory. All that wait may have twice that.
        commit: commits an offset asynchronously; the result comes to :meth:`on_commit`.
        persist: see :data:`Persist`; used where the result of an insert is unknown.
        on_failure: receives the error of an insert.
        on_stored: receives the rows of each group once they are stored.
    """

    def __init__(
        self,
        cluster: Cluster,
        client: Client,
        *,
        most_bytes: int,
        commit: Callable[[TopicPartition], None],
        persist: Persist,
        on_failure: Callable[[BaseException], None],
        on_stored: Callable[[pa.Table], None],
    ) -> None:
        self._cluster, self._client, self._commit = cluster, client, commit
        self._persist, self._on_failure, self._on_stored = persist, on_failure, on_stored
        self._most_bytes = most_bytes
        self._worker = ThreadPoolExecutor(1, "insert")
        self._groups: list[InsertGroup] = []
        self._current: InsertGroup | None = None
        self._recorded = False
        """Whether Kafka has the attempt of the current group."""
        self._future: Future[None] | None = None
        self._committing: TopicPartition | None = None
        self._commit_again_at = 0.0
        self._passed: dict[Partition, int] = {}
        """Offsets to commit, of partitions of which everything before is stored."""
        self._begun: dict[Partition, float] = {}

    @property
    def idle(self) -> bool:
        """Whether no batch waits that can be inserted."""
        return self._current is None and not any(group.complete for group in self._groups)

    @property
    def runs(self) -> bool:
        """Whether an insert runs."""
        return self._future is not None

    @property
    def has_room(self) -> bool:
        """Whether another batch may be added."""
        return sum(group.bytes for group in self._groups) < 2 * self._most_bytes

    def add(self, partition: StoredPartition, batch: SealedBatch, table: pa.Table, message: Message) -> None:
        """Add the next batch of a log.

        Raises:
            StoringStoppedError: an insert of an earlier process cannot be repeated.
        """
        group = next((group for group in reversed(self._groups) if group.partition is partition), None)
        if group is None or not group.takes(batch, table):
            due = self._begun.get(partition.where, 0.0) + INTERVAL
            group = InsertGroup.begin_with(partition, batch, message, due, self._most_bytes)
            group.takes(batch, table)
            self._groups.append(group)
        group.add(batch, table, message)
        partition.read = Stored(batch.origin, batch.size, batch.last_leaf)

    def skip(self, partition: StoredPartition, message: Message) -> None:
        """Pass a batch without entries: its offset is committed after the batches before it."""
        for group in [*reversed(self._groups), self._current]:
            if group is not None and group.partition is partition:
                group.last = message
                return
        self._passed[partition.where] = (message.offset() or 0) + 1

    def step(self, *, flush: bool = False) -> None:
        """Finish an insert that has ended, and begin the next one that is due, or with ``flush`` that waits."""
        if self._future is not None:
            if not self._future.done():
                return
            self.finish()
        now, group = time.monotonic(), self._current
        if group is not None and self._recorded:
            self._begun[group.partition.where] = now
            self._future = self._worker.submit(self._insert, group)
            return
        if group is None:
            group = self._current = self._next(now, flush=flush)
        if now < self._commit_again_at:
            return
        if group is not None:
            self._send(group.partition.where, group.begin, group.attempt.metadata(), now)
        elif self._passed:
            where, offset = self._passed.popitem()
            self._send(where, offset, "", now)

    def _next(self, now: float, *, flush: bool) -> InsertGroup | None:
        for at, group in enumerate(self._groups):
            full = group.large or any(later.partition is group.partition for later in self._groups[at + 1 :])
            if group.complete and (full or flush or now >= group.due):
                return self._groups.pop(at)
        if self.has_room:
            return None
        # No group can become larger, because the logs share the room. Of each log, the first group is inserted first.
        first = {group.partition.where: at for at, group in reversed(list(enumerate(self._groups)))}
        complete = [at for at in first.values() if self._groups[at].complete]
        return self._groups.pop(max(complete, key=lambda at: self._groups[at].bytes)) if complete else None

    def _send(self, where: Partition, offset: int, metadata: str, now: float) -> None:
        position = self._cluster.partition(*where)
        self._committing = TopicPartition(position.topic, position.partition, offset, metadata=metadata)
        # Repeated if no result comes; the repetition is the same, so their order does not matter.
        self._commit_again_at = now + COMMIT_SECONDS
        try:
            self._commit(self._committing)
        except KafkaException as error:
            self.on_commit(error.args[0], [self._committing])

    def on_commit(self, error: KafkaError | None, positions: list[TopicPartition]) -> None:
        """Take the result of a commit. An insert may begin once it is on record; :meth:`step` begins it."""
        wanted = self._committing
        for position in positions:
            if wanted is None or _identity(position) != _identity(wanted):
                continue
            failure = error or position.error
            if failure is not None:
                log.warning("commit_failed", topic=position.topic, partition=position.partition, reason=failure.str())
                self._commit_again_at = time.monotonic() + INTERVAL
                return
            self._committing, self._commit_again_at = None, 0.0
            group = self._current
            self._recorded = group is not None and position.metadata == group.attempt.metadata()
            return

    def _insert(self, group: InsertGroup) -> None:
        started = time.perf_counter()
        token = group.attempt.metadata()
        if group.attempted is None:
            evidence.insert_entries(self._client, group.table(), token)
        else:
            evidence.insert_entries_again(self._client, group.table(), token, group.origin, group.size - 1)
        metrics.INSERT_SECONDS.observe(time.perf_counter() - started)

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the running insert. Returns False at once if none runs."""
        if self._future is None:
            return False
        wait([self._future], seconds)
        return True

    def finish(self) -> None:
        """Wait for the running insert. If its result is unknown, query ClickHouse, and insert again if necessary."""
        future, group = self._future, self._current
        if future is None or group is None:
            return
        try:
            future.result()
        except (ClickHouseError, OSError) as error:
            self._future = None
            self._on_failure(error)
            self._persist(partial(self._insert_again, group))
        self._future, self._current, self._recorded = None, None, False
        partition, topic = group.partition, group.partition.topic.removesuffix(SEALED_SUFFIX)
        partition.stored = Stored(group.origin, group.size, group.last_leaf)
        metrics.STORED_ENTRIES.labels(topic).inc(group.rows)
        metrics.STORED_BATCHES.labels(topic).inc(group.batches)
        metrics.STORED_SIZE.labels(topic, str(partition.partition)).set(group.size)
        metrics.LAST_STORED.set_to_current_time()
        for code in rejected_codes(group.table()):
            metrics.REJECTED.labels(topic, code).inc()
        self._on_stored(group.table())
        self._passed[partition.where] = (group.last.offset() or 0) + 1

    def _insert_again(self, group: InsertGroup, client: Client) -> None:
        found = evidence.stored_log(client, split_origin(group.origin)[0])
        if found is None or found.origin != group.origin or found.size < group.size:
            token = group.attempt.metadata()
            evidence.insert_entries_again(client, group.table(), token, group.origin, group.size - 1)
        elif found.size == group.size and found.last_leaf != group.last_leaf:
            raise StoringStoppedError(
                f"{group.origin} index {group.size - 1}: the stored leaf differs from the sealed one"
            )

    def drop(self) -> None:
        """Forget all groups: they are read again. The running insert ends first; its attempt is on record."""
        if self._future is not None:
            self._future.exception()
        self._groups.clear()
        self._passed.clear()
        self._current = self._future = self._committing = None
        self._recorded, self._commit_again_at = False, 0.0

    def close(self) -> None:
        """Wait for the running insert, and end the thread."""
        self._worker.shutdown()


def _identity(position: TopicPartition) -> tuple[str, int, int, str]:
    return position.topic, position.partition, position.offset, position.metadata or ""
