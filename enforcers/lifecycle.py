"""``access.lifecycle`` as the enforcer follows it: up to its end, right before anything is taken away."""

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
from .held import GIVEN, TAKEN, Held

log = structlog.get_logger("grantledger.enforce")

_KINDS = tuple(kind.encode() for kind in GIVEN + TAKEN)
LOOK_BACK = timedelta(days=1)
"""Before the oldest command that is open. The watch may have judged in spite of records that were not sealed yet; and
it does not know which accesses are one to a target."""


class Lifecycle:
    """Reads what is new each time it is asked, from the event's topic itself: what is sealed may lag behind.

    Args:
        catalog: the schemas that events may be written with.
    """

    def __init__(self, cluster: Cluster, catalog: SchemaCatalog, now: Callable[[], datetime]) -> None:
        self._cluster, self._catalog, self._now = cluster, catalog, now
        self._held = Held()
        self._next = -1

    def held(self, since: datetime) -> Held:
        """Return the grants that run, by everything that was in the topic when this was called.

        Args:
            since: when the brokers took the oldest command that is open.

        Raises:
            KafkaUnavailableError: the brokers do not answer.
        """
        end = end_offset(self._cluster, LIFECYCLE_TOPIC, 0)
        start = self._first_at(since - LOOK_BACK, end)
        if not start <= self._next <= end:
            # The first time; or nothing was open for long, and what lies between is not read; or a topic made anew.
            self._held, self._next = Held(), start
        now, reading = self._now(), read_range(self._cluster, LIFECYCLE_TOPIC, 0, self._next, end)
        for message in reading:
            appended, value = message.timestamp()[1], message.value() or b""
            if not any(kind in value for kind in _KINDS):
                continue  # looking costs a hundredth of decoding
            try:
                datum = decode(value, self._catalog, appended)
                self._held.note(datum, datetime.fromtimestamp(appended / 1000, UTC), now)
            except (DecodeError, FramingError):
                continue  # sealed, stored and shown elsewhere; the watch learns nothing from it either
            except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
                log.warning("event_unreadable", offset=message.offset(), reason=type(error).__name__)
        self._next = end
        self._held.prune(now)
        return self._held

    def _first_at(self, time: datetime, end: int) -> int:
        """Return the offset of the first record that the brokers took at a time or later."""
        at: OffsetSpec = OffsetSpec.for_timestamp(max(0, int(time.timestamp() * 1000)))
        found = offsets_at(self._cluster, [(LIFECYCLE_TOPIC, 0)], at, committed=False)[LIFECYCLE_TOPIC, 0]
        return min(found, end) if found >= 0 else end
