"""The topics (DESIGN section 2): their names, and how they must be configured."""

from __future__ import annotations

from dataclasses import dataclass

from .event import ACTIVITY_TOPIC, FINDINGS_TOPIC, LIFECYCLE_TOPIC

INPUT_TOPICS = (LIFECYCLE_TOPIC, ACTIVITY_TOPIC, FINDINGS_TOPIC)
SEALED_SUFFIX = ".sealed"
ANCHORS_TOPIC = "access.anchors"
RECEIPTS_TOPIC = "access.receipts"
COMMANDS_TOPIC = "access.commands"
WATCH_TOPIC = "access.watch"
"""What the watch keeps between two starts; all of it can be had again from the sealed log."""
MAX_INPUT_BYTES = 4 << 20
"""Largest batch of records in an input topic, as it is stored there: uncompressed."""
MAX_RECORD_BYTES = MAX_INPUT_BYTES - 1024
"""Most that key and value of a record in an input topic may have: the rest is for what Kafka writes around them."""
MAX_SEALED_BYTES = 8 << 20
"""Largest sealed batch as a Kafka record: payloads (4 MiB, or one record as large as the input takes) and hashes."""


def sealed(topic: str) -> str:
    """Return the name of the topic that holds the sealed batches of an input topic."""
    return topic + SEALED_SUFFIX


SEALED_TOPICS = tuple(sealed(topic) for topic in INPUT_TOPICS)


def seal_group(deployment: str) -> str:
    """Return the consumer group of the sealers."""
    return f"{deployment}-seal"


def store_group(deployment: str) -> str:
    """Return the consumer group of the sink."""
    return f"{deployment}-store"


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic as it must be."""

    name: str
    partitions: int
    config: dict[str, str]


def topic_specs(activity_partitions: int, payload_retention_days: int) -> tuple[TopicSpec, ...]:
    """Return every topic of a deployment.

    Args:
        activity_partitions: partitions of ``access.activity`` and of its sealed topic.
        payload_retention_days: how long sealed topics keep batches; 0 for ever.
    """
    append_time = {"message.timestamp.type": "LogAppendTime", "cleanup.policy": "delete"}
    # Input is only a passage, but what is not sealed yet must not expire: a week covers a long outage.
    # Stored uncompressed, so that the broker measures what is inside: a record that a sender's compression made small
    # could be too large to seal. Senders compress on the wire all the same.
    source = append_time | {
        "retention.ms": str(7 * 86_400_000),
        "compression.type": "uncompressed",
        "max.message.bytes": str(MAX_INPUT_BYTES),
    }
    keep = "-1" if payload_retention_days == 0 else str(payload_retention_days * 86_400_000)
    batches = append_time | {"retention.ms": keep, "retention.bytes": "-1", "max.message.bytes": str(MAX_SEALED_BYTES)}
    for_ever = append_time | {"retention.ms": "-1", "retention.bytes": "-1"}
    specs = []
    for topic in INPUT_TOPICS:
        partitions = activity_partitions if topic == ACTIVITY_TOPIC else 1
        specs += [TopicSpec(topic, partitions, source), TopicSpec(sealed(topic), partitions, batches)]
    specs += [TopicSpec(ANCHORS_TOPIC, 1, for_ever), TopicSpec(RECEIPTS_TOPIC, 1, for_ever)]
    # Rolled and cleaned soon: what was replaced would have to be read past at every start.
    latest = {
        "message.timestamp.type": "LogAppendTime",
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.1",
        "segment.bytes": str(64 << 20),
        "segment.ms": str(3_600_000),
        "max.message.bytes": str(MAX_SEALED_BYTES),
    }
    specs += [TopicSpec(COMMANDS_TOPIC, 1, source), TopicSpec(WATCH_TOPIC, 1, latest)]
    return tuple(specs)
