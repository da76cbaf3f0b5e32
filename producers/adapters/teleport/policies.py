"""Teleport: changes of what decides who may get access, as ``policy.changed``: roles, locks, access lists, connectors.

Source: the messages ``RoleCreate``, ``LockCreate``, ``AccessListCreate``, ``UserCreate`` and their relatives in
``events.proto``: the changed resource is ``name``, who changed it ``user`` or ``updated_by``.
"""

from __future__ import annotations

from typing import Any

from ....schemas.event import Action, Event, Resource, Subject
from ...json_fields import Fields
from ..contract import Skipped
from ..values import UNKNOWN, email_in
from .actions import has_failed
from .identity import actor_of, cluster_of

_ACTIONS = frozenset({"create", "created", "update", "updated", "upsert", "delete", "deleted"})
KINDS = {
    "access_list": "access list",
    "bot": "bot",
    "github": "github connector",
    "lock": "lock",
    "login_rule": "login rule",
    "oidc": "oidc connector",
    "role": "role",
    "saml": "saml connector",
    "trusted_cluster": "trusted cluster",
    "user": "user",
}
"""What such a record is about, by the beginning of its type. Bots have roles, and the others map people to roles."""


def map_policy(event: str, record: Fields, base: dict[str, Any]) -> tuple[Event] | Skipped | None:
    """Return the event of a change of who may get access, or None for another type."""
    beginning, _, action = event.partition(".")
    if beginning not in KINDS or action not in _ACTIONS:
        return None
    name = record.text("name") or UNKNOWN
    if beginning == "user" and (record.text("connector") or "local") != "local":
        return Skipped("authentication", f"{event}: a sign-in by {record.text('connector')}")
    fields = {
        "event_type": "policy.changed",
        "subject": Subject(UNKNOWN),
        "actor": actor_of(record),
        "resource": cluster_of(record),
        "entitlement": f"{KINDS[beginning]} {name}",
        "action": Action(command=event, args=(name, *_target(record))),
        "outcome": "failure" if has_failed(record) else "success",
        **base,
    }
    return (Event(**{**fields, **_own(beginning, name, record)}),)


def _own(beginning: str, name: str, record: Fields) -> dict[str, Any]:
    """Return what a kind says more precisely: a role as grants name it, whom a user or a lock is about."""
    if beginning == "role":
        return {"entitlement": name}
    if beginning == "access_list":
        resource = Resource("access_list", name)
        return {"resource": resource, "entitlement": record.text("access_list_title") or name}
    if beginning == "user":
        roles = record.texts("roles")
        return {"subject": Subject(name, email=email_in(name)), "entitlement": ",".join(roles) or None}
    locked = record.object("target").text("user") if beginning == "lock" and record.has("target") else None
    return {"subject": Subject(locked, email=email_in(locked))} if locked else {}


def _target(record: Fields) -> tuple[str, ...]:
    """Return what a lock is on, as ``user=alice``, and its end."""
    if not record.has("target"):
        return ()
    target = record.object("target")
    named = ((name, target.text(name)) for name in sorted(target.values) if isinstance(target.values[name], str))
    label = ((name.encode("utf-8", "backslashreplace").decode(), value) for name, value in named)
    return tuple(f"{name}={value}" for name, value in label if value)
