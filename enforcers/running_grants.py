"""The grants that are running now, according to ``access.lifecycle``. Pure.

Seconds or a day pass between a command and its execution. The enforcer must not remove a grant that was extended
meanwhile, nor access that it shares with a grant that started meanwhile.

Only its own source extends a grant. Only its own source, or an enforcer that read the access back, removes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from ..schemas.access_key import ENFORCER, access_key, is_issuer, issuer_of
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
    """A grant that has not ended: its deadline, if it has one, and when its last event was appended.

    ``key``: its access key. ``activated``: its source activated it, and did not only extend it.
    """

    key: str
    grant_id: str
    activated: bool
    access: AccessIdentity
    environment: str
    until: datetime | None
    appended: datetime

    def is_grant_of(self, key: Key) -> bool:
        """Whether a command is about this grant."""
        return self.key == key.grant_key

    def is_foreign_claim(self, key: Key) -> bool:
        """Whether another source extended the id of a command's grant without having activated such a grant."""
        same_id = (self.access.tenant, self.grant_id) == (key.tenant, key.grant_id)
        return same_id and not self.activated and bool(key.issuer[0]) and not self.is_grant_of(key)


class RunningGrants:
    """The running grants. The last event of a grant in log order counts."""

    def __init__(self) -> None:
        self._grants: dict[str, RunningGrant] = {}

    def add(self, datum: Mapping[str, Any], appended: datetime, now: datetime) -> None:
        """Apply one decoded event. Events that are not about a grant, or of a foreign source, change nothing."""
        kind, grant_id = datum["event_type"], datum["grant_id"]
        if not grant_id or kind not in GIVEN + TAKEN:
            return
        source, named = _name(datum["source"]), datum.get("grant_source")
        issuer = issuer_of(source, _name(named) if named else None)
        key = access_key(datum["tenant"], issuer, grant_id)
        previous = self._grants.get(key)
        resource = datum["resource"] or {"kind": "", "id": "", "environment": None}
        access = AccessIdentity(
            datum["tenant"], datum["subject"]["id"], resource["kind"], resource["id"], datum["entitlement"] or ""
        )
        if not is_issuer(source, issuer):
            read_back = source[0] == ENFORCER and kind in TAKEN
            if not read_back or previous is None or previous.access != access:
                return
        self._grants.pop(key, None)
        if kind in TAKEN:  # with any evidence: the source intends the grant to be over
            return
        until = datum["expires_at"]
        if until is not None:
            # A source clock that is ahead does not lengthen the grant.
            until = until.astimezone(UTC) - max(timedelta(0), datum["occurred_at"] - appended)
            if until <= now:
                return
        environment = resource["environment"] or ""
        activated = kind == "grant.activated" or (previous is not None and previous.activated)
        self._grants[key] = RunningGrant(key, grant_id, activated, access, environment, until, appended)

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
            if one.is_foreign_claim(own) or (not same and not shared(one)):
                return False
            if one.until is not None:
                return one.until > now
            # The watch policy may give such a grant an end: the watch considered it when it sent the command.
            return not same or one.appended > commanded

        running = filter(covers, self._grants.values())
        return max(running, key=lambda one: (one.is_grant_of(own), one.until or LATEST, one.key), default=None)

    def prune(self, now: datetime) -> None:
        """Delete the grants that have expired."""
        self._grants = {key: one for key, one in self._grants.items() if one.until is None or one.until > now}


def _name(source: Mapping[str, Any]) -> tuple[str, str]:
    return source["system"], source["instance"]
