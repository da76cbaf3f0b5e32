"""The interface of an enforcer plug-in."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

from ..schemas.access_key import SourceName, access_key
from ..schemas.event import Resource, Subject

UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
"""Errors of reading an event whose schema or content a sender has chosen: such an event is skipped and logged."""


class InvalidCommandError(ValueError):
    """A record in ``access.commands`` is not a valid revoke command. The message gives the reason.

    ``source``: in whose name it was sent, if it can be decoded.
    """

    def __init__(self, reason: str, source: str = "unknown") -> None:
        super().__init__(reason)
        self.source = source


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Identifies a command: the grant, and the deadline that it has passed (UTC); of a person's, when they asked."""

    grant_id: str
    deadline: datetime
    tenant: str = "default"
    issuer: SourceName = ("", "")
    """System and instance that issued the grant id. If the command does not name them, it matches no grant by id."""

    @property
    def grant_key(self) -> str:
        """Access key of the grant."""
        return access_key(self.tenant, self.issuer, self.grant_id)


@dataclass(frozen=True, slots=True)
class RevokeCommand:
    """A command to remove access.

    ``command_id`` depends on the key alone, so that a receiver can ignore duplicates. ``requested_at`` is by the clock
    of the command's sender.
    """

    key: Key
    command_id: str
    rule: str
    severity: str
    subject: Subject
    resource: Resource
    entitlement: str
    grant_id_kind: str
    request_id: str | None
    requested_at: datetime
    requested_by: str = ""
    """The person who requests the revocation; empty if the watch does."""
    reason: str = ""
    """Why this person does."""
    looks_only: bool = False
    """Whether the watch only asks whether the access exists."""
    grant_deadline: datetime | None = None
    """On a person's request, the deadline of the grant, if it has one."""

    @property
    def due(self) -> datetime:
        """When the access should have ended: if the grant has no deadline, when a person requested its end."""
        return self.grant_deadline or self.key.deadline

    def as_json(self) -> dict[str, Any]:
        """Return the command for other programs. Dumped with sorted keys, it has the same bytes at every attempt."""
        system, instance = self.key.issuer
        by_person = {"requested_by": self.requested_by, "reason": self.reason} if self.requested_by else {}
        return {
            "command_id": self.command_id,
            "grant_id": self.key.grant_id,
            "deadline": as_text(self.due),
            "rule": self.rule,
            "tenant": self.key.tenant,
            "grant_source": {"system": system, "instance": instance} if system else None,
            "subject": asdict(self.subject),
            "resource": asdict(self.resource),
            "entitlement": self.entitlement,
            "request_id": self.request_id,
            "requested_at": as_text(self.requested_at),
            **by_person,
        }


def as_text(time: datetime) -> str:
    """Return a time as RFC 3339 in UTC with microseconds, with a fixed length."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class AttemptStatus(StrEnum):
    """The result of an attempt, as the target system reports it."""

    accepted = "accepted"  # the target accepted the command; only reading back shows whether the access is gone
    retry = "retry"  # the target is unreachable, busy or too slow; the same attempt may succeed later
    failed = "failed"  # rejected or impossible; a retry fails until a person has changed something


class Presence(StrEnum):
    """Whether the access exists."""

    absent = "absent"
    present = "present"
    unknown = "unknown"  # reading failed this time
    unreadable = "unreadable"  # the plug-in cannot read it


@dataclass(frozen=True, slots=True)
class Attempt:
    """The result of one attempt: a sentence for the record, without secrets; the seconds that the target asks for."""

    status: AttemptStatus
    detail: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """The result of reading back, with a short sentence for the record, without secrets."""

    presence: Presence
    detail: str


class Plugin(Protocol):
    """One way to remove access. The methods never raise for what the target does, and return in bounded time.

    ``revoke`` is repeated after a crash, so it must be harmless when the access is gone already.
    """

    kind: str
    """Name of the plug-in in the policy."""

    def revoke(self, command: RevokeCommand) -> Attempt:
        """Remove the access."""

    def read_back(self, command: RevokeCommand) -> Observation:
        """Check whether the access exists. Only this can confirm a removal."""
