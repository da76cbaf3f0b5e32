"""Reads the state of a partition from Kafka before a sealer takes it. The rules are in ``resume``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..kafka.anchor_log import last_anchor
from ..kafka.cluster import Cluster
from ..kafka.identity import TopicIdentity, identify_topics
from ..kafka.offsets import Partition, committed_offset, end_offset, first_offset, wait_without_open_transaction
from ..kafka.sealed_log import SealedLogs, SealedLogStoppedError
from ..ledger.note import Checkpoint
from ..schemas.topics import INPUT_TOPICS, sealed, store_group
from .resume import PartitionState, SealingStoppedError


def identify(cluster: Cluster) -> dict[str, TopicIdentity]:
    """Return the identities of the topics. A topic that is deleted and created again gets another id."""
    return identify_topics(cluster, INPUT_TOPICS + tuple(map(sealed, INPUT_TOPICS)))


def check_partition_counts(identities: Mapping[str, TopicIdentity], topic: str) -> None:
    """Check that an input topic has as many partitions as its sealed topic.

    Raises:
        SealingStoppedError: it does not. None of its partitions may be sealed: a record's key decides its partition, so
            records of one grant may now be in two of them. Other topics are not concerned.
    """
    ours, theirs = identities[topic].partitions, identities[sealed(topic)].partitions
    if ours != theirs:
        reason = f"{topic} has {ours} partitions, {sealed(topic)} has {theirs}: they must be the same"
        raise SealingStoppedError("partition_count", reason)


def read_state(
    logs: SealedLogs, where: Partition, *, topic_id: bytes, committed: int, anchored: Mapping[str, Checkpoint]
) -> PartitionState:
    """Return the state of an input partition and of its sealed partition.

    Raises:
        SealingStoppedError: no record of the sealed partition has a valid note, or the last batch does not continue
            the one before it.
        KafkaUnavailableError: a transaction stays open there, or the brokers do not answer.
    """
    state = read_offsets(logs, where, topic_id=topic_id, committed=committed, anchored=anchored)
    try:
        return replace(state, tail=logs.tail(*where))
    except SealedLogStoppedError as error:
        raise SealingStoppedError("head_mismatch", str(error)) from error


def read_offsets(
    logs: SealedLogs, where: Partition, *, topic_id: bytes, committed: int, anchored: Mapping[str, Checkpoint]
) -> PartitionState:
    """Return the state of a partition without the tail of its sealed partition."""
    cluster, sealed_topic = logs.cluster, sealed(where[0])
    wait_without_open_transaction(cluster, sealed_topic, where[1])
    return PartitionState(
        deployment=logs.deployment,
        topic=where[0],
        partition=where[1],
        topic_id=topic_id,
        tail=None,
        sealed_begin=first_offset(cluster, sealed_topic, where[1]),
        committed=committed if committed >= 0 else None,
        stored=committed_offset(cluster, store_group(logs.deployment), sealed_topic, where[1]) > 0,
        anchored=anchored.get(f"{logs.deployment}/{where[0]}/{where[1]}"),
        input_begin=first_offset(cluster, *where),
        input_end=end_offset(cluster, *where),
    )


def anchored_heads(logs: SealedLogs) -> dict[str, Checkpoint]:
    """Return the heads in the last anchor, by origin without the epoch."""
    try:
        last = last_anchor(logs)
    except SealedLogStoppedError as error:
        raise SealingStoppedError("anchor_mismatch", str(error)) from error
    return last.heads() if last is not None else {}
