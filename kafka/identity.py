"""The identity of topics: a topic that was deleted and created again has another id."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import TopicDescription

from .cluster import Cluster
from .errors import REQUEST_TIMEOUT, KafkaUnavailableError, answer_of, retry_transient
from .offsets import Partition


@dataclass(frozen=True, slots=True)
class TopicIdentity:
    """A topic's id and its number of partitions."""

    topic_id: bytes
    partitions: int


def all_partitions(cluster: Cluster, topics: Iterable[str]) -> list[Partition]:
    """Return every partition that the topics have now. Raises like :func:`identify_topics`."""
    found = identify_topics(cluster, topics)
    return [(topic, partition) for topic, identity in found.items() for partition in range(identity.partitions)]


def identify_topics(cluster: Cluster, topics: Iterable[str]) -> dict[str, TopicIdentity]:
    """Return the identity of each topic.

    Raises:
        KafkaUnavailableError: a topic is missing or the brokers do not answer.
    """
    names = TopicCollection([cluster.physical(topic) for topic in topics])

    def describe() -> dict[str, TopicDescription]:
        futures = cluster.admin.describe_topics(names, request_timeout=REQUEST_TIMEOUT)
        return {name: _known(name, future) for name, future in futures.items()}

    found = {}
    for name, description in retry_transient(describe).items():
        uuid: Any = description.topic_id
        high, low = uuid.get_most_significant_bits(), uuid.get_least_significant_bits()
        topic_id = (high % (1 << 64)).to_bytes(8, "big") + (low % (1 << 64)).to_bytes(8, "big")
        found[cluster.logical(name)] = TopicIdentity(topic_id, len(description.partitions))
    return found


def _known(name: str, future: Future[TopicDescription]) -> TopicDescription:
    try:
        return answer_of(future)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise KafkaUnavailableError(f"topic {name} does not exist: run `grantledger topics create`") from error
        raise
