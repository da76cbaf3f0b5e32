"""Reading a range of a partition, outside any consumer group."""

from __future__ import annotations

import time
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, Message

from ..ledger.entry import NO_HEADERS, encode_headers
from ..ledger.source_keys import SignedRecord
from .cluster import Cluster
from .errors import PATIENCE, KafkaUnavailableError, ends_reading
from .offsets import end_offset, first_offset
from .options import reader_options

__all__ = [
    "SignedRecord",
    "last_record",
    "read_backward",
    "read_range",
    "read_whole",
    "signed_record",
]


def signed_record(topic: str, message: Message) -> SignedRecord:
    """Return the content of a record of a topic, given by its logical name."""
    try:
        headers = encode_headers(message.headers())  # type: ignore[arg-type]
    except SystemError:  # the sealer seals such a record as unsigned too
        headers = NO_HEADERS
    return SignedRecord(topic, message.key(), message.value(), headers, message.timestamp()[1])


def last_record(cluster: Cluster, topic: str, partition: int) -> Message | None:
    """Return the last committed record of a partition, or None if there is none."""
    return next(read_backward(cluster, topic, partition), None)


def read_backward(cluster: Cluster, topic: str, partition: int, *, before: int | None = None) -> Iterator[Message]:
    """Yield the committed records of a partition from the last one to the first.

    Args:
        before: begin with the last record below this offset instead.
    """
    begin, end = first_offset(cluster, topic, partition), end_offset(cluster, topic, partition)
    if before is not None:
        end = min(end, before)
    reach = 4
    while end > begin:
        start = max(begin, end - reach)
        found = list(read_range(cluster, topic, partition, start, end))
        yield from reversed(found)
        if not found:  # aborted records and transaction markers have offsets too
            reach *= 8
        end = start


def read_whole(cluster: Cluster, topic: str, partition: int) -> Iterator[Message]:
    """Yield every committed record that the partition has when this is called, in order."""
    begin, end = first_offset(cluster, topic, partition), end_offset(cluster, topic, partition)
    return read_range(cluster, topic, partition, begin, end)


def is_empty(cluster: Cluster, topic: str, partition: int, start: int, end: int) -> bool:
    """Whether start <= offset < end contains nothing that will be sealed: only markers and aborted records.

    False while a transaction is open in it.
    """
    if end_offset(cluster, topic, partition, committed=True) < end:
        return False
    begin = max(start, first_offset(cluster, topic, partition))
    return next(read_range(cluster, topic, partition, begin, end), None) is None


def read_range(cluster: Cluster, topic: str, partition: int, start: int, end: int) -> Iterator[Message]:
    """Yield the committed records of a partition with start <= offset < end, in order.

    Raises:
        KafkaUnavailableError: the brokers stop answering for half a minute.
    """
    if start >= end:
        return
    name = cluster.physical(topic)
    consumer = Consumer(
        {**reader_options(cluster, "unused"), "enable.partition.eof": True, "auto.offset.reset": "earliest"}
    )
    try:
        consumer.assign([cluster.partition(topic, partition, start)])
        quiet_since = time.monotonic()
        while True:
            # Block for the first record only: a call for 500 would block its full timeout at the end of the range.
            for message in consumer.consume(1, 0.5) + consumer.consume(500, 0.0):
                quiet_since = time.monotonic()
                error = message.error()
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        return
                    if ends_reading(error):
                        raise KafkaUnavailableError(f"reading {name} partition {partition}: {error.str()}")
                    continue
                if (message.offset() or 0) >= end:
                    return
                yield message
            position = consumer.position([cluster.partition(topic, partition)])[0].offset
            if position >= end:
                return
            if time.monotonic() - quiet_since > PATIENCE:
                raise KafkaUnavailableError(f"no answer reading {name} partition {partition} (kafka_bootstrap_servers)")
    finally:
        consumer.close()
