"""Whether a deployment's ledger has begun: asked before a key is ever made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka.admin import AdminClient

from ..kafka import brokers as kafka
from ..schemas.topics import ANCHORS_TOPIC, INPUT_TOPICS, SEALED_TOPICS, seal_group


def ledger_exists(options: Mapping[str, Any], admin: AdminClient, deployment: str) -> bool:
    """Return whether sealed batches or anchors exist or have existed, or sealers have committed a position.

    Raises:
        KafkaUnavailableError: the brokers do not answer, so that nothing can be said.
    """
    for topic, identity in kafka.identify_topics(admin, (*SEALED_TOPICS, ANCHORS_TOPIC)).items():
        for partition in range(identity.partitions):
            if kafka.end_offset(admin, topic, partition, committed=False) > 0:
                return True
    return any(kafka.committed_offset(options, seal_group(deployment), topic, 0) >= 0 for topic in INPUT_TOPICS)
