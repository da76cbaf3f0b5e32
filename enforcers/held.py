"""Who holds an access now, by ``access.lifecycle``: what became of it since the watch asked to take it away. Pure.

Between a command and its execution lie seconds, or a day. A grant that was extended meanwhile must not be torn down,
nor an access that another grant, begun meanwhile, shares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from .contract import Target

GIVEN = ("grant.activated", "grant.extended")
TAKEN = ("grant.revoked", "grant.expired")
LATEST = datetime.max.replace(tzinfo=UTC)


class Access(NamedTuple):
    """What is held: two grants of one access overlap. The watch compares the same five."""

    tenant: str
    subject: str
    resource_kind: str
    resource: str
    entitlement: str


def access_of(target: Target) -> Access:
    """Return the access that a command asks to take away."""
    resource = target.resource
    return Access(target.tenant, target.subject.id, resource.kind, resource.id, target.entitlement)


@dataclass(frozen=True, slots=True)
class Holder:
    """A grant that runs.

    Attributes:
        until: its deadline, None where it has none.
        appended: when the brokers took the event that says so.
    """

    grant_id: str
    access: Access
    environment: str
    until: datetime | None
    appended: datetime


class Held:
    """The grants that run. Of what is said about one, the last word in the order of the log counts."""

    def __init__(self) -> None:
        self._holders: dict[str, Holder] = {}

    def note(self, datum: Mapping[str, Any], appended: datetime, now: datetime) -> None:
        """Fold one decoded event in; events about anything but a grant change nothing."""
        kind, grant_id = datum["event_type"], datum["grant_id"]
        if not grant_id or kind not in GIVEN + TAKEN:
            return
        self._holders.pop(grant_id, None)
        if kind in TAKEN:  # on whatever evidence: somebody means it to be over
            return
        resource = datum["resource"] or {"kind": "", "id": "", "environment": None}
        access = Access(
            datum["tenant"], datum["subject"]["id"], resource["kind"], resource["id"], datum["entitlement"] or ""
        )
        until = datum["expires_at"]
        if until is not None:
            # A source whose clock is ahead lengthens nothing (DESIGN section 6).
            until = until.astimezone(UTC) - max(timedelta(0), datum["occurred_at"] - appended)
            if until <= now:
                return
        environment = resource["environment"] or ""
        self._holders[grant_id] = Holder(grant_id, access, environment, until, appended)

    def by(
        self, target: Target, commanded: datetime, now: datetime, shared: Callable[[Holder], bool] = lambda _: False
    ) -> Holder | None:
        """Return the grant that holds the access of a command: its own, else the one that lasts longest; None for none.

        Args:
            commanded: when the brokers took the command.
            shared: whether taking the command's access would take that of another grant.
        """
        own, access = target.key.grant_id, access_of(target)

        def runs(one: Holder) -> bool:
            same = one.grant_id == own or one.access == access
            if not same and not shared(one):
                return False
            if one.until is not None:
                return one.until > now
            # Where nothing says when a grant ends, the watch's policy may: it knew of the grant, and sent the command.
            return not same or one.appended > commanded

        running = filter(runs, self._holders.values())
        return max(running, key=lambda one: (one.grant_id == own, one.until or LATEST, one.grant_id), default=None)

    def prune(self, now: datetime) -> None:
        """Forget what has ended by itself."""
        self._holders = {
            grant_id: one for grant_id, one in self._holders.items() if one.until is None or one.until > now
        }
