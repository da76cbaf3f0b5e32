"""Stores records before a request is answered: in Kafka with ``acks=all``, or on the spool while Kafka is away.

A record waits ``SPOOL_AFTER_SECONDS`` for Kafka. Then it is also written to the spool, the request is answered, and the
record leaves the spool when Kafka has acknowledged it. While records on the spool have not been handed to Kafka, new
ones follow them there, so that the order is kept. After a kill, what is on the spool is sent, perhaps a second time,
with the same event ids.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import structlog
from confluent_kafka import KafkaException

from ...base.errors import DependencyError, GrantledgerError
from ...base.health import HEALTH, Condition
from ...kafka.errors import KafkaUnavailableError
from ..kafka_record import KafkaRecord
from . import metrics
from .problems import ProblemError
from .spool import SpoolConnection, SpoolError, SpoolFile
from .spool_writer import SpoolWriter, set_results

SPOOL_AFTER_SECONDS: Final = 2.0
MOST_EVENTS: Final = 50_000
MOST_BYTES: Final = 32 * 1024 * 1024
"""On the way to Kafka, in memory."""
AGAIN_SECONDS: Final = 5.0
"""Until a record that Kafka has refused is sent again."""
RETRY_AFTER_SECONDS: Final = 2.0
"""An OpenTelemetry SDK drops its records if this is past its own limit, by default 10 s for all attempts."""
JOIN_SECONDS: Final = 1.0
LOG_SECONDS: Final = 60.0
_POLL_SECONDS = 0.05
_FORWARDED = 500
"""Records that are read from the spool at once."""

log = structlog.get_logger("grantledger.gateway")


class DeliveryStoppedError(DependencyError):
    """Nothing more can be sent to Kafka by this process. What is on the spool is sent by the next one."""


class _Batch:
    """The records of one request on the way to Kafka."""

    __slots__ = ("error", "future", "left")

    def __init__(self, future: asyncio.Future[None], left: int) -> None:
        self.future, self.left, self.error = future, left, ""


class _Item:
    """A record on the way to Kafka.

    ``left``: it is not on the way any more, because it was acknowledged or refused. ``returned``: it waits on the spool
    to be sent again.
    """

    __slots__ = ("acknowledged", "batch", "left", "record", "returned", "seq", "size", "spooled")

    def __init__(self, seq: int, record: KafkaRecord, batch: _Batch | None) -> None:
        self.seq, self.record, self.size, self.batch = seq, record, record.size, batch
        self.acknowledged = self.left = self.returned = False
        self.spooled = batch is None


class RecordDelivery:
    """Delivers records. ``start`` and ``close`` are called once; ``deliver`` from the event loop.

    Args:
        producer: of confluent-kafka, without a limit for the time of a message.
        spool: is closed with the delivery.
        most_spool_bytes: the limit of the spool.
        check: is called until it returns, before anything is sent to Kafka. It raises an error while Kafka is away.
        on_failure: is called with a reason if the process must be started again.
    """

    def __init__(
        self,
        producer: Any,
        spool: SpoolFile,
        most_spool_bytes: int,
        *,
        check: Callable[[], None] = lambda: None,
        on_failure: Callable[[GrantledgerError], None] = lambda error: None,
        spool_after: float = SPOOL_AFTER_SECONDS,
    ) -> None:
        self._producer = producer
        self._spool = spool
        self._check, self._on_failure, self._spool_after = check, on_failure, spool_after
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        with_state = spool.connect()
        self._seq, self._unqueued, spooled_bytes = with_state.state()
        """The last number given; and how many records on the spool are not on the way."""
        self._forwarded = 0
        """The number up to which records on the spool are on the way."""
        self._on_the_way: set[int] = set()
        """Numbers of records on the spool that are on the way, or acknowledged and not yet removed."""
        self._events = self._bytes = 0
        self._again_at = 0.0
        self._kafka_answers = False
        self._away = False
        """Events go to the spool, and the log says so."""
        self._refused_at: dict[str, float] = {}
        """When a reason of Kafka was last logged."""
        self._kafka_problem = "it has not answered since the start"
        self._done: list[_Batch] = []
        self._writer = SpoolWriter(with_state, self._unqueued, spooled_bytes, most_spool_bytes, self._removed)
        self._kafka = threading.Thread(target=self._run, name="gateway-kafka", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._writer.start()
        self._kafka.start()

    async def deliver(self, records: Sequence[KafkaRecord]) -> str:
        """Return when the records are durable, and where: ``kafka`` or ``spool``.

        Raises:
            ProblemError: 503, they are not durable. Some may still arrive.
        """
        if not records:
            return "kafka"
        loop = asyncio.get_running_loop()
        size = sum(one.size for one in records)
        with self._lock:
            first, self._seq = self._seq + 1, self._seq + len(records)
            waits = bool(self._unqueued or self._on_the_way)
            direct = self._kafka_answers and not waits and self._has_room(len(records), size)
            if direct:
                self._events, self._bytes = self._events + len(records), self._bytes + size
            else:
                self._unqueued += len(records)
        numbered = list(enumerate(records, first))
        if not direct:
            self._note_away()
            try:
                await self._write(numbered)
            except BaseException:
                with self._lock:
                    self._unqueued -= len(records)
                raise
            return "spool"
        batch = _Batch(loop.create_future(), len(records))
        items = [_Item(seq, record, batch) for seq, record in numbered]
        for item in items:
            self._produce(item)
        done, _ = await asyncio.wait([batch.future], timeout=self._spool_after)
        if done:
            if batch.error:
                raise ProblemError(503, f"Kafka refuses the events: {batch.error}", retry_after=RETRY_AFTER_SECONDS)
            return "kafka"
        return await self._take_over(items)

    def problem(self) -> str:
        """Return why no event can be accepted; empty if events are accepted."""
        return self._writer.problem()

    def state(self) -> str:
        """Return in words where events go now."""
        records, size = self._writer.content()
        spool = f"{records} events ({size} bytes) wait on the spool" if records else "the spool is empty"
        if self._kafka_answers and not self._kafka_problem:
            return f"Kafka answers; {spool}"
        return f"Kafka is away: {self._kafka_problem}; {spool}"

    def condition(self) -> Condition:
        """Return the same as a condition of the process. It is ready while Kafka is away, because it has a spool."""
        problem = self.problem()
        return Condition("delivery", problem or self.state(), waits=bool(problem))

    def close(self, seconds: float) -> None:
        """Wait for acknowledgements, and end the threads. What is on the spool stays there."""
        self._producer.flush(seconds)
        self._stopping.set()
        self._kafka.join(JOIN_SECONDS)  # it may wait for Kafka to answer for the first time
        self._writer.close()
        self._spool.close()

    def connection_problem(self, error: Any) -> None:
        """Take an error that librdkafka reports about its connections."""
        self._kafka_problem = error.str()
        if error.fatal():
            self._on_failure(DeliveryStoppedError(f"the Kafka producer cannot go on: {error.str()}"))

    def _has_room(self, events: int, size: int) -> bool:
        return not self._events or (self._events + events <= MOST_EVENTS and self._bytes + size <= MOST_BYTES)

    def _note_away(self) -> None:
        if not self._away:
            self._away = True
            log.warning("events_go_to_the_spool", reason=self._kafka_problem or "Kafka is slow")

    async def _write(self, numbered: Sequence[tuple[int, KafkaRecord]]) -> None:
        try:
            await self._writer.write(numbered)
        except SpoolError as error:
            raise ProblemError(503, str(error), retry_after=RETRY_AFTER_SECONDS) from error

    async def _take_over(self, items: Sequence[_Item]) -> str:
        """Write what Kafka has not acknowledged to the spool; it stays on the way to Kafka."""
        with self._lock:
            waiting = [item for item in items if not item.acknowledged]
            for item in waiting:
                item.spooled = True
                if item.left:
                    self._return(item)
                else:
                    self._on_the_way.add(item.seq)
        if not waiting:
            return "kafka"
        self._note_away()
        try:
            await self._write([(item.seq, item.record) for item in waiting])
        except BaseException:
            with self._lock:
                for item in waiting:
                    item.spooled = False
                    self._on_the_way.discard(item.seq)
                    self._unqueued -= item.returned
            raise
        with self._lock:
            # Acknowledged before it was written: its removal found nothing.
            self._writer.remove([item.seq for item in waiting if item.acknowledged])
        return "spool"

    def _produce(self, item: _Item) -> None:
        record = item.record
        try:
            self._producer.produce(
                record.topic, value=record.value, key=record.key, partition=record.partition, headers=record.headers,
                on_delivery=partial(self._reported, item),
            )  # fmt: skip
        except BufferError:
            self._failed(item, "its queue is full")
        except KafkaException as error:
            self._failed(item, error.args[0].str())

    def _reported(self, item: _Item, error: Any, _message: Any) -> None:
        if error is not None:
            self._failed(item, error.str())
            return
        with self._lock:
            item.acknowledged = True
            self._kafka_problem = ""
            self._leaves(item)
            if item.spooled:
                self._writer.remove([item.seq])

    def _failed(self, item: _Item, reason: str) -> None:
        if (now := time.monotonic()) >= self._refused_at.get(reason, 0.0):
            self._refused_at[reason] = now + LOG_SECONDS
            log.warning("kafka_refused", topic=item.record.topic, reason=reason, spooled=item.spooled)
        with self._lock:
            if item.batch is not None:
                item.batch.error = reason
            self._leaves(item)
            if item.spooled:
                self._return(item)

    def _return(self, item: _Item) -> None:
        """Send a record on the spool again later. The lock is held."""
        item.returned = True
        self._on_the_way.discard(item.seq)
        self._unqueued += 1
        self._forwarded = min(self._forwarded, item.seq - 1)
        self._again_at = time.monotonic() + AGAIN_SECONDS

    def _removed(self, numbers: Sequence[int]) -> None:
        """Take note of what the spool does not have any more."""
        with self._lock:
            self._on_the_way.difference_update(numbers)

    def _leaves(self, item: _Item) -> None:
        """Count a record that is not on the way any more. The lock is held."""
        item.left = True
        self._events, self._bytes = self._events - 1, self._bytes - item.size
        if item.batch is not None:
            item.batch.left -= 1
            if not item.batch.left:
                self._done.append(item.batch)

    def _run(self) -> None:
        """Serve the reports of the producer, and send what is on the spool."""
        reader = self._spool.connect()
        try:
            while not self._stopping.is_set():
                HEALTH.turned(loop="delivery")
                if not self._kafka_answers and (not self._answers() or self._stopping.is_set()):
                    continue
                self._producer.poll(_POLL_SECONDS)
                self._settle()
                self._forward(reader)
            self._producer.poll(0)
            self._settle()
        except GrantledgerError as error:
            self._on_failure(error)
        except Exception as error:
            log.exception("delivery_failed")
            self._on_failure(DeliveryStoppedError(f"the delivery to Kafka has stopped: {type(error).__name__}"))
        finally:
            reader.close()

    def _answers(self) -> bool:
        try:
            self._check()
        except GrantledgerError as error:
            if not isinstance(error, KafkaUnavailableError):
                raise
            if self._kafka_problem != str(error):
                log.warning("kafka_away", reason=str(error))
            self._kafka_problem = str(error)
            self._stopping.wait(1.0)
            return False
        self._kafka_answers, self._kafka_problem = True, ""
        return True

    def _settle(self) -> None:
        with self._lock:
            done, self._done = self._done, []
            metrics.WAITING_EVENTS.set(self._events)
            metrics.WAITING_BYTES.set(self._bytes)
            is_back = self._away and not self._unqueued and not self._on_the_way
        if is_back:
            self._away = False
            log.info("spool_is_empty")
        set_results([batch.future for batch in done])

    def _forward(self, reader: SpoolConnection) -> None:
        """Send the next records of the spool."""
        with self._lock:
            if not self._unqueued or time.monotonic() < self._again_at or not self._has_room(_FORWARDED, 0):
                return
            after = self._forwarded
        rows = reader.after(after, _FORWARDED)
        items = []
        with self._lock:
            for seq, record in rows:
                self._forwarded = seq
                if seq not in self._on_the_way:
                    item = _Item(seq, record, None)
                    items.append(item)
                    self._on_the_way.add(seq)
                    self._unqueued -= 1
                    self._events, self._bytes = self._events + 1, self._bytes + item.size
        for item in items:
            self._produce(item)
