"""Reads ``access.lifecycle`` to its end right before each removal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import structlog
from confluent_kafka.admin import OffsetSpec

from ..kafka.cluster import Cluster
from ..kafka.offsets import end_offset, offsets_at
from ..kafka.records import read_range
from ..schemas.catalog import SchemaCatalog
from ..schemas.codec import DecodeError, decode
from ..schemas.event import LIFECYCLE_TOPIC
from ..schemas.framing import FramingError
from .running_grants import GIVEN, TAKEN, RunningGrants

log = structlog.get_logger("grantledger.enforce")

_KINDS = tuple(kind.encode() for kind in GIVEN + TAKEN)
LOOK_BACK = timedelta(days=1)
"""Before the oldest open command. The watch may have judged without records that were not sealed yet, and it does not
know which accesses are the same in a target."""


class Lifecycle:
    """Reads new events from the input topic at each call, because the sealed log may lag.

    Args:
        catalog: the schemas that events may be written with.
    """

    def __init__(self, cluster: Cluster, catalog: SchemaCatalog, now: Callable[[], datetime]) -> None:
        self._cluster, self._catalog, self._now = cluster, catalog, now
        self._grants = RunningGrants()
        self._next = -1

    def running(self, since: datetime) -> RunningGrants:
        """Return the running grants, according to everything in the topic at the time of the call.

        Args:
            since: when the oldest open command was appended.

        Raises:
            KafkaUnavailableError: the brokers do not answer.
        """
        end = end_offset(self._cluster, LIFECYCLE_TOPIC, 0)
        start = self._first_at(since - LOOK_BACK, end)
        if not start <= self._next <= end:
            # The first call, a gap after a time without open commands, or a recreated topic.
            self._grants, self._next = RunningGrants(), start
        now, reading = self._now(), read_range(self._cluster, LIFECYCLE_TOPIC, 0, self._next, end)
        for message in reading:
            appended, value = message.timestamp()[1], message.value() or b""
            if not any(kind in value for kind in _KINDS):
                continue  # a scan costs a hundredth of decoding
            try:
                datum = decode(value, self._catalog, appended)
                self._grants.add(datum, datetime.fromtimestamp(appended / 1000, UTC), now)
            except (DecodeError, FramingError):
                continue  # it is sealed, stored and shown elsewhere; the watch skips it too
            except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
                log.warning("event_unreadable", offset=message.offset(), reason=type(error).__name__)
        self._next = end
        self._grants.prune(now)
        return self._grants

    def _first_at(self, time: datetime, end: int) -> int:
        """Return the offset of the first record appended at a time or later."""
        at: OffsetSpec = OffsetSpec.for_timestamp(max(0, int(time.timestamp() * 1000)))
        found = offsets_at(self._cluster, [(LIFECYCLE_TOPIC, 0)], at, committed=False)[LIFECYCLE_TOPIC, 0]
        return min(found, end) if found >= 0 else end
