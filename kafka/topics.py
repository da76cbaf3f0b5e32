"""Creating the topics of a deployment, and checking existing ones."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import ClusterMetadata, ConfigResource, NewPartitions, NewTopic, ResourceType

from ..base.errors import UsageError
from ..schemas.event import LIFECYCLE_TOPIC
from ..schemas.topics import TopicSpec, sealed
from .cluster import Cluster
from .errors import unavailable

TIMEOUT = 30.0


class TopicError(UsageError):
    """A topic cannot be created or does not match its specification. The message names the topic and the setting."""


def create_topics(cluster: Cluster, specs: Iterable[TopicSpec], replication: int = 0) -> list[str]:
    """Create the missing topics; return their logical names.

    Args:
        replication: replication factor; 0 for 3, or 1 where there is one broker.

    Raises:
        TopicError: the brokers refuse; names the topic.
        KafkaUnavailableError: they do not answer.
    """
    specs = _physical(cluster, specs)
    brokers = len(_metadata(cluster).brokers)
    copies = replication or min(3, brokers)
    config = {"min.insync.replicas": "2"} if copies >= 3 else {}
    new = [
        NewTopic(
            spec.name,
            spec.partitions,
            copies,
            config=spec.config | config | {"unclean.leader.election.enable": "false"},
        )
        for spec in specs
    ]
    created = []
    for name, future in cluster.admin.create_topics(new, operation_timeout=TIMEOUT).items():
        try:
            future.result(TIMEOUT)
            created.append(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicError(f"topic {name} cannot be created: {error.args[0].str()}") from error
    if created:
        _await_leaders(cluster, {spec.name: spec.partitions for spec in specs if spec.name in created})
    return [cluster.logical(name) for name in created]


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the brokers have it.

    Attributes:
        partitions: the number of its partitions.
        replicas: the smallest number of replicas of a partition.
        in_sync: the smallest number of them that have everything.
        without_leader: the number of partitions that nobody can read or write now.
        config: every setting with its value, defaults included.
    """

    partitions: int
    replicas: int
    in_sync: int
    without_leader: int
    config: Mapping[str, str]


def read_topics(cluster: Cluster, specs: Iterable[TopicSpec]) -> dict[str, TopicState | None]:
    """Return the state of topics by their name on the brokers; None for one that does not exist.

    Raises:
        KafkaUnavailableError: the brokers do not answer, or refuse.
    """
    present, names = _metadata(cluster).topics, [cluster.physical(spec.name) for spec in specs]
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names if name in present]
    configs = {}
    try:
        if resources:
            for resource, future in cluster.admin.describe_configs(resources, request_timeout=TIMEOUT).items():
                configs[resource.name] = {name: one.value for name, one in future.result(TIMEOUT).items()}
    except KafkaException as error:
        raise unavailable("the configuration of the topics cannot be read", error) from error
    found: dict[str, TopicState | None] = {}
    for name in names:
        if name not in present:
            found[name] = None
            continue
        partitions = list(present[name].partitions.values())
        found[name] = TopicState(
            len(partitions),
            min((len(one.replicas) for one in partitions), default=0),
            min((len(one.isrs) for one in partitions), default=0),
            sum(one.leader < 0 for one in partitions),
            configs[name],
        )
    return found


def check_topics(cluster: Cluster, specs: Iterable[TopicSpec]) -> list[str]:
    """Compare topics with their specifications; return one sentence per difference.

    Raises:
        TopicError: a topic is missing.
        KafkaUnavailableError: the brokers do not answer.
    """
    specs, differences = list(specs), []
    for spec, (name, state) in zip(specs, read_topics(cluster, specs).items(), strict=True):
        if state is None:
            raise TopicError(f"topic {name} does not exist: run `grantledger topics create`")
        differences += [difference for _, difference in topic_differences(name, spec, state)]
    return differences


def topic_differences(name: str, spec: TopicSpec, state: TopicState) -> list[tuple[str, str]]:
    """Return the settings in which a topic differs from its specification, each with a sentence about it."""
    found = []
    if state.partitions != spec.partitions:
        found.append(
            ("partitions", f"{name} has {state.partitions} partitions; the settings require {spec.partitions}")
        )
    for setting, value in spec.config.items():
        actual = state.config.get(setting, value)
        if actual != value:
            found.append((setting, f"{name} has {setting}={actual}; it must be {value}"))
    return found


def check_lifecycle_shards(cluster: Cluster) -> None:
    """Check the number of partitions of ``access.lifecycle`` and its sealed topic, if they exist.

    A sender may have no right to know the sealed topic.

    Raises:
        TopicError: a topic has another number of partitions.
        KafkaUnavailableError: the brokers do not answer.
    """
    present = _metadata(cluster).topics
    for name in map(cluster.physical, (LIFECYCLE_TOPIC, sealed(LIFECYCLE_TOPIC))):
        if name in present and (partitions := len(present[name].partitions)) != cluster.lifecycle_shards:
            raise TopicError(
                f"{name} has {partitions} partitions, and lifecycle_shards is {cluster.lifecycle_shards}. The number "
                'is fixed for each ledger: see "Several lifecycle shards" in docs/operations.md'
            )


def add_partitions(cluster: Cluster, topic: str, total: int) -> None:
    """Increase the number of partitions of a topic.

    Raises:
        TopicError: the brokers refuse.
    """
    name = cluster.physical(topic)
    try:
        cluster.admin.create_partitions([NewPartitions(name, total)], operation_timeout=TIMEOUT)[name].result(TIMEOUT)
    except KafkaException as error:
        raise TopicError(f"topic {name} cannot get {total} partitions: {error.args[0].str()}") from error
    _await_leaders(cluster, {name: total})


def _physical(cluster: Cluster, specs: Iterable[TopicSpec]) -> list[TopicSpec]:
    return [replace(spec, name=cluster.physical(spec.name)) for spec in specs]


def _metadata(cluster: Cluster) -> ClusterMetadata:
    try:
        return cluster.admin.list_topics(timeout=TIMEOUT)
    except KafkaException as error:
        raise unavailable("Kafka does not answer", error) from error


def _await_leaders(cluster: Cluster, partitions: dict[str, int]) -> None:
    """Wait until every partition has a leader: brokers learn of new topics a moment after the controller."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        present = _metadata(cluster).topics
        missing = [
            name
            for name, count in partitions.items()
            if name not in present
            or sum(partition.leader >= 0 for partition in present[name].partitions.values()) < count
        ]
        if not missing:
            return
        if time.monotonic() > deadline:
            raise TopicError(
                f"topic {missing[0]} was created but has no leader after {TIMEOUT:.0f} s: check the brokers"
            )
        time.sleep(0.05)
