"""The outbox's way out: one worker a channel, which decides by the rules, delivers, and records every exchange."""

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

from . import metrics
from .channel import Envelope, Post
from .core import FOREVER, Message, Outcome, Plan, Result, Rules, Standing, after, plan, stands
from .database import connect, transaction
from .outbox import Route

log = structlog.get_logger("grantledger.alert")

AHEAD = 50
"""Exchanges planned at once: where thousands of messages wait, not all of them are looked through for each."""
ONE_RECORD = 3600.0
"""Seconds in which posts that only repeat the same alerts, and go well, share one record."""
MOST_REPEATED = 1000
SET_BACK = 1.0
"""Seconds. Clocks that are held to the right time by little, by NTP, do not jump so far."""
LONGEST_WAIT = 1.0
"""Seconds after which a channel looks for what another process did: enabled it, or closed a finding."""
_MESSAGE = (
    "SELECT m.number, f.identity, m.what, m.state, m.due, f.ended_at IS NOT NULL, m.attempts, m.failures, "
    "m.refused_since, m.posts_left FROM messages m JOIN findings f ON f.number = m.finding "
)


class Deliveries:
    """The delivering side of the outbox for one channel and one thread. Times in seconds since 1970."""

    def __init__(self, path: Path, channel: str, rules: Rules, jitter: Callable[[], float] = random.random) -> None:
        self._database = connect(path)
        self._channel, self._rules, self._jitter = channel, rules, jitter
        self._repeated: dict[str, tuple[int, float]] = {}

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def plan(self, now: float, exchanges: int = 1) -> Plan:
        """Return what leaves now, in so many exchanges at most."""
        rules = replace(self._rules, batch=self._rules.batch * exchanges)
        return plan(self.waiting(), self.standing(), rules, now)

    def waiting(self) -> list[Message]:
        """Return the messages that are not settled, in their order."""
        rows = self._database.execute(
            f"{_MESSAGE} WHERE m.channel = ? AND m.state IN ('held', 'due', 'repeating') ORDER BY m.number",
            (self._channel,),
        )
        return [_message(row) for row in rows]

    def standing(self) -> Standing:
        """Return how the channel stands."""
        row = self._database.execute(
            "SELECT failures, paused_until, disabled_at IS NOT NULL FROM channels WHERE name = ?", (self._channel,)
        ).fetchone()
        return Standing(row[0], row[1], bool(row[2]))

    def envelopes(self, messages: Sequence[Message]) -> list[Envelope]:
        """Return messages with their texts."""
        found = []
        for message in messages:
            row = self._database.execute(
                "SELECT id, what, text FROM messages WHERE number = ?", (message.number,)
            ).fetchone()
            found.append(Envelope(message.number, row["id"], row["what"], row["text"]))
        return found

    def record(self, post: Post, now: float) -> list[Message]:
        """Put an exchange on record, with what it changes, all or nothing; return the messages as they are now.

        Each message is read anew: while it was on its way its finding may have ended.
        """
        outcome = post.outcome
        changed = []
        with transaction(self._database):
            ids, repeats = [], outcome.result is Result.accepted
            for number in post.numbers:
                row = self._database.execute(f"{_MESSAGE} WHERE m.number = ?", (number,)).fetchone()
                before = _message(row)
                repeats = repeats and before.state == "repeating" and not before.failures
                message = after(before, outcome, self._rules, now, self._jitter())
                changed.append(message)
                ids += self._database.execute(
                    "UPDATE messages SET state = ?, due = ?, attempts = ?, failures = ?, refused_since = ?, "
                    "posts_left = ?, note = ?, first_delivered = coalesce(first_delivered, ?) WHERE number = ? "
                    "RETURNING id",
                    (
                        message.state, message.due, message.attempts, message.failures, message.refused_since,
                        message.posts_left, "" if outcome.result is Result.accepted else outcome.detail,
                        now if outcome.result is Result.accepted else None, number,
                    ),
                ).fetchone()  # fmt: skip
            self._keep(json.dumps(ids), outcome, now, repeats=repeats)
            standing = stands(self.standing(), outcome, self._rules, now, self._jitter())
            self._database.execute(
                "UPDATE channels SET failures = ?, paused_until = ?, disabled_at = iif(?, coalesce(disabled_at, ?), "
                "NULL), disabled_why = ? WHERE name = ?",
                (
                    standing.failures, standing.paused_until, standing.disabled, now,
                    outcome.detail if standing.disabled else "", self._channel,
                ),
            )  # fmt: skip
        return changed

    def _keep(self, ids: str, outcome: Outcome, now: float, *, repeats: bool) -> None:
        """Put an exchange on record. Alerts may be open for years, and are posted every minute: see ``ONE_RECORD``."""
        number, since = self._repeated.get(ids, (0, float("-inf")))
        if repeats and 0 <= now - since < ONE_RECORD:
            self._database.execute("UPDATE deliveries SET at = ? WHERE number = ?", (now, number))
            return
        (number,) = self._database.execute(
            "INSERT INTO deliveries (at, channel, messages, result, status, detail) VALUES (?, ?, ?, ?, ?, ?) "
            "RETURNING number",
            (now, self._channel, ids, outcome.result, outcome.status, outcome.detail),
        ).fetchone()
        if len(self._repeated) >= MOST_REPEATED:
            self._repeated.clear()
        if repeats:
            self._repeated[ids] = number, now

    def set_back(self, seconds: float) -> None:
        """The clock was set back by so much: what waits for a time goes on as if it had not been."""
        with transaction(self._database):
            self._database.execute(
                "UPDATE messages SET due = due - ?1, refused_since = refused_since - ?1 "
                "WHERE channel = ?2 AND state IN ('held', 'due', 'repeating')",
                (seconds, self._channel),
            )
            self._database.execute(
                "UPDATE channels SET paused_until = paused_until - ? WHERE name = ?", (seconds, self._channel)
            )

    def undelivered(self) -> tuple[int, float | None]:
        """Return how many messages wait for their first delivery, and since when the oldest one does."""
        row = self._database.execute(
            "SELECT count(*), min(created) FROM messages WHERE channel = ? AND state IN ('held', 'due')",
            (self._channel,),
        ).fetchone()
        return int(row[0]), row[1]

    def prune(self, before: float) -> None:
        """Forget what was settled before a time. What identifies a replay is kept."""
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
    number, identity, what, state, due, ended, attempts, failures, refused_since, posts_left = row
    return Message(number, identity, what, state, due, bool(ended), attempts, failures, refused_since, posts_left)


class Worker(threading.Thread):
    """Delivers one channel's messages until told to stop.

    Args:
        keep: seconds for which what is settled is kept.
        clock: seconds since 1970. It may be set; ``steady`` may not, and tells.
    """

    def __init__(
        self,
        path: Path,
        route: Route,
        keep: float,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name=f"alert-{route.name}", daemon=True)
        self._path, self._route, self._keep = path, route, keep
        self._clock, self._steady = clock, steady
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self.failure: BaseException | None = None
        metrics.GIVEN_UP.labels(route.name)  # from 0 on, so that the first one shows as a rise

    def wake(self) -> None:
        """Say that there may be something to deliver."""
        self._wake.set()

    def stop(self) -> None:
        """Ask the worker to end after the exchange that is under way."""
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        """Deliver."""
        try:
            deliveries = Deliveries(self._path, self._route.name, self._route.config.delivery())
            try:
                self._deliver(deliveries)
            finally:
                deliveries.close()
        except BaseException as error:
            self.failure = error  # told by the process, which must not go on without this channel

    def _deliver(self, deliveries: Deliveries) -> None:
        pruned = ahead = float("-inf")
        while not self._stopping.is_set():
            self._wake.clear()
            now = self._clock()
            before, ahead = ahead, now - self._steady()
            if before - ahead > SET_BACK:
                log.warning("clock_set_back", channel=self._route.name, seconds=round(before - ahead, 1))
                deliveries.set_back(before - ahead)
            if not 0 <= now - pruned <= 3600:
                deliveries.prune(now - self._keep)
                pruned = now
            decided = deliveries.plan(now, AHEAD)
            self._send(deliveries, decided.send)
            self._measure(deliveries)
            if not decided.send:
                wait = LONGEST_WAIT if decided.look_again == FOREVER else decided.look_again - self._clock()
                self._wake.wait(min(LONGEST_WAIT, max(0.0, wait)))

    def _send(self, deliveries: Deliveries, messages: Sequence[Message]) -> None:
        """Send what was planned, one exchange after the other, until one says that the channel needs a rest."""
        batch = self._route.config.delivery().batch
        for first in range(0, len(messages), batch):
            posts = self._route.sender.send(deliveries.envelopes(messages[first : first + batch]))
            for post in posts:
                self._tell(post, deliveries.record(post, self._clock()))
            rest = any(post.outcome.result in (Result.again, Result.gone) for post in posts)
            if rest or self._stopping.is_set():
                return

    def _tell(self, post: Post, messages: Sequence[Message]) -> None:
        name, outcome = self._route.name, post.outcome
        metrics.DELIVERIES.labels(name, outcome.result).inc()
        if outcome.result is Result.accepted:
            metrics.LAST_DELIVERY.labels(name).set(self._clock())
            log.info("delivered", channel=name, messages=len(messages), status=outcome.status)
            return
        log.warning(
            "delivery_failed", channel=name, messages=len(messages), result=outcome.result, reason=outcome.detail
        )
        if outcome.result is Result.gone:
            log.error(
                "channel_disabled", channel=name, reason=outcome.detail, action=f"grantledger alert --enable {name}"
            )
        for message in messages:
            if message.state == "given_up":
                metrics.GIVEN_UP.labels(name).inc()
                log.error("given_up", channel=name, message=message.number, attempts=message.attempts)

    def _measure(self, deliveries: Deliveries) -> None:
        name = self._route.name
        count, since = deliveries.undelivered()
        metrics.PENDING.labels(name).set(count)
        metrics.OLDEST.labels(name).set(max(0.0, self._clock() - since) if since is not None else 0.0)
        metrics.DISABLED.labels(name).set(deliveries.standing().disabled)
        metrics.WORKED.labels(name).set(self._clock())
