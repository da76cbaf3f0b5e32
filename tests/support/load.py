"""Sends records to the input topics at a rate, and remembers which the broker acknowledged."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from grantledger.kafka.cluster import Cluster
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import ACTIVITY_TOPIC, FINDINGS_TOPIC, LIFECYCLE_TOPIC, EventSource, Finding

from .events import event

NEVER = datetime(2100, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Sent:
    """A record that the broker has acknowledged, with its place."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


class Load:
    """Sends up to ``count`` records on a thread. ``finish`` waits for the end and returns the acknowledged records.

    Most are events. Some are those of a broken or hostile sender: without value or key, undecodable, with headers. A
    few are sent in transactions, of which every third is aborted, so that offsets have gaps.
    """

    def __init__(self, cluster: Cluster, count: int, rate: float, seed: int, *, odd: bool = True) -> None:
        self._count, self._rate, self._odd = count, rate, odd
        self._random = random.Random(seed)
        self._encoder = EventEncoder()
        # Idempotent, with long timeouts: an outage of the broker loses and duplicates nothing.
        options: dict[str, Any] = {
            **cluster.options, "enable.idempotence": True, "acks": "all", "linger.ms": 5,
            "message.timeout.ms": 120_000, "log_level": 0, "reconnect.backoff.max.ms": 500,
        }  # fmt: skip
        self._cluster = cluster
        self._producer = Producer(options)
        self._options = options
        self._seed = seed
        self.failures: list[str] = []
        self.sent: list[Sent] = []
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> Load:
        self._thread.start()
        return self

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> Load:
        """Stop sending before ``count``."""
        self._enough.set()
        return self

    def finish(self, limit: float = 150.0) -> list[Sent]:
        """Wait for the end, and return the acknowledged records. Only aborted records may be missing."""
        self._thread.join(limit)
        assert not self._thread.is_alive(), f"the load did not end in {limit:.0f} s"
        assert not self.failures, self.failures[:3]
        return self.sent

    def _run(self) -> None:
        try:
            self._send_all()
        except Exception as error:  # raised by finish, on the thread of the test
            self.failures.append(repr(error))

    def _send_all(self) -> None:
        started = time.monotonic()
        for number in range(self._count):
            if self._enough.is_set():
                break
            topic, key, value, headers = self._record(number)
            name = self._cluster.physical(topic)
            while True:
                try:
                    self._producer.produce(name, value, key, headers=headers, on_delivery=self._delivered)
                    break
                except BufferError:
                    self._producer.poll(0.1)
            self._producer.poll(0)
            ahead = started + number / self._rate - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)  # keep to the rate
            if self._odd and number % 500 == 250:
                self._transaction(number)
        left = self._producer.flush(130)
        if left:
            self.failures.append(f"{left} records were not acknowledged")

    def _record(self, number: int) -> tuple[str, bytes | None, bytes | None, list[tuple[str, bytes | None]]]:
        draw = self._random.random()
        source = EventSource("bot", "eu-1", f"load-{number}", "record")  # not counted, so that a watch finds no gaps
        if draw < 0.30:
            made = event("grant.activated", number, source=source, expires_at=NEVER)
        elif draw < 0.40:
            made = event("grant.revoked", number, source=source, removal_evidence="confirmed")
        elif draw < 0.90:
            made = event("session.command", number, source=source)
        else:
            finding = Finding("load", f"key-{number}", "info", evidence="{}")
            made = event("finding.opened", number, source=source, finding=finding)
        topic = {"gr": LIFECYCLE_TOPIC, "se": ACTIVITY_TOPIC, "fi": FINDINGS_TOPIC}[made.event_type[:2]]
        value: bytes | None = self._encoder.encode(made)
        key: bytes | None = made.key.encode()
        headers: list[tuple[str, bytes | None]] = []
        if self._odd and number % 50 == 7:
            value = [None, b"", b"\x00", b"not an event", b"\xc3\x01" + number.to_bytes(8, "big")][number // 50 % 5]
        if self._odd and number % 60 == 11:
            key = [None, b"", b"\xff\xfe"][number // 60 % 3]
        if self._odd and number % 70 == 13:
            headers = [("trace", number.to_bytes(4, "big")), ("trace", None), ("", b"")]
        return topic, key, value, headers

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failures.append(error.str())
            return
        where = (self._cluster.logical(message.topic() or ""), message.partition() or 0, message.offset() or 0)
        self.sent.append(Sent(*where, message.key() or None, message.value() or None))  # type: ignore[arg-type]

    def _transaction(self, number: int) -> None:
        """Leave a transaction marker in the log, and sometimes aborted records."""
        producer = Producer(
            {**self._options, "transactional.id": f"load-{self._seed}-{number}", "message.timeout.ms": 60_000}
        )
        producer.init_transactions(60)
        producer.begin_transaction()
        for topic in (LIFECYCLE_TOPIC, ACTIVITY_TOPIC):
            producer.produce(
                self._cluster.physical(topic), f"in a transaction {number}".encode(), f"t{number}".encode()
            )
        if number % 1500 == 250:
            producer.flush(60)
            producer.abort_transaction(60)
        else:
            producer.commit_transaction(60)
