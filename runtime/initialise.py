"""Creates a ledger: its topics and its key pair, once, and never over an existing one."""

from __future__ import annotations

from ..base.user import user_name
from ..kafka.cluster import Cluster
from ..kafka.identity import identify_topics
from ..kafka.offsets import end_offsets, group_offsets
from ..kafka.records import read_whole, signed_record
from ..kafka.topics import check_lifecycle_shards, create_topics
from ..ledger.source_keys import SourceKeys
from ..schemas.event import FINDINGS_TOPIC
from ..schemas.topics import ANCHORS_TOPIC, INPUT_TOPICS, SEALED_TOPICS, TopicSpec, seal_group, topic_specs
from .keys import KeyUnavailableError, create_key
from .lifecycle_shards import put_on_record
from .settings import Settings
from .source_keys import register_own_sources


def initialise(settings: Settings, person: str = "") -> int:
    """Create the topics that are missing, the key pair, and the keys of the pipeline's own sources.

    Args:
        person: who registers the sources, for the record. Default: the user of this machine.

    Returns:
        The number of topics created.
    """
    deployment = settings.require_deployment()
    if settings.private_key_path.exists():
        raise KeyUnavailableError(f"the private key {settings.private_key_path} (key_file) exists already")
    created = ensure_topics(settings)  # first: only existing topics can show whether there is a ledger
    if ledger_exists(settings.cluster(), deployment):
        raise KeyUnavailableError(
            f"the topics have a ledger already. If it is that of {deployment}, restore its private key to "
            f"{settings.private_key_path} (key_file); otherwise choose another topic_prefix"
        )
    # Registered before the key of the logs exists: nothing is sealed yet, and an interrupted init can run again.
    keys = SourceKeys(deployment)
    for record in read_whole(settings.cluster(), FINDINGS_TOPIC, 0):
        keys.learn(signed_record(FINDINGS_TOPIC, record))
    register_own_sources(settings, keys, person or user_name())
    put_on_record(settings, keys, person or user_name())
    create_key(settings)
    return created


def ensure_topics(settings: Settings) -> int:
    """Create the topics that are missing, and return their number.

    Raises:
        TopicError: ``access.lifecycle`` has another number of partitions than the settings state.
    """
    cluster = settings.cluster()
    created = create_topics(cluster, required_topics(settings), settings.kafka_replication)
    check_lifecycle_shards(cluster)
    return len(created)


def required_topics(settings: Settings) -> tuple[TopicSpec, ...]:
    """Return every topic of the deployment."""
    return topic_specs(
        settings.activity_partitions,
        settings.payload_retention_days,
        settings.query_retention_days,
        settings.lifecycle_shards,
    )


def ledger_exists(cluster: Cluster, deployment: str) -> bool:
    """Return whether sealed batches or anchors exist or have existed, or sealers have committed an offset."""
    identities = identify_topics(cluster, (*SEALED_TOPICS, ANCHORS_TOPIC)).items()
    written = [(topic, partition) for topic, identity in identities for partition in range(identity.partitions)]
    read = group_offsets(cluster, seal_group(deployment), [(topic, 0) for topic in INPUT_TOPICS])
    ends = end_offsets(cluster, written, committed=False)
    return any(end > 0 for end in ends.values()) or any(offset >= 0 for offset in read.values())
