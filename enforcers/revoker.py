"""Carries out commands, one step at a time, through plug-ins and an event writer. Independent of Kafka.

An attempt is recorded before it starts, and its result in one transaction with the commands' position. After a crash at
any point the next start reads back first, and retries only if the access still exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from ..base.health import HEALTH
from ..base.text import counted
from ..schemas.event import Event
from . import metrics
from .command_rules import (
    Admission,
    Circuit,
    FinalStatus,
    Offsets,
    admit,
    final_status,
    refusal,
)
from .context import Context
from .contract import Attempt, AttemptStatus, Key, Observation, Plugin, Presence, RevokeCommand, as_text
from .enforcement_policy import Route
from .events import LONGEST_TEXT
from .lookups import Lookups, read_back
from .running_grants import LATEST, GrantEvent

log = structlog.get_logger("grantledger.enforce")

ACCEPTED_SINCE = "the target has accepted another command about this grant since this one was requested"
EARLIEST = datetime.min.replace(tzinfo=UTC)
TOO_OLD = "the command is too old to be carried out: remove the access by hand"
LONGEST_PAUSE = timedelta(seconds=60)
"""Longest pause until the revoker checks again whether a grant covers the access of a command."""
RESTATE = timedelta(days=1)
"""The position is committed at least this often, because Kafka deletes group offsets after 7 days."""


class EventWriter(Protocol):
    """Records events. ``write`` records everything before it returns, or raises and records nothing."""

    def write(self, events: Sequence[Event], position: int) -> None:
        """Record events together with the command offset from which a restart must read."""


@dataclass(slots=True)
class _Task:
    command: RevokeCommand
    route: Route
    not_before: datetime
    requested: datetime
    since: datetime
    postponed: bool = False

    @property
    def circuit(self) -> Circuit:
        """The circuit whose breaker can stop the task."""
        return Circuit(*self.command.key.issuer, self.route.target)

    def wait(self, now: datetime) -> float:
        """Return the seconds until the task may be tried: 0 if the clock was set back to before the wait began."""
        return 0.0 if now < self.since else max(0.0, (self.not_before - now).total_seconds())


class Revoker:
    """Accepts commands and carries them out. ``position``: the command offset from which they are read."""

    def __init__(self, context: Context, writer: EventWriter, position: int) -> None:
        self._context, self._writer = context, writer
        self._offsets = Offsets(position)
        self._committed = position
        self._stated: datetime | None = None
        self._work: dict[Key, _Task] = {}
        self._lookups = Lookups(context, self._write, self._offsets)
        self._accepted: dict[str, datetime] = {}
        """By access key of a grant: when its target last accepted a command that cannot be read back."""
        self._served: dict[Circuit, int] = {}
        """The number of the last step for a circuit: a source with many commands delays only its own."""
        self._steps = 0

    def expect(self, offset: int) -> None:
        """Commit no position beyond a record until it is taken or refused."""
        self._offsets.wait(offset)

    def take(self, command: RevokeCommand, offset: int, requested: datetime) -> Admission:
        """Accept a command that was requested at some time."""
        key, now = command.key, self._context.now()
        admission = admit(
            self._context.history, self._work, key, age=now - requested, max_age=self._context.limits.max_age
        )
        metrics.COMMANDS.labels(admission).inc()
        log.info("command", grant=key.grant_id, admission=admission, offset=offset)
        self._offsets.add(offset, key if admission in (Admission.work, Admission.joined) else None)
        if admission is Admission.stale:
            self._fail(command, "", TOO_OLD)
        elif admission is Admission.work:
            activation = self._context.grants.activation(command)
            reason = refusal(command, activation, timedelta(seconds=self._context.policy.history_after_seconds))
            route = self._context.policy.route(command, signed=activation is not None and activation.signed)
            if reason is not None or route is None:
                self._fail(command, "", reason or "no route of the policy matches the access and the grant's source")
            else:
                self._work[key] = _Task(command, route, now, requested, now)
        metrics.OPEN.set(len(self._work))
        return admission

    def look(self, command: RevokeCommand, offset: int, requested: datetime) -> None:
        """Accept a request to look whether the access exists."""
        self._lookups.take(command, offset, requested)

    def refuse(self, reason: str, source: str, offset: int) -> None:
        """Skip an invalid command in the name of a source, and record that once an hour."""
        metrics.COMMANDS.labels("invalid").inc()
        self._offsets.add(offset, None)
        now = self._context.now()
        name = self._context.history.add_invalid(source[:LONGEST_TEXT], now)
        if name is not None:
            log.error("command_invalid", offset=offset, source=name, reason=reason)
            self._write(self._context.recorder.command_invalid(name, offset, now, reason))

    def report_lost(self, reason: str) -> None:
        """Record that commands below the position expired."""
        self._write(self._context.recorder.commands_lost(self._committed, self._context.now(), reason))

    def reached(self, end: int) -> None:
        """The end of the topic was reached, and everything below it was read."""
        self._offsets.reached(end)

    def wait(self, longest: float) -> float:
        """Return the seconds until a task may be tried, at most ``longest``."""
        now = self._context.now()
        return min([longest, self._lookups.wait(), *(task.wait(now) for task in self._allowed())])

    def step(self) -> bool:
        """Process the task that has waited longest of the circuit whose turn it is. Return whether there was one."""
        now = self._context.now()
        ready = [task for task in self._allowed() if not task.wait(now)]
        if ready:
            task = min(ready, key=lambda one: (self._served.get(one.circuit, 0), one.not_before))
            self._steps += 1
            self._served[task.circuit] = self._steps
            self._try(task)
        else:
            self._lookups.step()
        metrics.OPEN.set(len(self._work))
        metrics.POSTPONED.set(sum(task.postponed for task in self._work.values()))
        metrics.BREAKER_OPEN.set(count := len(self._context.history.open_since))
        if count:
            HEALTH.notes("breakers", f"{counted(count, 'breakers')} open: `grantledger breaker` lists them")
        else:
            HEALTH.settle("breakers")
        return bool(ready)

    def _allowed(self) -> list[_Task]:
        """Return the tasks that no open breaker stops."""
        return [task for task in self._work.values() if task.circuit not in self._context.history.open_since]

    def settle(self) -> None:
        """Commit the position past records without events of their own, such as copies; at least once a day."""
        # Also if the clock was set back.
        fresh = self._stated is not None and timedelta(0) <= self._context.now() - self._stated < RESTATE
        if self._offsets.committable() > self._committed or not fresh:
            self._write()

    def _try(self, work: _Task) -> None:
        command, target = work.command, work.route.target
        key, plugin = command.key, self._context.plugins[target]
        covering = self._context.covering(command, work.route, work.requested)
        if covering is not None:
            self._postpone(work, covering)
            return
        work.postponed = False
        number = self._context.history.attempts.get(key, 0)
        if not number and self._context.now() - work.requested > self._context.limits.max_age:
            self._fail(command, target, TOO_OLD)  # it expired while it waited behind others
            return
        if not number and self._accepted.get(key.grant_key, EARLIEST) > work.requested:
            self._fail(command, target, ACCEPTED_SINCE, status=FinalStatus.superseded)
            return
        before = read_back(plugin, command)
        if before.presence is Presence.absent:
            self._confirm(command, target, number, before)
            return
        if number >= self._context.limits.attempts:  # the last one was interrupted, or the limit was lowered
            self._fail(command, target, f"given up after {number} attempts: {before.detail}")
            return
        if not self._context.limits.breaker.allows(self._context.history, work.circuit, key, self._context.now()):
            self._open_breaker(work.circuit)
            return
        number += 1
        begun = self._context.now()
        self._write(self._context.recorder.begun(command, number, target, begun))
        self._context.history.add_attempt(work.circuit, key, number, begun)
        attempt = _attempt(plugin, command)
        after = read_back(plugin, command)
        metrics.ATTEMPTS.labels(target, attempt.status).inc()
        final = final_status(attempt, after, number, self._context.limits.attempts)
        log.info(
            "attempted", grant=key.grant_id, target=target, attempt=number, result=attempt.status,
            presence=after.presence, final=final,
        )  # fmt: skip
        accepted = attempt.status is AttemptStatus.accepted
        event = self._context.recorder.attempted(
            command, number, target, self._context.now(), ok=accepted, final=final is FinalStatus.accepted,
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
            pause = self._context.limits.backoff.delay(key, number, attempt.retry_after)
            work.since = self._context.now()
            work.not_before = work.since + timedelta(seconds=pause)

    def _postpone(self, work: _Task, covering: GrantEvent) -> None:
        """Do not remove access that a grant covers. If the command's own grant was renewed, end the command."""
        key, now = work.command.key, self._context.now()
        until = "no end is known" if covering.until is None else f"until {as_text(covering.until)}"
        if covering.is_grant_of(key) and superseded(work.command, covering, work.requested):
            reason = f"the grant was extended or given again, {until}"
            self._fail(work.command, work.route.target, reason, status=FinalStatus.superseded)
        elif now - work.requested > self._context.limits.max_age:
            self._fail(work.command, work.route.target, f"grant {covering.grant_id} still covers the access, {until}")
        else:
            work.since, work.not_before, work.postponed = now, min(now + LONGEST_PAUSE, covering.until or LATEST), True
            log.info(
                "postponed", grant=key.grant_id, target=work.route.target, covered_by=covering.grant_id, until=until
            )

    def _open_breaker(self, circuit: Circuit) -> None:
        breaker, now = self._context.limits.breaker, self._context.now()
        seconds = breaker.window.total_seconds()
        reason = f"more than {breaker.limit} revocations in {seconds:g} s"
        self._write(self._context.recorder.breaker_opened(now, circuit, breaker, reason))
        self._context.history.open_since[circuit] = now
        log.error("breaker_opened", circuit=str(circuit), limit=breaker.limit, window_seconds=seconds)

    def _confirm(self, command: RevokeCommand, target: str, number: int, after: Observation, *before: Event) -> None:
        confirmation, removal = self._context.recorder.confirmed(
            command, number, target, self._context.now(), after.detail
        )
        self._end(command.key, target, FinalStatus.confirmed, *before, confirmation, removal)

    def _fail(
        self, command: RevokeCommand, target: str, reason: str, *before: Event, status: FinalStatus = FinalStatus.failed
    ) -> None:
        number, now = self._context.history.attempts.get(command.key, 0), self._context.now()
        event = self._context.recorder.failed(
            command, number, target, now, reason, superseded=status is FinalStatus.superseded
        )
        self._end(command.key, target, status, *before, event)

    def _end(self, key: Key, target: str, status: FinalStatus, *events: Event) -> None:
        self._offsets.ended(key)
        self._write(*events)
        self._context.history.add_end(key, status)
        if status is FinalStatus.accepted:
            self._accepted[key.grant_key] = self._context.now()
        self._work.pop(key, None)
        metrics.OUTCOMES.labels(target, status).inc()
        log.info("ended", grant=key.grant_id, target=target, outcome=status)

    def _write(self, *events: Event) -> None:
        position = self._offsets.committable()
        self._writer.write(events, position)
        self._committed, self._stated = position, self._context.now()


def superseded(command: RevokeCommand, own: GrantEvent, requested: datetime) -> bool:
    """Whether a later end of the grant makes a command void. The later deadline has a command of its own.

    The watch considered everything before the command. That such a grant seems to run may be a clock difference.
    """
    return own.appended > requested and (own.until is None or own.until > command.key.deadline)


def _attempt(plugin: Plugin, command: RevokeCommand) -> Attempt:
    try:
        return plugin.revoke(command)
    except Exception as error:
        log.error("revoke_fault", plugin=plugin.kind, fault=type(error).__name__)
        return Attempt(AttemptStatus.retry, f"fault in the plug-in: {type(error).__name__}")
