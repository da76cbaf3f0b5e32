"""The rules by which commands are admitted, retried and limited: pure, without clock, Kafka or network.

They follow from ``CommandHistory``, which is rebuilt from the enforcer's own events.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from ..base.retry import backoff
from ..schemas.access_key import join_parts, split_parts
from ..schemas.instance_names import NO_NAMES, InstanceNames
from .contract import Attempt, AttemptStatus, Key, Observation, Presence, RevokeCommand, as_text

MOST_INVALID_SOURCES = 10
"""Sources of invalid commands that are reported separately in one hour: a forged command may name any source."""
OTHERS = "others"


class Circuit(NamedTuple):
    """What the breaker counts separately: the source that issued the grants, and the target of their route."""

    system: str
    instance: str
    target: str

    def __str__(self) -> str:
        """Return ``system/instance/target``. Different circuits give different texts."""
        return join_parts(*self)

    @classmethod
    def parse(cls, text: str) -> Circuit:
        """Return the circuit of a text. Raises ValueError or TypeError for another text."""
        return cls(*split_parts(text))


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
class CommandHistory:
    """The enforcer's past actions, rebuilt from its own events."""

    attempts: dict[Key, int] = field(default_factory=dict)
    """Attempts started per command, including those that a crash interrupted."""
    ended: dict[Key, FinalStatus] = field(default_factory=dict)
    begun: dict[Circuit, list[datetime]] = field(default_factory=dict)
    """When commands started since a person last closed the breaker of their circuit."""
    open_since: dict[Circuit, datetime] = field(default_factory=dict)
    """The open breakers, and when each opened."""
    looked: set[Key] = field(default_factory=set)
    """The lookups that were answered."""
    rehearsed: set[Key] = field(default_factory=set)
    """The commands that a dry run has answered."""
    breaker_events: set[str] = field(default_factory=set)
    """Ids of the events that opened or closed a breaker. A copy of one changes nothing."""
    invalid: dict[datetime, set[str]] = field(default_factory=dict)
    """Sources whose invalid commands were reported, by hour."""
    names: InstanceNames = NO_NAMES
    """The other names of installations, by the watch policy on record."""

    def rename(self, names: InstanceNames) -> None:
        """Take other names of installations for one from now on, also in what was added before."""
        if names == self.names:
            return
        self.names = names
        attempts, ended, begun, since = self.attempts, self.ended, self.begun, self.open_since
        self.attempts, self.ended, self.begun, self.open_since = {}, {}, {}, {}
        for key, number in attempts.items():
            self.attempts[self.key(key)] = max(number, self.attempts.get(self.key(key), 0))
        for key, status in ended.items():
            self.add_end(self.key(key), status)
        self.looked, self.rehearsed = set(map(self.key, self.looked)), set(map(self.key, self.rehearsed))
        for circuit, times in begun.items():
            self.begun.setdefault(self.circuit(circuit), []).extend(times)
        for circuit, at in since.items():
            self.open_since.setdefault(self.circuit(circuit), at)

    def key(self, key: Key) -> Key:
        """Return the key by the one name of the installation."""
        return replace(key, issuer=self.names.of(key.issuer))

    def circuit(self, circuit: Circuit) -> Circuit:
        """Return the circuit by the one name of the installation."""
        return Circuit(*self.names.of((circuit.system, circuit.instance)), circuit.target)

    def add_attempt(self, circuit: Circuit, key: Key, number: int, at: datetime) -> None:
        """Add an attempt that started."""
        if key not in self.attempts:
            self.begun.setdefault(circuit, []).append(at)
        self.attempts[key] = max(number, self.attempts.get(key, 0))

    def add_end(self, key: Key, status: FinalStatus) -> None:
        """Add the end of a command. The first one counts."""
        self.ended.setdefault(key, status)

    def close_breaker(self, circuit: Circuit) -> None:
        """Close a breaker. Commands started before, by log order and not by clock, no longer count."""
        self.open_since.pop(circuit, None)
        self.begun.pop(circuit, None)

    def add_invalid(self, source: str, at: datetime) -> str | None:
        """Add an invalid command in the name of a source; return the name to report it by, None if it was reported."""
        hour = at.replace(minute=0, second=0, microsecond=0)
        known = self.invalid.setdefault(hour, set())
        if source not in known and len(known) >= MOST_INVALID_SOURCES:
            source = OTHERS
        if source in known:
            return None
        known.add(source)
        return source


def admit(
    history: CommandHistory, working: Iterable[Key], key: Key, *, age: timedelta, max_age: timedelta
) -> Admission:
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
    """Stops a circuit before it starts more than ``limit`` commands within ``window``.

    An upstream fault, such as a wrong clock or rule, could revoke every access at once. Commands count, not attempts,
    so that one unreachable target does not open the breaker. A source that reports many grants stops only its own.
    """

    limit: int
    window: timedelta

    def allows(self, history: CommandHistory, circuit: Circuit, key: Key, now: datetime) -> bool:
        """Whether a command may start or continue."""
        if circuit in history.open_since:
            return False
        if key in history.attempts:
            return True
        since = now - self.window
        return sum(1 for at in history.begun.get(circuit, ()) if at > since) < self.limit


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the work."""

    attempts: int
    breaker: Breaker
    backoff: Backoff
    max_age: timedelta


@dataclass(frozen=True, slots=True)
class SealedActivation:
    """The activation of a command's grant in the sealed log, with the access of the command.

    Attributes:
        received: when the first record with that access arrived.
        signed: whether a registered source signed it.
        observed: whether an enforcer read back, after its end, that the access exists.
    """

    received: datetime
    signed: bool
    observed: bool = False


def refusal(command: RevokeCommand, activation: SealedActivation | None, history_after: timedelta) -> str | None:
    """Return why a command must not be carried out although it was requested; None if it may."""
    if activation is None:
        return "the sealed log has no activation of this grant, by its own source, with the access of the command"
    late = activation.received - command.due
    if late > history_after and not activation.observed:
        return f"the grant is historical: it was first reported {late} after its deadline"
    return None


@dataclass(slots=True)
class Offsets:
    """The offset of the commands that may be committed: all commands below it have ended."""

    position: int
    open: dict[int, Key | None] = field(default_factory=dict)
    """Without a key: it is not decided yet whether the record is a command."""

    def wait(self, offset: int) -> None:
        """Keep a record open until it is added."""
        self.position = max(self.position, offset + 1)
        self.open[offset] = None

    def add(self, offset: int, key: Key | None) -> None:
        """Add a record that was read. With a key, it stays open until that command ends."""
        self.position = max(self.position, offset + 1)
        self.open.pop(offset, None)
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
