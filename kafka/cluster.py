"""The Kafka cluster of a deployment, and the names of its topics.

Our code uses logical topic names (``access.lifecycle``). Brokers and messages carry physical ones: the deployment's
prefix and the logical name. Origins, consumer groups and transactional ids do not contain the prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from .client_log import CLIENT_LOG
from .errors import KafkaUnavailableError

_REFUSED = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED})
"""Errors that a retry does not change."""


@dataclass(frozen=True, eq=False)
class Cluster:
    """The brokers of a deployment.

    Attributes:
        options: librdkafka options that every client starts from; at least ``bootstrap.servers``.
        topic_prefix: stands before each topic name on the brokers.
        lifecycle_shards: number of partitions of ``access.lifecycle``.
    """

    options: Mapping[str, Any]
    topic_prefix: str = ""
    lifecycle_shards: int = 1

    def physical(self, topic: str) -> str:
        """Return the name that a topic has on the brokers."""
        return self.topic_prefix + topic

    def logical(self, name: str | None) -> str:
        """Return the topic that a name on the brokers, such as that of a message, stands for."""
        return (name or "").removeprefix(self.topic_prefix)

    def partition(self, topic: str, partition: int, offset: int = OFFSET_INVALID) -> TopicPartition:
        """Return librdkafka's handle of a partition."""
        return TopicPartition(self.physical(topic), partition, offset)

    def check_answers(self, limit: float = 8.0) -> None:
        """Check that a broker answers and accepts the credentials.

        Raises:
            KafkaUnavailableError: not within ``limit`` seconds. The message names the reason and the setting.
        """
        errors: list[KafkaError] = []
        options: dict[str, Any] = {**self.options, "error_cb": errors.append}
        admin = AdminClient(options, logger=CLIENT_LOG)
        try:
            admin.list_topics(timeout=limit)
        except KafkaException as error:
            admin.poll(0)
            refused = next((one for one in errors if one.code() in _REFUSED), None)
            servers = self.options.get("bootstrap.servers")
            if refused is not None:
                raise KafkaUnavailableError(
                    f"Kafka at {servers} refuses the connection: {refused.str()} (kafka_sasl_*, kafka_options)"
                ) from error
            reason = errors[0] if errors else error.args[0]
            raise KafkaUnavailableError(
                f"no broker answers at {servers} within {limit:g} s: {reason.str()} (kafka_bootstrap_servers)"
            ) from error

    @cached_property
    def admin(self) -> AdminClient:
        """The admin client, created on first use. Threads may share it."""
        return AdminClient(dict(self.options), logger=CLIENT_LOG)
