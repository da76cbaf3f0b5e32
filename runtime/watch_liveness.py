"""Whether a watch judges: by its progress on this machine, else by its consumer group in Kafka, from any machine."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from confluent_kafka import KafkaException

from ..base.errors import GrantledgerError
from ..kafka.membership import group_state
from ..kafka.records import last_record
from ..schemas.placement import shard_of
from ..schemas.topics import WATCH_TOPIC, watch_group
from .process import read_samples
from .settings import Settings
from .watch_progress import read_progress, watch_trouble
from .watches import watch_names

_PATIENCE = 4.0
"""Seconds to wait for Kafka."""


@dataclass(frozen=True, slots=True)
class WatchLiveness:
    """What is known of the watch that judges a tenant.

    Attributes:
        state: ``hangs``: its process runs on this machine, and judges nothing. ``unknown``: Kafka does not answer.
        judged_until: if it does not judge: the latest time at which it is known to have judged.
    """

    state: Literal["judges", "hangs", "down", "unknown"]
    judged_until: datetime | None = None


def read_watch_liveness(settings: Settings, tenant: str) -> WatchLiveness:
    """Return it for the watch that judges a tenant. Waits some seconds at most for Kafka."""
    shard = shard_of(tenant.encode(), settings.lifecycle_shards)
    name = watch_names(settings.lifecycle_shards)[shard]
    here = read_progress(settings.data_dir, name)
    if here.pid is not None and here.judged_until is not None and not here.stale:
        return WatchLiveness("judges")
    samples = read_samples(settings.data_dir, name) if here.pid is not None else {}
    hangs = watch_trouble(settings.data_dir, name, samples) is not None
    if hangs and samples:  # it is the active one
        return WatchLiveness("hangs", here.judged_until)
    found = _in_kafka(settings, shard)
    if found.state == "judges":  # within STALE_SECONDS, a group drops a member that hangs
        return found
    known = max(filter(None, (found.judged_until, here.judged_until)), default=None)
    return WatchLiveness("hangs" if hangs else found.state, known)


def _in_kafka(settings: Settings, shard: int) -> WatchLiveness:
    found = [WatchLiveness("unknown")]
    if not settings.kafka_bootstrap_servers or not settings.deployment:
        return found[0]

    def read() -> None:
        try:
            found.append(_read(settings, shard))
        except (GrantledgerError, KafkaException):
            return

    thread = threading.Thread(target=read, name="watch-liveness", daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return found[-1]


def _read(settings: Settings, shard: int) -> WatchLiveness:
    cluster = settings.cluster()
    if group_state(cluster, watch_group(settings.deployment, shard, settings.lifecycle_shards)).assigned:
        return WatchLiveness("judges")
    last = last_record(cluster, WATCH_TOPIC, shard)
    written = datetime.fromtimestamp(last.timestamp()[1] / 1000, UTC) if last is not None else None
    return WatchLiveness("down", written)
