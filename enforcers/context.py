"""What everything that handles commands in one process shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from .command_rules import CommandHistory, Limits, SealedActivation
from .contract import Plugin, RevokeCommand
from .enforcement_policy import EnforcementPolicy, Route
from .events import Recorder
from .running_grants import GrantEvent, RunningGrants


class Grants(Protocol):
    """The grants in ``access.lifecycle``."""

    def running(self) -> RunningGrants:
        """Return the grants that are running now."""

    def activation(self, command: RevokeCommand) -> SealedActivation | None:
        """Return the activation of the grant of a command, with the same access, from the sealed log."""


@dataclass(frozen=True, slots=True)
class Context:
    """The policy and what it names, and what is on record.

    Attributes:
        recorder: makes the events.
        plugins: by the target's name in the policy.
        history: what is on record about commands; whoever handles one adds to it.
        now: returns the current time.
    """

    recorder: Recorder
    policy: EnforcementPolicy
    plugins: Mapping[str, Plugin]
    grants: Grants
    limits: Limits
    history: CommandHistory
    now: Callable[[], datetime]

    def covering(self, command: RevokeCommand, route: Route, requested: datetime) -> GrantEvent | None:
        """Return the last event of the running grant that covers the access of a command, by this route."""
        running, now = self.grants.running(), self.now()
        return running.covering(command, requested, now, lambda one: self.policy.shared(command, route, one))
