"""What the enforcer has put on record, in Kafka: written in transactions, and read back at a start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException

from ..kafka.cluster import Cluster
from ..kafka.errors import KafkaUnavailableError, is_transient, unavailable
from ..kafka.sealed_log import SealedLogs
from ..kafka.transactional_writer import TransactionalWriter
from ..schemas.catalog import SchemaCatalog
from ..schemas.codec import DecodeError, EventEncoder, decode
from ..schemas.event import FINDINGS_TOPIC, Event
from ..schemas.framing import FramingError
from ..schemas.topics import COMMANDS_TOPIC
from .core import Breaker, History
from .events import Recorder, note

log = structlog.get_logger("grantledger.enforce")

_FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})


def enforce_group(deployment: str) -> str:
    """Return the consumer group whose offset says which commands are done with."""
    return f"{deployment}-enforce"


class KafkaJournal:
    """Events and position, in one transaction each.

    Making one fences every enforcer before it off, and ends what that one has left open.
    """

    def __init__(self, cluster: Cluster, deployment: str, stopping: Callable[[], bool]) -> None:
        self._writer = TransactionalWriter(cluster, enforce_group(deployment), stopping=stopping)
        self._encoder = EventEncoder()
        self._consumer: Consumer | None = None
        self._position = -1
        self._writer.init()

    def follow(self, consumer: Consumer, committed: int) -> None:
        """Commit positions for this consumer's group from now on; ``committed``: its last, negative for none."""
        self._consumer, self._position = consumer, committed

    def write(self, events: Sequence[Event], position: int) -> None:
        """Put events on record and commit the position; returns when the brokers have both.

        A position that has not moved is committed where it comes alone, so that the brokers do not forget it.

        Raises:
            KafkaException: neither is there; the process must end, and start again.
        """
        told = self._consumer is not None and (position > self._position or not events)
        if not events and not told:
            return
        self._writer.begin()
        for event in events:
            self._writer.produce(event.topic, self._encoder.encode(event), event.key)
        if self._consumer is not None and told:
            self._writer.send_offsets({(COMMANDS_TOPIC, 0): position}, self._consumer.consumer_group_metadata())
        self._writer.commit()
        self._position = max(self._position, position)


def read_history(logs: SealedLogs, catalog: SchemaCatalog) -> History:
    """Read the enforcer's events, however old: the input topic forgets after a week, the sealed log does not.

    Raises:
        SealedLogStoppedError: the sealed log of findings is discontinuous.
    """
    history = History()
    for value, append_time_ms in logs.read_all(FINDINGS_TOPIC):
        try:
            note(history, logs.deployment, decode(value or b"", catalog, append_time_ms))
        except (DecodeError, FramingError) as error:
            log.warning("finding_unreadable", append_time_ms=append_time_ms, reason=error.code)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            # It says that it is ours, and is not.
            log.warning("finding_unreadable", append_time_ms=append_time_ms, reason=type(error).__name__)
    return history


def close_breaker(
    logs: SealedLogs,
    breaker: Breaker,
    *,
    catalog: SchemaCatalog,
    now: Callable[[], datetime],
    who: str,
    why: str,
) -> bool:
    """Put on record that a person has closed the breaker; return whether it was open.

    Raises:
        KafkaUnavailableError: the brokers do not answer, or refuse.
    """
    with kafka_errors("the breaker cannot be closed"):
        # Looked at first without a journal, which would push a running enforcer from its place for nothing.
        if read_history(logs, catalog).breaker_opened is None:
            return False
        journal = KafkaJournal(logs.cluster, logs.deployment, lambda: False)
        seconds = breaker.window.total_seconds()
        closed = Recorder(logs.deployment).breaker(
            now(), opened=False, limit=breaker.limit, seconds=seconds, who=who, why=why
        )
        journal.write([closed], -1)
        return True


@contextmanager
def kafka_errors(what: str) -> Iterator[None]:
    """Turn what the brokers refuse into a sentence for a person: ``what`` could not be done, and why."""
    try:
        yield
    except KafkaException as error:
        problem: KafkaError = error.args[0]
        if problem.code() in _FENCED:
            raise KafkaUnavailableError(f"{what}: another enforcer took this one's place") from error
        if is_transient(error):
            raise unavailable(what, error) from error
        raise KafkaUnavailableError(f"{what}: {problem.str()}") from error
