"""How everybody who reads or writes the topics must do it: options, offsets, the end of a partition."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec, TopicDescription
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

from ..base.errors import DependencyError
from ..schemas.topics import MAX_SEALED_BYTES

Answer = TypeVar("Answer")

REQUEST_TIMEOUT = 10.0
"""Seconds that one question to the brokers may take before it is asked again."""
PATIENCE = 30.0
"""Seconds without an answer after which the brokers count as gone: longer than an election or a quick restart."""
TRANSACTION_PATIENCE = 60.0
"""The same where an answer waits for what a dead process left open: the broker aborts that in 10 to 20 s."""
TRANSACTION_TIMEOUT_MS = 10_000
"""After this long the broker aborts what a dead process left open, and its readers go on."""


class KafkaUnavailableError(DependencyError):
    """The brokers did not answer, or refused; the message names the setting to look at."""


def reader_options(base: Mapping[str, Any], group: str, *, member: str = "") -> dict[str, Any]:
    """Return the options of a consumer that sees committed records only and never guesses where to start.

    Args:
        member: a name that this member keeps across restarts. The group then gives it its old place at once; without
            one, a member that died holds its partitions until its session has expired. Two with one name fence each
            other off.
    """
    return {
        **base,
        **({"group.instance.id": member} if member else {}),
        "group.id": group,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        # Eager: a partition changes hands only while nobody works on any, which is what the hand-over rules assume.
        "partition.assignment.strategy": "range",
        "fetch.message.max.bytes": MAX_SEALED_BYTES,
        "fetch.max.bytes": 2 * MAX_SEALED_BYTES,
        "queued.max.messages.kbytes": 64 << 10,
        "session.timeout.ms": 10_000,
        "enable.partition.eof": False,
    }


def transactional_options(base: Mapping[str, Any], transactional_id: str) -> dict[str, Any]:
    """Return the options of a transactional producer of sealed batches or anchors."""
    return {
        **base,
        "transactional.id": transactional_id,
        "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
        "enable.idempotence": True,
        "acks": "all",
        # Measured before compression, where brokers measure after it: a record that was small on the wire, and was
        # taken, may be far larger than a batch should be, and is sealed all the same.
        "message.max.bytes": 1_000_000_000,
        "queue.buffering.max.kbytes": 1 << 20,
        "linger.ms": 0,
        "compression.type": "lz4",
    }


_PASSING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._WAIT_COORD,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
    }
)
_OUTDATED = frozenset({KafkaError._NOENT, KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH})
"""Said of leaders that an admin client remembers from before a restart, and never asks for again by itself."""


def passes(error: BaseException) -> bool:
    """Whether an error says that the same question may be answered later: an election, a restart, a slow broker."""
    if not isinstance(error, KafkaException):
        return False
    problem: KafkaError = error.args[0]
    return bool(problem.retriable()) or problem.code() in _PASSING or problem.code() in _OUTDATED


def is_fatal(error: KafkaError) -> bool:
    """Whether a client is of no use any more. An error that comes as a message says so by its code only."""
    return bool(error.fatal()) or error.code() == KafkaError._FATAL


def unavailable(what: str, error: KafkaException) -> KafkaUnavailableError:
    """Return the error that tells a person what could not be done, why, and which setting to look at."""
    return KafkaUnavailableError(f"{what}: {error.args[0].str()} (kafka_bootstrap_servers)")


def patiently(ask: Callable[[], Answer], limit: float = PATIENCE) -> Answer:
    """Ask the brokers, and again while the answer is one that passes, for at most ``limit`` seconds.

    Raises:
        KafkaUnavailableError: no answer within the limit.
        KafkaException: the brokers refuse.
    """
    retrying = Retrying(
        retry=retry_if_exception(passes),
        stop=stop_after_delay(limit),
        wait=wait_exponential(0.05, max=2.0),
        reraise=True,
    )
    try:
        return retrying(ask)
    except KafkaException as error:
        if passes(error):
            raise unavailable("Kafka does not answer", error) from error
        raise


def _latest() -> OffsetSpec:
    spec: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    return spec


def _earliest() -> OffsetSpec:
    spec: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
    return spec


def offsets_of(
    admin: AdminClient, partitions: list[tuple[str, int]], spec: OffsetSpec, *, committed: bool
) -> dict[tuple[str, int], int]:
    """Return an offset of each partition: the first, or the end as readers of committed or of all records see it."""
    asked = {TopicPartition(topic, partition): spec for topic, partition in partitions}
    level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED

    def ask() -> dict[tuple[str, int], int]:
        futures = admin.list_offsets(asked, isolation_level=level, request_timeout=REQUEST_TIMEOUT)
        try:
            return {(at.topic, at.partition): future.result().offset for at, future in futures.items()}
        except KafkaException as error:
            if error.args[0].code() in _OUTDATED:
                for topic in {topic for topic, _ in partitions}:
                    admin.list_topics(topic, timeout=REQUEST_TIMEOUT)
            raise

    return patiently(ask)


def ends_of(admin: AdminClient, partitions: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Return the offset after the last committed record of each partition."""
    return offsets_of(admin, partitions, _latest(), committed=True)


def first_offset(admin: AdminClient, topic: str, partition: int) -> int:
    """Return the earliest offset that the partition still has."""
    return offsets_of(admin, [(topic, partition)], _earliest(), committed=False)[topic, partition]


def end_offset(admin: AdminClient, topic: str, partition: int, *, committed: bool = True) -> int:
    """Return the offset after the last record: the last stable offset, or the high watermark."""
    return offsets_of(admin, [(topic, partition)], _latest(), committed=committed)[topic, partition]


def committed_offset(options: Mapping[str, Any], group: str, topic: str, partition: int) -> int:
    """Return the offset that a consumer group has committed, negative for nothing.

    Asked as a consumer of the group that never joins it: the admin call for it crashes librdkafka 2.16.0 while the
    group's coordinator is still loading.
    """
    consumer = Consumer(reader_options(options, group))
    try:
        return committed_offsets(consumer, [TopicPartition(topic, partition)])[topic, partition]
    finally:
        consumer.close()


def committed_offsets(consumer: Consumer, partitions: list[TopicPartition]) -> dict[tuple[str, int], int]:
    """Return what the consumer's group has committed for each partition, negative for nothing.

    Waits while an open transaction may still change it.
    """
    if not partitions:
        return {}
    found = patiently(lambda: consumer.committed(partitions, REQUEST_TIMEOUT), TRANSACTION_PATIENCE)
    return {(at.topic, at.partition): at.offset for at in found}


@dataclass(frozen=True, slots=True)
class TopicIdentity:
    """What makes a topic the same topic: a topic deleted and made again has another id."""

    topic_id: bytes
    partitions: int


def identify_topics(admin: AdminClient, topics: tuple[str, ...]) -> dict[str, TopicIdentity]:
    """Ask the brokers for the identity of topics.

    Raises:
        KafkaUnavailableError: a topic is missing or the brokers do not answer; says what to do.
    """
    asked = TopicCollection(list(topics))

    def ask() -> dict[str, TopicDescription]:
        futures = admin.describe_topics(asked, request_timeout=REQUEST_TIMEOUT)
        return {topic: future.result() for topic, future in futures.items() if not _is_missing(topic, future)}

    found = {}
    for topic, description in patiently(ask).items():
        uuid: Any = description.topic_id
        high, low = uuid.get_most_significant_bits(), uuid.get_least_significant_bits()
        topic_id = (high % (1 << 64)).to_bytes(8, "big") + (low % (1 << 64)).to_bytes(8, "big")
        found[topic] = TopicIdentity(topic_id, len(description.partitions))
    return found


def _is_missing(topic: str, future: Future[TopicDescription]) -> bool:
    problem = future.exception()
    if isinstance(problem, KafkaException) and problem.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise KafkaUnavailableError(f"topic {topic} does not exist: run `grantledger topics create`") from problem
    return False


def wait_without_open_transaction(
    admin: AdminClient,
    topic: str,
    partition: int,
    *,
    limit: float = TRANSACTION_PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Wait until no transaction is open at the partition's end and return the end offset.

    Raises:
        KafkaUnavailableError: a transaction stays open longer than ``limit`` seconds.
    """
    waited = 0.0
    while True:
        stable = end_offset(admin, topic, partition, committed=True)
        if stable == end_offset(admin, topic, partition, committed=False):
            return stable
        if waited >= limit:
            raise KafkaUnavailableError(
                f"a transaction has been open on {topic} partition {partition} for {limit:.0f} s; another process "
                "still writes there, or the broker does not abort what a dead one left"
            )
        sleep(0.2)
        waited += 0.2


def last_record(
    options: Mapping[str, Any], admin: AdminClient, topic: str, partition: int, *, before: int | None = None
) -> Message | None:
    """Return the last committed record of a partition, or None where it has none.

    Looks back further and further from the end: aborted records and transaction markers take offsets too.

    Args:
        before: take the last one below this offset instead.
    """
    begin = first_offset(admin, topic, partition)
    end = end_offset(admin, topic, partition)
    if before is not None:
        end = min(end, before)
    reach = 4
    while end > begin:
        start = max(begin, end - reach)
        found = None
        for message in read_range(options, topic, partition, start, end):
            found = message
        if found is not None:
            return found
        if start == begin:
            return None
        reach *= 8
    return None


def read_range(options: Mapping[str, Any], topic: str, partition: int, start: int, end: int) -> Iterator[Message]:
    """Yield the committed records of a partition with start <= offset < end, in order.

    Raises:
        KafkaUnavailableError: the brokers stop answering for half a minute.
    """
    if start >= end:
        return
    consumer = Consumer(
        {**reader_options(options, "unused"), "enable.partition.eof": True, "auto.offset.reset": "earliest"}
    )
    try:
        consumer.assign([TopicPartition(topic, partition, start)])
        quiet_since = time.monotonic()
        while True:
            # Wait for the first record only: a call for 500 would wait out its time for those that do not come.
            for message in consumer.consume(1, 0.5) + consumer.consume(500, 0.0):
                quiet_since = time.monotonic()
                error = message.error()
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        return
                    if error.fatal() or not error.retriable():
                        raise KafkaUnavailableError(f"reading {topic} partition {partition}: {error.str()}")
                    continue
                if (message.offset() or 0) >= end:
                    return
                yield message
            position = consumer.position([TopicPartition(topic, partition)])[0].offset
            if position >= end:
                return
            if time.monotonic() - quiet_since > PATIENCE:
                raise KafkaUnavailableError(
                    f"no answer reading {topic} partition {partition} (kafka_bootstrap_servers)"
                )
    finally:
        consumer.close()
