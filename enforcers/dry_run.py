"""Reports what would be revoked, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from . import metrics
from .command_rules import Admission, History, Limits, admit, refusal
from .contract import Key, RevokeCommand
from .lookups import Grants, route_of
from .policy import EnforcementPolicy

log = structlog.get_logger("grantledger.enforce")


class DryRun:
    """Handles commands as the revoker does, but only logs and counts them."""

    def __init__(
        self,
        policy: EnforcementPolicy,
        *,
        grants: Grants,
        limits: Limits,
        history: History,
        now: Callable[[], datetime],
    ) -> None:
        self._policy, self._grants, self._limits, self._history, self._now = policy, grants, limits, history, now
        self._known: set[Key] = set()

    def expect(self, offset: int) -> None:
        """Do nothing: no position is committed."""

    def refuse(self, reason: str, source: str, offset: int) -> None:
        """Report an invalid command."""
        metrics.COMMANDS.labels("invalid").inc()
        log.error("command_invalid", offset=offset, source=source, reason=reason)

    def take(self, command: RevokeCommand, offset: int, requested: datetime) -> Admission:
        """Report what would be done with a command."""
        key, age = command.key, self._now() - requested
        admission = admit(self._history, self._known, key, age=age, max_age=self._limits.max_age)
        metrics.COMMANDS.labels(admission).inc()
        if admission is Admission.work:
            self._known.add(key)
            self._report(command, requested)
        else:
            log.info("command", grant=key.grant_id, admission=admission, offset=offset)
        return admission

    def look(self, command: RevokeCommand, offset: int, requested: datetime) -> None:
        """Report what would be looked up."""
        route, _ = route_of(command, self._policy, self._grants)
        if route is not None:
            log.info("would_look", grant=command.key.grant_id, target=route.target)

    def _report(self, command: RevokeCommand, requested: datetime) -> None:
        grant = command.key.grant_id
        activation = self._grants.activation(command)
        reason = refusal(command, activation, timedelta(seconds=self._policy.history_after_seconds))
        route = self._policy.route(command, signed=activation is not None and activation.signed)
        if reason is not None or route is None:
            log.warning("would_fail", grant=grant, reason=reason or "no route of the policy matches")
            return
        covering = self._grants.running().covering(
            command, requested, self._now(), lambda one: self._policy.shared(command, route, one)
        )
        if covering is not None:
            log.warning("would_postpone", grant=grant, target=route.target, covered_by=covering.grant_id)
            return
        metrics.WOULD_REVOKE.labels(route.target).inc()
        plugin = self._policy.targets[route.target].plugin
        log.warning("would_revoke", grant=grant, target=route.target, plugin=plugin)
