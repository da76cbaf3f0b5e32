"""The reader of one sealed partition: verified batches up to the current end, then new ones as they are sealed.

It skips records without a valid note and stops at a batch that does not continue the log. Both are reported through
``on_problem``, once per record. Other partitions are not affected.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from ..ledger.batch import Head
from ..schemas.topics import sealed
from .cluster import Cluster
from .errors import PATIENCE, KafkaUnavailableError, is_fatal, is_transient
from .offsets import end_offset, first_offset
from .options import reader_options
from .records import last_record
from .sealed_log_verifier import DiscontinuousLogError, InvalidRecordError, SealedLogVerifier, VerifiedBatch

log = structlog.get_logger("grantledger.kafka")

Rule = Literal["sealed_record_invalid", "sealed_log_discontinuous"]
MANY = 100
"""Most records per poll: a sealed batch may have 8 MiB."""


@dataclass(frozen=True, slots=True)
class SealedLogProblem:
    """A record of a sealed topic that a reader did not accept.

    Attributes:
        topic: logical name of the sealed topic.
        offset: of the record in the sealed topic.
        append_time_ms: when the broker appended it.
        reason: for the log; it may differ from reader to reader.
    """

    rule: Rule
    topic: str
    partition: int
    offset: int
    append_time_ms: int
    reason: str


OnProblem = Callable[[SealedLogProblem], None]


def verify_record(
    verifier: SealedLogVerifier, topic: str, message: Message, on_problem: OnProblem
) -> VerifiedBatch | None:
    """Verify one record of a sealed topic; report it and return None if it is not valid.

    Raises:
        DiscontinuousLogError: the log is not continued. It is reported; nothing after it may be read.
    """
    offset, rule = message.offset() or 0, "sealed_record_invalid"
    try:
        return verifier.verify(message.value(), offset)
    except (InvalidRecordError, DiscontinuousLogError) as error:
        if isinstance(error, DiscontinuousLogError):
            rule = "sealed_log_discontinuous"
        partition, appended = message.partition() or 0, message.timestamp()[1]
        log.error(rule, topic=topic, partition=partition, offset=offset, reason=str(error))
        on_problem(SealedLogProblem(rule, topic, partition, offset, appended, str(error)))  # type: ignore[arg-type]
        if isinstance(error, DiscontinuousLogError):
            raise
    return None


class SealedLogReader:
    """Reads the sealed partition of an input partition. Kafka is used on the calling thread only.

    Args:
        topic: the input topic; the reader reads its sealed topic.
        public_keys: keys of the log.
        start: offset in the sealed topic; None for its beginning. The batch before it provides the verified head.
        payloads: recompute payload hashes, as everyone must who decides by the payloads.
    """

    def __init__(
        self,
        cluster: Cluster,
        deployment: str,
        topic: str,
        partition: int,
        public_keys: Sequence[bytes],
        *,
        on_problem: OnProblem,
        start: int | None = None,
        payloads: bool = True,
    ) -> None:
        self._cluster, self._on_problem = cluster, on_problem
        self.topic, self.partition = sealed(topic), partition
        self._verifier = SealedLogVerifier(f"{deployment}/{topic}/{partition}", public_keys, payloads=payloads)
        self.stopped = False
        """Whether a batch did not continue the log. Nothing is read any more."""
        begin = first_offset(cluster, self.topic, partition)
        self.position = max(begin, start or 0)
        """Offset in the sealed topic at which reading continues."""
        if self.position > begin:
            self._take_head_before(begin)
        self._consumer = Consumer({**reader_options(cluster, "unused"), "enable.partition.eof": True})
        self._consumer.assign([cluster.partition(self.topic, partition, self.position)])

    @property
    def head(self) -> Head | None:
        """The last verified head."""
        return self._verifier.head

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()

    def poll(self, timeout: float) -> list[VerifiedBatch]:
        """Return the verified batches that arrive within ``timeout`` seconds, without waiting for more than one.

        Raises:
            KafkaUnavailableError: the topic cannot be read any more.
        """
        if self.stopped:
            time.sleep(timeout)
            return []
        messages = self._consumer.consume(1, timeout)
        if messages and messages[0].error() is None:
            messages += self._consumer.consume(MANY - 1, 0.0)
        found = []
        for message in messages:
            if self._is_record(message):
                self.position = (message.offset() or 0) + 1
                try:
                    batch = verify_record(self._verifier, self.topic, message, self._on_problem)
                except DiscontinuousLogError:
                    self.position = message.offset() or 0
                    self.stopped = True
                    break
                if batch is not None:
                    found.append(batch)
        return found

    def read_to_end(self) -> Iterator[VerifiedBatch]:
        """Yield the verified batches up to the end that the partition has now, or to the stop.

        Raises:
            KafkaUnavailableError: the brokers stop answering.
        """
        end = end_offset(self._cluster, self.topic, self.partition)
        quiet_since = time.monotonic()
        while self.position < end and not self.stopped:
            before = self.position
            yield from self.poll(0.5)
            if self.position > before:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > PATIENCE:
                raise KafkaUnavailableError(
                    f"no answer reading {self._cluster.physical(self.topic)} (kafka_bootstrap_servers)"
                )

    def _is_record(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.code() == KafkaError._PARTITION_EOF:
            self.position = max(self.position, message.offset() or 0)  # transaction markers end the partition
        elif is_fatal(error) or not (error.retriable() or is_transient(KafkaException(error))):
            name = self._cluster.physical(self.topic)
            raise KafkaUnavailableError(f"reading {name}: {error.str()} (kafka_bootstrap_servers)")
        return False

    def _take_head_before(self, begin: int) -> None:
        before = self.position
        while before > begin and self.head is None:
            last = last_record(self._cluster, self.topic, self.partition, before=before)
            if last is None:
                return
            before = last.offset() or 0
            try:
                verify_record(self._verifier, self.topic, last, self._on_problem)
            except DiscontinuousLogError:  # pragma: no cover - without a head every valid batch is accepted
                return
