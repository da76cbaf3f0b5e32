"""Snapshots: all facts that the state needs, so that a start does not read the whole log.

The facts stay in memory, compressed. A snapshot can be computed again from the sealed log, so an unusable one is
ignored: the previous one replaces it, or else the whole log is read. An older snapshot leads to the same state, because
the log is read from its position.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import structlog
from confluent_kafka import KafkaException

from ...base.errors import GrantledgerError
from ...kafka.sealed_log import SealedBatchVerifier
from ...ledger.entry import epoch_of
from ...schemas.access_key import access_key, issuer_of
from ...schemas.arrow import DECODED_SCHEMA
from ...schemas.instance_names import NO_NAMES, InstanceNames
from . import metrics
from .core.entities import Entity, FactKey, entity_of
from .core.state import AccessState
from .decoding import FACT_SCHEMA, as_values, empty_table
from .kafka_snapshots import KafkaSnapshots
from .manifest_signature import SnapshotUnusableError

log = structlog.get_logger("grantledger.watch")

PART_ROWS = 8_000
MAX_PART_BYTES = 1 << 20
MAX_RECENT_BYTES = 32 << 20
"""Facts are compressed earlier if they are that large: a name may have megabytes."""
MANY_TABLES = 256
"""Tables that are joined into one: a batch of the log is a table, often of a single row, which takes 10 KB and more."""
MANY_ROWS = 100_000
"""The fewest new facts that are worth a snapshot before its time."""
FORMAT = "8-" + hashlib.sha256(f"{FACT_SCHEMA} {DECODED_SCHEMA}".encode()).hexdigest()[:16]
"""Identifies the format, content digests included. Snapshots of other formats are ignored."""
_WRITE = pa.ipc.IpcWriteOptions(compression="zstd")


class SealedTopic(Protocol):
    """The sealed topic of ``access.lifecycle``."""

    def sealed_end(self) -> int:
        """Return the offset after its last record."""
        ...

    def batch_verifier(self, start: int) -> SealedBatchVerifier:
        """Return a verifier that continues after the last valid batch before an offset."""
        ...


@dataclass(frozen=True, slots=True)
class LogPosition:
    """How far the partition was applied."""

    size: int = 0  # number of entries applied, in all epochs
    next_offset: int = 0  # offset in ``access.lifecycle`` after the last applied record
    sealed_offset: int = 0  # offset in the sealed topic of the next record to read
    epoch: int = 0  # the current epoch
    before: int = 0  # how many of the entries are of earlier epochs

    @property
    def entry(self) -> int:
        """The index of the next entry in its log, which begins at 0 in every epoch."""
        return self.size - self.before

    def name(self, entries: str) -> str:
        """Return how people read about entries of the current epoch."""
        return f"{entries} of epoch {self.epoch}" if self.epoch else entries

    def check(self, sealed_topic: SealedTopic) -> None:
        """Raise SnapshotUnusableError if the position is not within the verified log."""
        if min(asdict(self).values()) < 0 or self.sealed_offset > sealed_topic.sealed_end():
            raise SnapshotUnusableError(f"its position {self.sealed_offset} lies beyond the sealed log")
        head = sealed_topic.batch_verifier(self.sealed_offset).head
        if head is None:  # retention has deleted the batches before the position
            return
        last = (epoch_of(head.genesis.origin), head.size)
        if (self.epoch, self.entry) > last and not (self.epoch > last[0] and self.entry == 0):
            raise SnapshotUnusableError(f"its entry {self.entry} lies beyond the verified entries, {head.size}")


class SnapshotPart(NamedTuple):
    """A compressed fact table and its number of rows."""

    rows: int
    value: bytes

    @property
    def is_small(self) -> bool:
        """Whether facts should be added to it."""
        return self.rows < PART_ROWS // 2 and len(self.value) < MAX_PART_BYTES // 2


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a start needs: the position, the source histories as JSON, and the facts."""

    position: LogPosition = LogPosition()
    sources: tuple[dict[str, Any], ...] = ()
    parts: tuple[SnapshotPart, ...] = ()

    def store(self, port: KafkaSnapshots) -> None:
        """Write the snapshot. A failure is logged and counted: without it, only the next start takes longer."""
        try:
            self._write(port)
        except Exception as error:
            metrics.SNAPSHOT_FAILURES.inc()
            reason = f"{type(error).__name__}: {error}"
            log.error("snapshot_not_written", reason=reason, action="the next start reads more of the log")
            return
        facts = sum(part.rows for part in self.parts)
        log.info("snapshot", entries=self.position.size, parts=len(self.parts), facts=facts)

    def _write(self, port: KafkaSnapshots) -> None:
        log_id = port.log_id()
        sources = json.dumps(self.sources).encode()
        pieces = [sources[at : at + MAX_PART_BYTES] for at in range(0, len(sources), MAX_PART_BYTES)]
        rows = [part.rows for part in self.parts] + [0] * len(pieces)
        values = [part.value for part in self.parts] + pieces

        def manifest(locations: Sequence[int]) -> bytes:
            parts = list(zip(locations, rows, map(_digest, values), strict=True))
            content = {"format": FORMAT, "log": log_id, "policy": port.policy, "position": asdict(self.position)}
            return json.dumps({**content, "facts": len(self.parts), "parts": parts}).encode()

        port.write_snapshot(values, manifest)

    @classmethod
    def load(cls, port: KafkaSnapshots, sealed_topic: SealedTopic) -> Snapshot:
        """Return the newest usable snapshot, or an empty one."""
        log_id = port.log_id()
        for value in port.manifests():
            try:
                snapshot = cls._from_manifest(value, log_id, port)
                snapshot.position.check(sealed_topic)
                return snapshot
            except (GrantledgerError, KafkaException):
                raise
            except Exception as error:  # however malformed it is, the log replaces it
                log.warning("snapshot_unusable", reason=f"{type(error).__name__}: {error}")
        return cls()

    @classmethod
    def _from_manifest(cls, value: bytes, log_id: str, port: KafkaSnapshots) -> Snapshot:
        content = json.loads(value)
        for name, expected in (("format", FORMAT), ("log", log_id)):
            if content[name] != expected:
                raise SnapshotUnusableError(f"it is of another {name}")
        if content["policy"] != port.policy:
            log.info("snapshot_of_another_policy", policy=content["policy"])
        parts, facts = content["parts"], content["facts"]
        values = port.read_parts([location for location, _, _ in parts])
        if [_digest(part) for part in values] != [digest for _, _, digest in parts]:
            raise SnapshotUnusableError("parts are missing or damaged")
        return cls(
            LogPosition(**content["position"]),
            tuple(json.loads(b"".join(values[facts:]))),
            tuple(SnapshotPart(rows, part) for (_, rows, _), part in zip(parts[:facts], values, strict=False)),
        )


class _Collected:
    """Fact tables that are not compressed yet. The cost of adding one does not depend on how many there are."""

    def __init__(self) -> None:
        self._tables: list[pa.RecordBatch] = []
        self.rows = self._bytes = 0

    def add(self, table: pa.RecordBatch) -> None:
        self._tables.append(table)
        self.rows += table.num_rows
        self._bytes += table.nbytes
        if len(self._tables) >= MANY_TABLES:
            self._tables = [join_tables(self._tables)]

    @property
    def is_large(self) -> bool:
        """Whether they are enough for a part."""
        return self.rows >= PART_ROWS or self._bytes >= MAX_RECENT_BYTES

    def take(self) -> list[pa.RecordBatch]:
        """Return the tables, and begin anew."""
        tables, self._tables, self.rows, self._bytes = self._tables, [], 0, 0
        return tables


class FactArchive:
    """The facts that the state needs, compressed."""

    def __init__(self, snapshot: Snapshot, names: InstanceNames = NO_NAMES) -> None:
        self._names = names
        self._parts = list(snapshot.parts)
        self._packed_rows = sum(part.rows for part in self._parts)
        self._recent = _Collected()
        self.latest = 0
        """Append time of the latest fact since the start."""
        self.new_rows = 0
        """Facts since the last snapshot."""
        self.unpruned_rows = 0
        """Facts since some were last dropped."""

    @property
    def rows(self) -> int:
        """The number of facts."""
        return self._packed_rows + self._recent.rows

    def add(self, facts: pa.RecordBatch) -> None:
        """Add facts that the state has taken."""
        if not facts.num_rows:
            return
        self._recent.add(facts)
        self.new_rows += facts.num_rows
        self.unpruned_rows += facts.num_rows
        self.latest = max(self.latest, facts.column("append")[-1].as_py())
        if self._recent.is_large:
            self._pack()

    def _pack(self) -> None:
        """Compress recent facts, together with the last part if that is small."""
        self._packed_rows += self._recent.rows
        tables = self._recent.take()
        if tables and self._parts and self._parts[-1].is_small:
            tables.insert(0, decode_part(self._parts.pop().value))
        self._parts += encode_parts(tables)

    def is_many(self, rows: int) -> bool:
        """Whether so many new facts justify an early snapshot, or an early search for facts to drop."""
        return rows >= max(MANY_ROWS, self.rows // 3)

    def snapshot(self, position: LogPosition, state: AccessState) -> Snapshot:
        """Return a snapshot. The state must have taken everything before the position, and nothing else."""
        self._pack()
        self.new_rows = 0
        sources = tuple(state.sources.to_json())
        return Snapshot(position, sources, tuple(self._parts))

    def prune(self, forgotten: set[Entity], index: int, state: AccessState) -> Iterator[None]:
        """Drop the facts that the state no longer needs; yield now and then so that other work can proceed.

        All parts change at once, at the end: with only some of its facts, an entity would be judged wrongly. Facts at
        or after ``index`` stay: they arrived since the entities were forgotten.
        """
        self._pack()
        old, self._parts = self._parts, []  # facts that arrive meanwhile go into new parts
        kept: list[SnapshotPart] = []
        remaining = _Collected()
        for part in old:
            facts = decode_part(part.value)
            stay = [
                key[0] >= index or (entity_of(key) not in forgotten and state.keeps(key))
                for key in _fact_keys(facts, self._names)
            ]
            yield
            if all(stay) and not remaining.rows and not part.is_small:
                kept.append(part)
                continue
            remaining.add(facts.filter(pa.array(stay, pa.bool_())))
            if remaining.is_large:
                kept += encode_parts(remaining.take())
            yield
        self._parts = [*kept, *encode_parts(remaining.take()), *self._parts]
        self._packed_rows = sum(part.rows for part in self._parts)
        self.unpruned_rows = 0

    def tables(self) -> Iterator[pa.RecordBatch]:
        """Yield the facts, part by part."""
        self._pack()
        for part in self._parts:
            yield decode_part(part.value)


def encode_parts(tables: Sequence[pa.RecordBatch]) -> list[SnapshotPart]:
    """Compress fact tables into as few parts as fit the limit; a single larger fact is a part of its own."""
    return list(_encode(join_tables(tables)))


def _encode(facts: pa.RecordBatch) -> Iterator[SnapshotPart]:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, FACT_SCHEMA, options=_WRITE) as writer:
        writer.write_batch(facts)
    rows, value = facts.num_rows, sink.getvalue().to_pybytes()
    if rows > 1 and len(value) > MAX_PART_BYTES:
        yield from _encode(facts.slice(0, rows // 2))
        yield from _encode(facts.slice(rows // 2))
    elif rows:
        yield SnapshotPart(rows, value)


def decode_part(value: bytes) -> pa.RecordBatch:
    """Return the facts of a part."""
    return join_tables(pa.ipc.open_stream(value).read_all().cast(FACT_SCHEMA).to_batches())


def join_tables(tables: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Return several fact tables as one."""
    joined = pa.Table.from_batches(tables, FACT_SCHEMA).combine_chunks().to_batches()
    return joined[0] if joined else empty_table()


def _digest(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()


_KEY_COLUMNS = (
    "index", "event_type", "tenant", "source_system", "source_instance", "grant_source_system", "grant_source_instance",
    "request_source_system", "request_source_instance", "session_source_system", "session_source_instance", "grant_id",
    "request_id", "session_id",
)  # fmt: skip


def _fact_keys(facts: pa.RecordBatch, names_of: InstanceNames) -> Iterator[FactKey]:
    """Yield the key of each fact, which identifies its entity."""
    for index, event_type, tenant, *names in zip(
        *(as_values(facts.column(name)) for name in _KEY_COLUMNS), strict=True
    ):
        source, *issuers = zip(names[:8:2], names[1:8:2], strict=True)
        pairs = zip(issuers, names[8:], strict=True)
        grant, request, session = (
            access_key(tenant, names_of.of(issuer_of(source, named)), id) if id else "" for named, id in pairs
        )
        yield index, event_type, grant, request, session
