"""Reads the outbox: one worker per channel plans, delivers, and records every exchange."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from ...base.health import HEALTH
from ...base.sqlite import transaction
from ...webhooks.answer import Answer, SendResult
from . import metrics
from .channel import Envelope, Exchange, NamedChannel
from .database import connect_outbox
from .schedule import FOREVER, ChannelState, DeliveryRules, Message, Plan, channel_after, message_after, plan

log = structlog.get_logger("grantledger.alert")

AHEAD = 50
"""Exchanges planned at once, so that a backlog of thousands of messages is not scanned for each exchange."""
ONE_RECORD = 3600.0
"""Seconds in which successful posts that only repeat the same alerts share one record."""
MOST_REPEATED = 1000
SET_BACK = 1.0
"""Seconds. NTP does not step a synchronized clock so far."""
EXCHANGE_SECONDS = 600.0
"""The exchanges that are planned at once take no longer."""
LONGEST_WAIT = 1.0
"""Seconds after which a channel checks whether another process has enabled it."""
_MESSAGE = (
    "SELECT m.number, f.identity, m.change, m.state, m.send_at, f.ended_at IS NOT NULL, m.attempts, m.failures, "
    "m.refused_since, m.posts_left FROM messages m JOIN findings f ON f.number = m.finding "
)


class Deliveries:
    """The delivering side of the outbox for one channel and one thread. Times in seconds since 1970."""

    def __init__(
        self, path: Path, channel: str, rules: DeliveryRules, jitter: Callable[[], float] = random.random
    ) -> None:
        self._database = connect_outbox(path)
        self._channel, self._rules, self._jitter = channel, rules, jitter
        self._repeated: dict[str, tuple[int, float]] = {}

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def plan(self, now: float, exchanges: int = 1) -> Plan:
        """Return the messages to send now, for at most so many exchanges."""
        rules = replace(self._rules, batch=self._rules.batch * exchanges)
        return plan(self.waiting(), self.state(), rules, now)

    def waiting(self) -> list[Message]:
        """Return the unsettled messages, ordered by number."""
        rows = self._database.execute(
            f"{_MESSAGE} WHERE m.channel = ? AND m.state IN ('backlog', 'due', 'repeating') ORDER BY m.number",
            (self._channel,),
        )
        return [_message(row) for row in rows]

    def state(self) -> ChannelState:
        """Return the state of the channel."""
        row = self._database.execute(
            "SELECT failures, paused_until, disabled_at IS NOT NULL FROM channels WHERE name = ?", (self._channel,)
        ).fetchone()
        return ChannelState(row[0], row[1], bool(row[2]))

    def envelopes(self, messages: Sequence[Message]) -> list[Envelope]:
        """Return messages with their stored texts."""
        found = []
        for message in messages:
            row = self._database.execute(
                "SELECT id, change, text FROM messages WHERE number = ?", (message.number,)
            ).fetchone()
            found.append(Envelope(message.number, row["id"], row["change"], row["text"]))
        return found

    def record(self, exchange: Exchange, now: float) -> list[Message]:
        """Record an exchange and its effects in one transaction; return the messages after it.

        Each message is read again, because its finding may have ended during the exchange.
        """
        answer = exchange.answer
        delivered = answer.result is SendResult.delivered
        changed = []
        with transaction(self._database):
            ids, repeats = [], delivered
            for number in exchange.numbers:
                row = self._database.execute(f"{_MESSAGE} WHERE m.number = ?", (number,)).fetchone()
                before = _message(row)
                repeats = repeats and before.state == "repeating" and not before.failures
                message = message_after(before, answer, self._rules, now, self._jitter())
                changed.append(message)
                ids += self._database.execute(
                    "UPDATE messages SET state = ?, send_at = ?, attempts = ?, failures = ?, refused_since = ?, "
                    "posts_left = ?, note = ?, first_delivered = coalesce(first_delivered, ?) WHERE number = ? "
                    "RETURNING id",
                    (
                        message.state, message.send_at, message.attempts, message.failures, message.refused_since,
                        message.posts_left, "" if delivered else answer.detail, now if delivered else None, number,
                    ),
                ).fetchone()  # fmt: skip
            self._keep(json.dumps(ids), answer, now, repeats=repeats)
            state = channel_after(self.state(), answer, self._rules, now, self._jitter())
            self._database.execute(
                "UPDATE channels SET failures = ?, paused_until = ?, disabled_at = iif(?, coalesce(disabled_at, ?), "
                "NULL), disabled_why = ? WHERE name = ?",
                (
                    state.failures, state.paused_until, state.disabled, now,
                    answer.detail if state.disabled else "", self._channel,
                ),
            )  # fmt: skip
        return changed

    def _keep(self, ids: str, answer: Answer, now: float, *, repeats: bool) -> None:
        """Record an exchange. Alerts may stay open for years and are posted every minute: see ``ONE_RECORD``."""
        number, since = self._repeated.get(ids, (0, float("-inf")))
        if repeats and 0 <= now - since < ONE_RECORD:
            self._database.execute("UPDATE deliveries SET at = ? WHERE number = ?", (now, number))
            return
        (number,) = self._database.execute(
            "INSERT INTO deliveries (at, channel, messages, result, status, detail) VALUES (?, ?, ?, ?, ?, ?) "
            "RETURNING number",
            (now, self._channel, ids, answer.result, answer.status, answer.detail),
        ).fetchone()
        if len(self._repeated) >= MOST_REPEATED:
            self._repeated.clear()
        if repeats:
            self._repeated[ids] = number, now

    def set_back(self, seconds: float) -> None:
        """Shift all times of sending after the clock was set back by so much."""
        with transaction(self._database):
            self._database.execute(
                "UPDATE messages SET send_at = send_at - ?1, refused_since = refused_since - ?1 "
                "WHERE channel = ?2 AND state IN ('backlog', 'due', 'repeating')",
                (seconds, self._channel),
            )
            self._database.execute(
                "UPDATE channels SET paused_until = paused_until - ? WHERE name = ?", (seconds, self._channel)
            )

    def undelivered(self) -> tuple[int, float | None]:
        """Return the number of messages that were never delivered, and when the oldest was created."""
        row = self._database.execute(
            "SELECT count(*), min(created) FROM messages WHERE channel = ? AND state IN ('backlog', 'due')",
            (self._channel,),
        ).fetchone()
        return int(row[0]), row[1]

    def prune(self, before: float) -> None:
        """Delete records settled before a time. The event ids that identify a replay are kept."""
        with transaction(self._database):
            self._database.execute("DELETE FROM deliveries WHERE channel = ? AND at < ?", (self._channel, before))
            self._database.execute(
                "DELETE FROM messages WHERE channel = ? AND state IN ('done', 'given_up', 'skipped') "
                "AND finding IN (SELECT number FROM findings WHERE ended_at < ?)",
                (self._channel, before),
            )
            self._database.execute(
                "DELETE FROM findings WHERE ended_at < ? AND number NOT IN (SELECT finding FROM messages)", (before,)
            )


def _message(row: sqlite3.Row) -> Message:
    number, identity, change, state, send_at, ended, attempts, failures, refused_since, posts_left = row
    return Message(number, identity, change, state, send_at, bool(ended), attempts, failures, refused_since, posts_left)


class Worker(threading.Thread):
    """Delivers one channel's messages until stopped. Settled records are kept for ``keep`` seconds.

    The ``steady`` clock cannot be set, so it shows whether ``clock`` was.
    """

    def __init__(
        self,
        path: Path,
        named: NamedChannel,
        keep: float,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name=f"alert-{named.name}", daemon=True)
        self._path, self._named, self._keep = path, named, keep
        self._clock, self._steady = clock, steady
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self.failure: BaseException | None = None
        self._problem = ""
        """Why the last exchange failed."""
        metrics.GIVEN_UP.labels(named.name)  # start at 0, so that the first one is an increase

    def wake(self) -> None:
        """Check for messages now."""
        self._wake.set()

    def stop(self) -> None:
        """Ask the worker to exit after the current exchange."""
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        """Deliver until stopped. An exception ends the thread and is kept in ``failure``."""
        try:
            deliveries = Deliveries(self._path, self._named.name, self._named.config.delivery())
            try:
                self._deliver(deliveries)
            finally:
                deliveries.close()
        except BaseException as error:
            self.failure = error  # the service raises it: the process must not run without this channel

    def _deliver(self, deliveries: Deliveries) -> None:
        pruned = ahead = float("-inf")
        while not self._stopping.is_set():
            self._wake.clear()
            now = self._clock()
            before, ahead = ahead, now - self._steady()
            if before - ahead > SET_BACK:
                log.warning("clock_set_back", channel=self._named.name, seconds=round(before - ahead, 1))
                deliveries.set_back(before - ahead)
            if not 0 <= now - pruned <= 3600:
                deliveries.prune(now - self._keep)
                pruned = now
            HEALTH.turned(within=EXCHANGE_SECONDS, loop=f"channel {self._named.name}")
            decided = deliveries.plan(now, AHEAD)
            self._send(deliveries, decided.send)
            self._measure(deliveries)
            if not decided.send:
                wait = LONGEST_WAIT if decided.look_again == FOREVER else decided.look_again - self._clock()
                self._wake.wait(min(LONGEST_WAIT, max(0.0, wait)))

    def _send(self, deliveries: Deliveries, messages: Sequence[Message]) -> None:
        """Send the planned messages, one exchange after the other, until one fails for the whole channel."""
        batch = self._named.config.delivery().batch
        for first in range(0, len(messages), batch):
            exchanges = self._named.channel.send(deliveries.envelopes(messages[first : first + batch]))
            for exchange in exchanges:
                self._report(exchange.answer, deliveries.record(exchange, self._clock()))
            failed = any(one.answer.result in (SendResult.retry, SendResult.gone) for one in exchanges)
            if failed or self._stopping.is_set():
                return

    def _report(self, answer: Answer, messages: Sequence[Message]) -> None:
        name = self._named.name
        metrics.DELIVERIES.labels(name, answer.result).inc()
        if answer.result is SendResult.delivered:
            self._problem = ""
            metrics.LAST_DELIVERY.labels(name).set(self._clock())
            log.info("delivered", channel=name, messages=len(messages), status=answer.status)
            return
        self._problem = answer.detail
        log.warning("delivery_failed", channel=name, messages=len(messages), result=answer.result, reason=answer.detail)
        if answer.result is SendResult.gone:
            log.error(
                "channel_disabled", channel=name, reason=answer.detail, action=f"grantledger channels enable {name}"
            )
        for message in messages:
            if message.state == "given_up":
                metrics.GIVEN_UP.labels(name).inc()
                log.error("given_up", channel=name, message=message.number, attempts=message.attempts)

    def _measure(self, deliveries: Deliveries) -> None:
        name = self._named.name
        count, since = deliveries.undelivered()
        metrics.PENDING.labels(name).set(count)
        metrics.OLDEST.labels(name).set(max(0.0, self._clock() - since) if since is not None else 0.0)
        state = deliveries.state()
        metrics.DISABLED.labels(name).set(state.disabled)
        metrics.WORKED.labels(name).set(self._clock())
        condition = f"channel {name}"
        if state.disabled:
            HEALTH.waits(condition, f"the channel {name} is disabled: `grantledger channels enable {name}` enables it")
        elif state.failures and count:
            HEALTH.waits(condition, f"waits for the channel {name}: {self._problem or 'the last delivery failed'}")
        else:
            HEALTH.settle(condition)
