"""Offsets: the first and the end of partitions, and the offsets that consumer groups have committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from .cluster import Cluster
from .errors import (
    REQUEST_TIMEOUT,
    TRANSACTION_PATIENCE,
    KafkaUnavailableError,
    answer_of,
    has_stale_leader,
    retry_transient,
)
from .options import reader_options

Partition = tuple[str, int]
"""A logical topic name and a partition number."""


def offsets_at(
    cluster: Cluster, partitions: Iterable[Partition], spec: OffsetSpec, *, committed: bool
) -> dict[Partition, int]:
    """Return one offset per partition.

    Args:
        committed: whether the end of a partition is the last stable offset or the high watermark.
    """
    specs = {cluster.partition(*partition): spec for partition in partitions}
    level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED

    def list_offsets() -> dict[Partition, int]:
        futures = cluster.admin.list_offsets(specs, isolation_level=level, request_timeout=REQUEST_TIMEOUT)
        try:
            return {
                (cluster.logical(at.topic), at.partition): answer_of(future).offset for at, future in futures.items()
            }
        except KafkaException as error:
            if has_stale_leader(error):  # asking for a topic's metadata refreshes its leaders
                for name in {at.topic for at in specs}:
                    cluster.admin.list_topics(name, timeout=REQUEST_TIMEOUT)
            raise

    return retry_transient(list_offsets) if specs else {}


def end_offsets(cluster: Cluster, partitions: Iterable[Partition], *, committed: bool = True) -> dict[Partition, int]:
    """Return the offset after the last record of each partition: the last stable offset, or the high watermark."""
    latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    return offsets_at(cluster, partitions, latest, committed=committed)


def end_offset(cluster: Cluster, topic: str, partition: int, *, committed: bool = True) -> int:
    """Return the offset after the last record: the last stable offset, or the high watermark."""
    return end_offsets(cluster, [(topic, partition)], committed=committed)[topic, partition]


def first_offsets(cluster: Cluster, partitions: Iterable[Partition]) -> dict[Partition, int]:
    """Return the earliest offset that each partition still has."""
    earliest: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
    return offsets_at(cluster, partitions, earliest, committed=False)


def first_offset(cluster: Cluster, topic: str, partition: int) -> int:
    """Return the earliest offset that the partition still has."""
    return first_offsets(cluster, [(topic, partition)])[topic, partition]


def group_offsets(cluster: Cluster, group: str, partitions: Iterable[Partition]) -> dict[Partition, int]:
    """Return the offset that a consumer group has committed for each partition; negative if none.

    The request comes from a consumer of the group that never joins it: the corresponding admin call crashes librdkafka
    2.16.0 while the group's coordinator is loading.
    """
    consumer = Consumer(reader_options(cluster, group))
    try:
        return committed_offsets(cluster, consumer, [cluster.partition(*partition) for partition in partitions])
    finally:
        consumer.close()


def committed_offset(cluster: Cluster, group: str, topic: str, partition: int) -> int:
    """Return the offset that a consumer group has committed for one partition; negative if none."""
    return group_offsets(cluster, group, [(topic, partition)])[topic, partition]


def committed_offsets(cluster: Cluster, consumer: Consumer, partitions: list[TopicPartition]) -> dict[Partition, int]:
    """Return the offset that the consumer's group has committed for each partition; negative if none.

    Waits while an open transaction may still change it.
    """
    return {where: at.offset for where, at in committed_positions(cluster, consumer, partitions).items()}


def committed_positions(
    cluster: Cluster, consumer: Consumer, partitions: list[TopicPartition]
) -> dict[Partition, TopicPartition]:
    """Return what the consumer's group has committed for each partition: as above, with the committed metadata."""
    if not partitions:
        return {}
    found = retry_transient(lambda: consumer.committed(partitions, REQUEST_TIMEOUT), TRANSACTION_PATIENCE)
    return {(cluster.logical(at.topic), at.partition): at for at in found}


def wait_without_open_transaction(
    cluster: Cluster,
    *partitions: Partition,
    limit: float = TRANSACTION_PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[Partition, int]:
    """Wait until no transaction is open at the end of each partition, and return the end offsets.

    Raises:
        KafkaUnavailableError: a transaction stays open longer than ``limit`` seconds.
    """
    waited = 0.0
    while True:
        stable = end_offsets(cluster, partitions, committed=True)
        ends = end_offsets(cluster, partitions, committed=False)
        still_open = [f"{cluster.physical(at[0])} partition {at[1]}" for at in ends if stable[at] != ends[at]]
        if not still_open:
            return stable
        if waited >= limit:
            raise KafkaUnavailableError(
                f"a transaction has been open on {', '.join(still_open)} for {limit:.0f} s: another process still "
                "writes there, or the broker does not abort the transaction of a dead one"
            )
        sleep(0.2)
        waited += 0.2
