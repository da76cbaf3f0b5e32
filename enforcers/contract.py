"""What an enforcer's plug-in must do, and the words it answers with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

from ..schemas.event import Resource, Subject


class InvalidCommandError(ValueError):
    """A record in ``access.commands`` that is no revoke command; the message says why."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What makes two commands the same: the grant, and the deadline it has outlived (UTC)."""

    grant_id: str
    deadline: datetime


@dataclass(frozen=True, slots=True)
class Target:
    """The access to take away, as the command has it.

    ``command_id`` is derived from the key alone, so that it is the same at every try and in every copy of a command:
    a receiver that has seen it need not act again. ``requested_at``: when the command was written, by its sender's
    clock.
    """

    key: Key
    command_id: str
    rule: str
    severity: str
    tenant: str
    subject: Subject
    resource: Resource
    entitlement: str
    grant_id_kind: str
    request_id: str | None
    requested_at: datetime

    def as_json(self) -> dict[str, Any]:
        """Return what plug-ins hand to other programs: the same bytes at every try, when dumped with sorted keys."""
        return {
            "command_id": self.command_id,
            "grant_id": self.key.grant_id,
            "deadline": as_text(self.key.deadline),
            "rule": self.rule,
            "tenant": self.tenant,
            "subject": {"id": self.subject.id, "kind": self.subject.kind, "email": self.subject.email},
            "resource": {
                "kind": self.resource.kind,
                "id": self.resource.id,
                "environment": self.resource.environment,
            },
            "entitlement": self.entitlement,
            "request_id": self.request_id,
            "requested_at": as_text(self.requested_at),
        }


def as_text(time: datetime) -> str:
    """Return a time as RFC 3339 in UTC with microseconds, always of the same length."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Result(StrEnum):
    """How an attempt went, as far as the other side says."""

    accepted = "accepted"
    """It took the command. Only reading back tells whether the access is gone."""
    again = "again"
    """Not now: unreachable, busy, too slow. The same attempt may go well later."""
    failed = "failed"
    """Refused, or impossible. Trying again changes nothing until a person has looked."""


class Presence(StrEnum):
    """What reading back saw."""

    gone = "gone"
    still_there = "still_there"
    unknown = "unknown"
    """It could not be read this time."""
    unreadable = "unreadable"
    """There is no way to read it."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt's answer.

    ``detail``: a short sentence for the record, without any secret. ``retry_after``: seconds that the other side asks
    us to wait, None where it does not.
    """

    result: Result
    detail: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What reading back saw, and a short sentence for the record, without any secret."""

    presence: Presence
    detail: str


class Plugin(Protocol):
    """One way to take access away. Neither method raises for what the other side does, and both return in bounded time.

    ``revoke`` is called again after a crash in its midst, so it must be harmless where the access is gone already.
    """

    kind: str
    """Name of the plug-in, as it stands in the policy."""

    def revoke(self, target: Target) -> Attempt:
        """Take the access away."""
        ...

    def read_back(self, target: Target) -> Seen:
        """Look whether the access is there. Only what is seen here is ever recorded as confirmed."""
        ...
