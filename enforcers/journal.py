"""Writes the enforcer's events to Kafka, in transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException

from ..kafka.errors import KafkaUnavailableError, unavailable
from ..kafka.publisher import Publisher, Record
from ..kafka.sealed_log import SealedLogs
from ..kafka.transactional_writer import TransactionalWriter
from ..schemas.codec import EventEncoder
from ..schemas.event import Event
from ..schemas.placement import placement_of
from ..schemas.topics import COMMANDS_TOPIC

log = structlog.get_logger("grantledger.enforce")

_FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})


def enforce_group(deployment: str) -> str:
    """Return the consumer group whose offset is below all open commands."""
    return f"{deployment}-enforce"


class TransactionalEventWriter:
    """Writes events and the position in one transaction.

    Creating it fences earlier enforcers and aborts their open transactions. ``consumer`` is the one whose group the
    position belongs to, once it is known.
    """

    def __init__(
        self,
        logs: SealedLogs,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        group = enforce_group(logs.deployment)
        self._writer = TransactionalWriter(logs.cluster, group, signer=logs.signer, stopping=stopping)
        self._encoder, self._shards = EventEncoder(), logs.cluster.lifecycle_shards
        self.consumer: Consumer | None = None
        self._writer.init()

    def write(self, events: Sequence[Event], position: int) -> None:
        """Write events and commit the position; return when the brokers have both. After an error, restart."""
        self._writer.begin()
        for event in events:
            key, partition = placement_of(event, self._shards)
            self._writer.produce(event.topic, self._encoder.encode(event), key, partition)
        if self.consumer is not None:
            self._writer.send_offsets({(COMMANDS_TOPIC, 0): position}, self.consumer.consumer_group_metadata())
        self._writer.commit()


def answering(logs: SealedLogs) -> Callable[[Event], None]:
    """Return a function that records the answers of a dry run, as long as the brokers let it. It fences no enforcer."""
    publisher, encoder, refused = Publisher(logs.cluster, logs.signer), EventEncoder(), list[str]()

    def answer(event: Event) -> None:
        if refused:
            return
        try:
            publisher.publish([Record(event.topic, encoder.encode(event), event.key)])
        except KafkaUnavailableError as error:
            refused.append(str(error))
            log.warning("dry_run_not_recorded", reason=str(error))

    return answer


@contextmanager
def kafka_errors(action: str) -> Iterator[None]:
    """Turn errors of the brokers into errors for people: the action that failed, and why."""
    try:
        yield
    except KafkaException as error:
        if error.args[0].code() in _FENCED:
            raise KafkaUnavailableError(f"{action}: another enforcer has taken over") from error
        raise unavailable(action, error) from error
