"""Carries out commands, one step at a time, through plug-ins and an event writer. Independent of Kafka.

An attempt is recorded before it starts, and its result in one transaction with the commands' position. After a crash at
any point the next start reads back first, and retries only if the access still exists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from ..base.errors import StoppedError
from ..schemas.event import Event
from . import metrics
from .command_rules import Admission, Backoff, Breaker, FinalStatus, History, Offsets, admit, final_status
from .contract import Attempt, AttemptStatus, Key, Observation, Plugin, Presence, RevokeCommand, as_text
from .events import Recorder
from .policy import EnforcementPolicy
from .running_grants import LATEST, RunningGrant, RunningGrants

log = structlog.get_logger("grantledger.enforce")

TOO_OLD = "the command is too old to be carried out: remove the access by hand"
LONGEST_PAUSE = timedelta(seconds=60)
"""Longest pause until the revoker checks again whether a grant covers the access of a command."""
RESTATE = timedelta(days=1)
"""The position is committed at least this often, because Kafka deletes group offsets after 7 days."""


class EnforcingStoppedError(StoppedError):
    """The breaker is open. A person must look into it; a restart changes nothing."""


class EventWriter(Protocol):
    """Records events. ``write`` records everything before it returns, or raises and records nothing."""

    def write(self, events: Sequence[Event], position: int) -> None:
        """Record events together with the command offset from which a restart must read."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the work."""

    attempts: int
    breaker: Breaker
    backoff: Backoff
    max_age: timedelta


@dataclass(slots=True)
class _Task:
    command: RevokeCommand
    target: str
    not_before: datetime
    appended: datetime
    since: datetime
    postponed: bool = False

    def wait(self, now: datetime) -> float:
        """Return the seconds until the task may be tried: 0 if the clock was set back to before the wait began."""
        return 0.0 if now < self.since else max(0.0, (self.not_before - now).total_seconds())


class Revoker:
    """Accepts commands and carries them out.

    ``running`` returns the grants that are running now.
    """

    def __init__(
        self,
        writer: EventWriter,
        *,
        recorder: Recorder,
        policy: EnforcementPolicy,
        plugins: Mapping[str, Plugin],
        running: Callable[[], RunningGrants],
        limits: Limits,
        history: History,
        position: int,
        now: Callable[[], datetime],
    ) -> None:
        self._writer, self._recorder, self._policy, self._plugins = writer, recorder, policy, plugins
        self._limits, self._history, self._now, self._running = limits, history, now, running
        self._offsets = Offsets(position)
        self._committed = position
        self._stated: datetime | None = None
        self._work: dict[Key, _Task] = {}

    def take(self, command: RevokeCommand, offset: int, appended: datetime) -> Admission:
        """Accept a command."""
        key, now = command.key, self._now()
        admission = admit(self._history, self._work, key, age=now - appended, max_age=self._limits.max_age)
        metrics.COMMANDS.labels(admission).inc()
        log.info("command", grant=key.grant_id, admission=admission, offset=offset)
        self._offsets.add(offset, key if admission in (Admission.work, Admission.joined) else None)
        if admission is Admission.stale:
            self._fail(command, "", TOO_OLD)
        elif admission is Admission.work:
            target = self._policy.route(command)
            if target is None:
                self._fail(command, "", "no route of the policy matches")
            else:
                self._work[key] = _Task(command, target, now, appended, now)
        metrics.OPEN.set(len(self._work))
        return admission

    def refuse(self, event: Event, offset: int) -> None:
        """Skip an invalid command and record ``event`` about it."""
        metrics.COMMANDS.labels("invalid").inc()
        self._offsets.add(offset, None)
        self._write(event)

    def reached(self, end: int) -> None:
        """The end of the topic was reached, and everything below it was read."""
        self._offsets.reached(end)

    def wait(self, longest: float) -> float:
        """Return the seconds until a task may be tried, at most ``longest``."""
        if not self._work:
            return longest
        now = self._now()
        return min(longest, *(work.wait(now) for work in self._work.values()))

    def step(self) -> bool:
        """Process the command that has waited longest. Return whether there was one.

        If the breaker opens, this is recorded, and EnforcingStoppedError is raised.
        """
        now = self._now()
        ready = [work for work in self._work.values() if not work.wait(now)]
        if ready:
            self._try(min(ready, key=lambda work: work.not_before))
        metrics.OPEN.set(len(self._work))
        metrics.POSTPONED.set(sum(work.postponed for work in self._work.values()))
        return bool(ready)

    def settle(self) -> None:
        """Commit the position past records without events of their own, such as copies; at least once a day."""
        # Also if the clock was set back.
        fresh = self._stated is not None and timedelta(0) <= self._now() - self._stated < RESTATE
        if self._offsets.committable() > self._committed or not fresh:
            self._write()

    def _try(self, work: _Task) -> None:
        command, target = work.command, work.target
        key, plugin = command.key, self._plugins[work.target]
        running = self._running()
        covering = running.covering(
            command, work.appended, self._now(), lambda one: self._policy.shared(command, target, one)
        )
        if covering is not None:
            self._postpone(work, covering)
            return
        work.postponed = False
        number = self._history.attempts.get(key, 0)
        if not number and self._now() - work.appended > self._limits.max_age:
            self._fail(command, target, TOO_OLD)  # it expired while it waited behind others
            return
        before = _read_back(plugin, command)
        if before.presence is Presence.absent:
            self._confirm(command, target, number, before)
            return
        if number >= self._limits.attempts:  # the last one was interrupted, or the limit was lowered
            self._fail(command, target, f"given up after {number} attempts: {before.detail}")
            return
        self._check_breaker(key)
        number += 1
        begun = self._now()
        self._write(self._recorder.begun(command, number, target, begun))
        self._history.add_attempt(key, number, begun)
        attempt = _attempt(plugin, command)
        after = _read_back(plugin, command)
        metrics.ATTEMPTS.labels(target, attempt.status).inc()
        final = final_status(attempt, after, number, self._limits.attempts)
        log.info(
            "attempted", grant=key.grant_id, target=target, attempt=number, result=attempt.status,
            presence=after.presence, final=final,
        )  # fmt: skip
        accepted = attempt.status is AttemptStatus.accepted
        event = self._recorder.attempted(
            command, number, target, self._now(), ok=accepted, final=final is FinalStatus.accepted,
            details=(attempt.detail, after.detail),
        )  # fmt: skip
        if final is FinalStatus.confirmed:
            self._confirm(command, target, number, after, event)
        elif final is FinalStatus.accepted:
            self._end(key, target, FinalStatus.accepted, event)
        elif final is FinalStatus.failed:
            self._fail(command, target, f"attempt {number}: {(after if accepted else attempt).detail}", event)
        else:
            self._write(event)
            pause = self._limits.backoff.delay(key, number, attempt.retry_after)
            work.since = self._now()
            work.not_before = work.since + timedelta(seconds=pause)

    def _postpone(self, work: _Task, covering: RunningGrant) -> None:
        """Do not remove access that a grant covers. If the command's own grant was renewed, end the command."""
        key, now = work.command.key, self._now()
        until = "no end is known" if covering.until is None else f"until {as_text(covering.until)}"
        if covering.is_grant_of(key) and superseded(work.command, covering, work.appended):
            reason = f"the grant was extended or given again, {until}"
            self._fail(work.command, work.target, reason, status=FinalStatus.superseded)
        elif now - work.appended > self._limits.max_age:
            self._fail(work.command, work.target, f"grant {covering.grant_id} still covers the access, {until}")
        else:
            work.since, work.not_before, work.postponed = now, min(now + LONGEST_PAUSE, covering.until or LATEST), True
            log.info("postponed", grant=key.grant_id, target=work.target, covered_by=covering.grant_id, until=until)

    def _check_breaker(self, key: Key) -> None:
        breaker, now = self._limits.breaker, self._now()
        if breaker.allows(self._history, key, now):
            return
        seconds = breaker.window.total_seconds()
        reason = f"more than {breaker.limit} revocations in {seconds:g} s"
        self._write(self._recorder.breaker_opened(now, breaker, reason))
        self._history.open_breaker(now)
        metrics.BREAKER_OPEN.set(1)
        log.error("breaker_opened", limit=breaker.limit, window_seconds=seconds)
        raise EnforcingStoppedError(stopped(reason))

    def _confirm(self, command: RevokeCommand, target: str, number: int, after: Observation, *before: Event) -> None:
        confirmation, removal = self._recorder.confirmed(command, number, target, self._now(), after.detail)
        self._end(command.key, target, FinalStatus.confirmed, *before, confirmation, removal)

    def _fail(
        self, command: RevokeCommand, target: str, reason: str, *before: Event, status: FinalStatus = FinalStatus.failed
    ) -> None:
        number, now = self._history.attempts.get(command.key, 0), self._now()
        event = self._recorder.failed(command, number, target, now, reason, superseded=status is FinalStatus.superseded)
        self._end(command.key, target, status, *before, event)

    def _end(self, key: Key, target: str, status: FinalStatus, *events: Event) -> None:
        self._offsets.ended(key)
        self._write(*events)
        self._history.add_end(key, status)
        self._work.pop(key, None)
        metrics.OUTCOMES.labels(target, status).inc()
        log.info("ended", grant=key.grant_id, target=target, outcome=status)

    def _write(self, *events: Event) -> None:
        position = self._offsets.committable()
        self._writer.write(events, position)
        self._committed, self._stated = position, self._now()


def superseded(command: RevokeCommand, own: RunningGrant, commanded: datetime) -> bool:
    """Whether a later end of the grant makes a command void. The later deadline has a command of its own.

    The watch considered everything before the command. That such a grant seems to run may be a clock difference.
    """
    return own.appended > commanded and (own.until is None or own.until > command.key.deadline)


def stopped(why: str) -> str:
    """Return the message about an open breaker, with the remedy."""
    return f"the breaker is open: {why}. Find the cause, then run: grantledger breaker close --reason '…'"


def _read_back(plugin: Plugin, command: RevokeCommand) -> Observation:
    try:
        return plugin.read_back(command)
    except Exception as error:  # a fault in one plug-in must not block the commands of others
        log.error("read_back_fault", plugin=plugin.kind, fault=type(error).__name__)
        return Observation(Presence.unknown, f"fault in the plug-in: {type(error).__name__}")


def _attempt(plugin: Plugin, command: RevokeCommand) -> Attempt:
    try:
        return plugin.revoke(command)
    except Exception as error:
        log.error("revoke_fault", plugin=plugin.kind, fault=type(error).__name__)
        return Attempt(AttemptStatus.retry, f"fault in the plug-in: {type(error).__name__}")
