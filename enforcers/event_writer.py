"""Writes the enforcer's events to Kafka, in transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from ..kafka.errors import KafkaUnavailableError, unavailable
from ..kafka.offsets import end_offset, wait_without_open_transaction
from ..kafka.publisher import Publisher
from ..kafka.records import read_range
from ..kafka.sealed_log import SealedLogs
from ..kafka.transactional_writer import TransactionalWriter, TransactionHangsError
from ..schemas.catalog import own_schemas
from ..schemas.codec import DecodeError, EventEncoder, decode
from ..schemas.event import FINDINGS_TOPIC, Event
from ..schemas.framing import FramingError
from ..schemas.own_sources import ENFORCER
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
        self._logs, self._stopping = logs, stopping
        self._encoder, self._shards = EventEncoder(), logs.cluster.lifecycle_shards
        self.consumer: Consumer | None = None
        self._writer = self._new_writer()
        self._seen = end_offset(logs.cluster, FINDINGS_TOPIC, 0, committed=False)
        """All events of enforcers in the findings below this offset are known."""

    def write(self, events: Sequence[Event], position: int) -> None:
        """Write events and commit the position; return when the brokers have both.

        If the transaction fails because the brokers were away, a new writer continues: it aborts what is open. What was
        already being committed is committed then, and not written again.

        Raises:
            KafkaException, KafkaUnavailableError: another enforcer has taken over, or the brokers do not come back.
        """
        records = [(one.topic, self._encoder.encode(one), *placement_of(one, self._shards)) for one in events]
        try:
            self._transact(records, position)
        except (KafkaException, TransactionHangsError) as error:
            if _is_fenced(error) or self._stopping():
                raise
            log.warning("writing_again", reason=str(error))
            self._writer = self._new_writer()
            if not self._are_written({value for _, value, _, _ in records}):
                self._transact(records, position)

    def _new_writer(self) -> TransactionalWriter:
        group, signer = enforce_group(self._logs.deployment), self._logs.signer
        writer = TransactionalWriter(self._logs.cluster, group, signer=signer, stopping=self._stopping)
        writer.init()
        return writer

    def _transact(self, records: Sequence[tuple[str, bytes, str, int]], position: int) -> None:
        seen = [self._seen]

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None and self._logs.cluster.logical(message.topic()) == FINDINGS_TOPIC:
                seen.append((message.offset() or 0) + 1)

        self._writer.begin()
        for topic, value, key, partition in records:
            self._writer.produce(topic, value, key, partition, on_delivery=delivered)
        if self.consumer is not None:
            self._writer.send_offsets({(COMMANDS_TOPIC, 0): position}, self.consumer.consumer_group_metadata())
        self._writer.commit()
        self._seen = max(seen)

    def _are_written(self, values: set[bytes]) -> bool:
        """Return whether events of the failed transaction are in the findings: then it was committed.

        Raises:
            KafkaUnavailableError: another enforcer has written there, so this one does not know what was done.
        """
        cluster, found = self._logs.cluster, False
        end = wait_without_open_transaction(cluster, (FINDINGS_TOPIC, 0))[FINDINGS_TOPIC, 0]
        for message in read_range(cluster, FINDINGS_TOPIC, 0, self._seen, end):
            value = message.value() or b""
            if value in values:
                found = True
            elif self._is_own(value):
                raise KafkaUnavailableError("another enforcer has taken over")
        self._seen = end
        return found

    def _is_own(self, value: bytes) -> bool:
        try:
            source = decode(value, own_schemas(), 0)["source"]
        except (DecodeError, FramingError, KeyError, TypeError):
            return False
        return (source["system"], source["instance"]) == (ENFORCER, self._logs.deployment)


def answering(logs: SealedLogs) -> Callable[[Event], None]:
    """Return a function that records the answers of a dry run, as long as the brokers let it. It fences no enforcer."""
    publisher, refused = Publisher(logs.cluster, logs.signer), list[str]()

    def answer(event: Event) -> None:
        if refused:
            return
        try:
            publisher.publish_events([event])
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
        if _is_fenced(error):
            raise KafkaUnavailableError(f"{action}: another enforcer has taken over") from error
        raise unavailable(action, error) from error


def _is_fenced(error: Exception) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in _FENCED
