"""Reports and records what would be revoked, and changes nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from ..schemas.event import Event
from . import metrics
from .command_rules import Admission, admit, refusal
from .context import Context
from .contract import Key, RevokeCommand
from .lookups import route_of

log = structlog.get_logger("grantledger.enforce")


class DryRun:
    """Handles commands as the revoker does, but only logs, counts and answers them. ``answer`` records an event."""

    def __init__(self, context: Context, answer: Callable[[Event], None]) -> None:
        self._context, self._answer = context, answer
        self._known: set[Key] = set()

    def expect(self, offset: int) -> None:
        """Do nothing: no position is committed."""

    def refuse(self, reason: str, source: str, offset: int) -> None:
        """Report an invalid command."""
        metrics.COMMANDS.labels("invalid").inc()
        log.error("command_invalid", offset=offset, source=source, reason=reason)

    def take(self, command: RevokeCommand, offset: int, requested: datetime) -> Admission:
        """Report what would be done with a command."""
        key, age = command.key, self._context.now() - requested
        admission = admit(self._context.history, self._known, key, age=age, max_age=self._context.limits.max_age)
        metrics.COMMANDS.labels(admission).inc()
        if admission is Admission.work:
            self._known.add(key)
            self._report(command, requested)
        else:
            log.info("command", grant=key.grant_id, admission=admission, offset=offset)
        return admission

    def look(self, command: RevokeCommand, offset: int, requested: datetime) -> None:
        """Report what would be looked up."""
        route, _ = route_of(command, self._context)
        if route is not None:
            log.info("would_look", grant=command.key.grant_id, target=route.target)

    def _report(self, command: RevokeCommand, requested: datetime) -> None:
        grant = command.key.grant_id
        activation = self._context.grants.activation(command)
        reason = refusal(command, activation, timedelta(seconds=self._context.policy.history_after_seconds))
        route = self._context.policy.route(command, signed=activation is not None and activation.signed)
        if reason is None and route is None:
            reason = "no route of the policy matches"
        target = route.target if route is not None else ""
        if reason is not None or route is None:
            log.warning("would_fail", grant=grant, reason=reason)
            self._record(command, target, reason or "")
            return
        covering = self._context.covering(command, route, requested)
        if covering is not None:
            log.warning("would_postpone", grant=grant, target=target, covered_by=covering.grant_id)
            self._record(command, target, f"the running grant {covering.grant_id} covers the access")
            return
        metrics.WOULD_REVOKE.labels(target).inc()
        plugin = self._context.policy.targets[target].plugin
        log.warning("would_revoke", grant=grant, target=target, plugin=plugin)
        self._record(command, target, "")

    def _record(self, command: RevokeCommand, target: str, obstacle: str) -> None:
        """Record the first answer to a command: each start reads the commands again."""
        key = self._context.history.key(command.key)
        if key not in self._context.history.rehearsed:
            self._context.history.rehearsed.add(key)
            self._answer(self._context.recorder.rehearsed(command, self._context.now(), target, obstacle))
