"""The enforcer's decisions, pure: no clock, no Kafka, no network, so that each can be tested by itself.

What has been done is folded from the enforcer's own events (``History``); everything else follows from it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from .contract import Attempt, Key, Presence, Result, Seen, as_text

LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Outcome(StrEnum):
    """How a command ended."""

    confirmed = "confirmed"
    """The access was seen to be gone."""
    accepted = "accepted"
    """The other side took the command, and cannot be read back."""
    failed = "failed"
    """It is not carried out; a person must."""
    superseded = "superseded"
    """It is not carried out, and must not be: the grant was given again."""


class Verdict(StrEnum):
    """What follows from one attempt."""

    confirmed = "confirmed"
    accepted = "accepted"
    again = "again"
    failed = "failed"


class Decision(StrEnum):
    """What to do with a command that has come."""

    work = "work"
    done = "done"
    """The same command has ended before."""
    joined = "joined"
    """The same command is being worked on; this copy ends with it."""
    stale = "stale"
    """Too old to be carried out: the person may hold new, rightful access by now."""


@dataclass(slots=True)
class History:
    """What the enforcer has done, as its own events in ``access.findings`` tell.

    ``attempts``: how many attempts of a command have begun, also those cut off by a crash. ``begun``: when the first
    attempt of each command began, long ago where a person has closed the breaker since. ``breaker_opened``: when the
    breaker opened, None while it is closed.
    """

    attempts: dict[Key, int] = field(default_factory=dict)
    outcomes: dict[Key, Outcome] = field(default_factory=dict)
    begun: dict[Key, datetime] = field(default_factory=dict)
    breaker_opened: datetime | None = None

    def note_attempt(self, key: Key, number: int, at: datetime) -> None:
        """An attempt began."""
        self.attempts[key] = max(number, self.attempts.get(key, 0))
        self.begun[key] = min(at, self.begun.get(key, at))

    def note_outcome(self, key: Key, outcome: Outcome) -> None:
        """A command ended. The first outcome stands."""
        self.outcomes.setdefault(key, outcome)

    def note_breaker(self, at: datetime, *, opened: bool) -> None:
        """The breaker opened, or a person has closed it."""
        if opened:
            self.breaker_opened = at
        else:
            # By the order of the log: what began while the clock was ahead shall not be counted until then.
            self.breaker_opened, self.begun = None, dict.fromkeys(self.begun, LONG_AGO)


def decide(history: History, working: Iterable[Key], key: Key, *, age: timedelta, max_age: timedelta) -> Decision:
    """Return what to do with a command.

    Args:
        working: the commands that are being worked on.
        age: how long ago the brokers took the command.
        max_age: how old it may be. A command that was begun in time is finished, however old it has become.
    """
    if key in history.outcomes:
        return Decision.done
    if key in working:
        return Decision.joined
    if age > max_age and key not in history.attempts:
        return Decision.stale
    return Decision.work


def judge(attempt: Attempt, seen: Seen, number: int, limit: int) -> Verdict:
    """Return what follows from an attempt and from what was seen after it.

    Args:
        number: which attempt it was, from 1.
        limit: how many there may be.
    """
    if seen.presence is Presence.gone:
        return Verdict.confirmed
    if attempt.result is Result.failed:
        return Verdict.failed
    if attempt.result is Result.accepted and seen.presence is Presence.unreadable:
        return Verdict.accepted
    # Taken, but the access is still seen, or could not be looked for: some systems need a while, and some are put right
    # again by somebody. The next try begins with a look.
    return Verdict.failed if number >= limit else Verdict.again


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait between attempts: doubling from ``base`` up to ``cap`` seconds, half of it by chance."""

    base: float = 2.0
    cap: float = 300.0

    def delay(self, key: Key, number: int, retry_after: float | None = None) -> float:
        """Return the seconds to wait after attempt ``number`` (from 1): the same for the same arguments.

        The chance is seeded by the command, so that many that failed together do not come back together. A wait that
        the other side asks for counts if it is longer, up to the cap.
        """
        # The exponent is bounded so that a large attempt number cannot overflow a float.
        full = min(self.cap, self.base * 2.0 ** min(max(number, 1) - 1, 60))
        chance = random.Random(f"{key.grant_id}\n{as_text(key.deadline)}\n{number}").random()  # noqa: S311 - no secret
        return max(full / 2 + full / 2 * chance, min(retry_after or 0.0, self.cap))


@dataclass(frozen=True, slots=True)
class Breaker:
    """Stops everything when more than ``limit`` commands would begin within ``window``.

    A fault upstream (a wrong clock, a wrong rule) would ask for every access at once. Only commands are counted, not
    their attempts, so that one system that does not answer opens nothing.
    """

    limit: int
    window: timedelta

    def allows(self, history: History, key: Key, now: datetime) -> bool:
        """Whether work on a command may begin or go on."""
        if history.breaker_opened is not None:
            return False
        if key in history.attempts:
            return True
        since = now - self.window
        return sum(1 for at in history.begun.values() if at > since) < self.limit


@dataclass(slots=True)
class Offsets:
    """Which offset of the commands may be committed: everything below it has ended."""

    position: int
    open: dict[int, Key] = field(default_factory=dict)

    def took(self, offset: int, key: Key | None) -> None:
        """A record was read; with a key, it stays open until that command has ended."""
        self.position = offset + 1
        if key is not None:
            self.open[offset] = key

    def reached(self, end: int) -> None:
        """Everything below an offset was read: between it and the last record lie transaction markers only."""
        self.position = max(self.position, end)

    def ended(self, key: Key) -> None:
        """A command has ended, with all its copies."""
        self.open = {offset: other for offset, other in self.open.items() if other != key}

    def committable(self) -> int:
        """Return the offset at which a restart must go on reading."""
        return min(self.open, default=self.position)
