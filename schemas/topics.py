"""The topics: their names, and how they must be configured."""

from __future__ import annotations

from dataclasses import dataclass

from .event import ACTIVITY_TOPIC, FINDINGS_TOPIC, LIFECYCLE_TOPIC, QUERIES_TOPIC

INPUT_TOPICS = (LIFECYCLE_TOPIC, ACTIVITY_TOPIC, FINDINGS_TOPIC, QUERIES_TOPIC)
SEALED_SUFFIX = ".sealed"
ANCHORS_TOPIC = "access.anchors"
RECEIPTS_TOPIC = "access.receipts"
COMMANDS_TOPIC = "access.commands"
WATCH_TOPIC = "access.watch"
"""Snapshots of the watch, those of each shard in a partition. The sealed log can rebuild all of them."""
MAX_INPUT_BYTES = 4 << 20
"""Largest batch of records in an input topic, as stored: uncompressed."""
MAX_RECORD_BYTES = MAX_INPUT_BYTES - 1024
"""Limit for key and value of a record in an input topic; the rest is for Kafka's own framing."""
MAX_SEALED_BYTES = 8 << 20
"""Largest sealed batch as a Kafka record: 4 MiB of payloads, or one record of the largest input size, and hashes."""


def sealed(topic: str) -> str:
    """Return the name of the topic that holds the sealed batches of an input topic."""
    return topic + SEALED_SUFFIX


SEALED_TOPICS = tuple(sealed(topic) for topic in INPUT_TOPICS)


def seal_group(deployment: str) -> str:
    """Return the consumer group of the sealers."""
    return f"{deployment}-seal"


def watch_group(deployment: str, shard: int, shards: int) -> str:
    """Return the consumer group of the watches of one of the partitions of ``access.lifecycle``."""
    return f"{deployment}-watch" if shards == 1 else f"{deployment}-watch-{shard}"


def store_group(deployment: str) -> str:
    """Return the consumer group of the sink."""
    return f"{deployment}-store"


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """The required configuration of one topic."""

    name: str
    partitions: int
    config: dict[str, str]


def topic_specs(
    activity_partitions: int, payload_retention_days: int, query_retention_days: int = 0, lifecycle_shards: int = 1
) -> tuple[TopicSpec, ...]:
    """Return every topic of a deployment.

    Args:
        activity_partitions: partitions of ``access.activity`` and of its sealed topic.
        payload_retention_days: how long sealed topics keep batches; 0 means forever. ``access.findings.sealed`` keeps
            them forever.
        query_retention_days: the same for ``access.queries.sealed``.
        lifecycle_shards: partitions of ``access.lifecycle`` and of its sealed topic.
    """
    append_time = {"message.timestamp.type": "LogAppendTime", "cleanup.policy": "delete"}
    # Records must not expire before they are sealed: a week covers a long outage.
    # The broker stores them uncompressed, so its size limit applies to the content: a record that a sender's
    # compression made small could be too large to seal. Senders can still compress on the wire.
    source = append_time | {
        "retention.ms": str(7 * 86_400_000),
        "compression.type": "uncompressed",
        "max.message.bytes": str(MAX_INPUT_BYTES),
    }
    batches = append_time | {"retention.bytes": "-1", "max.message.bytes": str(MAX_SEALED_BYTES)}
    forever = append_time | {"retention.ms": "-1", "retention.bytes": "-1"}
    specs = []
    for topic in INPUT_TOPICS:
        partitions = {ACTIVITY_TOPIC: activity_partitions, LIFECYCLE_TOPIC: lifecycle_shards}.get(topic, 1)
        # access.findings registers schemas and sources: a reader that misses a registration believes unsigned events.
        days = {QUERIES_TOPIC: query_retention_days, FINDINGS_TOPIC: 0}.get(topic, payload_retention_days)
        retention = {"retention.ms": str(days * 86_400_000) if days else "-1"}
        specs += [TopicSpec(topic, partitions, source), TopicSpec(sealed(topic), partitions, batches | retention)]
    specs += [TopicSpec(ANCHORS_TOPIC, 1, forever), TopicSpec(RECEIPTS_TOPIC, 1, forever)]
    # Roll and compact early: every start reads past the replaced records.
    latest = {
        "message.timestamp.type": "LogAppendTime",
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.1",
        "segment.bytes": str(64 << 20),
        "segment.ms": str(3_600_000),
        "max.message.bytes": str(MAX_SEALED_BYTES),
    }
    specs += [TopicSpec(COMMANDS_TOPIC, 1, source), TopicSpec(WATCH_TOPIC, lifecycle_shards, latest)]
    return tuple(specs)
