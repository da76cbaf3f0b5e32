"""The end of a log key: the state of every log while nothing seals, and the last batch that the key seals.

The change itself is an entry of ``access.findings``. The old key seals it, with everything unsealed before it.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, Message

from ..base.errors import StoppedError
from ..kafka.anchor_log import last_anchor
from ..kafka.errors import PATIENCE, KafkaUnavailableError
from ..kafka.membership import group_state
from ..kafka.offsets import Partition, end_offset, group_offsets
from ..kafka.options import reader_options
from ..kafka.records import read_range
from ..kafka.sealed_log import SealedLogs, SealedLogStoppedError
from ..kafka.transactional_writer import TransactionalWriter
from ..ledger import batch as batches
from ..ledger.anchor import Anchor
from ..ledger.batch import MAX_ENTRIES, MAX_PAYLOAD_BYTES, Head
from ..ledger.entry import FLAG_LOG_APPEND_TIME, NO_HEADERS, encode_headers
from ..ledger.keys import LogSigners
from ..schemas.event import FINDINGS_TOPIC
from ..schemas.topics import INPUT_TOPICS, seal_group, sealed
from .anchor_state import lost_anchors
from .partition_buffer import PartitionBuffer
from .partition_state import anchored_heads, identify, read_heads
from .resume import SealingStoppedError
from .seal import UNREADABLE_HEADERS

LEAVE_SECONDS = 20.0
"""A sealer that was stopped stays in its group until its session ends."""
FINDINGS: Partition = (FINDINGS_TOPIC, 0)
_headers_of = operator.methodcaller("headers")


@dataclass(frozen=True, slots=True)
class QuietLedger:
    """The logs while nothing seals or anchors.

    Attributes:
        sizes: the size of each log that has a batch, by origin, and of the anchor log if it has an anchor.
        findings: the head of the log of findings.
    """

    sizes: dict[str, int]
    findings: Head


class KeyChangeWriter:
    """Fences off whoever else signs, and writes the change of the key as the last entry under the old one."""

    def __init__(self, logs: SealedLogs, signers: LogSigners) -> None:
        self._logs, self._cluster, self._signers = logs, logs.cluster, signers
        self._group = seal_group(logs.deployment)
        self._writer = TransactionalWriter(logs.cluster, f"{logs.deployment}-epoch", signer=logs.signer)

    def take_over(self, patience: float = LEAVE_SECONDS) -> None:
        """Check that no sealer runs, and fence off an anchor process and others who open epochs or change the key.

        Raises:
            StoppedError: a sealer runs.
        """
        deadline = time.monotonic() + patience
        while members := group_state(self._cluster, self._group).assigned:
            if time.monotonic() >= deadline:
                raise StoppedError(f"{len(members)} sealer(s) are running: stop `run seal` and `run anchor` first")
            time.sleep(0.2)
        TransactionalWriter(self._cluster, f"{self._logs.deployment}-anchor").init()
        self._writer.init()

    def read(self, copies: dict[str, Anchor]) -> QuietLedger:
        """Return the state of every log, checked as a sealer checks it before it continues.

        Args:
            copies: the last anchor of each anchor target.

        Raises:
            StoppedError: a log or the anchor log is stopped.
        """
        identities = identify(self._cluster)
        partitions = [(topic, number) for topic in INPUT_TOPICS for number in range(identities[topic].partitions)]
        committed = group_offsets(self._cluster, self._group, partitions)
        found, sizes = read_heads(self._logs, committed, identities, anchored_heads(self._logs)), {}
        for (topic, number), state in found.items():
            if isinstance(state, SealingStoppedError):
                raise StoppedError(f"{topic}/{number} is stopped: {state}. See `grantledger epoch show`")
            head, sealed_at = state
            if sealed_at is not None:
                sizes[head.genesis.origin] = head.size
        try:
            last = last_anchor(self._logs)
        except SealedLogStoppedError as error:
            raise StoppedError(str(error)) from error
        if lost := lost_anchors(self._logs, last, copies):
            raise StoppedError(f"anchors are lost: {'; '.join(lost)}. See `grantledger epoch show`")
        if last is not None:
            sizes[last.origin] = last.index + 1
        of_findings = found[FINDINGS]
        if isinstance(of_findings, SealingStoppedError):
            raise of_findings
        return QuietLedger(sizes, of_findings[0])

    def publish(self, value: bytes, key: str) -> int:
        """Write the event to ``access.findings`` and return its offset."""
        offsets: list[int] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                offsets.append(message.offset() or 0)

        self._writer.begin()
        self._writer.produce(FINDINGS_TOPIC, value, key, 0, delivered)
        self._writer.commit()
        [offset] = offsets
        return offset

    def seal(self, head: Head, offset: int, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Head:
        """Seal the records of ``access.findings`` up to an offset under the old key, and return the new head.

        Raises:
            KafkaUnavailableError: a transaction of another process stays open before it.
        """
        self._await_stable(offset)
        buffer = PartitionBuffer(head, 0.0, 0.0)
        for message in read_range(self._cluster, *FINDINGS, head.next_offset, offset + 1):
            _append(buffer, message, lambda: buffer.seal(self._signers, now()))
        buffer.seal(self._signers, now())
        consumer = Consumer(reader_options(self._cluster, self._group))
        try:
            self._writer.begin()
            for batch, _ in buffer.batches:
                self._writer.produce(sealed(FINDINGS_TOPIC), batches.encode(batch), batch.origin, 0)
            self._writer.send_offsets({FINDINGS: buffer.next_head.next_offset}, consumer.consumer_group_metadata())
            self._writer.commit()
        finally:
            consumer.close()
        return buffer.next_head

    def _await_stable(self, offset: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while end_offset(self._cluster, *FINDINGS) <= offset:
            if time.monotonic() >= deadline:
                raise KafkaUnavailableError(f"a transaction in {self._cluster.physical(FINDINGS_TOPIC)} stays open")
            time.sleep(0.1)


def _append(buffer: PartitionBuffer, message: Message, seal: Callable[[], None]) -> None:
    """Append one record, as the sealer does; seal those before it if the batch is full."""
    kind, time_ms = message.timestamp()
    try:
        headers = _headers_of(message)
    except SystemError:
        headers = UNREADABLE_HEADERS
    key, value, encoded = message.key(), message.value(), encode_headers(headers) if headers else NO_HEADERS
    size = len(key or b"") + len(value or b"") + len(encoded)
    if len(buffer.records) and (len(buffer.records) >= MAX_ENTRIES or buffer.payload + size > MAX_PAYLOAD_BYTES):
        seal()
    records = buffer.records
    records.flags.append(FLAG_LOG_APPEND_TIME if kind == TIMESTAMP_LOG_APPEND_TIME else 0)
    records.offsets.append(message.offset() or 0)
    records.append_times.append(time_ms)
    records.keys.append(key)
    records.values.append(value)
    records.headers.append(encoded)
    buffer.payload += size
