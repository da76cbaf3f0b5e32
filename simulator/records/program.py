"""The events of the company's own programs, in the JSON format that ``grantledger emit --stdin`` reads.

Each event names its source and carries the next sequence number, as the client library adds them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from ...schemas.event import ACTIVITY_TYPES, Resource

ACCESS_CHECKER = "access-checker"
"""The program that checks whether access was really removed."""
INTRUDER = "intruder"
"""A program that no policy names, and that reports about the access of others."""


class GrantName(NamedTuple):
    """A grant as the access checker identifies it."""

    grant_id: str
    subject: str
    resource: Resource
    entitlement: str
    source: tuple[str, str] | None = None
    """System and instance that issued the id; None if the program does not name them."""
    tenant: str = "default"


class Program:
    """A running program, with one sequence counter per topic. A restarted counter needs a new instance."""

    def __init__(self, system: str = ACCESS_CHECKER, instance: str = "sample") -> None:
        self.system = system
        self.instance = instance
        self._sequence = {True: 0, False: 0}

    def removal(self, grant: GrantName, at: datetime, native_id: str) -> dict[str, Any]:
        """Return the event of a check that found the access removed."""
        return {**self._about("grant.revoked", grant, at, native_id), "removal_evidence": "confirmed"}

    def extension(self, grant: GrantName, at: datetime, native_id: str, until: datetime) -> dict[str, Any]:
        """Return the event that access lasts longer."""
        return {**self._about("grant.extended", grant, at, native_id), "expires_at": until.isoformat()}

    def _about(self, event_type: str, grant: GrantName, at: datetime, native_id: str) -> dict[str, Any]:
        record = {
            **self.event(event_type, at, native_id),
            "tenant": grant.tenant,
            "subject": grant.subject,
            "actor": {"id": self.system, "kind": "service"},
            "resource": {"kind": grant.resource.kind, "id": grant.resource.id},
            "entitlement": grant.entitlement,
            "grant_id": grant.grant_id,
            "grant_id_kind": "native",
        }
        if grant.source is not None:
            record["grant_source"] = {"system": grant.source[0], "instance": grant.source[1]}
        return record

    def event(self, event_type: str, at: datetime, native_id: str) -> dict[str, Any]:
        """Return the common members of every event of the program."""
        activity = event_type in ACTIVITY_TYPES
        self._sequence[activity] += 1
        source = {"system": self.system, "instance": self.instance, "native_id": native_id, "native_type": "event"}
        return {
            "event_type": event_type,
            "occurred_at": at.isoformat(),
            "source": {**source, "seq": self._sequence[activity]},
        }
