"""What the company's own programs send: a checker that looks whether access is really gone.

The lines are what ``grantledger emit --stdin`` reads. Each names its source and the next number of its counter, as the
client library does for events that a program makes with it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ..schemas.event import ACTIVITY_TYPES, Resource
from .life import Deed

CHECKER = "access-checker"
CHECKS = (Deed.CHECKED, Deed.LEASE_CHECKED)
"""What the checker does, whatever the tool."""


class Own:
    """One running program with a counter for each topic that it sends to.

    Args:
        system: its name.
        instance: which of several it is. One that starts to count anew must be another.
    """

    def __init__(self, system: str = CHECKER, instance: str = "sample") -> None:
        self.system = system
        self.instance = instance
        self._seqs = {True: 0, False: 0}

    def gone(  # noqa: PLR0917 - the members of what is held, in their order
        self, grant_id: str, subject: str, resource: Resource, entitlement: str, at: datetime, native_id: str
    ) -> dict[str, Any]:
        """Return the record of a look that found the access gone."""
        return {
            **self.record("grant.revoked", at, native_id),
            "subject": subject,
            "actor": {"id": self.system, "kind": "service"},
            "resource": {"kind": resource.kind, "id": resource.id},
            "entitlement": entitlement,
            "grant_id": grant_id,
            "grant_id_kind": "native",
            "removal_evidence": "confirmed",
        }

    def record(self, event_type: str, at: datetime, native_id: str) -> dict[str, Any]:
        """Return what every record of the program begins with."""
        seq = self._seqs[event_type in ACTIVITY_TYPES] = self._seqs[event_type in ACTIVITY_TYPES] + 1
        source = {"system": self.system, "instance": self.instance, "native_id": native_id, "native_type": "event"}
        return {"event_type": event_type, "occurred_at": at.isoformat(), "source": {**source, "seq": seq}}
