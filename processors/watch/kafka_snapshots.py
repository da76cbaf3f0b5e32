"""Snapshots in Kafka, in the compacted topic ``access.watch``. Each shard has its own in its partition.

A snapshot is one transaction: readers see all of it or nothing. The last two stay. The key of a manifest contains what
this module needs to find and delete them. Only manifests that the watch has signed count (:mod:`.manifest_signature`);
any other record is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice

import structlog
from confluent_kafka import KafkaError, KafkaException, Message

from ...kafka.cluster import Cluster
from ...kafka.errors import PATIENCE, KafkaUnavailableError
from ...kafka.identity import identify_topics
from ...kafka.offsets import wait_without_open_transaction
from ...kafka.records import read_backward, read_range
from ...kafka.transactional_writer import TransactionalWriter
from ...schemas.catalog import SchemaCatalog
from ...schemas.event import LIFECYCLE_TOPIC
from ...schemas.topics import WATCH_TOPIC, sealed
from .manifest_signature import ManifestSignature, SnapshotUnusableError
from .shard import ONLY_SHARD, Shard

log = structlog.get_logger("grantledger.watch")

IN_FLIGHT = 8
"""Parts handed to the producer at once, so that it does not copy all of them into its queue."""
TRANSACTION_TIMEOUT_MS = 60_000
"""Long enough for a snapshot of some hundred MiB."""
LOOK_BACK = 2_000
"""Records at the end of the topic among which a start looks for snapshots."""
_KEY = re.compile(r"snapshot-([0-9]{1,18})/manifest/([0-9]{1,6})/(-1|[0-9]{1,18})")


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

    ``policy``: digest of the policy in force, which snapshots name.

    Its calls block. They raise KafkaException or KafkaUnavailableError if the brokers do not answer, or if another
    watch has taken over.
    """

    def __init__(
        self,
        cluster: Cluster,
        catalog: SchemaCatalog,
        signature: ManifestSignature,
        *,
        policy: str = "",
        shard: Shard = ONLY_SHARD,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._cluster, self._catalog, self._signature, self.policy = cluster, catalog, signature, policy
        self._stopping, self._shard, self._partition = stopping, shard, shard.number
        self._writer: TransactionalWriter | None = None
        self._stored: list[_Stored] = []
        """The last snapshots, newest first."""

    def log_id(self) -> str:
        """Return an id of the sealed partition and the registered schemas: a new schema may decode more of the log."""
        log_topic = sealed(LIFECYCLE_TOPIC)
        topic_id = identify_topics(self._cluster, (log_topic,))[log_topic].topic_id.hex()
        schemas = sorted(schema.prefix.hex() for schema in self._catalog)
        return blake2b("/".join((topic_id, *map(str, self._shard.mark), *schemas)).encode(), digest_size=16).hexdigest()

    def manifests(self) -> Iterator[bytes]:
        """Take the snapshots over from any other process, and yield the contents of manifests, newest first."""
        self._writer, self._stored = self._take_over(), []
        later = set[str]()
        for record in islice(self._read_backward(), LOOK_BACK):
            if (key := _Stored.of(record)) is None or key.manifest_key in later:  # replaced or deleted
                continue
            later.add(key.manifest_key)
            if (found := self._verified(record)) is None:
                continue
            stored, content = found
            if not self._stored:
                before = self._read(stored.previous, stored.previous + 1) if stored.previous >= 0 else iter(())
                self._stored = [stored, *(one[0] for one in map(self._verified, before) if one is not None)]
            yield content

    def _verified(self, record: Message) -> tuple[_Stored, bytes] | None:
        """Return the snapshot of a manifest and the manifest's content; None if the record is not one of ours."""
        stored = _Stored.of(record)
        if stored is None or record.value() is None:
            return None
        try:
            return stored, self._signature.verified(stored.manifest_key, record.value() or b"")
        except SnapshotUnusableError as error:
            log.warning("snapshot_ignored", snapshot=stored.number, offset=stored.offset, reason=str(error))
            return None

    def _take_over(self) -> TransactionalWriter:
        writer = TransactionalWriter(
            self._cluster, f"{self._shard.group(self._signature.deployment)}-snapshots",
            timeout_ms=TRANSACTION_TIMEOUT_MS, stopping=self._stopping,
        )  # fmt: skip
        writer.init()
        wait_without_open_transaction(self._cluster, (WATCH_TOPIC, self._partition))
        return writer

    def read_parts(self, locations: Sequence[int]) -> list[bytes]:
        """Return the parts at these offsets; parts that no longer exist are missing from the list."""
        wanted = set(locations)
        records = self._read(min(wanted, default=0), max(wanted, default=-1) + 1)
        return [record.value() or b"" for record in records if record.offset() in wanted]

    def write_snapshot(self, parts: Sequence[bytes], manifest: Callable[[Sequence[int]], bytes]) -> None:
        """Store a snapshot in one transaction, and delete the one before the last.

        ``manifest`` returns the content of the manifest, from the offsets of the parts.
        """
        if (writer := self._writer) is None:
            raise RuntimeError("read the manifests first")
        new = _Stored(0, len(parts))
        if self._stored:
            new = _Stored(self._stored[0].number + 1, len(parts), self._stored[0].offset)
        try:
            offset = self._write(writer, new, parts, manifest)
        except Exception:
            self._abort(writer)  # else the next one cannot begin
            raise
        new = _Stored(new.number, new.parts, new.previous, offset)
        self._stored = [new, *self._stored[:1]]

    def _write(
        self,
        writer: TransactionalWriter,
        new: _Stored,
        parts: Sequence[bytes],
        manifest: Callable[[Sequence[int]], bytes],
    ) -> int:
        """Write a snapshot and return the offset of its manifest."""
        offsets: dict[str, int] = {}

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                offsets[str(message.key(), "utf-8")] = message.offset() or 0  # type: ignore[arg-type]

        writer.begin()
        for old in self._stored[1:]:
            for key in (*old.part_keys, old.manifest_key):
                writer.produce(WATCH_TOPIC, None, key, self._partition)
        for number, (key, part) in enumerate(zip(new.part_keys, parts, strict=True), 1):
            writer.produce(WATCH_TOPIC, part, key, self._partition, on_delivery=delivered)
            if number % IN_FLIGHT == 0:
                writer.flush(PATIENCE)
        writer.flush(PATIENCE)
        if len(offsets) < len(parts):
            raise KafkaUnavailableError(f"{WATCH_TOPIC} does not accept records (kafka_bootstrap_servers)")
        # The manifest is the last record of the transaction: that is how a start finds it.
        content = manifest([offsets[key] for key in new.part_keys])
        value = self._signature.sign(new.manifest_key, content)
        writer.produce(WATCH_TOPIC, value, new.manifest_key, self._partition, on_delivery=delivered)
        writer.commit()
        return offsets[new.manifest_key]

    def _abort(self, writer: TransactionalWriter) -> None:
        try:
            writer.abort()
        except KafkaException as error:
            log.warning("snapshots_end", reason=str(error), action="no snapshot is written before the next start")

    def _read_backward(self) -> Iterator[Message]:
        return read_backward(self._cluster, WATCH_TOPIC, self._partition)

    def _read(self, begin: int, end: int) -> Iterator[Message]:
        return read_range(self._cluster, WATCH_TOPIC, self._partition, begin, end)
