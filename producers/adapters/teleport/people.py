"""Teleport: who, where and on what, from the members that its records share."""

from __future__ import annotations

import ipaddress
import json

from ....schemas.event import Actor, Resource, Source, Subject
from ..contract import synthesized
from ..reading import Fields

SYSTEM = "teleport"
USER_KINDS = {1: "human", 2: "service", 3: "system"}
"""``UserKind`` of ``events.proto``."""
UNKNOWN = "unknown"
"""Stands where a rule of ours asks for a text that the record does not hold."""

_RESOURCES = (
    ("database", "db_service"),
    ("kubernetes_cluster", "kubernetes_cluster"),
    ("application", "app_name"),
    ("windows_desktop", "desktop_name"),
    ("windows_desktop", "desktop_addr"),
    ("server", "server_hostname"),
    ("server", "server_id"),
    ("ec2_instance", "instance_id"),
)
_LABELS = ("db_labels", "kubernetes_labels", "kube_labels", "app_labels", "desktop_labels", "server_labels")
_ENTITLEMENTS = ("db_user", "windows_user", "aws_role_arn", "login")


def source_of(record: Fields, instance: str | None) -> Source:
    """Return the source. Type and code together name what happened; ``uid`` names the record.

    Old records have no ``uid``: then the content itself is the name, so that reading it again gives the same id.
    """
    event = record.required_text("event")
    code = record.text("code")
    native_id = record.text("uid")
    if native_id is None:
        native_id = synthesized("record", json.dumps(record.values, sort_keys=True, ensure_ascii=True))
    native_type = f"{event}/{code}" if code else event
    return Source(SYSTEM, instance or record.text("cluster_name") or SYSTEM, native_id, native_type)


def subject_of(record: Fields) -> Subject:
    """Return who used the access; ``unknown`` where the record names nobody."""
    user = record.text("user")
    if user is None:
        return Subject(UNKNOWN)
    return Subject(user, _kind(record), user if "@" in user else None)


def actor_of(record: Fields) -> Actor:
    """Return who caused the record: the impersonator where there was one, else whom it names as the doer."""
    impersonator = record.text("impersonator")
    if impersonator is not None:
        return Actor(impersonator)
    for name in ("reviewer", "updated_by"):
        doer = record.text(name)
        if doer is not None:
            return Actor(doer)
    user = record.text("user")
    return Actor(UNKNOWN) if user is None else Actor(user, _kind(record))


def _kind(record: Fields) -> str:
    if record.text("bot_name"):
        return "service"
    return USER_KINDS.get(record.integer("user_kind") or 0, UNKNOWN)


def resource_of(record: Fields) -> Resource:
    """Return what was accessed; the cluster itself where the record names nothing smaller."""
    for kind, name in _RESOURCES:
        value = record.text(name)
        if value is not None:
            return Resource(kind, value, _environment(record))
    return cluster_of(record)


def cluster_of(record: Fields) -> Resource:
    """Return the cluster as a resource."""
    return Resource("teleport_cluster", record.text("cluster_name") or UNKNOWN)


def entitlement_of(record: Fields) -> str | None:
    """Return as whom the resource was used: database user, Windows user, AWS role or login."""
    for name in _ENTITLEMENTS:
        value = record.text(name)
        if value is not None:
            return value
    return None


def client_ip_of(record: Fields) -> str | None:
    """Return the client's address without its port. Records of desktops name the desktop there, not the client."""
    address = record.text("addr.remote")
    if address is None or address == record.text("desktop_addr"):
        return None
    host = address.rsplit(":", 1)[0] if address.count(":") == 1 or "]:" in address else address
    host = host.strip("[]")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def grant_of(record: Fields) -> str | None:
    """Return the access request that a session runs under. Of several none can be named."""
    requests = record.texts("access_requests")
    return requests[0] if len(requests) == 1 else None


def session_id_of(record: Fields, source: Source) -> str:
    """Return the session's own id, or one of ours for an action that Teleport records without a session."""
    for name in ("sid", "session_chunk_id", "command_id"):
        value = record.text(name)
        if value is not None:
            return value
    return synthesized("session", source.native_type, source.native_id)


def _environment(record: Fields) -> str | None:
    for labels in _LABELS:
        found = record.object(labels)
        for name in ("env", "environment"):
            value = found.text(name)
            if value is not None:
                return value
    return None
