"""Reads the log of ``access.lifecycle`` to its end right before each removal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from ..kafka.offsets import end_offset
from ..kafka.records import SignedRecord
from ..kafka.sealed_log import SealedLogReader, SealedLogs
from ..kafka.source_keys_reader import SourceKeysReader
from ..schemas.catalog import SchemaCatalog
from ..schemas.codec import decode
from ..schemas.event import LIFECYCLE_TOPIC
from ..schemas.topics import sealed
from .running_grants import GIVEN, TAKEN, RunningGrants

log = structlog.get_logger("grantledger.enforce")

_KINDS = tuple(kind.encode() for kind in GIVEN + TAKEN)


class LifecycleReader:
    """Reads new events at each call: the sealed ones, then those in the input topic that are not sealed yet.

    Events of registered sources count only if they are signed.
    """

    def __init__(
        self, logs: SealedLogs, sources: SourceKeysReader, catalog: SchemaCatalog, now: Callable[[], datetime]
    ) -> None:
        self._logs, self._sources, self._catalog, self._now = logs, sources, catalog, now
        self._grants = RunningGrants()
        self._reader: SealedLogReader | None = None

    def running(self) -> RunningGrants:
        """Return the running grants, however old, according to every record that the log has now.

        The first call reads the whole log: the access of a command may be shared with a grant of any age. A record that
        was read before it was sealed is read again. This changes nothing, because all records after it are read again
        too.
        """
        reader, now = self._open(), self._now()
        for offset, record in reader.read_records():
            if any(kind in (record.value or b"") for kind in _KINDS):  # a scan costs a hundredth of decoding
                self._add(record, offset, now)
        self._grants.prune(now)
        return self._grants

    def close(self) -> None:
        """Close the reader."""
        if self._reader is not None:
            self._reader.close()

    def _open(self) -> SealedLogReader:
        """Return the open reader; a new one on the first call and if the topic was recreated."""
        end = end_offset(self._logs.cluster, sealed(LIFECYCLE_TOPIC), 0)
        if self._reader is None or self._reader.position > end:
            self.close()
            self._reader = self._logs.open(LIFECYCLE_TOPIC)
            self._grants = RunningGrants()
        return self._reader

    def _add(self, record: SignedRecord, offset: int, now: datetime) -> None:
        try:
            datum = decode(record.value or b"", self._catalog, record.append_time_ms)
            if self._sources.until(record.append_time_ms).is_believed(record, datum):
                self._grants.add(datum, datetime.fromtimestamp(record.append_time_ms / 1000, UTC), now)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            # It is sealed, stored and shown elsewhere. The watch skips it too.
            log.warning("event_unreadable", offset=offset, reason=type(error).__name__)
