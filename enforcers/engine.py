"""The enforcer's work, one step at a time, between a journal and the plug-ins. Knows nothing of Kafka.

An attempt is put on record before it is made, and its outcome in one go with the position up to which commands are
done with. So a crash at any point leaves a record from which the next start goes on: it looks first whether the access
is gone, and only then tries again. Before each attempt it looks who holds the access now: a grant that runs is not
torn down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from ..schemas.event import Event
from . import metrics
from .contract import Attempt, Key, Plugin, Presence, Result, Seen, Target, as_text
from .core import Backoff, Breaker, Decision, History, Offsets, Outcome, Verdict, decide, judge
from .events import Recorder
from .held import LATEST, Held, Holder
from .policy import Policy

log = structlog.get_logger("grantledger.enforce")

TOO_OLD = "the command is too old to be carried out: take the access away by hand"
LONGEST_PAUSE = timedelta(seconds=60)
"""After this long it is looked again whether a grant still holds the access of a command."""
RESTATE = timedelta(days=1)
"""The position is committed at least this often: Kafka forgets what a group has not said for 7 days."""


class EnforcingStoppedError(Exception):
    """The breaker is open; a person must look. Starting again changes nothing."""


class Journal(Protocol):
    """Where events go. ``write`` returns only when everything is on record, or raises and nothing is."""

    def write(self, events: Sequence[Event], position: int) -> None:
        """Put events on record, and with them the offset at which a restart goes on reading commands.

        Without events the position is put on record once more, also where it is the same as before.
        """
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the work. ``attempts``: tries for one command."""

    attempts: int
    breaker: Breaker
    backoff: Backoff
    max_age: timedelta


@dataclass(slots=True)
class _Work:
    target: Target
    name: str
    due: datetime
    appended: datetime
    since: datetime
    put_off: bool = False

    def wait(self, now: datetime) -> float:
        """Return the seconds until it is due; none where the clock was set back to before the wait began."""
        return 0.0 if now < self.since else max(0.0, (self.due - now).total_seconds())

    def rest(self, now: datetime, until: datetime) -> None:
        self.due, self.since = until, now


class Engine:
    """Takes commands in and works them off.

    Args:
        held: returns the grants that run, by everything that is known when it is called; takes the time of the oldest
            command that is open.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        recorder: Recorder,
        policy: Policy,
        plugins: Mapping[str, Plugin],
        held: Callable[[datetime], Held],
        limits: Limits,
        history: History,
        position: int,
        now: Callable[[], datetime],
    ) -> None:
        self._journal, self._recorder, self._policy, self._plugins = journal, recorder, policy, plugins
        self._limits, self._history, self._now, self._held = limits, history, now, held
        self._offsets = Offsets(position)
        self._committed = position
        self._stated: datetime | None = None
        self._work: dict[Key, _Work] = {}

    def take(self, target: Target, offset: int, appended: datetime) -> Decision:
        """Take a command in. ``appended``: when the brokers took it."""
        key, now = target.key, self._now()
        decision = decide(self._history, self._work, key, age=now - appended, max_age=self._limits.max_age)
        metrics.COMMANDS.labels(decision).inc()
        log.info("command", grant=key.grant_id, decision=decision, offset=offset)
        self._offsets.took(offset, key if decision in (Decision.work, Decision.joined) else None)
        if decision is Decision.stale:
            self._fail(target, "", TOO_OLD)
        elif decision is Decision.work:
            name = self._policy.route(target)
            if name is None:
                self._fail(target, "", "no route of the policy fits")
            else:
                self._work[key] = _Work(target, name, now, appended, now)
        metrics.OPEN.set(len(self._work))
        return decision

    def refuse(self, event: Event, offset: int) -> None:
        """Pass over a record that is no command; ``event`` says so on record."""
        metrics.COMMANDS.labels("invalid").inc()
        self._offsets.took(offset, None)
        self._write(event)

    def reached(self, end: int) -> None:
        """The end of the topic was reached, and everything below it was taken in."""
        self._offsets.reached(end)

    def wait(self, longest: float) -> float:
        """Return the seconds until work is due, at most ``longest``."""
        if not self._work:
            return longest
        now = self._now()
        return min(longest, *(work.wait(now) for work in self._work.values()))

    def step(self) -> bool:
        """Work on the command that has been due the longest; return whether there was one.

        Raises:
            EnforcingStoppedError: the breaker has opened, which is on record by then.
        """
        now = self._now()
        due = [work for work in self._work.values() if not work.wait(now)]
        if due:
            self._try(min(due, key=lambda work: work.due))
        metrics.OPEN.set(len(self._work))
        metrics.PUT_OFF.set(sum(work.put_off for work in self._work.values()))
        return bool(due)

    def settle(self) -> None:
        """Commit what came to its end without a word on record, such as a copy; and where nothing does, once a day."""
        # A clock that was set back must not make the day longer.
        fresh = self._stated is not None and timedelta(0) <= self._now() - self._stated < RESTATE
        if self._offsets.committable() > self._committed or not fresh:
            self._write()

    def _try(self, work: _Work) -> None:
        target, name = work.target, work.name
        key, plugin = target.key, self._plugins[work.name]
        held = self._held(min(one.appended for one in self._work.values()))
        holder = held.by(target, work.appended, self._now(), lambda one: self._policy.shared(target, name, one))
        if holder is not None:
            self._spare(work, holder)
            return
        work.put_off = False
        number = self._history.attempts.get(key, 0)
        if not number and self._now() - work.appended > self._limits.max_age:
            self._fail(target, name, TOO_OLD)  # it grew old here, behind others
            return
        before = _look(plugin, target)
        if before.presence is Presence.gone:
            self._confirm(target, name, number, before)
            return
        if number >= self._limits.attempts:  # the last one was cut off, or fewer are allowed now
            self._fail(target, name, f"given up after {number} attempts: {before.detail}")
            return
        self._check_breaker(key)
        number += 1
        begun = self._now()
        self._write(self._recorder.begun(target, number, name, begun))
        self._history.note_attempt(key, number, begun)
        attempt = _attempt(plugin, target)
        seen = _look(plugin, target)
        metrics.ATTEMPTS.labels(name, attempt.result).inc()
        verdict = judge(attempt, seen, number, self._limits.attempts)
        log.info(
            "attempted", grant=key.grant_id, target=name, attempt=number, result=attempt.result,
            seen=seen.presence, verdict=verdict,
        )  # fmt: skip
        told = self._recorder.attempted(
            target,
            number,
            name,
            self._now(),
            ok=attempt.result is Result.accepted,
            final=verdict is Verdict.accepted,
            details=(attempt.detail, seen.detail),
        )
        if verdict is Verdict.confirmed:
            self._confirm(target, name, number, seen, told)
        elif verdict is Verdict.accepted:
            self._end(key, name, Outcome.accepted, told)
        elif verdict is Verdict.failed:
            why = attempt.detail if attempt.result is not Result.accepted else seen.detail
            self._fail(target, name, f"attempt {number}: {why}", told)
        else:
            self._write(told)
            pause, tried = self._limits.backoff.delay(key, number, attempt.retry_after), self._now()
            work.rest(tried, tried + timedelta(seconds=pause))

    def _spare(self, work: _Work, holder: Holder) -> None:
        """Leave access alone that a grant holds: for good where it is the command's own grant, given again."""
        key, now = work.target.key, self._now()
        until = "no end is known" if holder.until is None else f"until {as_text(holder.until)}"
        if holder.grant_id == key.grant_id and superseded(work.target, holder, work.appended):
            why = f"the grant was extended or given again, {until}"
            self._fail(work.target, work.name, why, outcome=Outcome.superseded)
        elif now - work.appended > self._limits.max_age:
            self._fail(work.target, work.name, f"grant {holder.grant_id} still holds the access, {until}")
        else:
            work.rest(now, min(now + LONGEST_PAUSE, holder.until or LATEST))
            work.put_off = True
            log.info("put_off", grant=key.grant_id, target=work.name, holder=holder.grant_id, until=until)

    def _check_breaker(self, key: Key) -> None:
        breaker, now = self._limits.breaker, self._now()
        if breaker.allows(self._history, key, now):
            return
        seconds = breaker.window.total_seconds()
        why = f"more than {breaker.limit} revocations in {seconds:g} s"
        self._write(self._recorder.breaker(now, opened=True, limit=breaker.limit, seconds=seconds, who="", why=why))
        self._history.note_breaker(now, opened=True)
        metrics.BREAKER_OPEN.set(1)
        log.error("breaker_opened", limit=breaker.limit, window_seconds=seconds)
        raise EnforcingStoppedError(stopped(why))

    def _confirm(self, target: Target, name: str, number: int, seen: Seen, *before: Event) -> None:
        record, removal = self._recorder.confirmed(target, number, name, self._now(), seen.detail)
        self._end(target.key, name, Outcome.confirmed, *before, record, removal)

    def _fail(self, target: Target, name: str, why: str, *before: Event, outcome: Outcome = Outcome.failed) -> None:
        number, now = self._history.attempts.get(target.key, 0), self._now()
        event = self._recorder.failed(target, number, name, now, why, superseded=outcome is Outcome.superseded)
        self._end(target.key, name, outcome, *before, event)

    def _end(self, key: Key, name: str, outcome: Outcome, *events: Event) -> None:
        self._offsets.ended(key)
        self._write(*events)
        self._history.note_outcome(key, outcome)
        self._work.pop(key, None)
        metrics.OUTCOMES.labels(name, outcome).inc()
        log.info("ended", grant=key.grant_id, target=name, outcome=outcome)

    def _write(self, *events: Event) -> None:
        position = self._offsets.committable()
        self._journal.write(events, position)
        if position > self._committed or not events:
            self._stated = self._now()
        self._committed = position


def superseded(target: Target, own: Holder, commanded: datetime) -> bool:
    """Whether a grant's own later end makes a command void. A later deadline brings a later command.

    What came before the command was the watch's to know; that it runs on may only be the difference of two clocks.
    """
    return own.appended > commanded and (own.until is None or own.until > target.key.deadline)


def stopped(why: str) -> str:
    """Return the sentence that tells a person what to do about an open breaker."""
    return f"the breaker is open: {why}. Look into it, then: grantledger breaker close --reason '…'"


def _look(plugin: Plugin, target: Target) -> Seen:
    try:
        return plugin.read_back(target)
    except Exception as error:  # a fault in one plug-in must not keep the others' commands waiting
        log.error("read_back_fault", plugin=plugin.kind, fault=type(error).__name__)
        return Seen(Presence.unknown, f"fault in the plug-in: {type(error).__name__}")


def _attempt(plugin: Plugin, target: Target) -> Attempt:
    try:
        return plugin.revoke(target)
    except Exception as error:
        log.error("revoke_fault", plugin=plugin.kind, fault=type(error).__name__)
        return Attempt(Result.again, f"fault in the plug-in: {type(error).__name__}")
