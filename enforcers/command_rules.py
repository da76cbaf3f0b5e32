"""The rules by which commands are admitted, retried and limited: pure, without clock, Kafka or network.

They follow from ``History``, which is rebuilt from the enforcer's own events.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from ..base.retry import backoff
from .contract import Attempt, AttemptStatus, Key, Observation, Presence, as_text

LONG_AGO = datetime.min.replace(tzinfo=UTC)


class FinalStatus(StrEnum):
    """How a command ended."""

    confirmed = "confirmed"  # reading back showed that the access is gone
    accepted = "accepted"  # the target accepted the command, and cannot be read back
    failed = "failed"  # the command was not carried out; a person must remove the access
    superseded = "superseded"  # the command must not be carried out: the grant was extended or given again


class Admission(StrEnum):
    """Whether a new command is carried out."""

    work = "work"  # carry it out
    done = "done"  # the same command has ended already
    joined = "joined"  # the same command is in progress; this copy ends with it
    stale = "stale"  # too old: the person may have new, legitimate access by now


@dataclass(slots=True)
class History:
    """The enforcer's past actions, rebuilt from its own events."""

    attempts: dict[Key, int] = field(default_factory=dict)
    """Attempts started per command, including those that a crash interrupted."""
    ended: dict[Key, FinalStatus] = field(default_factory=dict)
    begun: dict[Key, datetime] = field(default_factory=dict)
    """When the first attempt of a command started; ``LONG_AGO`` once a person has closed the breaker after it."""
    breaker_opened: datetime | None = None
    """When the breaker opened, None while it is closed."""

    def add_attempt(self, key: Key, number: int, at: datetime) -> None:
        """Add an attempt that started."""
        self.attempts[key] = max(number, self.attempts.get(key, 0))
        self.begun[key] = min(at, self.begun.get(key, at))

    def add_end(self, key: Key, status: FinalStatus) -> None:
        """Add the end of a command. The first one counts."""
        self.ended.setdefault(key, status)

    def open_breaker(self, at: datetime) -> None:
        """Open the breaker."""
        self.breaker_opened = at

    def close_breaker(self) -> None:
        """Close the breaker. Commands started before it, by log order and not by clock, no longer count."""
        self.breaker_opened, self.begun = None, dict.fromkeys(self.begun, LONG_AGO)


def admit(history: History, working: Iterable[Key], key: Key, *, age: timedelta, max_age: timedelta) -> Admission:
    """Decide about a command of a certain age since it was appended, while others (``working``) are in progress.

    A command that was started is finished at any age.
    """
    if key in history.ended:
        return Admission.done
    if key in working:
        return Admission.joined
    if age > max_age and key not in history.attempts:
        return Admission.stale
    return Admission.work


def final_status(attempt: Attempt, after: Observation, number: int, limit: int) -> FinalStatus | None:
    """Return how a command ended with an attempt, the access after it, and its number of at most ``limit``.

    None: try again.
    """
    if after.presence is Presence.absent:
        return FinalStatus.confirmed
    if attempt.status is AttemptStatus.failed:
        return FinalStatus.failed
    if attempt.status is AttemptStatus.accepted and after.presence is Presence.unreadable:
        return FinalStatus.accepted
    # Accepted, but the access still exists or is unknown: some systems need a while. The next attempt reads first.
    return FinalStatus.failed if number >= limit else None


@dataclass(frozen=True, slots=True)
class Backoff:
    """The pauses between attempts, in seconds."""

    base: float = 2.0
    cap: float = 300.0

    def delay(self, key: Key, number: int, retry_after: float | None = None) -> float:
        """Return the seconds to wait after attempt ``number``, from 1.

        The command seeds the random part, so that equal arguments give equal results. A longer wait that the target
        asks for takes precedence, up to the cap.
        """
        jitter = random.Random(f"{key.grant_id}\n{as_text(key.deadline)}\n{number}").random()  # noqa: S311 - not a secret
        return max(backoff(number, self.base, self.cap, jitter), min(retry_after or 0.0, self.cap))


@dataclass(frozen=True, slots=True)
class Breaker:
    """Stops the enforcer before it starts more than ``limit`` commands within ``window``.

    An upstream fault, such as a wrong clock or rule, could revoke every access at once. Commands count, not attempts,
    so that one unreachable target does not open the breaker.
    """

    limit: int
    window: timedelta

    def allows(self, history: History, key: Key, now: datetime) -> bool:
        """Whether a command may start or continue."""
        if history.breaker_opened is not None:
            return False
        if key in history.attempts:
            return True
        since = now - self.window
        return sum(1 for at in history.begun.values() if at > since) < self.limit


@dataclass(slots=True)
class Offsets:
    """The offset of the commands that may be committed: all commands below it have ended."""

    position: int
    open: dict[int, Key] = field(default_factory=dict)

    def add(self, offset: int, key: Key | None) -> None:
        """Add a record that was read. With a key, it stays open until that command ends."""
        self.position = offset + 1
        if key is not None:
            self.open[offset] = key

    def reached(self, end: int) -> None:
        """Everything below an offset was read: after the last record there are only transaction markers."""
        self.position = max(self.position, end)

    def ended(self, key: Key) -> None:
        """A command ended, with all its copies."""
        self.open = {offset: other for offset, other in self.open.items() if other != key}

    def committable(self) -> int:
        """Return the offset from which a restart must read."""
        return min(self.open, default=self.position)
