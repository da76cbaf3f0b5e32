"""How far the store is behind the sealed topics, by the offsets that its process has committed in Kafka."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from confluent_kafka import Consumer, KafkaException

from ..base.errors import GrantledgerError
from ..kafka.cluster import Cluster
from ..kafka.identity import identify_topics
from ..kafka.offsets import Partition, committed_offsets, end_offsets, first_offset
from ..kafka.options import reader_options
from ..kafka.records import read_backward, read_range
from ..ledger import batch as batches
from ..ledger.batch import BatchError
from ..schemas.topics import SEALED_TOPICS, store_group
from .settings import Settings

NOTED_SECONDS = 10.0
"""Lag from which commands mention it. Less is usual: a batch is sealed, read and inserted."""
_PATIENCE = 3.0


@dataclass(frozen=True, slots=True)
class StoreLag:
    """The sealed entries that the store does not contain, and the age in seconds of the oldest of them."""

    entries: int
    seconds: float

    @property
    def note(self) -> str:
        """The lag in one line, for people."""
        if not self.entries:
            return "The store contains every sealed entry."
        entries = "1 entry" if self.entries == 1 else f"{self.entries:,} entries"
        return f"The store is {self.seconds:,.0f} s ({entries}) behind: newer events are missing from this answer."


class StoreLagReading:
    """Reads the lag in the background, so that a command can query the store meanwhile."""

    def __init__(self, settings: Settings) -> None:
        self._lag: StoreLag | None = None
        self._thread = threading.Thread(target=self._run, args=(settings,), name="store-lag", daemon=True)
        self._began = time.monotonic()
        if settings.kafka_bootstrap_servers and settings.deployment:
            self._thread.start()

    def result(self) -> StoreLag | None:
        """Return the lag; None if Kafka is unknown here, does not answer in time, or refuses."""
        if self._thread.ident is not None:
            self._thread.join(max(0.0, self._began + _PATIENCE - time.monotonic()))
        return self._lag

    def _run(self, settings: Settings) -> None:
        try:
            self._lag = read_store_lag(settings.cluster(), settings.deployment)
        except (GrantledgerError, KafkaException, BatchError):
            self._lag = None


def read_store_lag(cluster: Cluster, deployment: str) -> StoreLag:
    """Read the lag of the store: its committed offsets, and the ends of the sealed partitions.

    Raises:
        KafkaUnavailableError: the brokers do not answer.
        KafkaException: they refuse.
        BatchError: a sealed record cannot be decoded.
    """
    topics = identify_topics(cluster, SEALED_TOPICS)
    partitions = [(topic, number) for topic, found in topics.items() for number in range(found.partitions)]
    ends = end_offsets(cluster, partitions)
    consumer = Consumer(reader_options(cluster, store_group(deployment)))  # never joins the group
    try:
        committed = committed_offsets(cluster, consumer, [cluster.partition(*each) for each in partitions])
    finally:
        consumer.close()
    now, entries, seconds = datetime.now(UTC).timestamp(), 0, 0.0
    for partition, end in ends.items():
        if committed[partition] < end and (found := _missing(cluster, partition, committed[partition], end)):
            entries += found[0]
            seconds = max(seconds, now - found[1])
    return StoreLag(entries, seconds)


def _missing(cluster: Cluster, partition: Partition, committed: int, end: int) -> tuple[int, float] | None:
    """Return how many entries from an offset on are missing, and when the first was appended; None if none is."""
    start = max(committed, first_offset(cluster, *partition))
    first = next((record for record in read_range(cluster, *partition, start, end)), None)
    last = next(read_backward(cluster, *partition), None)
    if first is None or last is None:  # only transaction markers
        return None
    missing = batches.decode(last.value() or b"").size - batches.decode(first.value() or b"").first_index
    return (missing, first.timestamp()[1] / 1000) if missing > 0 else None
