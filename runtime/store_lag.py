"""How far the store is behind the sealed topics, by the offsets that its process has committed in Kafka."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaException, Message

from ..base.errors import GrantledgerError
from ..kafka.cluster import Cluster
from ..kafka.identity import identify_topics
from ..kafka.offsets import Partition, committed_offsets, end_offsets
from ..kafka.options import reader_options
from ..schemas.topics import SEALED_TOPICS, store_group
from .settings import Settings

if TYPE_CHECKING:
    from ..ledger.batch import SealedBatch

NOTED_SECONDS = 10.0
"""Lag from which commands mention it. Less is usual: a batch is sealed, read and inserted."""
_PATIENCE = 4.0
"""Seconds to wait for Kafka once the command has everything else."""


_TAIL = 8
"""Offsets in which the last record of a partition is looked for: records and transaction markers."""


@dataclass(frozen=True, slots=True)
class StoreLag:
    """The sealed entries that the store does not contain, and the age in seconds of the oldest of them."""

    entries: int
    seconds: float

    @property
    def text(self) -> str:
        """The lag in one line, for people."""
        return self._text("")

    @property
    def note(self) -> str:
        """The same, under an answer of the store."""
        return self._text(f": this answer lacks {'it' if self.entries == 1 else 'them'}")

    def _text(self, so: str) -> str:
        if not self.entries:
            return "The store contains every sealed entry."
        entries = "1 sealed entry" if self.entries == 1 else f"{self.entries:,} sealed entries"
        which = "It was" if self.entries == 1 else "The oldest of them was"
        age = f"{self.seconds:,.0f} s" if self.seconds >= 1 else "less than a second"
        return f"The store does not contain {entries} yet{so}. {which} sealed {age} ago."


class StoreLagReading:
    """Reads the lag in the background, so that a command can query the store meanwhile."""

    def __init__(self, settings: Settings) -> None:
        self._lag: StoreLag | None = None
        self._thread = threading.Thread(target=self._run, args=(settings,), name="store-lag", daemon=True)
        if settings.kafka_bootstrap_servers and settings.deployment:
            self._thread.start()

    def result(self) -> StoreLag | None:
        """Return the lag; None if Kafka is unknown here, does not answer in time, or refuses."""
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE)
        return self._lag

    def _run(self, settings: Settings) -> None:
        try:
            self._lag = read_store_lag(settings.cluster(), settings.deployment)
        except (GrantledgerError, KafkaException, ValueError):
            self._lag = None


def read_store_lag(cluster: Cluster, deployment: str) -> StoreLag:
    """Read the lag of the store: its committed offsets, and the ends of the sealed partitions.

    Raises:
        KafkaUnavailableError: the brokers do not answer.
        KafkaException: they refuse.
        ValueError: a sealed record cannot be decoded.
    """
    topics = identify_topics(cluster, SEALED_TOPICS)
    partitions = [(topic, number) for topic, found in topics.items() for number in range(found.partitions)]
    ends = end_offsets(cluster, partitions)
    # It never joins the group.
    consumer = Consumer(
        {
            **reader_options(cluster, store_group(deployment)),
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,  # the ends are reported at once
            "auto.offset.reset": "earliest",
        }
    )
    try:
        committed = committed_offsets(cluster, consumer, [cluster.partition(*each) for each in partitions])
        # One offset more is the end of the last transaction: to read it takes a second.
        starts = {each: max(0, at) for each, at in committed.items() if max(0, at) + 1 < ends[each]}
        first = {each: found[0] for each, found in _read(cluster, consumer, starts, first_only=True).items()}
        tails = {each: max(starts[each], ends[each] - _TAIL) for each in first}  # without those with markers only
        last = {each: found[-1] for each, found in _read(cluster, consumer, tails, first_only=False).items()}
    finally:
        consumer.close()
    now, entries, seconds = datetime.now(UTC).timestamp(), 0, 0.0
    for each, end in last.items():
        missing = _batch(end).size - _batch(first[each]).first_index
        if missing > 0:  # not only restated heads
            entries += missing
            seconds = max(seconds, now - first[each].timestamp()[1] / 1000)
    return StoreLag(entries, seconds)


def _read(
    cluster: Cluster, consumer: Consumer, starts: Mapping[Partition, int], *, first_only: bool
) -> dict[Partition, list[Message]]:
    """Return the records of each partition from an offset to its end, or the first of them."""
    found: dict[Partition, list[Message]] = {}
    waiting, until = set(starts), time.monotonic() + _PATIENCE
    consumer.assign([cluster.partition(*each, offset) for each, offset in starts.items()])
    while waiting and time.monotonic() < until:
        for message in consumer.consume(100, 0.1):
            each = cluster.logical(message.topic()), message.partition() or 0
            if message.error() is None:
                found.setdefault(each, []).append(message)
            if message.error() is not None or first_only:
                waiting.discard(each)
    return found


def _batch(record: Message) -> SealedBatch:
    from ..ledger.batch import decode  # takes a while, and most stores are not behind

    return decode(record.value() or b"")
