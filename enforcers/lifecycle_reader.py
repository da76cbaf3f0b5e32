"""Reads the log of ``access.lifecycle`` to its end right before each removal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from ..kafka.identity import all_partitions
from ..kafka.offsets import end_offsets
from ..kafka.records import SignedRecord
from ..kafka.sealed_log import SealedLogReader, SealedLogs
from ..kafka.source_keys_reader import SourceKeysReader
from ..schemas.catalog import SchemaCatalog
from ..schemas.codec import decode
from ..schemas.event import LIFECYCLE_TOPIC
from ..schemas.instance_names import NO_NAMES, InstanceNames
from ..schemas.placement import shard_of
from ..schemas.topics import sealed
from .command_rules import SealedActivation, refusal
from .contract import UNREADABLE, RevokeCommand
from .enforcement_policy import EnforcementPolicy
from .running_grants import KINDS, GrantEvent, RunningGrants, SealedActivations

log = structlog.get_logger("grantledger.enforce")

_KINDS = tuple(kind.encode() for kind in KINDS)


class LifecycleReader:
    """Reads new events at each call: the sealed ones, then those in the input topic that are not sealed yet.

    Events of registered sources count only if they are signed; other events only if a route is for their source.
    """

    def __init__(
        self,
        logs: SealedLogs,
        sources: SourceKeysReader,
        catalog: SchemaCatalog,
        policy: EnforcementPolicy,
        now: Callable[[], datetime],
    ) -> None:
        self._logs, self._sources, self._catalog = logs, sources, catalog
        self._policy, self._now = policy, now
        self._running, self._activations = RunningGrants(), SealedActivations()
        self._readers: list[SealedLogReader] = []
        """One per partition. All events of a tenant are in one of them, so their order is that of the log."""
        self._names = NO_NAMES

    def rename(self, names: InstanceNames) -> None:
        """Take other names of installations for one: the next call reads the whole log again."""
        if names != self._names:
            self._names = names
            self.close()

    def running(self) -> RunningGrants:
        """Return the running grants, however old, according to every record that the log has now.

        The first call reads the whole log: the access of a command may be shared with a grant of any age. A record that
        was read before it was sealed is read again, which changes nothing.
        """
        readers, now = self._open(), self._now()
        for reader in readers:
            for event, received in self._events(reader.read_sealed(), reader.partition):
                self._activations.add(event, received)
                self._running.add(event, now)
            for event, _ in self._events(reader.read_unsealed(), reader.partition):
                self._running.add(event, now)
        self._running.prune(now)
        return self._running

    def activation(self, command: RevokeCommand) -> SealedActivation | None:
        """Return the activation of the grant of a command from the sealed log."""
        found = self._activations.find(command)
        # Since the last call the grant may have been activated, or its access read back.
        if refusal(command, found, timedelta(seconds=self._policy.history_after_seconds)) is not None:
            self.running()
            found = self._activations.find(command)
        return found

    def close(self) -> None:
        """Close the readers."""
        for reader in self._readers:
            reader.close()
        self._readers = []

    def _open(self) -> list[SealedLogReader]:
        """Return the open readers; new ones on the first call, and if the topic is recreated or gets partitions."""
        ends = end_offsets(self._logs.cluster, all_partitions(self._logs.cluster, [sealed(LIFECYCLE_TOPIC)]))
        positions = {(sealed(LIFECYCLE_TOPIC), one.partition): one.position for one in self._readers}
        if positions.keys() != ends.keys() or any(positions[where] > end for where, end in ends.items()):
            self.close()
            self._readers = [self._logs.open(LIFECYCLE_TOPIC, partition) for _, partition in sorted(ends)]
            self._running, self._activations = RunningGrants(), SealedActivations()
        return self._readers

    def _events(
        self, records: Iterator[tuple[int, SignedRecord]], partition: int
    ) -> Iterator[tuple[GrantEvent, datetime]]:
        """Yield what the records of a partition report about grants, and when each arrived."""
        for offset, record in records:
            if not any(kind in (record.value or b"") for kind in _KINDS):  # a scan costs a hundredth of decoding
                continue
            try:
                datum = decode(record.value or b"", self._catalog, record.append_time_ms)
                event, received = self._event(record, datum, partition)
            except UNREADABLE as error:
                # It is sealed, stored and shown elsewhere. The watch skips it too.
                log.warning("event_unreadable", offset=offset, reason=type(error).__name__)
                continue
            if event is not None and (not event.own or self._policy.admits(event.source, signed=event.signed)):
                yield event, received

    def _event(self, record: SignedRecord, datum: dict[str, Any], partition: int) -> tuple[GrantEvent | None, datetime]:
        appended = datetime.fromtimestamp(record.append_time_ms / 1000, UTC)
        sources = self._sources.until(record.append_time_ms)
        status = sources.status_of(record, datum)
        if status not in ("valid", "unregistered"):
            return None, appended
        if shard_of(datum["tenant"].encode("utf-8", "replace"), sources.lifecycle_shards) != partition:
            return None, appended
        event = GrantEvent.of(self._names.in_event(datum), appended, signed=status == "valid")
        received = datum["received_at"] if status == "valid" else None
        return event, min(appended, received.astimezone(UTC)) if received is not None else appended
