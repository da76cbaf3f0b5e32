"""Making the topics of a deployment, and checking those that are there."""

from __future__ import annotations

import time
from collections.abc import Iterable

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from ..base.errors import UsageError
from ..schemas.topics import TopicSpec
from . import brokers as kafka

TIMEOUT = 30.0


class TopicError(UsageError):
    """A topic cannot be made, or is not as it must be; the message names it and the setting."""


def create_topics(admin: AdminClient, specs: Iterable[TopicSpec], replication: int = 0) -> list[str]:
    """Make those topics that are missing; return their names.

    Args:
        replication: copies of each; 0 for 3, or 1 where there is one broker.

    Raises:
        TopicError: the brokers refuse; names the topic.
        KafkaUnavailableError: they do not answer.
    """
    specs = list(specs)
    try:
        brokers = len(admin.list_topics(timeout=TIMEOUT).brokers)
    except KafkaException as error:
        raise kafka.unavailable("Kafka does not answer", error) from error
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
    made = []
    for name, future in admin.create_topics(new, operation_timeout=TIMEOUT).items():
        try:
            future.result(TIMEOUT)
            made.append(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicError(f"topic {name} cannot be made: {error.args[0].str()}") from error
    if made:
        _await_leaders(admin, {spec.name: spec.partitions for spec in specs if spec.name in made})
    return made


def _await_leaders(admin: AdminClient, partitions: dict[str, int]) -> None:
    """Wait until the brokers know the topics: the controller has made them, the others hear of it a moment later."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            present = admin.list_topics(timeout=TIMEOUT).topics
        except KafkaException as error:
            raise kafka.unavailable("Kafka does not answer", error) from error
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
                f"topic {missing[0]} was made, and has no leader after {TIMEOUT:.0f} s: look at the brokers"
            )
        time.sleep(0.05)


def check_topics(admin: AdminClient, specs: Iterable[TopicSpec]) -> list[str]:
    """Compare topics with what they must be; return one sentence a difference.

    Raises:
        TopicError: a topic is missing.
        KafkaUnavailableError: the brokers do not answer.
    """
    specs = list(specs)
    try:
        present = admin.list_topics(timeout=TIMEOUT).topics
    except KafkaException as error:
        raise kafka.unavailable("Kafka does not answer", error) from error
    differences = []
    for spec in specs:
        if spec.name not in present:
            raise TopicError(f"topic {spec.name} does not exist: run `grantledger topics create`")
        partitions = len(present[spec.name].partitions)
        if partitions != spec.partitions:
            differences.append(f"{spec.name} has {partitions} partitions, the settings say {spec.partitions}")
    resources = [ConfigResource(ResourceType.TOPIC, spec.name) for spec in specs]
    wanted = {spec.name: spec.config for spec in specs}
    for resource, future in admin.describe_configs(resources, request_timeout=TIMEOUT).items():
        actual = future.result(TIMEOUT)
        for name, value in wanted[resource.name].items():
            if name in actual and actual[name].value != value:
                differences.append(f"{resource.name} has {name}={actual[name].value}, it must be {value}")
    return differences
