"""Reads the state of a partition from Kafka before a sealer takes it. The rules are in ``resume``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from ..kafka.anchor_log import last_anchor
from ..kafka.cluster import Cluster
from ..kafka.identity import TopicIdentity, identify_topics
from ..kafka.offsets import Partition, end_offsets, first_offsets, group_offsets, wait_without_open_transaction
from ..kafka.sealed_log import SealedLogs, SealedLogStoppedError
from ..ledger.batch import Head
from ..ledger.note import Checkpoint
from ..schemas.topics import INPUT_TOPICS, sealed, store_group
from .resume import PartitionState, SealingStoppedError, resume


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


def read_heads(
    logs: SealedLogs,
    committed: Mapping[Partition, int],
    identities: Mapping[str, TopicIdentity],
    anchored: Mapping[str, Checkpoint],
) -> dict[Partition, tuple[Head, datetime | None] | SealingStoppedError]:
    """Return where sealing of each input partition resumes, and when that head was sealed; or why it must not resume.

    Args: as for :func:`read_offsets`.
    """
    found: dict[Partition, tuple[Head, datetime | None] | SealingStoppedError] = {}
    for partition in committed:
        try:
            check_partition_counts(identities, partition[0])
        except SealingStoppedError as stop:
            found[partition] = stop
    # The missing sealed partitions of those have no offsets to read.
    counted = {partition: offset for partition, offset in committed.items() if partition not in found}
    for partition, state in read_offsets(logs, counted, identities, anchored).items():
        try:
            whole = read_tail(logs, state)
            found[partition] = resume(whole), whole.tail.batch.sealed_at if whole.tail is not None else None
        except SealingStoppedError as stop:
            found[partition] = stop
    return found


def read_offsets(
    logs: SealedLogs,
    committed: Mapping[Partition, int],
    identities: Mapping[str, TopicIdentity],
    anchored: Mapping[str, Checkpoint],
) -> dict[Partition, PartitionState]:
    """Return the states of input partitions without the tails of their sealed partitions.

    Args:
        committed: the sealers' committed offset of each partition.
        anchored: the heads in the last anchor, by origin without the epoch.

    Raises:
        KafkaUnavailableError: a transaction stays open, or the brokers do not answer.
    """
    if not committed:
        return {}
    cluster, deployment = logs.cluster, logs.deployment
    outputs = {partition: (sealed(partition[0]), partition[1]) for partition in committed}
    wait_without_open_transaction(cluster, *outputs.values())
    stored = group_offsets(cluster, store_group(deployment), outputs.values())
    begins, ends = first_offsets(cluster, (*committed, *outputs.values())), end_offsets(cluster, committed)
    return {
        at: PartitionState(
            deployment=deployment,
            topic=at[0],
            partition=at[1],
            topic_id=identities[at[0]].topic_id,
            tail=None,
            sealed_begin=begins[outputs[at]],
            committed=offset if offset >= 0 else None,
            stored=stored[outputs[at]] > 0,
            anchored=anchored.get(f"{deployment}/{at[0]}/{at[1]}"),
            input_begin=begins[at],
            input_end=ends[at],
        )
        for at, offset in committed.items()
    }


def read_tail(logs: SealedLogs, state: PartitionState) -> PartitionState:
    """Return a state with the tail of its sealed partition.

    Raises:
        SealingStoppedError: no record of the sealed partition has a valid note, or the last batch does not continue
            the one before it.
        KafkaUnavailableError: the brokers do not answer.
    """
    try:
        return replace(state, tail=logs.tail(state.topic, state.partition))
    except SealedLogStoppedError as error:
        raise SealingStoppedError("head_mismatch", str(error)) from error


def anchored_heads(logs: SealedLogs) -> dict[str, Checkpoint]:
    """Return the heads in the last anchor, by origin without the epoch."""
    try:
        last = last_anchor(logs)
    except SealedLogStoppedError as error:
        raise SealingStoppedError("anchor_mismatch", str(error)) from error
    return last.heads() if last is not None else {}
