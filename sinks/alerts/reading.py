"""Extracts findings from sealed batches of ``access.findings``. No Kafka, no clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import structlog

from ...ledger import batch as batches
from ...ledger.batch import BatchError, SealedBatch, micros_of
from ...ledger.registered_schemas import KEY_PREFIX, collect_schemas
from ...schemas.catalog import SchemaCatalog, SchemaConflictError, WriterSchema, event_schema, released_event_schemas
from ...schemas.codec import DecodeError, decode
from ...schemas.event import FINDINGS_TOPIC
from ...schemas.framing import FramingError
from .finding import FindingEvent, InvalidFindingError, finding_of
from .outbox import Position

log = structlog.get_logger("grantledger.alert")


@dataclass(slots=True)
class Read:
    """The contents of a few sealed batches.

    Attributes:
        position: after the last of them.
        unreadable: entries that could not be decoded; each may be a finding.
        missed: entries of the log that Kafka has deleted.
        oldest_sealed_at: of these batches, in microseconds since 1970; None without batches.
    """

    position: Position
    findings: list[FindingEvent] = field(default_factory=list)
    schemas: list[WriterSchema] = field(default_factory=list)
    unreadable: int = 0
    missed: int = 0
    oldest_sealed_at: int | None = None


class SealedReader:
    """Reads batches in order. An unreadable batch is logged and counted, and does not stop the reader."""

    def __init__(self, deployment: str, catalog: SchemaCatalog) -> None:
        self._deployment, self._catalog = deployment, catalog
        self._prefix = f"{deployment}/{FINDINGS_TOPIC}/0/"

    def add(self, read: Read, value: bytes | None, offset: int) -> None:
        """Add the record at an offset of the sealed topic to ``read``."""
        read.position = replace(read.position, next_offset=offset + 1)
        try:
            batch = batches.decode(value or b"")
            if not batch.origin.startswith(self._prefix):
                raise BatchError(f"its origin {batch.origin} does not begin with {self._prefix}")
            entries = list(_entries(batch))
        except BatchError as error:
            log.error("batch_unreadable", offset=offset, reason=str(error))
            read.unreadable += 1
            return
        sealed_at = micros_of(batch.sealed_at)
        read.oldest_sealed_at = min(sealed_at, read.oldest_sealed_at or sealed_at)
        known = read.position.size if read.position.origin == batch.origin else 0
        if read.position.origin and batch.first_index > known:
            missed = batch.first_index - known
            log.error("entries_missed", origin=batch.origin, index=known, entries=missed)
            read.missed += missed
        read.position = replace(read.position, origin=batch.origin, size=max(known, batch.size))
        self._learn(read, batch)
        for index, time_ms, appended, key, entry in entries:
            if entry is None or (key or b"").startswith(KEY_PREFIX):
                continue
            try:
                datum = self._decoded(entry, time_ms)
                finding = finding_of(datum, self._deployment, f"{batch.origin}#{index}", appended)
            except (DecodeError, FramingError, InvalidFindingError) as error:
                log.error("entry_unreadable", origin=batch.origin, index=index, reason=type(error).__name__)
                read.unreadable += 1
                continue
            if finding is not None:
                read.findings.append(finding)

    def _decoded(self, entry: bytes, time_ms: int) -> dict[str, Any]:
        """Decode with the sealed schemas, else with the schemas of this program.

        A proof may use sealed schemas only, but an alert must not wait until its schema is sealed.
        """
        try:
            return decode(entry, self._catalog, time_ms)
        except DecodeError:
            return decode(entry, _own_schemas(), time_ms)

    def _learn(self, read: Read, batch: SealedBatch) -> None:
        records = batch.records()
        try:
            read.schemas += collect_schemas(records.keys, records.values, records.append_times, self._catalog)
        except SchemaConflictError as error:
            log.error("schema_conflict", reason=str(error))


@cache
def _own_schemas() -> SchemaCatalog:
    """Every released version of the event schema, and this program's."""
    return SchemaCatalog((event_schema(), *released_event_schemas()))


def _entries(batch: SealedBatch) -> Iterator[tuple[int, int, int, bytes | None, bytes | None]]:
    """Yield index, append time in ms and in microseconds, key and value. A time set by the sender is ignored.

    Raises:
        BatchError: the columns disagree.
    """
    records, sealed_at = batch.records(), micros_of(batch.sealed_at)
    for number, time_ms in enumerate(records.append_times):
        appended = time_ms * 1000 if records.flags[number] & 1 else sealed_at
        yield batch.first_index + number, time_ms, appended, records.keys[number], records.values[number]


def starting_at(known: Position | None, topic_id: str, first: int, end: int) -> Position:
    """Return the position to read from.

    Args:
        known: from the outbox; None on the first start.
        first, end: current offsets of the topic.
    """
    if known is None:
        return Position(topic_id, first)
    if known.topic_id != topic_id or known.next_offset > end:
        # The topic was recreated or restored from a copy. Read all of it; the outbox detects the duplicates.
        log.warning("topic_replaced", position=known.next_offset, reading_from=first)
        return Position(topic_id, first)
    return replace(known, next_offset=max(known.next_offset, first))
