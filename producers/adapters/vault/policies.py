"""Vault: changes of what decides who may get access, as ``policy.changed``: policies, roles, users, groups, methods.

Sources: the API documentation of ``/sys/policy``, ``/sys/policies``, ``/sys/auth``, ``/auth/token/roles`` and
``/identity``, and of the auth methods and secrets engines, whose paths are ``<mount>/<kind>/<name>``.
"""

from __future__ import annotations

from typing import Any

from ....schemas.event import Action, Event, Resource, Subject
from ..values import UNKNOWN
from .entry import AuditEntry

_CHANGES = frozenset({"create", "update", "patch", "delete"})
_POLICY_KINDS = frozenset({"acl", "rgp", "egp"})
"""Password policies (``sys/policies/password``) decide nothing about access."""
_IN_METHODS = frozenset({"certs", "groups", "map", "role", "roles", "users"})
"""What decides in an auth method who gets which policies."""
_IN_ENGINES = frozenset({"role", "roles", "static-role", "static-roles"})
"""What decides in a secrets engine what its credentials may do."""
_CREDENTIALS = frozenset({
    "custom-secret-id", "password", "role-id", "secret-id", "secret-id-accessor", "tidy",
})  # fmt: skip
"""Below a role or user: credentials, which belong to the one who signs in."""
_IDENTITIES = frozenset({"alias", "entity", "entity-alias", "group", "group-alias", "persona"})
_STORES = frozenset({"cubbyhole", "generic", "kv", "totp", "transit"})
"""Engines that have no roles. Newer entries name the engine (``mount_type``)."""


def map_policy(entry: AuditEntry, outcome: str) -> tuple[Event, ...]:
    """Return the event of a change of who may get access; none for any other request."""
    changed = _changed(entry) if entry.operation in _CHANGES else None
    if changed is None:
        return ()
    resource, entitlement = changed
    fields: dict[str, Any] = {**entry.common(), "session_id": entry.token()["session_id"]}
    action = Action(command=entry.operation, args=(entry.path,), redacted=entry.request.has("data"))
    return (
        Event(
            event_type="policy.changed", subject=Subject(UNKNOWN), resource=resource, entitlement=entitlement,
            action=action, outcome=outcome, **fields,
        ),
    )  # fmt: skip


def _changed(entry: AuditEntry) -> tuple[Resource, str] | None:
    """Return the place of a changed rule, and its name as grants have it; None if the path is of no such rule."""
    parts = [part for part in entry.path.split("/") if part]
    match parts:
        case ["sys", "policy", *name] if name:
            return Resource("vault_namespace", entry.namespace), "/".join(name)
        case ["sys", "policies", kind, *name] if name and kind in _POLICY_KINDS:
            return Resource("vault_namespace", entry.namespace), "/".join(name)
        case ["sys", "auth", *mount] if mount and mount[-1] != "tune":
            return _at(entry), "auth method"
        case ["identity", kind, *_] if kind in _IDENTITIES:
            return _at(entry), kind
        case ["auth", _, *rest]:
            return _named(entry, rest, _IN_METHODS)
        case [mount, *rest] if mount not in ("cubbyhole", "identity", "sys"):
            return None if entry.request.text("mount_type") in _STORES else _named(entry, rest, _IN_ENGINES)
    return None


def _named(entry: AuditEntry, below_mount: list[str], kinds: frozenset[str]) -> tuple[Resource, str] | None:
    """Return ``<kind>/<name>`` below a mount, whose own path may have several parts."""
    for at, part in enumerate(below_mount[:-1]):
        if part in kinds:
            name, *more = below_mount[at + 1 :]
            return None if more and more[0] in _CREDENTIALS else (_at(entry), name)
    return None


def _at(entry: AuditEntry) -> Resource:
    return Resource("vault_path", entry.in_vault(entry.path))
