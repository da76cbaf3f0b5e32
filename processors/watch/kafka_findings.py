"""Publishes findings and commands: all of one judgement in one transaction, so that nothing is published twice.

Taking over fences off the process that watched before. From then on it cannot commit anything, so the findings that are
read back are all there are.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice

import pyarrow as pa
import structlog
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, Message

from ...base.retry import retry
from ...kafka.errors import PATIENCE, KafkaUnavailableError, is_missing_topic
from ...kafka.identity import identify_topics
from ...kafka.offsets import end_offset, first_offset, wait_without_open_transaction
from ...kafka.records import is_empty, read_range
from ...kafka.sealed_log import SealedBatchVerifier, SealedLogReader, SealedLogs
from ...kafka.source_keys_reader import SourceKeysReader, check_registrations
from ...kafka.topics import TopicError
from ...kafka.transactional_writer import ANY_PARTITION, TransactionalWriter
from ...ledger.decoded_entries import believed_rows, decode_entries
from ...ledger.source_keys import SignedRecord, SourceKeys
from ...schemas.catalog import SchemaCatalog
from ...schemas.codec import EventEncoder
from ...schemas.event import FINDINGS_TOPIC, LIFECYCLE_TOPIC
from ...schemas.own_sources import OPERATOR
from ...schemas.topics import WATCH_TOPIC, sealed
from ..watch_policy import WatchPolicy
from .core.judge import KnownFindings
from .findings import SYSTEM, Outgoing, config_event, identity_from, policy_digest, scoped_key
from .shard import ONLY_SHARD, Shard

CHUNK = 5_000
"""Findings that are decoded at once."""
log = structlog.get_logger("grantledger.watch")
_COLUMNS = (
    "event_type", "source_system", "source_instance", "native_id", "finding_rule", "finding_key", "tenant",
    "grant_source_system", "grant_source_instance", "request_source_system", "request_source_instance",
    "session_source_system", "session_source_instance",
)  # fmt: skip
"""Text columns of a published finding."""


class KafkaFindings:
    """The watch's Kafka client for everything that Faust does not deliver.

    Its calls block. They raise KafkaException or KafkaUnavailableError if the brokers do not answer, or if another
    watch has taken over; and SealedLogStoppedError if a sealed log is discontinuous.
    """

    def __init__(
        self,
        logs: SealedLogs,
        catalog: SchemaCatalog,
        policy: WatchPolicy,
        *,
        shard: Shard = ONLY_SHARD,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._policy, self._policy_on_record = policy, ""
        self._shard, self._partition = shard, shard.number
        self._logs, self._cluster, self._deployment, self._catalog = logs, logs.cluster, logs.deployment, catalog
        self._sources, self._stopping = SourceKeysReader(logs), stopping
        self._writer: TransactionalWriter | None = None
        self._reader: SealedLogReader | None = None
        self._read_below = 0

    def take_over(self) -> KnownFindings:
        """Fence off the previous watch, put the policy on record, and return the findings on record."""
        writer = TransactionalWriter(
            self._cluster, self._shard.group(self._deployment), signer=self._logs.signer, stopping=self._stopping
        )
        writer.init()
        self._writer = writer
        wait_without_open_transaction(self._cluster, (FINDINGS_TOPIC, 0))
        known = KnownFindings()
        self.close()
        self._reader = self._logs.open(FINDINGS_TOPIC)
        records = self._read(self._reader.read_records())
        while chunk := list(islice(records, CHUNK)):
            self._add(known, chunk)
        check_registrations(self._logs, self._reader, self._sources.keys)
        if (stated := self._sources.keys.lifecycle_shards) != self._shard.count:
            raise TopicError(
                f'lifecycle_shards is {self._shard.count}, and this ledger was created with {stated}: see "Several '
                'lifecycle shards" in docs/operations.md'
            )
        event = config_event(self._deployment, self._policy, datetime.now(UTC))
        if policy_digest(event.source.native_id) != self._policy_on_record:
            self.publish([Outgoing(FINDINGS_TOPIC, event, EventEncoder().encode(event))])
        return known

    def decisions(self) -> KnownFindings:
        """Return the findings that people have closed since the last call or the takeover, and what they accepted."""
        if self._reader is None:
            raise RuntimeError("take over first")
        known = KnownFindings()
        records = self._read(self._reader.read_sealed())
        closing = (record for record in records if b"finding.closed" in (record.value or b""))
        while chunk := list(islice(closing, CHUNK)):
            self._add(known, chunk)
        return known

    def close(self) -> None:
        """Close the reader of findings."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _read(self, records: Iterator[tuple[int, SignedRecord]]) -> Iterator[SignedRecord]:
        """Yield the records that were not read before: those that were not sealed then are read again as sealed."""
        for offset, record in records:
            if offset >= self._read_below:
                self._read_below = offset + 1
                self._sources.keys.learn(record)
                yield record

    def source_keys(self, append_time_ms: int) -> SourceKeys:
        """Return the keys of the sources, for records appended up to a time."""
        return self._sources.until(append_time_ms)

    def _add(self, known: KnownFindings, records: list[SignedRecord]) -> None:
        """Add events to the known findings: those of the watch, and ``finding.closed``, which a person causes."""
        values = pa.array([record.value or b"" for record in records], pa.binary())
        append_times = [record.append_time_ms for record in records]
        rows = decode_entries(
            values, append_times, lambda: records,
            topic=FINDINGS_TOPIC, catalog=self._catalog, sources=self._sources.keys,
        )  # fmt: skip
        believed = believed_rows(rows).tolist()
        errors = rows.column("decode_error").to_pylist()
        deadlines = rows.column("finding_deadline").cast(pa.int64()).to_pylist()
        accepted = rows.column("finding_accept_index").to_pylist()
        texts = (rows.column(name).to_pylist() for name in _COLUMNS)
        every = zip(believed, errors, deadlines, accepted, *texts, strict=True)
        unreadable = Counter[str]()
        for is_believed, error, deadline, accept_index, *columns in every:
            if error or not is_believed:
                unreadable[error.decode().partition(":")[0] or "unsigned"] += 1
                continue
            event_type, system, instance, native_id, rule, key, *scope = ((one or b"").decode() for one in columns)
            if (system, instance) == (SYSTEM, self._deployment):
                if event_type == "config.changed":
                    self._policy_on_record = policy_digest(native_id)
                elif (identity := identity_from(native_id, self._policy.names, self._shard)) is not None:
                    known.add(event_type, identity)
            elif event_type == "finding.closed" and (system == OPERATOR or not self._sources.keys.complete):
                about = scoped_key(self._policy.names, rule, key, *scope, shard=self._shard)
                if about is not None:
                    known.add(event_type, (rule, about, deadline or 0), accept_index)
        for reason, count in unreadable.items():
            log.warning("findings_unreadable", reason=reason, count=count)

    def own_public_keys(self) -> set[bytes]:
        """Return the public keys by which the watch's own records count now: registered ones, or else our own."""
        registered = self._sources.keys.stated().get((SYSTEM, self._deployment))
        if registered is not None:
            now = time.time() * 1000
            return {one.public_key for one in registered.keys.values() if one.valid_from_ms <= now < one.valid_until_ms}
        return {self._logs.signer.signer.public_key} if self._logs.signer is not None else set()

    def sealed_end(self) -> int:
        """Return the offset after the last record of the sealed topic of ``access.lifecycle``."""
        return end_offset(self._cluster, sealed(LIFECYCLE_TOPIC), self._partition)

    def batch_verifier(self, start: int) -> SealedBatchVerifier:
        """Return the verifier of the sealed log of ``access.lifecycle``, with the head before a sealed record."""
        last = self._logs.last(LIFECYCLE_TOPIC, self._partition, before=start)
        begin = first_offset(self._cluster, sealed(LIFECYCLE_TOPIC), self._partition)
        head = last.head if last is not None else None
        return self._logs.verifier(LIFECYCLE_TOPIC, self._partition, begin=begin, head=head)

    def sealed_records(self, start: int, end: int) -> Iterator[Message]:
        """Yield the committed records of the sealed topic with start <= offset < end."""
        return read_range(self._cluster, sealed(LIFECYCLE_TOPIC), self._partition, start, end)

    def publish(self, records: Sequence[Outgoing]) -> int | None:
        """Publish records, all or none; return the brokers' time in microseconds since 1970, None without records."""
        writer, stamps = self._produce(
            [(record.topic, record.value, record.event.key, ANY_PARTITION) for record in records]
        )
        writer.commit()
        return max((time_ms for _, time_ms in stamps), default=0) * 1000 or None

    def time(self) -> int:
        """Return the brokers' time in microseconds since 1970: the timestamp of a record that is then aborted."""
        writer, stamps = self._produce([(WATCH_TOPIC, None, "time", self._partition)])
        writer.flush(PATIENCE)
        writer.abort()
        if not stamps or stamps[0][0] != TIMESTAMP_LOG_APPEND_TIME:
            raise KafkaUnavailableError(f"{WATCH_TOPIC} does not stamp records: run `grantledger topics check`")
        return stamps[0][1] * 1000

    def _produce(
        self, records: Sequence[tuple[str, bytes | None, str, int]]
    ) -> tuple[TransactionalWriter, list[tuple[int, int]]]:
        """Begin a transaction with records. The list gets the timestamp of each one that the brokers acknowledge."""
        if self._writer is None:
            raise RuntimeError("take over first")
        stamps: list[tuple[int, int]] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                stamps.append(message.timestamp())

        self._writer.begin()
        for topic, value, key, partition in records:
            self._writer.produce(topic, value, key, partition, on_delivery=delivered)
        return self._writer, stamps

    def log_end(self) -> tuple[bytes, int]:
        """Return the id of ``access.lifecycle``, and the offset after its last record, committed or not.

        The id is read last: of a topic that is created again meanwhile, the id is the new one. The topic is missing for
        a moment while a person does that.

        Raises:
            TopicError: the topic has another number of partitions than there are shards.
            KafkaUnavailableError, KafkaException: the topic stays missing, or the brokers do not answer.
        """
        return retry(self._log_end, retryable=is_missing_topic, timeout=PATIENCE)

    def _log_end(self) -> tuple[bytes, int]:
        end = end_offset(self._cluster, LIFECYCLE_TOPIC, self._partition, committed=False)
        identity = identify_topics(self._cluster, (LIFECYCLE_TOPIC,))[LIFECYCLE_TOPIC]
        if identity.partitions != self._shard.count:
            raise TopicError(
                f"{self._cluster.physical(LIFECYCLE_TOPIC)} has {identity.partitions} partitions, and lifecycle_shards "
                f"is {self._shard.count}: create the topic again with {self._shard.count} (`grantledger topics check`, "
                "`grantledger epoch open`)"
            )
        return identity.topic_id, end

    def is_empty(self, start: int, end: int) -> bool:
        """Whether a range of ``access.lifecycle`` contains nothing that will be sealed."""
        return is_empty(self._cluster, LIFECYCLE_TOPIC, self._partition, start, end)
