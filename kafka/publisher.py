"""Publishing records outside of transactions: all of them are acknowledged by all replicas, or an error is raised."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, Message, Producer

from ..ledger.source_signature import SourceSigner
from ..schemas.codec import EventEncoder
from ..schemas.event import Event
from .client_log import CLIENT_LOG
from .cluster import Cluster
from .errors import PATIENCE, KafkaUnavailableError


class Record(NamedTuple):
    """A record to publish. The topic name is logical."""

    topic: str
    value: bytes | None
    key: str | bytes | None = None


def produce(producer: Producer, topic: str, value: bytes | None, key: str | bytes | None, **options: Any) -> None:
    """Queue a record for a topic on the brokers; wait while the local queue is full."""
    while True:
        try:
            return producer.produce(topic, value, key, **options)
        except BufferError:
            producer.poll(0.5)


def signature_headers(signer: SourceSigner | None, record: Record) -> list[tuple[str, bytes]]:
    """Return the headers of a record: its signature, if there is a signer."""
    return signer.headers(record.topic, record.key, record.value) if signer is not None else []


class Publisher:
    """An idempotent producer with ``acks=all``. Threads must not share it. ``signer`` signs the events."""

    def __init__(self, cluster: Cluster, signer: SourceSigner | None = None) -> None:
        self._cluster, self._signer = cluster, signer
        self._producer = Producer({**cluster.options, "enable.idempotence": True, "acks": "all"}, logger=CLIENT_LOG)

    def publish_events(self, events: Iterable[Event], timeout: float = PATIENCE) -> None:
        """Publish events to their topics; wait and raise like :meth:`publish`."""
        encoder = EventEncoder()
        self.publish([Record(one.topic, encoder.encode(one), one.key) for one in events], timeout)

    def publish(self, records: Iterable[Record], timeout: float = PATIENCE) -> int:
        """Send records and wait until the brokers have acknowledged all of them; return their number.

        Raises:
            KafkaUnavailableError: some are not acknowledged within ``timeout`` seconds. They may still arrive.
        """
        failures: list[str] = []
        count = 0

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append(error.str())

        for record in records:
            name, headers = self._cluster.physical(record.topic), signature_headers(self._signer, record)
            produce(self._producer, name, record.value, record.key, headers=headers, on_delivery=delivered)
            count += 1
        if missing := self._producer.flush(timeout):
            failures.append(f"{missing} not acknowledged within {timeout:.0f} s")
        if failures:
            reasons = "; ".join(dict.fromkeys(failures))
            raise KafkaUnavailableError(f"records were not published: {reasons} (kafka_bootstrap_servers)")
        return count
