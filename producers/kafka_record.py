"""Events as Kafka records: checked, encoded, placed and signed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from ..schemas.catalog import event_schema
from ..schemas.codec import EventEncoder
from ..schemas.event import ACTIVITY_TOPIC, LIFECYCLE_TOPIC, PIPELINE_TYPES, Event
from ..schemas.framing import confluent_prefix
from ..schemas.placement import placement_of
from ..schemas.rules import InvalidEventError
from .registry import SchemaRegistry

_LARGEST_RECORD = 1_000_000
"""The default of librdkafka's ``message.max.bytes``."""
_RECORD_OVERHEAD = 512
"""An upper bound for the bytes that Kafka adds to key and value."""


class RecordSigner(Protocol):
    """Signs records; :func:`.signing.source_signer` makes one."""

    def headers(self, topic: str, key: bytes | None, value: bytes | None) -> list[tuple[str, bytes]]:
        """Return the Kafka headers of a record. ``topic`` is the name without a prefix."""
        ...


class EventTooLargeError(InvalidEventError):
    """The event does not fit into one Kafka record and was not queued. It may fit without ``raw``."""


class KafkaRecord(NamedTuple):
    """What is sent to Kafka. ``topic`` is the name on the brokers, ``partition`` -1 if the producer chooses it."""

    topic: str
    key: bytes
    value: bytes
    partition: int
    headers: list[tuple[str, bytes]]

    @property
    def size(self) -> int:
        """The bytes of key, value and headers."""
        return len(self.key) + len(self.value) + sum(len(name) + len(value) for name, value in self.headers)


class KafkaRecords:
    """Turns events into records.

    Args:
        options: of librdkafka; ``message.max.bytes`` limits the size of a record.
        topic_prefix: the deployment's prefix of all topic names on the brokers.
        lifecycle_shards: the deployment's number of partitions of ``access.lifecycle``.
        registry: if given, values use the Confluent framing with its schema ids.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        topic_prefix: str = "",
        lifecycle_shards: int = 1,
        registry: SchemaRegistry | None = None,
    ) -> None:
        self._largest = int(options.get("message.max.bytes", _LARGEST_RECORD)) - _RECORD_OVERHEAD
        self._topic_prefix = topic_prefix
        self._shards = lifecycle_shards
        self._registry = registry
        self._encoders: dict[str, EventEncoder] = {}

    def of(self, event: Event, signer: RecordSigner | None) -> KafkaRecord:
        """Return the record of an event that names its source.

        Raises:
            InvalidEventError: the event breaks a rule. The message names the field.
            EventTooLargeError: the event does not fit into one record.
            RegistryError: the schema could not be registered.
        """
        if event.event_type in PIPELINE_TYPES:
            raise InvalidEventError("event_type", f"{event.event_type} is reserved for the pipeline")
        value = self._encoder(event.topic).encode(event)
        if len(value) > self._largest:
            raise EventTooLargeError("raw", f"the event has {len(value)} bytes; the limit is {self._largest}")
        placement = placement_of(event, self._shards)
        key = placement.key.encode()
        headers = signer.headers(event.topic, key, value) if signer is not None else []
        return KafkaRecord(self._topic_prefix + event.topic, key, value, placement.partition, headers)

    def prepare(self) -> None:
        """Register the schemas now rather than with the first event. Raises RegistryError."""
        for topic in (LIFECYCLE_TOPIC, ACTIVITY_TOPIC):
            self._encoder(topic)

    def _encoder(self, topic: str) -> EventEncoder:
        encoder = self._encoders.get(topic)
        if encoder is None:
            prefix = None
            if self._registry is not None:
                prefix = confluent_prefix(self._registry.register(self._topic_prefix + topic, event_schema().text))
            encoder = self._encoders[topic] = EventEncoder(prefix)
        return encoder
