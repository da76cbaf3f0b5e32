"""The sink's view of the schemas on record, which must never be behind the entry that it decodes."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from ..kafka.cluster import Cluster
from ..kafka.errors import KafkaUnavailableError
from ..kafka.offsets import end_offset, first_offset
from ..kafka.records import last_record, read_range
from ..ledger import batch as batches
from ..ledger.batch import Records
from ..ledger.registered_schemas import collect_schemas
from ..schemas.catalog import SchemaCatalog, SchemaConflictError
from ..schemas.event import FINDINGS_TOPIC
from ..schemas.topics import sealed
from . import metrics

log = structlog.get_logger("grantledger.store")


class SchemasReader:
    """Keeps a catalog of the schemas on record, and can bring it up to the present.

    An entry is undecodable for want of a schema only if no registration was appended before it. So before saying so,
    everything that stands in ``access.findings`` at that moment must be sealed and read here.
    """

    def __init__(self, cluster: Cluster, catalog: SchemaCatalog) -> None:
        self.catalog = catalog
        self._cluster = cluster
        # From the beginning, and not from what is stored: the store may be an older copy of itself.
        self._position = 0
        self._next_offset = 0
        self._known_until = 0.0

    def learn(self, records: Records) -> None:
        """Take the schemas that entries of the findings put on record."""
        try:
            added = collect_schemas(records.keys, records.values, records.append_times, self.catalog)
        except SchemaConflictError as error:
            metrics.SCHEMA_CONFLICTS.inc()
            log.error("schema_conflict", reason=str(error))
            return
        for schema in added:
            log.info("schema_known", prefix=schema.prefix.hex(), sha256=schema.sha256)

    def catch_up(self, newest_entry_ms: int, idle: Callable[[], None], limit: float = 30.0) -> None:
        """Read every registration that may have been appended before an entry.

        Args:
            newest_entry_ms: append time of the newest entry in question; nothing is asked when that was settled before.
            idle: called while waiting, so that the caller stays a member of its consumer group.
            limit: seconds to wait for the sealer.

        Raises:
            KafkaUnavailableError: the log of findings is not sealed up to the present within the limit.
        """
        if newest_entry_ms / 1000 < self._known_until:
            return
        asked_at = time.time() - 5.0  # room for a broker whose clock is behind ours
        last = last_record(self._cluster, FINDINGS_TOPIC, 0)
        wanted = (last.offset() or 0) + 1 if last is not None else 0
        deadline = time.monotonic() + limit
        while self._next_offset < wanted:
            self._read_sealed()
            if self._next_offset >= wanted:
                break
            if time.monotonic() > deadline:
                raise KafkaUnavailableError(
                    f"the findings are sealed only up to offset {self._next_offset} of {wanted}: is the sealer running?"
                )
            idle()
        self._known_until = asked_at

    def _read_sealed(self) -> None:
        topic = sealed(FINDINGS_TOPIC)
        start = max(self._position, first_offset(self._cluster, topic, 0))
        end = end_offset(self._cluster, topic, 0)
        for message in read_range(self._cluster, topic, 0, start, end):
            batch = batches.decode(message.value() or b"")
            self.learn(batch.records())
            self._next_offset = batch.next_offset
            self._position = (message.offset() or 0) + 1
