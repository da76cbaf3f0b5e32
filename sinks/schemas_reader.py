"""The store's catalog of the registered writer schemas. It must never lag behind the entries that it decodes."""

from __future__ import annotations

import time
from collections.abc import Callable

import pyarrow as pa
import structlog

from ..kafka.errors import KafkaUnavailableError
from ..kafka.records import last_record
from ..kafka.sealed_log import SealedLogReader, SealedLogs
from ..kafka.source_keys_reader import SourceKeysReader
from ..ledger.batch import Records, SealedBatch
from ..ledger.entry import topic_of_origin
from ..ledger.registered_schemas import collect_schemas
from ..schemas.catalog import SchemaCatalog, SchemaConflictError
from ..schemas.event import FINDINGS_TOPIC
from . import metrics
from .rows import entries_table, lacks_schema

log = structlog.get_logger("grantledger.store")


class SchemasReader:
    """Maintains the catalog, and brings it up to date on demand.

    An entry may be stored as undecodable for want of its schema only if no registration was appended before it. So
    first everything that ``access.findings`` contains at that moment must be sealed and read here.
    """

    def __init__(self, logs: SealedLogs, catalog: SchemaCatalog, sources: SourceKeysReader) -> None:
        self.catalog, self.sources = catalog, sources
        self._logs = logs
        self._reader: SealedLogReader | None = None
        self._next_offset = 0
        self._complete_until = 0.0

    def entries_of(self, batch: SealedBatch, idle: Callable[[], None]) -> pa.Table:
        """Return the rows of a batch. ``idle`` as for :meth:`catch_up`."""
        # First, because sources are registered in the order of the log.
        sources = self.sources.until(batch.newest_append_time_ms())
        if topic_of_origin(batch.origin) == FINDINGS_TOPIC:
            self.learn(batch.records())
        table = entries_table(batch, self.catalog, sources)
        if lacks_schema(table):
            self.catch_up(batch.newest_append_time_ms(), idle)
            table = entries_table(batch, self.catalog, sources)
        return table

    def learn(self, records: Records) -> None:
        """Add the schemas that entries of the findings log register."""
        try:
            added = collect_schemas(
                records.keys, records.values, records.append_times, self.catalog,
                headers=records.headers, sources=self.sources.keys,
            )  # fmt: skip
        except SchemaConflictError as error:
            metrics.SCHEMA_CONFLICTS.inc()
            log.error("schema_conflict", reason=str(error))
            return
        for schema in added:
            log.info("schema_known", prefix=schema.prefix.hex(), sha256=schema.sha256)

    def catch_up(self, newest_entry_ms: int, idle: Callable[[], None], limit: float = 30.0) -> None:
        """Read every registration that may have been appended before an entry.

        Args:
            newest_entry_ms: append time of the newest such entry. Nothing is read if that is settled already.
            idle: called while waiting, so that the caller stays a member of its consumer group.
            limit: seconds to wait for the sealer.

        Raises:
            KafkaUnavailableError: the findings log is not sealed up to the present within the limit.
        """
        if newest_entry_ms / 1000 < self._complete_until:
            return
        began = time.time() - 5.0  # tolerance for a broker whose clock is behind ours
        last = last_record(self._logs.cluster, FINDINGS_TOPIC, 0)
        required = (last.offset() or 0) + 1 if last is not None else 0
        deadline = time.monotonic() + limit
        while not self._has_read(required):
            if time.monotonic() > deadline:
                raise KafkaUnavailableError(
                    f"the findings are sealed only up to offset {self._next_offset} of {required}: is the sealer "
                    "running?"
                )
            idle()
        self._complete_until = began

    def _has_read(self, required: int) -> bool:
        """Read the new sealed findings; return whether they reach an input offset, or end at a discontinuity."""
        if self._next_offset >= required:
            return True
        if self._reader is None:
            # From the beginning, not from the last stored entry: the store may be an older copy of itself.
            self._reader = self._logs.open(FINDINGS_TOPIC)
        for found in self._reader.read_to_end():
            self.learn(found.batch.records())
            self._next_offset = found.batch.next_offset
        return self._reader.stopped or self._next_offset >= required
