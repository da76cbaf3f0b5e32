"""Whether a watch is running, by its consumer group in Kafka, from any machine."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime

from confluent_kafka import KafkaException

from ..base.errors import GrantledgerError
from ..kafka.membership import group_state
from ..kafka.records import last_record
from ..schemas.placement import shard_of
from ..schemas.topics import WATCH_TOPIC, watch_group
from .settings import Settings

_PATIENCE = 4.0
"""Seconds to wait for Kafka."""


@dataclass(frozen=True, slots=True)
class WatchLiveness:
    """Whether a watch is running; and if not, when the last one wrote its state: it has ended since then."""

    running: bool
    last_written: datetime | None = None


def read_watch_liveness(settings: Settings, tenant: str) -> WatchLiveness | None:
    """Return it for the watch that judges a tenant; None if Kafka is unknown here, is too slow, or refuses."""
    if not settings.kafka_bootstrap_servers or not settings.deployment:
        return None
    found: list[WatchLiveness] = []

    def read() -> None:
        try:
            found.append(_read(settings, shard_of(tenant.encode(), settings.lifecycle_shards)))
        except (GrantledgerError, KafkaException):
            return

    thread = threading.Thread(target=read, name="watch-liveness", daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return found[0] if found else None


def _read(settings: Settings, shard: int) -> WatchLiveness:
    cluster = settings.cluster()
    if group_state(cluster, watch_group(settings.deployment, shard, settings.lifecycle_shards)).assigned:
        return WatchLiveness(running=True)
    last = last_record(cluster, WATCH_TOPIC, shard)
    written = datetime.fromtimestamp(last.timestamp()[1] / 1000, UTC) if last is not None else None
    return WatchLiveness(running=False, last_written=written)
