"""The librdkafka options of our consumers and transactional producers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer

from ..schemas.topics import MAX_SEALED_BYTES
from .client_log import CLIENT_LOG
from .cluster import Cluster
from .errors import KafkaOptionsError

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
        "logger": CLIENT_LOG,
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
        "logger": CLIENT_LOG,
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


def checked(cluster: Cluster) -> Cluster:
    """Return the cluster if librdkafka accepts its options, for consumers and producers. Waits for no broker.

    Raises:
        KafkaOptionsError: librdkafka rejects the name or the value of an option, or cannot read a file.
    """
    if cluster.options.keys() <= {"bootstrap.servers"}:
        return cluster
    try:
        Consumer(reader_options(cluster, "unused")).close()
        Producer(transactional_options(cluster, "unused"))
    except KafkaException as error:
        raise KafkaOptionsError(f"kafka_options: {_reason(cluster, error.args[0].str())}") from error
    except (TypeError, ValueError) as error:  # an option of the Python client
        raise KafkaOptionsError(f"kafka_options: {error}") from error
    return cluster


def _reason(cluster: Cluster, text: str) -> str:
    """Return a reason for people. OpenSSL's own text about a file does not contain why it is unreadable."""
    text = text.strip().removeprefix("Failed to create consumer: ").removeprefix("Failed to create producer: ")
    for name, value in cluster.options.items():
        if name.endswith(".location") and name in text:
            try:
                Path(value).open("rb").close()
            except OSError as error:
                return f"{name}: {value} cannot be read: {error.strerror}"
            return f"{name}: {value} is not usable: {text}"
    return text
