"""Snapshots in Kafka: one transaction each, in the compacted topic ``access.watch``. Readers see all of it or nothing.

The last two stay. The key of a manifest contains what this module needs to find and delete them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import structlog
from confluent_kafka import KafkaError, Message

from ...kafka.cluster import Cluster
from ...kafka.errors import PATIENCE, KafkaUnavailableError
from ...kafka.identity import identify_topics
from ...kafka.offsets import wait_without_open_transaction
from ...kafka.records import last_record, read_range
from ...kafka.transactional_writer import TransactionalWriter
from ...schemas.catalog import SchemaCatalog
from ...schemas.event import LIFECYCLE_TOPIC
from ...schemas.topics import WATCH_TOPIC, sealed

log = structlog.get_logger("grantledger.watch")

IN_FLIGHT = 8
"""Parts handed to the producer at once, so that it does not copy all of them into its queue."""
TRANSACTION_TIMEOUT_MS = 60_000
"""Long enough for a snapshot of some hundred MiB."""
_KEY = re.compile(r"snapshot-(\d+)/manifest/(\d+)/(-?\d+)")


@dataclass(frozen=True, slots=True)
class _Stored:
    """A snapshot in the topic: its number, how many parts it has, and the offset of the manifest before it, or -1."""

    number: int
    parts: int
    previous: int = -1
    offset: int = -1

    @classmethod
    def of(cls, record: Message | None) -> _Stored | None:
        """Return the snapshot of a manifest; None if the record is not one."""
        if record is None or (found := _KEY.fullmatch(str(record.key() or b"", "utf-8", "replace"))) is None:
            return None
        number, parts, previous = map(int, found.groups())
        return cls(number, parts, previous, record.offset() or 0)

    @property
    def manifest_key(self) -> str:
        """The key of the manifest."""
        return f"snapshot-{self.number}/manifest/{self.parts}/{self.previous}"

    @property
    def part_keys(self) -> list[str]:
        """The keys of the parts."""
        return [f"snapshot-{self.number}/{part}" for part in range(self.parts)]


class KafkaSnapshots:
    """Stores and reads snapshots. It has its own producer, so findings never wait for a snapshot.

    Its calls block. They raise KafkaException or KafkaUnavailableError if the brokers do not answer, or if another
    watch has taken over.
    """

    def __init__(
        self, cluster: Cluster, deployment: str, catalog: SchemaCatalog, *, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._cluster, self._deployment, self._catalog = cluster, deployment, catalog
        self._stopping = stopping
        self._writer: TransactionalWriter | None = None
        self._stored: list[_Stored] = []
        """The last snapshots, newest first."""

    def log_id(self) -> str:
        """Return an id of the sealed topic and the registered schemas: a new schema may decode more of the log."""
        log_topic = sealed(LIFECYCLE_TOPIC)
        topic_id = identify_topics(self._cluster, (log_topic,))[log_topic].topic_id.hex()
        schemas = sorted(schema.prefix.hex() for schema in self._catalog)
        return blake2b("/".join((topic_id, *schemas)).encode(), digest_size=16).hexdigest()

    def manifests(self) -> Iterator[bytes]:
        """Take the snapshots over from any other process, and yield the last two manifests, newest first."""
        writer = TransactionalWriter(
            self._cluster, f"{self._deployment}-watch-snapshots", timeout_ms=TRANSACTION_TIMEOUT_MS,
            stopping=self._stopping,
        )  # fmt: skip
        writer.init()
        self._writer, self._stored = writer, []
        wait_without_open_transaction(self._cluster, WATCH_TOPIC, 0)
        record = last_record(self._cluster, WATCH_TOPIC, 0)
        while record is not None and len(self._stored) < 2 and (stored := _Stored.of(record)) is not None:
            self._stored.append(stored)
            yield record.value() or b""
            record = next(self._read(stored.previous, stored.previous + 1), None) if stored.previous >= 0 else None

    def read_parts(self, locations: Sequence[int]) -> list[bytes]:
        """Return the parts at these offsets; parts that no longer exist are missing from the list."""
        wanted = set(locations)
        records = self._read(min(wanted, default=0), max(wanted, default=-1) + 1)
        return [record.value() or b"" for record in records if record.offset() in wanted]

    def write_snapshot(self, parts: Sequence[bytes], manifest: Callable[[Sequence[int]], bytes]) -> None:
        """Store a snapshot in one transaction, and delete the one before the last."""
        if (writer := self._writer) is None:
            raise RuntimeError("read the manifests first")
        new = _Stored(0, len(parts))
        if self._stored:
            new = _Stored(self._stored[0].number + 1, len(parts), self._stored[0].offset)
        offsets: dict[str, int] = {}

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                offsets[str(message.key(), "utf-8")] = message.offset() or 0  # type: ignore[arg-type]

        writer.begin()
        for old in self._stored[1:]:
            for key in (*old.part_keys, old.manifest_key):
                writer.produce(WATCH_TOPIC, None, key)
        for number, (key, part) in enumerate(zip(new.part_keys, parts, strict=True), 1):
            writer.produce(WATCH_TOPIC, part, key, on_delivery=delivered)
            if number % IN_FLIGHT == 0:
                writer.flush(PATIENCE)
        writer.flush(PATIENCE)
        if len(offsets) < len(parts):
            raise KafkaUnavailableError(f"{WATCH_TOPIC} does not accept records (kafka_bootstrap_servers)")
        # The manifest is the last record of the transaction: that is how a start finds it.
        value = manifest([offsets[key] for key in new.part_keys])
        writer.produce(WATCH_TOPIC, value, new.manifest_key, on_delivery=delivered)
        writer.commit()
        new = _Stored(new.number, new.parts, new.previous, offsets[new.manifest_key])
        self._stored = [new, *self._stored[:1]]

    def _read(self, begin: int, end: int) -> Iterator[Message]:
        return read_range(self._cluster, WATCH_TOPIC, 0, begin, end)
