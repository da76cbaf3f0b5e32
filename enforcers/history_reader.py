"""Reads the log of ``access.findings``: the history of the enforcer, and the requested revocations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import structlog

from ..kafka.offsets import end_offset
from ..kafka.records import SignedRecord
from ..kafka.sealed_log import SealedLogs
from ..kafka.source_keys_reader import SourceKeysReader, check_registrations
from ..schemas.catalog import SchemaCatalog
from ..schemas.codec import decode
from ..schemas.event import FINDINGS_TOPIC
from ..schemas.instance_names import names_from
from ..schemas.own_sources import OPERATOR
from .command_rules import CommandHistory
from .contract import UNREADABLE
from .events import COMMAND_TYPES, COMMANDERS, apply

log = structlog.get_logger("grantledger.enforce")


class HistoryReader:
    """Reads the whole log when it is created, from the sealed log, which keeps events forever, and the unsealed events.

    ``history``: rebuilt from the enforcer's own events and from what people decided.
    """

    def __init__(self, logs: SealedLogs, catalog: SchemaCatalog) -> None:
        self._cluster, self._deployment, self._catalog = logs.cluster, logs.deployment, catalog
        self._commanders = {(system, logs.deployment) for system in COMMANDERS}
        self._sources = SourceKeysReader(logs).keys
        self._requests: dict[bytes, datetime] = {}
        self._complete_below = 0
        self.history = CommandHistory()
        self._reader = logs.open(FINDINGS_TOPIC)
        for record, datum in self._believed(self._reader.read_sealed()):
            self._add_request(record, datum)
            self._learn_names(datum)
            self._apply(datum)
        for _, datum in self._believed(self._reader.read_unsealed()):
            self._apply(datum)
        check_registrations(logs, self._reader, self._sources)

    def update(self) -> None:
        """Read what was sealed meanwhile: requests, the watch policy, and the decisions of people.

        The rest is this enforcer's own.
        """
        for record, datum in self._believed(self._reader.read_sealed()):
            self._add_request(record, datum)
            self._learn_names(datum)
            if datum["source"]["system"] == OPERATOR:
                self._apply(datum)

    def requested(self, value: bytes) -> datetime | None:
        """Return when the revocation that a command has, byte for byte, was requested, if that is sealed."""
        return self._requests.get(_digest(value))

    def end(self) -> int:
        """Return an offset of the findings. The request of a command that was read before is below it."""
        end = end_offset(self._cluster, FINDINGS_TOPIC, 0, committed=False)
        if end < self._complete_below:  # the topic was created again
            self._complete_below = 0
        return end

    def has_read_below(self, offset: int) -> bool:
        """Whether everything below an offset of the findings is sealed, and was read."""
        if offset > self._complete_below and self._reader.has_read_below(offset):
            self._complete_below = offset
        return offset <= self._complete_below

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()

    def _add_request(self, record: SignedRecord, datum: Mapping[str, Any]) -> None:
        source = datum["source"]
        if datum["event_type"] in COMMAND_TYPES and (source["system"], source["instance"]) in self._commanders:
            # Of copies, the first counts.
            requested = datetime.fromtimestamp(record.append_time_ms / 1000, UTC)
            self._requests.setdefault(_digest(record.value or b""), requested)

    def _learn_names(self, datum: Mapping[str, Any]) -> None:
        names = names_from(datum, self._deployment)
        if names is not None:
            self.history.rename(names)

    def _apply(self, datum: Mapping[str, Any]) -> None:
        try:
            apply(self.history, self._deployment, datum)
        except UNREADABLE as error:
            # It claims to be ours but is not.
            log.warning("finding_unreadable", reason=type(error).__name__)

    def _believed(
        self, records: Iterator[tuple[int, SignedRecord]]
    ) -> Iterator[tuple[SignedRecord, Mapping[str, Any]]]:
        for offset, record in records:
            self._sources.learn(record)
            try:
                datum = decode(record.value or b"", self._catalog, record.append_time_ms)
                believed = self._sources.is_believed(record, datum) and bool(datum["source"]["system"])
            except UNREADABLE as error:
                log.warning("finding_unreadable", offset=offset, reason=type(error).__name__)
                continue
            if believed:
                yield record, datum


def _digest(value: bytes) -> bytes:
    return sha256(value).digest()[:16]
