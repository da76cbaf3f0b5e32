"""Snapshots of the watch in a list instead of Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from confluent_kafka import Message
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from grantledger.kafka.cluster import Cluster
from grantledger.kafka.sealed_log import SealedBatchVerifier
from grantledger.kafka.transactional_writer import TransactionalWriter
from grantledger.ledger.keys import LocalSigner
from grantledger.processors.watch.kafka_snapshots import KafkaSnapshots
from grantledger.processors.watch.manifest_signature import ManifestSignature
from grantledger.schemas.catalog import SchemaCatalog

WATCH_KEY = LocalSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
SIGNATURE = ManifestSignature("test", WATCH_KEY, lambda: {WATCH_KEY.public_key})


@dataclass(frozen=True)
class WatchRecord:
    """A record of ``access.watch``."""

    at: int
    name: bytes
    content: bytes | None

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes:
        return self.name

    def value(self) -> bytes | None:
        return self.content


class MemorySnapshots(KafkaSnapshots):
    """Keeps ``access.watch`` in memory, compacted at once. ``log`` is the id of the log that is read."""

    def __init__(self) -> None:
        super().__init__(Cluster({}), SchemaCatalog(()), SIGNATURE)
        self.log = "topic"
        self.records: dict[int, WatchRecord] = {}
        self.end = 0
        self.writes = 0
        self.broken = ""
        """Why the brokers refuse records."""

    def log_id(self) -> str:
        return self.log

    def append(self, key: str, value: bytes | None) -> int:
        """Append a record as anybody may who can write to the topic."""
        name, offset = key.encode(), self.end
        self.records = {at: one for at, one in self.records.items() if one.name != name}
        if value is not None:
            self.records[offset] = WatchRecord(offset, name, value)
        self.end += 1
        return offset

    @property
    def manifest_records(self) -> list[WatchRecord]:
        """The manifests, newest first."""
        return [one for _, one in sorted(self.records.items(), reverse=True) if b"/manifest/" in one.name]

    @property
    def stored(self) -> list[bytes]:
        """The manifests' values, newest first."""
        return [one.content or b"" for one in self.manifest_records]

    @property
    def parts(self) -> dict[int, bytes]:
        """The parts."""
        return {at: one.content or b"" for at, one in self.records.items() if b"/manifest/" not in one.name}

    def change(self, offset: int, value: bytes) -> None:
        """Give a record another value."""
        self.records[offset] = WatchRecord(offset, self.records[offset].name, value)

    def change_content(self, record: WatchRecord, content: bytes) -> None:
        """Give a manifest another content, signed with the watch's key."""
        self.change(record.at, SIGNATURE.sign(record.name.decode(), content))

    def lose(self) -> None:
        """Lose everything."""
        self.records.clear()

    def _take_over(self) -> TransactionalWriter:
        return cast(TransactionalWriter, MemoryWriter(self))

    def _read_backward(self) -> Iterator[Message]:
        return cast(Iterator[Message], (one for _, one in sorted(self.records.items(), reverse=True)))

    def _read(self, begin: int, end: int) -> Iterator[Message]:
        found = [one for at, one in sorted(self.records.items()) if begin <= at < end]
        return cast(Iterator[Message], iter(found))


class MemoryWriter:
    """The transactional writer of it."""

    def __init__(self, topic: MemorySnapshots) -> None:
        self.topic = topic
        self.before: tuple[dict[int, WatchRecord], int] | None = None

    def begin(self) -> None:
        assert self.before is None, "a transaction is open"
        self.before = (dict(self.topic.records), self.topic.end)

    def produce(self, topic: str, value: bytes | None, key: str, partition: int = 0, on_delivery: Any = None) -> None:
        if self.topic.broken:
            raise OSError(self.topic.broken)
        offset = self.topic.append(key, value)
        if on_delivery is not None:
            on_delivery(None, WatchRecord(offset, key.encode(), value))

    def flush(self, timeout: float) -> int:
        return 0

    def commit(self) -> None:
        self.before = None
        self.topic.writes += 1

    def abort(self) -> None:
        assert self.before is not None, "no transaction is open"
        self.topic.records, self.topic.end = self.before
        self.before = None


class EndlessSealedTopic:
    """A sealed topic in which every position lies."""

    def sealed_end(self) -> int:
        return 1 << 62

    def batch_verifier(self, start: int) -> SealedBatchVerifier:
        return cast(SealedBatchVerifier, SimpleNamespace(head=None))
