"""Reads from Kafka what the plan of a new epoch needs, and writes the new epoch. The rules are in ``plan``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from confluent_kafka import Consumer, Message

from ...base.times import micros_of
from ...kafka.identity import TopicIdentity
from ...kafka.offsets import Partition, end_offset, first_offset, group_offsets
from ...kafka.options import reader_options
from ...kafka.records import read_backward, read_range
from ...kafka.sealed_log import SealedLogs
from ...kafka.transactional_writer import TransactionalWriter
from ...ledger import batch as batches
from ...ledger.batch import BatchError, Head, Records, SealedBatch
from ...ledger.entry import NO_HEADERS, encode_headers, payload_hashes
from ...ledger.keys import Signer
from ...ledger.log_verifier import LogVerifier, check_hashes
from ...ledger.note import Checkpoint
from ...ledger.packing import U64, unpack, unpack_hashes
from ...ledger.source_signature import SourceSigner
from ...processors.partition_state import read_offsets, read_tail
from ...processors.resume import PartitionState, SealingStoppedError, resume
from ...schemas.topics import INPUT_TOPICS, seal_group, sealed
from .plan import IN_KAFKA, EpochPlan, EpochRefusedError, KnownHead


@dataclass(frozen=True, slots=True)
class FoundStop:
    """A stopped log: its state, and why sealing must not go on."""

    state: PartitionState
    stop: SealingStoppedError

    def sealed_until(self) -> tuple[int | None, int | None]:
        """Return the sealers' committed offset, and the offset of the last sealed batch."""
        return self.state.committed, self.state.tail.offset if self.state.tail is not None else None


def find_stops(
    logs: SealedLogs, identities: Mapping[str, TopicIdentity], anchored: Mapping[str, Checkpoint]
) -> list[FoundStop]:
    """Return the stopped logs.

    A sealer at work changes the state between two reads of it, which looks like a stop. A stopped log does not change.
    """
    partitions = [(topic, number) for topic in INPUT_TOPICS for number in range(identities[topic].partitions)]
    confirmed: dict[Partition, FoundStop] = {}
    before = _read_stops(logs, partitions, identities, anchored)
    while before:
        now = _read_stops(logs, before, identities, anchored)
        confirmed |= {at: one for at, one in now.items() if one.sealed_until() == before[at].sealed_until()}
        before = {at: one for at, one in now.items() if at not in confirmed}
    return [confirmed[at] for at in partitions if at in confirmed]


def _read_stops(
    logs: SealedLogs,
    partitions: Iterable[Partition],
    identities: Mapping[str, TopicIdentity],
    anchored: Mapping[str, Checkpoint],
) -> dict[Partition, FoundStop]:
    committed = group_offsets(logs.cluster, seal_group(logs.deployment), partitions)
    stops = {}
    for at, offsets in read_offsets(logs, committed, identities, anchored).items():
        state = offsets
        try:
            state = read_tail(logs, state)
            resume(state)
        except SealingStoppedError as stop:
            stops[at] = FoundStop(state, stop)
    return stops


def kafka_head(logs: SealedLogs, where: Partition, known: Collection[Checkpoint]) -> KnownHead | None:
    """Return the head of the batches in the sealed topic that continue one another; None if there is no batch.

    Batches that do not continue the log are passed over, because they may be the reason for the stop.

    Args:
        known: heads in other copies. The newest of them that the topic has is trusted, so that not everything is read.

    Raises:
        EpochRefusedError: the sealed partition has records, and none verifies.
    """
    topic, partition = where
    name = sealed(topic)
    begin, end = first_offset(logs.cluster, name, partition), end_offset(logs.cluster, name, partition)
    start, trusted = _newest_known(logs, where, known) or (begin, None)
    verifier = LogVerifier(f"{logs.deployment}/{topic}/{partition}", logs.keys, trusted, check_hashes)
    roots = {trusted.size: trusted.frontier.root()} if trusted is not None else {}
    problem, records = "", 0
    for message in read_range(logs.cluster, name, partition, start, end):
        records += 1
        try:
            batch = batches.decode(message.value() or b"")
            before = verifier.head
            head = (verifier.start_at if before is None and begin > 0 else verifier.accept)(batch)
        except BatchError as error:
            problem = str(error)
            continue
        if before is not None and before.genesis.origin != head.genesis.origin:
            roots.clear()
        roots[head.size] = head.frontier.root()
    last = verifier.head
    if last is None:
        if records:
            raise EpochRefusedError(
                f"no record of {logs.cluster.physical(name)} partition {partition} verifies. The last one: {problem}. "
                "Check key_file, deployment, topic_prefix and kafka_bootstrap_servers"
            )
        return None
    complete_from = trusted.size if trusted is not None and trusted.genesis.origin == last.genesis.origin else 0
    if begin > 0 and trusted is None:
        complete_from = min(roots)
    return KnownHead(IN_KAFKA, last.checkpoint(), last.next_offset, last.genesis.topic_id, roots, complete_from)


def _newest_known(logs: SealedLogs, where: Partition, known: Collection[Checkpoint]) -> tuple[int, Head] | None:
    """Return the offset after the newest batch whose head another copy has, and the head."""
    topic, partition = where
    verifier = LogVerifier(f"{logs.deployment}/{topic}/{partition}", logs.keys, check=check_hashes)
    for message in read_backward(logs.cluster, sealed(topic), partition) if known else ():
        try:
            batch = batches.decode(message.value() or b"")
            if any((batch.origin, batch.size) == (head.origin, head.size) for head in known):
                head = verifier.start_at(batch)
                if head.checkpoint() in known:
                    return (message.offset() or 0) + 1, head
        except BatchError:
            continue
    return None


def first_unsealed(logs: SealedLogs, state: PartitionState) -> int:
    """Return the first offset of the input partition whose record is not in the sealed topic.

    An input topic that lost its end gives the same offsets to new records: only their contents differ. The sealed topic
    may have lost batches of earlier epochs. A record from before the newest epoch that no batch has is sealed or lost:
    whoever opened this epoch decided where it begins.
    """
    where, begin, end = (state.topic, state.partition), state.input_begin, state.input_end
    known: dict[int, bytes] = {}
    newest: SealedBatch | None = None
    for message in read_backward(logs.cluster, sealed(where[0]), where[1]):
        try:
            batch = batches.decode(message.value() or b"")
        except BatchError:
            continue
        if newest is None or batch.origin == newest.origin:
            newest = batch  # in the end the first one of its epoch
        offsets = unpack(U64, batch.offsets)
        known = {**dict(zip(offsets, unpack_hashes(batch.payload_hashes), strict=True)), **known}
        if offsets and offsets[0] <= begin:
            break
    for message in read_range(logs.cluster, *where, begin, end):
        headers: Any = message.headers()
        encoded = encode_headers(headers) if headers else NO_HEADERS
        offset = message.offset() or 0
        if offset not in known and newest is not None and _is_older(message, newest):
            continue
        if payload_hashes([message.key()], [message.value()], [encoded]) != [known.get(offset)]:
            return offset
    return end


def _is_older(message: Message, first: SealedBatch) -> bool:
    """Return whether a record lies before an epoch and was there when the epoch was opened."""
    before = (message.offset() or 0) < first.genesis.first_offset
    return before and message.timestamp()[1] <= micros_of(first.sealed_at) // 1000


class EpochWriter:
    """Writes new epochs. Of two people who open epochs at a time, one is fenced off."""

    def __init__(self, logs: SealedLogs, signer: Signer, source_signer: SourceSigner) -> None:
        self._logs, self._cluster, self._signer = logs, logs.cluster, signer
        self._writer = TransactionalWriter(logs.cluster, f"{logs.deployment}-epoch", signer=logs.signer)

    def take_over(self) -> None:
        """Fence off other writers. Read the state that the plans rely on after this."""
        self._writer.init()

    def open(self, plan: EpochPlan, event: tuple[str, bytes, str], now: datetime) -> None:
        """Write the genesis of the new epoch, the sealers' offset and the event about it in one transaction.

        Args:
            event: topic, value and key of the record.
        """
        batch, _ = batches.seal(Head.at_genesis(plan.genesis), Records(), plan.genesis.first_offset, now, self._signer)
        consumer = Consumer(reader_options(self._cluster, seal_group(self._logs.deployment)))
        try:
            self._writer.begin()
            self._writer.produce(sealed(plan.topic), batches.encode(batch), batch.origin, plan.partition)
            topic, value, key = event
            self._writer.produce(topic, value, key, 0)
            offsets = {(plan.topic, plan.partition): plan.genesis.first_offset}
            self._writer.send_offsets(offsets, consumer.consumer_group_metadata())
            self._writer.commit()
        finally:
            consumer.close()
