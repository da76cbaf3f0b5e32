"""Where the watch's word goes: into Kafka, all of one judgement in one transaction, and never twice.

Taking the watch over fences off who had it before: from then on nothing of theirs can be committed, so what is read
back is everything that was ever said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import structlog
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient

from ...ledger import batch as batches
from ...schemas import kafka
from ...schemas.catalog import SchemaCatalog
from ...schemas.codec import DecodeError, EventEncoder, decode
from ...schemas.event import FINDINGS_TOPIC, LIFECYCLE_TOPIC, Event
from ...schemas.framing import FramingError
from ...schemas.topics import sealed
from ..transactions import insist
from .reports import said_before
from .state import Identity

log = structlog.get_logger("grantledger.watch")


class Journal:
    """The watch's Kafka client beside Faust's. Its calls block; they are made in a thread of their own."""

    def __init__(self, options: Mapping[str, Any], deployment: str, catalog: SchemaCatalog) -> None:
        self._options, self._deployment, self._catalog = dict(options), deployment, catalog
        self._admin = AdminClient(self._options)
        self._encoder = EventEncoder()
        self._producer: Producer | None = None
        self.stopping: Callable[[], bool] = lambda: False

    def take_over(self) -> dict[Identity, bool]:
        """Fence off who watched before, and return what was said: identity to whether it is open.

        Raises:
            KafkaException, KafkaUnavailableError: the brokers do not answer.
            BatchError: the log of findings holds what is no sealed batch.
        """
        producer = Producer(kafka.transactional_options(self._options, f"{self._deployment}-watch"))
        insist(producer.init_transactions, self.stopping)
        self._producer = producer
        known: dict[Identity, bool] = {}
        for value, append_ms in self._findings():
            try:
                datum = decode(value, self._catalog, append_ms)
            except (DecodeError, FramingError) as error:
                log.warning("finding_unreadable", reason=error.code)
                continue
            said_before(known, self._deployment, datum)
        return known

    def _findings(self) -> Iterator[tuple[bytes, int]]:
        """Yield all findings ever, payload and append time: what is sealed, which does not expire, then the rest."""
        end = kafka.wait_without_open_transaction(self._admin, FINDINGS_TOPIC, 0)
        begin = kafka.first_offset(self._admin, FINDINGS_TOPIC, 0)
        log_of_findings = sealed(FINDINGS_TOPIC)
        first = kafka.first_offset(self._admin, log_of_findings, 0)
        last = kafka.end_offset(self._admin, log_of_findings, 0)
        for message in kafka.read_range(self._options, log_of_findings, 0, first, last):
            batch = batches.decode(message.value() or b"")
            records = batch.records()
            yield from zip((value or b"" for value in records.values), records.append_times, strict=True)
            begin = max(begin, batch.next_offset)
        for message in kafka.read_range(self._options, FINDINGS_TOPIC, 0, begin, end):
            yield message.value() or b"", message.timestamp()[1]

    def write(self, events: Iterable[tuple[str, Event]]) -> int | None:
        """Write events, all or none; return the brokers' time in microseconds since 1970, or None where nothing was.

        Raises:
            KafkaException: they are not there, or another watch has taken over.
        """
        if self._producer is None:
            raise RuntimeError("take_over comes first")
        stamps: list[int] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                stamps.append(message.timestamp()[1] * 1000)

        self._producer.begin_transaction()
        for topic, event in events:
            value = self._encoder.encode(event)
            while True:
                try:
                    self._producer.produce(topic, value, event.key, on_delivery=delivered)
                    break
                except BufferError:
                    self._producer.poll(0.1)
        insist(self._producer.commit_transaction, self.stopping)
        return max(stamps, default=None)

    def end(self) -> int:
        """Return the offset after the last record of ``access.lifecycle``, committed or not."""
        return kafka.end_offset(self._admin, LIFECYCLE_TOPIC, 0, committed=False)

    def is_empty(self, start: int, end: int) -> bool:
        """Whether a stretch of ``access.lifecycle`` holds nothing that will ever be sealed: markers, aborted records.

        False while a transaction is open in it.
        """
        if kafka.end_offset(self._admin, LIFECYCLE_TOPIC, 0, committed=True) < end:
            return False
        first = kafka.first_offset(self._admin, LIFECYCLE_TOPIC, 0)
        records = kafka.read_range(self._options, LIFECYCLE_TOPIC, 0, max(start, first), end)
        return next(iter(records), None) is None
