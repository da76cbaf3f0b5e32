"""The grants that are running now, according to ``access.lifecycle``. Pure.

Seconds or a day pass between a command and its execution. The enforcer must not remove a grant that was extended
meanwhile, nor access that it shares with a grant that started meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from .contract import Key, RevokeCommand

GIVEN = ("grant.activated", "grant.extended")
TAKEN = ("grant.revoked", "grant.expired")
LATEST = datetime.max.replace(tzinfo=UTC)


class AccessIdentity(NamedTuple):
    """Identifies an access. Grants with the same identity overlap. The watch compares the same fields."""

    tenant: str
    subject: str
    resource_kind: str
    resource: str
    entitlement: str


def access_of(command: RevokeCommand) -> AccessIdentity:
    """Return the access that a command asks to remove."""
    resource = command.resource
    return AccessIdentity(command.key.tenant, command.subject.id, resource.kind, resource.id, command.entitlement)


@dataclass(frozen=True, slots=True)
class RunningGrant:
    """A grant that has not ended: its deadline, if it has one, and when its last event was appended."""

    grant_id: str
    issuer: tuple[str, str]
    access: AccessIdentity
    environment: str
    until: datetime | None
    appended: datetime

    def is_grant_of(self, key: Key) -> bool:
        """Whether a command is about this grant."""
        same = self.grant_id == key.grant_id and self.access.tenant == key.tenant
        return same and key.issuer in (("", ""), self.issuer)


class RunningGrants:
    """The running grants. The last event of a grant in log order counts."""

    def __init__(self) -> None:
        self._grants: dict[tuple[str, tuple[str, str], str], RunningGrant] = {}

    def add(self, datum: Mapping[str, Any], appended: datetime, now: datetime) -> None:
        """Apply one decoded event. Events that are not about a grant change nothing."""
        kind, grant_id = datum["event_type"], datum["grant_id"]
        if not grant_id or kind not in GIVEN + TAKEN:
            return
        issuing = datum.get("grant_source") or datum["source"]
        issuer = (issuing["system"], issuing["instance"])
        self._grants.pop((datum["tenant"], issuer, grant_id), None)
        if kind in TAKEN:  # with any evidence: the source intends the grant to be over
            return
        resource = datum["resource"] or {"kind": "", "id": "", "environment": None}
        access = AccessIdentity(
            datum["tenant"], datum["subject"]["id"], resource["kind"], resource["id"], datum["entitlement"] or ""
        )
        until = datum["expires_at"]
        if until is not None:
            # A source clock that is ahead does not lengthen the grant.
            until = until.astimezone(UTC) - max(timedelta(0), datum["occurred_at"] - appended)
            if until <= now:
                return
        environment = resource["environment"] or ""
        self._grants[access.tenant, issuer, grant_id] = RunningGrant(
            grant_id, issuer, access, environment, until, appended
        )

    def covering(
        self,
        command: RevokeCommand,
        commanded: datetime,
        now: datetime,
        shared: Callable[[RunningGrant], bool] = lambda _: False,
    ) -> RunningGrant | None:
        """Return the running grant that covers the access of a command: its own, else the one that ends last.

        Args:
            commanded: when the command was appended.
            shared: whether removing the command's access would also remove that of another grant.
        """
        own, access = command.key, access_of(command)

        def covers(one: RunningGrant) -> bool:
            same = one.is_grant_of(own) or one.access == access
            if not same and not shared(one):
                return False
            if one.until is not None:
                return one.until > now
            # The watch policy may give such a grant an end: the watch considered it when it sent the command.
            return not same or one.appended > commanded

        running = filter(covers, self._grants.values())
        return max(running, key=lambda one: (one.is_grant_of(own), one.until or LATEST, one.grant_id), default=None)

    def prune(self, now: datetime) -> None:
        """Delete the grants that have expired."""
        self._grants = {key: one for key, one in self._grants.items() if one.until is None or one.until > now}
