"""Publishes findings and commands: all of one judgement in one transaction, so that nothing is published twice.

Taking over fences off the process that watched before. From then on it cannot commit anything, so the findings that are
read back are all there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import structlog
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, Message

from ...kafka.cluster import Cluster
from ...kafka.errors import PATIENCE, KafkaUnavailableError
from ...kafka.offsets import end_offset, first_offset, wait_without_open_transaction
from ...kafka.records import read_range
from ...kafka.transactional_writer import TransactionalWriter
from ...ledger import batch as batches
from ...schemas.arrow import decode_values
from ...schemas.catalog import SchemaCatalog
from ...schemas.event import FINDINGS_TOPIC, LIFECYCLE_TOPIC
from ...schemas.topics import WATCH_TOPIC, sealed
from .core.judge import Identity
from .findings import SYSTEM, Outgoing, fold_finding

log = structlog.get_logger("grantledger.watch")
_COLUMNS = ("event_type", "source_system", "source_instance", "finding_rule", "finding_key")
"""Text columns of a published finding."""


class KafkaFindings:
    """The watch's Kafka client for everything except the log, which Faust reads. Its calls block."""

    def __init__(
        self, cluster: Cluster, deployment: str, catalog: SchemaCatalog, *, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._cluster, self._deployment, self._catalog = cluster, deployment, catalog
        self._stopping = stopping
        self._writer: TransactionalWriter | None = None

    def take_over(self) -> dict[Identity, bool]:
        """Fence off the previous watch, and return the findings on record: identity to whether it is open.

        Raises:
            KafkaException, KafkaUnavailableError: the brokers do not answer.
            BatchError: the log of findings contains something other than sealed batches.
        """
        writer = TransactionalWriter(self._cluster, f"{self._deployment}-watch", stopping=self._stopping)
        writer.init()
        self._writer = writer
        known: dict[Identity, bool] = {}
        for values, append_times in self._findings():
            self._fold(known, values, append_times)
        return known

    def _fold(self, known: dict[Identity, bool], values: list[bytes], append_times: list[int]) -> None:
        """Update the findings on record with events. Only a person closes a finding of the watch from elsewhere."""
        rows = decode_values(pa.array(values, pa.binary()), append_times, self._catalog)
        errors = rows.column("decode_error").to_pylist()
        deadlines = rows.column("finding_deadline").cast(pa.int64()).to_pylist()
        texts = (rows.column(name).to_pylist() for name in _COLUMNS)
        for error, deadline, *columns in zip(errors, deadlines, *texts, strict=True):
            if error:
                log.warning("finding_unreadable", reason=error.decode().partition(":")[0])
                continue
            event_type, system, instance, rule, key = ((text or b"").decode() for text in columns)
            if event_type == "finding.closed" or (system, instance) == (SYSTEM, self._deployment):
                fold_finding(known, (rule, key, deadline or 0), event_type)

    def _findings(self) -> Iterator[tuple[list[bytes], list[int]]]:
        """Yield all findings, payloads and append times: from the sealed log, which does not expire, then the rest."""
        end = wait_without_open_transaction(self._cluster, FINDINGS_TOPIC, 0)
        begin = first_offset(self._cluster, FINDINGS_TOPIC, 0)
        sealed_findings = sealed(FINDINGS_TOPIC)
        first = first_offset(self._cluster, sealed_findings, 0)
        last = end_offset(self._cluster, sealed_findings, 0)
        for message in read_range(self._cluster, sealed_findings, 0, first, last):
            batch = batches.decode(message.value() or b"")
            records = batch.records()
            yield [value or b"" for value in records.values], records.append_times
            begin = max(begin, batch.next_offset)
        rest = list(read_range(self._cluster, FINDINGS_TOPIC, 0, begin, end))
        yield [message.value() or b"" for message in rest], [message.timestamp()[1] for message in rest]

    def publish(self, records: Sequence[Outgoing]) -> int | None:
        """Publish records, all or none; return the brokers' time in microseconds since 1970, or None without records.

        Raises:
            KafkaException: they are not published, or another watch has taken over.
        """
        stamps: list[int] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                stamps.append(message.timestamp()[1] * 1000)

        writer = self._begin()
        for record in records:
            writer.produce(record.topic, record.value, record.event.key, on_delivery=delivered)
        writer.commit()
        return max(stamps, default=None)

    def time(self) -> int:
        """Return the brokers' time in microseconds since 1970: the timestamp of a record that is then aborted.

        Raises:
            KafkaException, KafkaUnavailableError: the brokers do not answer, or do not set timestamps.
        """
        stamps: list[tuple[int, int]] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                stamps.append(message.timestamp())

        writer = self._begin()
        writer.produce(WATCH_TOPIC, None, "time", on_delivery=delivered)
        writer.flush(PATIENCE)
        writer.abort()
        if not stamps or stamps[0][0] != TIMESTAMP_LOG_APPEND_TIME:
            raise KafkaUnavailableError(f"{WATCH_TOPIC} does not stamp records: run `grantledger topics check`")
        return stamps[0][1] * 1000

    def _begin(self) -> TransactionalWriter:
        if self._writer is None:
            raise RuntimeError("take over first")
        self._writer.begin()
        return self._writer

    def log_end(self) -> int:
        """Return the offset after the last record of ``access.lifecycle``, committed or not."""
        return end_offset(self._cluster, LIFECYCLE_TOPIC, 0, committed=False)

    def is_empty(self, start: int, end: int) -> bool:
        """Whether a range of ``access.lifecycle`` contains nothing that will be sealed: only markers, aborted records.

        False while a transaction is open in it.
        """
        if end_offset(self._cluster, LIFECYCLE_TOPIC, 0, committed=True) < end:
            return False
        first = first_offset(self._cluster, LIFECYCLE_TOPIC, 0)
        records = read_range(self._cluster, LIFECYCLE_TOPIC, 0, max(start, first), end)
        return next(iter(records), None) is None
