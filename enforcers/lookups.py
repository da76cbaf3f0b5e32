"""Looks whether the access of historical grants exists, as the watch asks, and records the answer. Removes nothing.

Records of such a grant arrived long after its end, and none of them reports a removal. If the access is gone, that
confirms its removal. If it exists, the watch judges the grant from then on like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import structlog

from ..schemas.event import Event
from . import metrics
from .command_rules import Circuit, Offsets
from .context import Context
from .contract import Key, Observation, Plugin, Presence, RevokeCommand
from .enforcement_policy import Route

log = structlog.get_logger("grantledger.enforce")

SKIPPED_EVERY = timedelta(minutes=1)
"""Time between two log lines about lookups that are skipped for one reason."""


@dataclass(slots=True)
class _Lookup:
    command: RevokeCommand
    route: Route
    offset: int
    requested: datetime
    not_before: datetime
    number: int = 0


@dataclass(slots=True)
class _Skipped:
    """The lookups skipped for one reason since the last line about it. ``example``: the fields of the latest."""

    written: datetime
    count: int
    example: dict[str, str]


class _SkippedLog:
    """Logs skipped lookups: the first of a reason at once, then one line per reason and minute with their number."""

    def __init__(self) -> None:
        self._reasons: dict[str, _Skipped] = {}

    def add(self, reason: str, now: datetime, **example: str) -> None:
        """Count a skipped lookup."""
        found = self._reasons.setdefault(reason, _Skipped(now - SKIPPED_EVERY, 0, example))
        found.count, found.example = found.count + 1, example
        self.write(now)

    def write(self, now: datetime) -> None:
        """Write the lines that are due."""
        for reason, found in self._reasons.items():
            if found.count and now - found.written >= SKIPPED_EVERY:
                log.info("lookup_skipped", reason=reason, count=found.count, **found.example)
                found.written, found.count = now, 0


class Lookups:
    """Accepts requests to look, and carries them out one at a time.

    A request that cannot be answered ends without a record: no route, no way to read the access back, or another grant
    gives the same access. An open breaker stops the lookups of its circuit too.

    Args:
        write: records events with the position of the commands.
        offsets: a request stays open there until it has ended.
    """

    def __init__(self, context: Context, write: Callable[..., None], offsets: Offsets) -> None:
        self._context, self._write, self._offsets = context, write, offsets
        self._work: dict[Key, _Lookup] = {}
        self._skipped = _SkippedLog()

    def take(self, command: RevokeCommand, offset: int, requested: datetime) -> None:
        """Accept a request that was made at some time."""
        now = self._context.now()
        reason, route = "", None
        if command.key in self._context.history.looked or command.key in self._work:
            reason = "done or accepted before"
        elif now - requested > self._context.limits.max_age:
            reason = "too old"
        else:
            route, reason = route_of(command, self._context)
        if route is None:
            self._skip(command, offset, reason)
        else:
            self._work[command.key] = _Lookup(command, route, offset, requested, now)

    def wait(self) -> float:
        """Return the seconds until something can be looked up; infinity if nothing waits."""
        now = self._context.now()
        return min((max(0.0, (one.not_before - now).total_seconds()) for one in self._allowed()), default=float("inf"))

    def step(self) -> None:
        """Carry out the lookup that has waited longest, if there is one."""
        now = self._context.now()
        self._skipped.write(now)
        ready = [one for one in self._allowed() if one.not_before <= now]
        if ready:
            self._look(min(ready, key=lambda one: (one.not_before, one.offset)))

    def _allowed(self) -> list[_Lookup]:
        """Return the lookups that no open breaker stops."""
        if not self._context.history.open_since:
            return list(self._work.values())
        return [
            one for one in self._work.values()
            if Circuit(*one.command.key.issuer, one.route.target) not in self._context.history.open_since
        ]  # fmt: skip

    def _look(self, work: _Lookup) -> None:
        command, target = work.command, work.route.target
        covering = self._context.covering(command, work.route, work.requested)
        if covering is not None:
            self._skip(command, work.offset, "another grant gives the same access", covered_by=covering.grant_id)
            return
        work.number += 1
        found = read_back(self._context.plugins[target], command)
        log.info("looked", grant=command.key.grant_id, target=target, presence=found.presence, attempt=work.number)
        if found.presence is Presence.unreadable:
            self._skip(command, work.offset, "the target cannot be read back")
        elif found.presence is Presence.unknown and work.number < self._context.limits.attempts:
            pause = self._context.limits.backoff.delay(command.key, work.number)
            work.not_before = self._context.now() + timedelta(seconds=pause)
        else:
            self._end(work, found)

    def _end(self, work: _Lookup, found: Observation) -> None:
        events: tuple[Event, ...] = self._context.recorder.looked(
            work.command, work.number, work.route.target, self._context.now(), found
        )
        del self._work[work.command.key]
        self._offsets.add(work.offset, None)
        self._write(*events)
        self._context.history.looked.add(work.command.key)
        metrics.LOOKUPS.labels(found.presence).inc()

    def _skip(self, command: RevokeCommand, offset: int, reason: str, **more: str) -> None:
        work = self._work.get(command.key)
        if work is not None and work.offset == offset:
            del self._work[command.key]
        self._offsets.add(offset, None)
        metrics.LOOKUPS.labels("skipped").inc()
        self._skipped.add(reason, self._context.now(), grant=command.key.grant_id, **more)


def route_of(command: RevokeCommand, context: Context) -> tuple[Route, Literal[""]] | tuple[None, str]:
    """Return the route of a command about a grant that the sealed log has; without one, None and the reason."""
    activation = context.grants.activation(command)
    if activation is None:
        return None, "no activation in the sealed log"
    route = context.policy.route(command, signed=activation.signed)
    return (route, "") if route is not None else (None, "no route of the policy matches")


def read_back(plugin: Plugin, command: RevokeCommand) -> Observation:
    """Check whether the access exists. A fault in one plug-in must not block the commands of others."""
    try:
        return plugin.read_back(command)
    except Exception as error:
        log.error("read_back_fault", plugin=plugin.kind, fault=type(error).__name__)
        return Observation(Presence.unknown, f"fault in the plug-in: {type(error).__name__}")
