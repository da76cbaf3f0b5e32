"""The reader of one sealed partition: verified batches up to the current end, then new ones as they are sealed.

It skips records without a valid note and stops at a batch that does not continue the log. Both are reported through
``on_problem``, once per record. Other partitions are not affected. Once a person has opened a new epoch after such a
batch (`grantledger epoch open`), it is skipped, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, Self

from confluent_kafka import Consumer, KafkaError, Message

from ..base.errors import StoppedError
from ..base.health import HEALTH
from ..ledger import batch as batches
from ..ledger.batch import BatchError, Head, SealedBatch
from ..ledger.entry import epoch_of
from ..ledger.keys import LogKeys
from ..ledger.log_verifier import DiscontinuityError, LogVerifier, check_contents, check_hashes
from ..ledger.source_keys import SignedRecord, signed_records
from ..ledger.source_signature import SourceSigner
from ..schemas.topics import sealed
from .cluster import Cluster
from .errors import PATIENCE, KafkaUnavailableError, ends_reading
from .identity import identify_topics
from .offsets import end_offset, first_offset
from .options import reader_options
from .records import read_backward, read_range, signed_record

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


@dataclass(frozen=True, slots=True)
class VerifiedBatch:
    """A verified batch, the head of the log after it, and its offset in the sealed topic."""

    batch: SealedBatch
    head: Head
    offset: int


OnProblem = Callable[[SealedLogProblem], None]
Check = Callable[[SealedBatch], None]


class SealedLogStoppedError(StoppedError):
    """A sealed log is discontinuous; nothing after that point can be trusted. A person must look."""


@dataclass(frozen=True, slots=True)
class SealedLogs:
    """All that a process needs to read the sealed logs of its deployment. The runtime makes it from the settings.

    Attributes:
        keys: the log's public keys.
        on_problem: called for each record that is not accepted.
        signer: signs the events that the process itself publishes.
    """

    cluster: Cluster
    deployment: str
    keys: LogKeys
    on_problem: OnProblem
    signer: SourceSigner | None = None

    def open(
        self, topic: str, partition: int = 0, *, start: int | None = None, check: Check = check_contents
    ) -> SealedLogReader:
        """Return a reader of the sealed partition of an input partition; see :class:`SealedLogReader`."""
        return SealedLogReader(self, topic, partition, start=start, check=check)

    def last(self, topic: str, partition: int = 0, *, before: int | None = None) -> VerifiedBatch | None:
        """Return the last batch with a valid note, or None if the sealed partition has no record.

        The records after it are reported. If no record has a valid note, the key or the brokers are probably the wrong
        ones, and nothing is reported.

        Args:
            before: return the last batch below this offset in the sealed topic instead.

        Raises:
            SealedLogStoppedError: the sealed partition has records, and none of them has a valid note.
        """
        problems: list[SealedLogProblem] = []
        verifier = SealedBatchVerifier(replace(self, on_problem=problems.append), topic, partition, check=check_hashes)
        found = verifier.start_after(read_backward(self.cluster, sealed(topic), partition, before=before))
        if found is None and problems:
            raise SealedLogStoppedError(
                f"no record of {self.cluster.physical(sealed(topic))} partition {partition} verifies. The last one: "
                f"{problems[0].reason}. Check key_file, deployment, topic_prefix and kafka_bootstrap_servers"
            )
        for problem in problems:
            self.on_problem(problem)
        return found

    def tail(self, topic: str, partition: int = 0) -> VerifiedBatch | None:
        """Return the last batch as :meth:`last` does, after checking that it continues the batch before it.

        A copy of an older batch also has a valid note. A process that extends the log, or signs its head, must not
        mistake it for the end.

        Raises:
            SealedLogStoppedError: no record has a valid note, or the last batch does not continue the one before it.
        """
        found = self.last(topic, partition)
        if found is None:
            return None
        name = sealed(topic)
        begin = first_offset(self.cluster, name, partition)
        verifier = self.verifier(topic, partition, check=check_hashes, begin=begin)
        verifier.start_after(read_backward(self.cluster, name, partition, before=found.offset))
        for message in read_range(self.cluster, name, partition, found.offset, found.offset + 1):
            if verifier.accept(message) is None:
                raise SealedLogStoppedError(
                    f"the last batch of {self.cluster.physical(name)} partition {partition}, at offset {found.offset}, "
                    "does not continue the batch before it: run `grantledger verify --from kafka`"
                )
        return found

    def verifier(
        self, topic: str, partition: int, *, check: Check = check_contents, begin: int = 0, head: Head | None = None
    ) -> SealedBatchVerifier:
        """Return a verifier for a reader that gets the records of a sealed partition in its own way."""

        def last_epoch() -> int:
            last = self.last(topic, partition)
            return epoch_of(last.batch.origin) if last is not None else 0

        return SealedBatchVerifier(self, topic, partition, check=check, begin=begin, head=head, last_epoch=last_epoch)


class SealedBatchVerifier:
    """Verifies the records of one sealed partition, in order, and reports those that it does not accept.

    Pure but for ``on_problem`` and ``last_epoch``.

    Args:
        topic: the input topic.
        check: :func:`check_contents` for those who act on the payloads, else :func:`check_hashes`.
        begin: first offset of the sealed partition. Above 0 retention has deleted batches, and the first valid batch
            is accepted without the head before it.
        head: the verified head after which reading begins, if there is one.
        last_epoch: returns the epoch of the last batch in the partition. A discontinuity in an earlier epoch has been
            examined by the person who opened the next one: the batch is skipped.
    """

    def __init__(
        self,
        logs: SealedLogs,
        topic: str,
        partition: int,
        *,
        check: Check = check_contents,
        begin: int = 0,
        head: Head | None = None,
        last_epoch: Callable[[], int] = lambda: 0,
    ) -> None:
        self._verifier = LogVerifier(f"{logs.deployment}/{topic}/{partition}", logs.keys, head, check)
        self._topic, self._partition, self._on_problem = sealed(topic), partition, logs.on_problem
        self._begin, self._last_epoch = begin, last_epoch
        self._epoch = 0
        self.first: tuple[int, int] | None = None
        """Epoch and first index of the first batch that was accepted."""
        self.stopped = False
        """Whether a batch did not continue the log. No later record is accepted."""

    @property
    def head(self) -> Head | None:
        """The last verified head."""
        return self._verifier.head

    def accept(self, message: Message) -> VerifiedBatch | None:
        """Return the batch in the next record, or None if it is skipped or the partition is stopped."""
        if self.stopped:
            return None
        expired = self._begin > 0 and self.head is None
        found = self._verified(message, self._verifier.start_at if expired else self._verifier.accept)
        if found is not None and self.first is None:
            self.first = epoch_of(found.batch.origin), found.batch.first_index
        return found

    def start_after(self, records: Iterable[Message]) -> VerifiedBatch | None:
        """Continue after the first record that has a valid note, without the head before it, and return its batch.

        Args:
            records: backward from the place where reading continues.
        """
        return next(filter(None, (self._verified(record, self._verifier.start_at) for record in records)), None)

    def _verified(self, message: Message, verify: Callable[[SealedBatch], Head]) -> VerifiedBatch | None:
        try:
            batch = batches.decode(message.value() or b"")
            return VerifiedBatch(batch, verify(batch), message.offset() or 0)
        except DiscontinuityError as error:
            self.stopped = not self._is_reopened(epoch_of(batch.origin))
            self._report("sealed_log_discontinuous", message, error)
        except BatchError as error:
            self._report("sealed_record_invalid", message, error)
        return None

    def _is_reopened(self, epoch: int) -> bool:
        """Whether a person has opened an epoch after this one."""
        if self._epoch <= epoch:
            self._epoch = self._last_epoch()
        return self._epoch > epoch

    def _report(self, rule: Rule, message: Message, error: BatchError) -> None:
        offset, appended = message.offset() or 0, message.timestamp()[1]
        self._on_problem(SealedLogProblem(rule, self._topic, self._partition, offset, appended, str(error)))


class SealedLogReader:
    """Reads the sealed partition of an input partition. Kafka is used on the calling thread only.

    Args:
        topic: the input topic; the reader reads its sealed topic.
        start: offset in the sealed topic; None for its beginning. The batch before it provides the verified head.
        check: :func:`check_contents` for those who act on the payloads, else :func:`check_hashes`.
    """

    def __init__(
        self,
        logs: SealedLogs,
        topic: str,
        partition: int,
        *,
        start: int | None = None,
        check: Check = check_contents,
    ) -> None:
        self._cluster, self._input = logs.cluster, topic
        self.topic, self.partition = sealed(topic), partition
        begin = self._begin = first_offset(logs.cluster, self.topic, partition)
        self._verifier = logs.verifier(topic, partition, check=check, begin=begin)
        self.position = max(begin, start or 0)
        """Offset in the sealed topic at which reading continues."""
        self.at_end = False  # whether everything in the partition has been read
        if self.position > begin:
            self._verifier.start_after(read_backward(logs.cluster, self.topic, partition, before=self.position))
        self._consumer = Consumer({**reader_options(logs.cluster, "unused"), "enable.partition.eof": True})
        self._consumer.assign([logs.cluster.partition(self.topic, partition, self.position)])

    @property
    def head(self) -> Head | None:
        """The last verified head."""
        return self._verifier.head

    @property
    def stopped(self) -> bool:
        """Whether a batch did not continue the log. Nothing is read any more."""
        return self._verifier.stopped

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
        messages = self._consumer.consume(1, timeout)
        if messages and messages[0].error() is None:
            messages += self._consumer.consume(MANY - 1, 0.0)
        found = []
        for message in filter(self._is_record, messages):
            verified = self._verifier.accept(message)
            if not self.stopped:
                self.position = (message.offset() or 0) + 1
            if verified is not None:
                found.append(verified)
        if self.stopped:
            self._consumer.pause(self._consumer.assignment())
        return found

    def read_to_end(self) -> Iterator[VerifiedBatch]:
        """Yield the verified batches up to the end that the partition has now, or to the stop.

        Raises:
            KafkaUnavailableError: the brokers stop answering.
        """
        end = end_offset(self._cluster, self.topic, self.partition)
        quiet_since = time.monotonic()
        while self.position < end and not self.stopped:
            HEALTH.progressed()
            before = self.position
            yield from self.poll(0.5)
            if self.position > before:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > PATIENCE:
                name = self._cluster.physical(self.topic)
                raise KafkaUnavailableError(f"no answer reading {name} (kafka_bootstrap_servers)")

    def read_records(self) -> Iterator[tuple[int, SignedRecord]]:
        """Yield offset and content of every record: the sealed ones, then those not sealed yet.

        The input topic forgets after its retention. The sealed log does not.

        Raises:
            SealedLogStoppedError: the sealed log is discontinuous.
            KafkaUnavailableError: the brokers do not answer.
        """
        yield from self.read_sealed()
        yield from self.read_unsealed()

    def read_sealed(self) -> Iterator[tuple[int, SignedRecord]]:
        """Yield the sealed records after those that were read; see :meth:`read_records`."""
        for found in self.read_to_end():
            records = found.batch.records()
            yield from zip(records.offsets, signed_records(self._input, records), strict=True)
        self.check_not_stopped()

    def read_unsealed(self) -> Iterator[tuple[int, SignedRecord]]:
        """Yield the records of the input topic after the sealed ones that were read; see :meth:`read_records`."""
        end = end_offset(self._cluster, self._input, self.partition)
        for message in read_range(self._cluster, self._input, self.partition, self._next_offset(), end):
            yield message.offset() or 0, signed_record(self._input, message)

    def has_read_below(self, offset: int) -> bool:
        """Whether every record of the input topic below an offset is sealed, and was read.

        False while a transaction is open below it. Markers of transactions and aborted records are not sealed.
        """
        begin = self._next_offset()
        if begin >= offset or end_offset(self._cluster, self._input, self.partition) < offset:
            return begin >= offset
        return next(read_range(self._cluster, self._input, self.partition, begin, offset), None) is None

    def _next_offset(self) -> int:
        """Return the first offset of the input topic that is not sealed, or was not read; of a new topic, its first."""
        begin, head = first_offset(self._cluster, self._input, self.partition), self.head
        topic_id = identify_topics(self._cluster, (self._input,))[self._input].topic_id
        return max(begin, head.next_offset) if head is not None and head.genesis.topic_id == topic_id else begin

    def check_whole(self) -> None:
        """Raise SealedLogStoppedError if the beginning of the log is missing. Call it after reading everything."""
        first = self._verifier.first
        if first is None and self._begin == 0:  # nothing is sealed yet, so the input topic must have everything
            is_whole = first_offset(self._cluster, self._input, self.partition) == 0
        else:
            is_whole = first == (0, 0)
        if not is_whole:
            raise SealedLogStoppedError(
                f"{self._cluster.physical(self.topic)} partition {self.partition} does not begin with the first entry "
                "of the log, and a registration may be missing: restore the topic from a copy"
            )

    def check_not_stopped(self) -> None:
        """Raise SealedLogStoppedError if a batch did not continue the log."""
        if self.stopped:
            raise SealedLogStoppedError(
                f"{self._cluster.physical(self.topic)} partition {self.partition} does not continue the log at offset "
                f"{self.position}: run `grantledger verify --from kafka`"
            )

    def _is_record(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            self.at_end = False
            return True
        if error.code() == KafkaError._PARTITION_EOF:
            if not self.stopped:
                self.position = max(self.position, message.offset() or 0)  # transaction markers end the partition
                self.at_end = True
        elif ends_reading(error):
            name = self._cluster.physical(self.topic)
            raise KafkaUnavailableError(f"reading {name}: {error.str()} (kafka_bootstrap_servers)")
        return False
