"""The client library: sends events to Kafka and reports every event that was not acknowledged."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Producer

from ..base.errors import DependencyError
from ..kafka.client_log import OncePerMinute
from ..schemas.event import SOURCE_REPORT, Event, EventSource
from ..schemas.rules import InvalidEventError
from .kafka_record import EventTooLargeError, KafkaRecord, KafkaRecords, RecordSigner
from .options import OptionError, safe_options
from .redaction.redactor import Redactor
from .registry import SchemaRegistry

__all__ = [
    "Client",
    "ClientError",
    "Delivery",
    "DeliveryError",
    "EventTooLargeError",
    "QueueFullError",
    "RecordSigner",
]

FLUSH_SECONDS = 30.0
QUEUE_SECONDS = 30.0
_POLL_SECONDS = 0.1

# Silent unless the application configures logging; librdkafka would write to standard error.
_kafka_log = logging.getLogger("grantledger.kafka")
_kafka_log.addHandler(logging.NullHandler())
_kafka_log.addFilter(OncePerMinute())


@dataclass(frozen=True, slots=True)
class Delivery:
    """The delivery report of one event. ``error`` is None if the brokers acknowledged it."""

    event_id: str
    topic: str
    partition: int | None = None
    offset: int | None = None
    error: str | None = None


class ClientError(DependencyError):
    """The client could not accept or deliver events."""


class QueueFullError(ClientError):
    """The event was not queued because the queue stayed full. The caller may send it again."""


class DeliveryError(ClientError):
    """Queued events were not acknowledged. ``failures`` lists each event with the reason."""

    def __init__(self, failures: tuple[Delivery, ...]) -> None:
        shown = "; ".join(f"{failure.event_id}: {failure.error}" for failure in failures[:3])
        more = f"; and {len(failures) - 3} more" if len(failures) > 3 else ""
        super().__init__(f"{len(failures)} event(s) not delivered: {shown}{more}")
        self.failures = failures


class Client:
    """Sends events to Kafka with an idempotent producer and ``acks=all``.

    Use it as a context manager: on exit it waits for every acknowledgement and raises :class:`DeliveryError` for
    events without one. Threads may share a client. After ``fork``, create a new client in each process.

    Args:
        options: librdkafka options; at least ``bootstrap.servers``. Options that weaken delivery are rejected.
        system: the sender's name, for example ``deploy-bot``; ``source.system`` of events made with the constructors.
        instance: the installation of that sender; ``source.instance``.
        tenant: the tenant of events that do not name one.
        topic_prefix: the deployment's prefix of all topic names on the brokers.
        lifecycle_shards: the deployment's number of partitions of ``access.lifecycle``. With another number than that,
            events are not delivered, or rejected.
        registry: if given, values use the Confluent framing with schema ids from this registry; otherwise Avro
            single-object encoding.
        on_delivery: called once per event with its delivery report, in a thread that is using this client.
        signer: signs every event, as a registered source must; see :mod:`.signing`.
        redactor: removes secrets from every event, see :func:`.redaction.file.make_redactor`. Default: none does.
        queue_timeout: how many seconds ``send`` waits while the queue is full.
        make_producer: makes the Kafka producer; for tests.

    Raises:
        OptionError: an option is missing, unknown to librdkafka, or would weaken delivery.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        system: str | None = None,
        instance: str = "default",
        tenant: str = "default",
        topic_prefix: str = "",
        lifecycle_shards: int = 1,
        registry: SchemaRegistry | None = None,
        signer: RecordSigner | None = None,
        redactor: Redactor | None = None,
        on_delivery: Callable[[Delivery], None] | None = None,
        queue_timeout: float = QUEUE_SECONDS,
        make_producer: Callable[[dict[str, Any]], Any] = Producer,
    ) -> None:
        checked = safe_options(options)
        self._system = system
        self._instance = instance
        self._sender = f"{os.getpid()}-{secrets.token_hex(8)}"
        """Unique: every client counts from 1, and another sender's numbers are no gap in its own."""
        self._tenant = tenant
        self._records = KafkaRecords(checked, topic_prefix, lifecycle_shards, registry)
        self._signer = signer
        self._redactor = redactor
        self._on_delivery = on_delivery
        self._queue_timeout = queue_timeout
        self._pid = os.getpid()
        # Re-entrant: the delivery callback may send events.
        self._lock = threading.RLock()
        self._seqs: dict[str, int] = {}
        self._token = 0
        self._pending: dict[int, tuple[str, str, str]] = {}
        """Id, topic and type of each queued event."""
        self._failures: list[Delivery] = []
        self._last_error: str | None = None
        self._closed = False
        self._acknowledged = 0
        try:
            self._producer = make_producer({**checked, "error_cb": self._broker_error, "logger": _kafka_log})
        except KafkaException as error:
            raise OptionError("Kafka options", error.args[0].str()) from error

    def send(self, event: Event) -> Event:
        """Check, encode and queue one event; return it as sent.

        An event without a source, as the constructors return it, gets this client's ``system`` and ``instance``, a
        ``sender`` that no other client has, and the next ``seq``. That is a counter per topic, starting at 1 with each
        client, which makes a gap visible.

        Raises:
            InvalidEventError: the event breaks a rule. The message names the field. The event was not queued.
            EventTooLargeError: the event does not fit into one record. It was not queued.
            QueueFullError: the queue stayed full for ``queue_timeout``. The event was not queued; send it again.
            DeliveryError: earlier events failed, or librdkafka rejected this one.
            RegistryError: the schema could not be registered. The event was not queued.
        """
        self._check_usable()
        self._producer.poll(0)
        self._raise_failures()
        if self._redactor is not None:
            event = self._redactor.event(event)
        # One lock around numbering and queueing keeps seq in the order of the records.
        with self._lock:
            stamped = self._stamp(event)
            self._queue(stamped, self._records.of(stamped, self._signer))
            if stamped is not event and stamped.source.seq is not None:
                self._seqs[stamped.topic] = stamped.source.seq
        return stamped

    @property
    def acknowledged(self) -> int:
        """The number of events acknowledged so far, without reports about records."""
        return self._acknowledged

    def flush(self, timeout: float = FLUSH_SECONDS) -> None:
        """Wait up to ``timeout`` seconds for all acknowledgements.

        Raises:
            DeliveryError: events failed or are not acknowledged yet. Flush again to wait longer for the latter.
        """
        self._check_usable()
        self._producer.flush(timeout)
        self._raise_failures(include_pending=timeout)

    def wait(self, timeout: float = FLUSH_SECONDS) -> bool:
        """Wait up to ``timeout`` seconds for all acknowledgements; return whether they are there.

        Raises:
            DeliveryError: events failed.
        """
        self._check_usable()
        self._producer.flush(timeout)
        self._raise_failures()
        return not self._pending

    def close(self, timeout: float = FLUSH_SECONDS) -> None:
        """Flush, as :meth:`flush` does, and close the client. Events without an acknowledgement may be lost."""
        if self._closed or os.getpid() != self._pid:
            return
        self._producer.flush(timeout)
        self._closed = True
        self._raise_failures(include_pending=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except DeliveryError as undelivered:
            if error is None:
                raise
            # Raise the first error, and note the lost events on it.
            error.add_note(str(undelivered))

    def _check_usable(self) -> None:
        if self._closed:
            raise ClientError("the client is closed")
        if os.getpid() != self._pid:
            raise ClientError(f"the client belongs to process {self._pid}; create a new one after a fork")

    def _stamp(self, event: Event) -> Event:
        if event.source.system:
            return event
        if self._system is None:
            raise InvalidEventError("source.system", "the event has no source; pass system=… to Client")
        seq = self._seqs.get(event.topic, 0) + 1
        native = event.source
        source = EventSource(self._system, self._instance, native.native_id, native.native_type, seq, self._sender)
        tenant = self._tenant if event.tenant == "default" else event.tenant
        return replace(event, source=source, tenant=tenant, event_id="")

    def _queue(self, event: Event, record: KafkaRecord) -> None:
        deadline = time.monotonic() + self._queue_timeout
        self._token += 1
        token = self._token
        self._pending[token] = (event.event_id, event.topic, event.event_type)
        report = partial(self._reported, token)
        while True:
            try:
                self._producer.produce(
                    record.topic,
                    value=record.value,
                    key=record.key,
                    partition=record.partition,
                    headers=record.headers,
                    on_delivery=report,
                )
                return
            except BufferError:
                if time.monotonic() >= deadline:
                    del self._pending[token]
                    raise QueueFullError(
                        f"event {event.event_id} was not queued: the queue stayed full for {self._queue_timeout:g} s"
                        + self.broker_hint()
                    ) from None
                self._producer.poll(_POLL_SECONDS)
            except KafkaException as error:
                del self._pending[token]
                failure = Delivery(event.event_id, event.topic, error=error.args[0].str())
                raise DeliveryError((failure,)) from error

    def _reported(self, token: int, error: Any, message: Any) -> None:
        with self._lock:
            event_id, topic, event_type = self._pending.pop(token)
            if error is None:
                self._acknowledged += event_type != SOURCE_REPORT
                delivery = Delivery(event_id, topic, message.partition(), message.offset())
            else:
                delivery = Delivery(event_id, topic, error=error.str())
                self._failures.append(delivery)
        if self._on_delivery is not None:
            self._on_delivery(delivery)

    def _raise_failures(self, include_pending: float | None = None) -> None:
        with self._lock:
            failures, self._failures = self._failures, []
            pending = list(self._pending.values()) if include_pending is not None else []
        if pending:
            problem = f"not acknowledged within {include_pending:g} s{self.broker_hint()}"
            failures += [Delivery(event_id, topic, error=problem) for event_id, topic, _ in pending]
        if failures:
            raise DeliveryError(tuple(failures))

    def _broker_error(self, error: Any) -> None:
        # librdkafka reports "all brokers down" after every failed connection; keep the reason instead.
        if self._last_error is None or error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._last_error = error.str()
        _kafka_log.warning("%s", error.str())

    def broker_hint(self) -> str:
        """Return the last error of the connection to Kafka as the end of a sentence; empty without one."""
        return f" (last error: {self._last_error})" if self._last_error else ""
