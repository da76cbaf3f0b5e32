"""Whether a deployment's ledger has begun: asked before a key is ever made."""

from __future__ import annotations

from ..kafka.cluster import Cluster
from ..kafka.identity import identify_topics
from ..kafka.offsets import committed_offset, end_offset
from ..schemas.topics import ANCHORS_TOPIC, INPUT_TOPICS, SEALED_TOPICS, seal_group


def ledger_exists(cluster: Cluster, deployment: str) -> bool:
    """Return whether sealed batches or anchors exist or have existed, or sealers have committed a position.

    Raises:
        KafkaUnavailableError: the brokers do not answer, so that nothing can be said.
    """
    for topic, identity in identify_topics(cluster, (*SEALED_TOPICS, ANCHORS_TOPIC)).items():
        for partition in range(identity.partitions):
            if end_offset(cluster, topic, partition, committed=False) > 0:
                return True
    return any(committed_offset(cluster, seal_group(deployment), topic, 0) >= 0 for topic in INPUT_TOPICS)
