"""The enforcer's own events in Kafka: written in transactions, and read back at the start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException

from ..kafka.errors import KafkaUnavailableError, unavailable
from ..kafka.sealed_log import SealedLogs
from ..kafka.source_keys_reader import SourceKeysReader
from ..kafka.transactional_writer import TransactionalWriter
from ..schemas.catalog import SchemaCatalog
from ..schemas.codec import EventEncoder, decode
from ..schemas.event import FINDINGS_TOPIC, Event
from ..schemas.topics import COMMANDS_TOPIC
from .command_rules import History
from .events import Recorder, apply

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
        self._encoder = EventEncoder()
        self.consumer: Consumer | None = None
        self._writer.init()

    def write(self, events: Sequence[Event], position: int) -> None:
        """Write events and commit the position; return when the brokers have both. After an error, restart."""
        self._writer.begin()
        for event in events:
            self._writer.produce(event.topic, self._encoder.encode(event), event.key)
        if self.consumer is not None:
            self._writer.send_offsets({(COMMANDS_TOPIC, 0): position}, self.consumer.consumer_group_metadata())
        self._writer.commit()


def read_history(logs: SealedLogs, catalog: SchemaCatalog) -> History:
    """Rebuild the history from the sealed log, which keeps events forever, and from the events not sealed yet."""
    history, sources = History(), SourceKeysReader(logs).keys
    with logs.open(FINDINGS_TOPIC) as reader:
        for offset, record in reader.read_records():
            sources.learn(record)
            try:
                datum = decode(record.value or b"", catalog, record.append_time_ms)
                if sources.is_believed(record, datum):
                    apply(history, logs.deployment, datum)
            except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
                # Unreadable, or it claims to be ours but is not.
                log.warning("finding_unreadable", offset=offset, reason=type(error).__name__)
    return history


def close_breaker(
    logs: SealedLogs, *, catalog: SchemaCatalog, now: Callable[[], datetime], person: str, reason: str
) -> bool:
    """Record that a person closes the breaker. Return whether it was open."""
    with kafka_errors("the breaker cannot be closed"):
        # Checked before creating a writer, which would fence a running enforcer for nothing.
        if read_history(logs, catalog).breaker_opened is None:
            return False
        writer = TransactionalEventWriter(logs)
        writer.write([Recorder(logs.deployment).breaker_closed(now(), person, reason)], -1)
        return True


@contextmanager
def kafka_errors(action: str) -> Iterator[None]:
    """Turn errors of the brokers into errors for people: the action that failed, and why."""
    try:
        yield
    except KafkaException as error:
        if error.args[0].code() in _FENCED:
            raise KafkaUnavailableError(f"{action}: another enforcer has taken over") from error
        raise unavailable(action, error) from error
