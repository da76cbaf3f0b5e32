"""Sends events, and waits for their acknowledgements: nothing is read while too many are on the way."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from ...base.health import HEALTH
from ...schemas.event import SOURCE_REPORT, Event
from ..client import Client, ClientError
from . import metrics

KAFKA_OPTIONS = {"message.timeout.ms": 0}
"""An event waits for Kafka without limit: while it waits, nothing is read."""
MOST_EVENTS = 5_000
MOST_BYTES = 16 * 1024 * 1024
"""Events on the way, and the bytes of their records."""
WARN_SECONDS = 5.0
LOG_SECONDS = 60.0
"""Between two log lines about what was sent."""
STOP_SECONDS = 10.0
"""How long a stop reads what is left, and waits for acknowledgements. Without them the positions stay as they are."""

log = structlog.get_logger("grantledger.follow")


class InterruptedWaitError(Exception):
    """A stop was requested while Kafka did not answer."""


class EventSender:
    """Sends events with a client.

    Args:
        stopping: returns whether a stop was requested.
        limit: seconds to wait for acknowledgements before it is an error; None: no limit.
    """

    def __init__(self, client: Client, stopping: Callable[[], bool], limit: float | None = None) -> None:
        self.client = client
        self._stopping = stopping
        self._limit = limit
        self._events = self._reports = 0
        """On the way, and how many of them are reports about records."""
        self._bytes = 0
        self._unlogged = 0
        self._logged_at = -LOG_SECONDS

    def send(self, event: Event) -> None:
        """Send an event.

        Raises:
            InvalidEventError: the event cannot be sent.
            DeliveryError: Kafka refused an event.
            InterruptedWaitError: a stop was requested, and Kafka does not answer.
        """
        self.client.send(event)
        self._events += 1
        self._reports += event.event_type == SOURCE_REPORT
        self._bytes += len(event.raw or b"")
        if self._events >= MOST_EVENTS or self._bytes >= MOST_BYTES:
            self.settle()

    def settle(self) -> None:
        """Wait until everything sent is acknowledged. Errors as of :meth:`send`."""
        if not self._events:
            return
        metrics.WAITING.set(self._events)
        began, warned = time.monotonic(), False
        while not self.client.wait(0.5):
            HEALTH.progressed()
            waited = time.monotonic() - began
            if self._stopping() and waited > STOP_SECONDS:
                raise InterruptedWaitError
            if self._limit is not None and waited > self._limit:
                raise ClientError(
                    f"{self._events} event(s) not acknowledged within {self._limit:g} s{self.client.broker_hint()}"
                )
            if not warned and waited > WARN_SECONDS:
                warned = True
                log.warning("kafka_away", unacknowledged=self._events, reason=self.client.broker_hint().strip(" ()"))
        if warned:
            log.info("kafka_back", acknowledged=self._events, seconds=round(time.monotonic() - began, 1))
        self._log_sent(self._events - self._reports)
        metrics.EVENTS.inc(self._events - self._reports)
        metrics.LAST_ACKNOWLEDGEMENT.set_to_current_time()
        metrics.WAITING.set(0)
        self._events = self._reports = self._bytes = 0

    def _log_sent(self, events: int) -> None:
        self._unlogged += events
        if self._unlogged and (now := time.monotonic()) >= self._logged_at + LOG_SECONDS:
            log.info("sent", events=self._unlogged)
            self._unlogged, self._logged_at = 0, now
