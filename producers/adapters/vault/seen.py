"""Vault: the leases and child tokens of each token. A revocation names only the token, and ends all of them."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import replace
from typing import NamedTuple

from ....schemas.event import Event
from ...redaction.marks import MARK_START
from ..contract import Mapped
from ..values import ordinal_of
from .entry import AuditEntry
from .request_kind import LEASE_REVOKES, OLD_LEASE_REVOKES, RequestKind, below

MOST = 100_000
"""Tokens and leases that are remembered. The oldest are forgotten."""
_CREATE = "auth/token/create"
_PREFIXES = tuple(path for path in (*LEASE_REVOKES, *OLD_LEASE_REVOKES) if path.endswith(("-prefix", "-force")))


class _Node(NamedTuple):
    """A token or lease: the event that gave it, and the token that requested it."""

    event: Event
    parent: str | None
    is_lease: bool
    token: str | None
    """HMAC of the token itself, by which ``auth/token/revoke`` names it."""


class Seen:
    """The tokens and leases of one run that have not been revoked."""

    def __init__(self) -> None:
        self._nodes: OrderedDict[str, _Node] = OrderedDict()
        self._children: dict[str, set[str]] = {}
        self._tokens: dict[str, str] = {}

    def add(self, entry: AuditEntry, events: Mapped) -> Mapped:
        """Return the events of an entry, and the revocations of everything else that it ends."""
        last = events[-1]
        if last.event_type == "grant.activated":
            self._remember(entry, last)
        if last.event_type != "grant.revoked":
            return events
        taken = self._taken(entry, last)
        return (*events, *(_revocation(one, last) for one in taken if one.grant_id != last.grant_id))

    def _remember(self, entry: AuditEntry, event: Event) -> None:
        if event.grant_id is None or entry.kind is RequestKind.CERTIFICATE_ISSUED:
            return
        created = entry.path
        if entry.kind is RequestKind.WRAPPED:
            created = entry.response.object("wrap_info").text("creation_path") or entry.path
        # A role may make its tokens orphans, and no entry says so: they are not taken for children.
        child = created == _CREATE and not entry.request.object("data").values.get("no_parent")
        lease = entry.kind is RequestKind.LEASE_ISSUED
        parent = entry.accessor if (child or lease) and entry.accessor != event.grant_id else None
        token = entry.response.object("auth").text("client_token")
        if token is not None and MARK_START in token:  # a plain one, which was removed: others look the same
            token = None
        self._forget(event.grant_id)
        self._nodes[event.grant_id] = _Node(event, parent, lease, token)
        if parent is not None:
            self._children.setdefault(parent, set()).add(event.grant_id)
        if token is not None:
            self._tokens[token] = event.grant_id
        if len(self._nodes) > MOST:
            self._forget(next(iter(self._nodes)))

    def _forget(self, grant: str) -> None:
        node = self._nodes.pop(grant, None)
        if node is None:
            return
        if node.token is not None and self._tokens.get(node.token) == grant:
            del self._tokens[node.token]
        siblings = self._children.get(node.parent or "")
        if siblings is not None:
            siblings.discard(grant)
            if not siblings:
                del self._children[node.parent or ""]

    def _taken(self, entry: AuditEntry, revoked: Event) -> list[Event]:
        """Return the grants that a revocation ends, in the order in which they were given, and forget them."""
        if entry.kind is RequestKind.LEASE_REVOKED and (prefix := below(entry.path, _PREFIXES)):
            named = entry.in_vault(prefix).rstrip("/") + "/"
            taken = {one for one in self._nodes if one.startswith(named)}
        else:
            grant = revoked.grant_id or ""
            orphaning = entry.path.startswith("auth/token/revoke-orphan")
            taken = self._below(self._tokens.get(grant, grant), orphaning=orphaning)
        found = [node.event for name, node in self._nodes.items() if name in taken]
        for name in taken:
            self._forget(name)
        return found

    def _below(self, grant: str, *, orphaning: bool) -> set[str]:
        """Return a token with its leases and child tokens. Child tokens are left out if they become orphans."""
        taken, waiting = {grant}, [grant]
        while waiting:
            for child in tuple(self._children.get(waiting.pop(), ())):
                if child not in taken and (self._nodes[child].is_lease or not orphaning):
                    taken.add(child)
                    waiting.append(child)
        return taken


def _revocation(given: Event, by: Event) -> Event:
    """Return the revocation of a grant by the entry that revoked another."""
    return replace(
        by, subject=given.subject, resource=given.resource, entitlement=given.entitlement, grant_id=given.grant_id,
        grant_id_kind=given.grant_id_kind, ordinal=ordinal_of(given.grant_id), event_id="",
        salt=secrets.token_bytes(16),
    )  # fmt: skip
