"""Extracts findings from verified batches of ``access.findings``. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from ...base.times import micros_of
from ...kafka.sealed_log import SealedLogProblem, VerifiedBatch
from ...kafka.sealed_log_findings import finding_about
from ...ledger.batch import SealedBatch
from ...ledger.registered_schemas import KEY_PREFIX, collect_schemas
from ...ledger.source_keys import SignedRecord, SourceKeys, signed_records
from ...schemas.catalog import SchemaCatalog, SchemaConflictError, WriterSchema, own_schemas
from ...schemas.codec import DecodeError, EventEncoder, decode
from ...schemas.event import FINDINGS_TOPIC
from ...schemas.framing import FramingError
from ...schemas.instance_names import names_from
from .finding import FindingEvent, InvalidFindingError, finding_of
from .outbox import OutboxPosition

log = structlog.get_logger("grantledger.alert")


@dataclass(slots=True)
class Read:
    """The contents of a few sealed batches."""

    position: OutboxPosition  # after the last of them
    findings: list[FindingEvent] = field(default_factory=list)
    schemas: list[WriterSchema] = field(default_factory=list)
    unreadable: int = 0  # entries that could not be decoded; each may be a finding
    unsigned: int = 0  # entries that claim to be the pipeline's and are not signed by it
    policy: bytes | None = None  # the watch policy, if it was put on record in them
    missed: int = 0  # entries of the log that Kafka has deleted
    oldest_sealed_at: int | None = None  # in microseconds since 1970; None without batches


class FindingsReader:
    """Reads verified batches in order."""

    def __init__(self, deployment: str, catalog: SchemaCatalog) -> None:
        self._deployment, self._catalog = deployment, catalog

    def add(self, read: Read, found: VerifiedBatch, sources: SourceKeys) -> None:
        """Add a batch to ``read``. Findings that are not signed by the pipeline are skipped."""
        batch = found.batch
        sealed_at = micros_of(batch.sealed_at)
        read.oldest_sealed_at = min(sealed_at, read.oldest_sealed_at or sealed_at)
        known = read.position.size if read.position.origin == batch.origin else 0
        if read.position.origin and batch.first_index > known:
            missed = batch.first_index - known
            log.error("entries_missed", origin=batch.origin, index=known, entries=missed)
            read.missed += missed
        size = max(known, batch.size)
        read.position = replace(read.position, next_offset=found.offset + 1, origin=batch.origin, size=size)
        self._learn(read, batch, sources)
        for index, appended, record in _entries(batch):
            if record.value is None or (record.key or b"").startswith(KEY_PREFIX):
                continue
            try:
                datum = self._decoded(record.value, record.append_time_ms)
                if not sources.is_believed(record, datum):
                    log.error("entry_unsigned", origin=batch.origin, index=index)
                    read.unsigned += 1
                    continue
                if names_from(datum, self._deployment) is not None:
                    read.policy = datum["raw"]
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
            return decode(entry, own_schemas(), time_ms)

    def _learn(self, read: Read, batch: SealedBatch, sources: SourceKeys) -> None:
        records = batch.records()
        columns = (records.keys, records.values, records.append_times)
        try:
            read.schemas += collect_schemas(*columns, self._catalog, headers=records.headers, sources=sources)
        except SchemaConflictError as error:
            log.error("schema_conflict", reason=str(error))


def finding_of_problem(deployment: str, problem: SealedLogProblem) -> FindingEvent:
    """Return the finding that the readers publish about a problem, with the same event id."""
    datum = decode(EventEncoder().encode(finding_about(deployment, problem)), own_schemas(), problem.append_time_ms)
    place = f"{problem.topic}/{problem.partition}@{problem.offset}"
    finding = finding_of(datum, deployment, place, problem.append_time_ms * 1000)
    if finding is None:
        raise InvalidFindingError(f"{problem.rule} is not a finding")
    return finding


def _entries(batch: SealedBatch) -> Iterator[tuple[int, int, SignedRecord]]:
    """Yield index, append time in microseconds and record. A time set by the sender is ignored."""
    indices = range(batch.first_index, batch.size)
    yield from zip(indices, batch.times(), signed_records(FINDINGS_TOPIC, batch.records()), strict=True)


def starting_at(known: OutboxPosition | None, topic_id: str, first: int, end: int) -> OutboxPosition:
    """Return the position to read from. ``first`` and ``end`` are the current offsets of the topic."""
    if known is None:
        return OutboxPosition(topic_id, first)
    if known.topic_id != topic_id or known.next_offset > end:
        # The topic was recreated or restored from a copy. Read all of it; the outbox detects the duplicates.
        log.warning("topic_replaced", position=known.next_offset, reading_from=first)
        return OutboxPosition(topic_id, first)
    return replace(known, next_offset=max(known.next_offset, first))
