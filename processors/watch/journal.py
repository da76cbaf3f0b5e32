"""Where the watch's word goes: into Kafka, all of one judgement in one transaction, and never twice.

Taking the watch over fences off who had it before: from then on nothing of theirs can be committed, so what is read
back is everything that was ever said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b

import pyarrow as pa
import structlog
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, Message

from ...kafka.cluster import Cluster
from ...kafka.errors import PATIENCE, KafkaUnavailableError
from ...kafka.identity import identify_topics
from ...kafka.offsets import end_offset, first_offset, wait_without_open_transaction
from ...kafka.records import last_record, read_range
from ...kafka.transactional_writer import TransactionalWriter
from ...ledger import batch as batches
from ...schemas.arrow import decode_values
from ...schemas.catalog import SchemaCatalog
from ...schemas.event import FINDINGS_TOPIC, LIFECYCLE_TOPIC
from ...schemas.topics import WATCH_TOPIC, sealed
from .memory import MANIFEST, MemoryUnreadableError
from .reports import SYSTEM, Word, said_before
from .state import Identity

log = structlog.get_logger("grantledger.watch")
TOLD = ("source_system", "source_instance", "native_id", "event_type")
Delivered = Callable[[KafkaError | None, Message], None]


class Journal:
    """The watch's Kafka client beside Faust's. Its calls block; they are made in a thread of their own."""

    def __init__(self, cluster: Cluster, deployment: str, catalog: SchemaCatalog) -> None:
        self._cluster, self._deployment, self._catalog = cluster, deployment, catalog
        self._writer: TransactionalWriter | None = None
        self.stopping: Callable[[], bool] = lambda: False

    def take_over(self) -> dict[Identity, bool]:
        """Fence off who watched before, and return what was said: identity to whether it is open.

        Raises:
            KafkaException, KafkaUnavailableError: the brokers do not answer.
            BatchError: the log of findings holds what is no sealed batch.
        """
        writer = TransactionalWriter(self._cluster, f"{self._deployment}-watch", stopping=lambda: bool(self.stopping()))
        writer.init()
        self._writer = writer
        known: dict[Identity, bool] = {}
        for values, append_times in self._findings():
            rows = decode_values(pa.array(values, pa.binary()), append_times, self._catalog)
            told = (rows.column(name).to_pylist() for name in TOLD)
            for error, system, instance, *rest in zip(rows.column("decode_error").to_pylist(), *told, strict=True):
                if error:
                    log.warning("finding_unreadable", reason=error.decode().partition(":")[0])
                elif (system, instance) == (SYSTEM.encode(), self._deployment.encode()):
                    said_before(known, *(text.decode() for text in rest))
        return known

    def _findings(self) -> Iterator[tuple[list[bytes], list[int]]]:
        """Yield all findings ever, payloads and append times: what is sealed, which does not expire, then the rest."""
        end = wait_without_open_transaction(self._cluster, FINDINGS_TOPIC, 0)
        begin = first_offset(self._cluster, FINDINGS_TOPIC, 0)
        log_of_findings = sealed(FINDINGS_TOPIC)
        first = first_offset(self._cluster, log_of_findings, 0)
        last = end_offset(self._cluster, log_of_findings, 0)
        for message in read_range(self._cluster, log_of_findings, 0, first, last):
            batch = batches.decode(message.value() or b"")
            records = batch.records()
            yield [value or b"" for value in records.values], records.append_times
            begin = max(begin, batch.next_offset)
        rest = list(read_range(self._cluster, FINDINGS_TOPIC, 0, begin, end))
        yield [message.value() or b"" for message in rest], [message.timestamp()[1] for message in rest]

    def write(self, words: Iterable[Word]) -> int | None:
        """Write events, all or none; return the brokers' time in microseconds since 1970, or None where nothing was.

        Raises:
            KafkaException: they are not there, or another watch has taken over.
        """
        stamps: list[int] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                stamps.append(message.timestamp()[1] * 1000)

        writer = self._begin()
        for word in words:
            writer.produce(word.topic, word.value, word.event.key, on_delivery=delivered)
        writer.commit()
        return max(stamps, default=None)

    def time(self) -> int:
        """Return the brokers' time in microseconds since 1970: that of a record which is never committed.

        Raises:
            KafkaException, KafkaUnavailableError: they do not say.
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

    def remember(
        self, segments: Mapping[str, bytes], gone: Iterable[str], manifest: Callable[[Mapping[str, int]], bytes]
    ) -> None:
        """Keep segments by key, drop others, and say what counts from now on: all of it, or nothing.

        Args:
            manifest: is given the offset of each segment.

        Raises:
            KafkaException, KafkaUnavailableError: they are not kept, or another watch has taken over.
        """
        offsets: dict[str, int] = {}

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                offsets[str(message.key(), "utf-8")] = message.offset() or 0  # type: ignore[arg-type]

        writer = self._begin()
        for key, value in segments.items():
            writer.produce(WATCH_TOPIC, value, key, on_delivery=delivered)
        writer.flush(PATIENCE)
        if len(offsets) < len(segments):
            raise KafkaUnavailableError(f"{WATCH_TOPIC} does not take records (kafka_bootstrap_servers)")
        for key in gone:
            writer.produce(WATCH_TOPIC, None, key)
        writer.produce(WATCH_TOPIC, manifest(offsets), MANIFEST)
        writer.commit()

    def recall(self) -> tuple[str, bytes]:
        """Return the id of the log that is read, and the manifest of what was kept; nothing where nothing was.

        The id stands for the schemas that are known too: what could not be decoded without one is to be read again.

        Raises:
            KafkaUnavailableError: the brokers do not answer, or a topic is missing.
        """
        log_of_grants = sealed(LIFECYCLE_TOPIC)
        identities = identify_topics(self._cluster, (log_of_grants, WATCH_TOPIC))
        wait_without_open_transaction(self._cluster, WATCH_TOPIC, 0)
        last = last_record(self._cluster, WATCH_TOPIC, 0)
        found = last is not None and last.key() == MANIFEST.encode() and last.value()
        known = sorted(schema.prefix.hex() for schema in self._catalog)
        name = blake2b("/".join((identities[log_of_grants].topic_id.hex(), *known)).encode(), digest_size=16)
        return name.hexdigest(), found or b""

    def segments(self, offsets: Iterable[int]) -> Iterator[bytes]:
        """Yield the segments that lie at these offsets.

        Raises:
            MemoryUnreadableError: one is missing.
        """
        wanted = set(offsets)
        begin, end = min(wanted, default=0), max(wanted, default=-1) + 1
        for message in read_range(self._cluster, WATCH_TOPIC, 0, begin, end):
            if (offset := message.offset()) in wanted:
                wanted.discard(offset)
                yield message.value() or b""
        if wanted:
            raise MemoryUnreadableError(f"{WATCH_TOPIC} has nothing at offset {min(wanted)}")

    def _begin(self) -> TransactionalWriter:
        if self._writer is None:
            raise RuntimeError("take_over comes first")
        self._writer.begin()
        return self._writer

    def end(self) -> int:
        """Return the offset after the last record of ``access.lifecycle``, committed or not."""
        return end_offset(self._cluster, LIFECYCLE_TOPIC, 0, committed=False)

    def is_empty(self, start: int, end: int) -> bool:
        """Whether a stretch of ``access.lifecycle`` holds nothing that will ever be sealed: markers, aborted records.

        False while a transaction is open in it.
        """
        if end_offset(self._cluster, LIFECYCLE_TOPIC, 0, committed=True) < end:
            return False
        first = first_offset(self._cluster, LIFECYCLE_TOPIC, 0)
        records = read_range(self._cluster, LIFECYCLE_TOPIC, 0, max(start, first), end)
        return next(iter(records), None) is None
