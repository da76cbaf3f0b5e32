"""The librdkafka options of our consumers and transactional producers."""

from __future__ import annotations

from typing import Any

from ..schemas.topics import MAX_SEALED_BYTES
from .cluster import Cluster

TRANSACTION_TIMEOUT_MS = 10_000
"""The broker aborts the open transaction of a dead process after this long, and readers go on."""


def reader_options(cluster: Cluster, group: str, *, member: str = "") -> dict[str, Any]:
    """Return the options of a consumer that reads committed records only and never guesses a start position.

    Args:
        member: a member name that stays the same across restarts. The group then returns the old partitions at once;
            without it, the partitions of a dead member stay blocked until its session expires. Two members with the
            same name fence each other off.
    """
    return {
        **cluster.options,
        **({"group.instance.id": member} if member else {}),
        "group.id": group,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        # Eager: no member works while partitions change hands. The handover rules rely on this.
        "partition.assignment.strategy": "range",
        "fetch.message.max.bytes": MAX_SEALED_BYTES,
        "fetch.max.bytes": 2 * MAX_SEALED_BYTES,
        "queued.max.messages.kbytes": 64 << 10,
        "session.timeout.ms": 10_000,
        "enable.partition.eof": False,
        # librdkafka looks for new partitions every five minutes by default.
        "topic.metadata.refresh.interval.ms": 20_000,
    }


def transactional_options(cluster: Cluster, transactional_id: str) -> dict[str, Any]:
    """Return the options of a transactional producer."""
    return {
        **cluster.options,
        "transactional.id": transactional_id,
        "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
        "enable.idempotence": True,
        "acks": "all",
        # librdkafka measures before compression, brokers after it. A record that was small on the wire may exceed the
        # usual limit here and must be sealed all the same.
        "message.max.bytes": 1_000_000_000,
        "queue.buffering.max.kbytes": 1 << 20,
        "linger.ms": 0,
        "compression.type": "lz4",
    }
