"""The events of the company's own programs, in the JSON format that ``grantledger emit --stdin`` reads.

Each event names its source and carries the next sequence number, as the client library adds them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from ...schemas.event import ACTIVITY_TYPES, Resource

ACCESS_CHECKER = "access-checker"
"""The program that checks whether access was really removed."""


class Grant(NamedTuple):
    """A grant as the access checker identifies it."""

    grant_id: str
    subject: str
    resource: Resource
    entitlement: str


class Program:
    """A running program, with one sequence counter per topic. A restarted counter needs a new instance."""

    def __init__(self, system: str = ACCESS_CHECKER, instance: str = "sample") -> None:
        self.system = system
        self.instance = instance
        self._sequence = {True: 0, False: 0}

    def removal(self, grant: Grant, at: datetime, native_id: str) -> dict[str, Any]:
        """Return the event of a check that found the access removed."""
        return {
            **self.event("grant.revoked", at, native_id),
            "subject": grant.subject,
            "actor": {"id": self.system, "kind": "service"},
            "resource": {"kind": grant.resource.kind, "id": grant.resource.id},
            "entitlement": grant.entitlement,
            "grant_id": grant.grant_id,
            "grant_id_kind": "native",
            "removal_evidence": "confirmed",
        }

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
