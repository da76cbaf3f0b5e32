"""Teleport: source, people, resource and session, from the members that all records share."""

from __future__ import annotations

from ....schemas.event import Actor, EventSource, IssuingSource, Resource, Subject
from ...json_fields import Fields
from ..values import UNKNOWN, customer_in, email_in, ip_address_in, record_id, synthesized
from .event_types import MCP_PREFIX

SYSTEM = "teleport"
USER_KINDS = {1: "human", 2: "service", 3: "system"}
"""``UserKind`` of ``events.proto``."""

_RESOURCES = (
    ("database", "db_service"),
    ("kubernetes_cluster", "kubernetes_cluster"),
    ("application", "app_name"),
    ("windows_desktop", "desktop_name"),
    ("windows_desktop", "desktop_addr"),
    ("server", "server_id"),
    ("server", "server_hostname"),
    ("ec2_instance", "instance_id"),
)
_KINDS = {"app": "application", "db": "database", "kube_cluster": "kubernetes_cluster", "node": "server"}
"""Our kind of a resource that a request or certificate names; other kinds stay as they are."""
_IN_KUBERNETES = frozenset({
    "certificatesigningrequest", "clusterrole", "clusterrolebinding", "configmap", "cronjob", "daemonset", "deployment",
    "ingress", "job", "kube_node", "namespace", "persistentvolume", "persistentvolumeclaim", "pod", "replicaset",
    "role", "rolebinding", "secret", "service", "serviceaccount", "statefulset",
})  # fmt: skip
"""Kinds of resources inside a Kubernetes cluster, which is named in their place. Newer ones start with ``kube:``."""
_LABELS = ("db_labels", "kubernetes_labels", "kube_labels", "app_labels", "desktop_labels", "server_labels")


def source_of(record: Fields, instance: str | None) -> EventSource:
    """Return the source. Event and code form ``native_type``; ``uid`` is ``native_id``.

    Old records have no ``uid``: their id is made from the content, so reading them again gives the same id.
    """
    event = record.required_text("event")
    code = record.text("code")
    native_id = record.text("uid") or record_id(record.values)
    native_type = f"{event}/{code}" if code else event
    return EventSource(SYSTEM, instance or record.text("cluster_name") or SYSTEM, native_id, native_type)


def issuer_of_requests(record: Fields) -> IssuingSource | None:
    """Return the root cluster of a user who acts on a leaf cluster: it issued the user's access requests."""
    root, own = record.text("user_cluster_name"), record.text("cluster_name")
    return IssuingSource(SYSTEM, root) if root and own and root != own else None


def subject_of(record: Fields) -> Subject:
    """Return who used the access; ``unknown`` if the record names no user."""
    user = record.text("user")
    if user is None:
        return Subject(UNKNOWN)
    return Subject(user, _kind(record), email_in(user))


def actor_of(record: Fields) -> Actor:
    """Return who caused the event: the impersonator if there is one, else the reviewer, updater or user."""
    user, impersonator, bot = record.text("user"), record.text("impersonator"), record.text("bot_name")
    if impersonator is not None:
        return Actor(impersonator, on_behalf_of=user)
    if bot is not None and user is not None and user != f"bot-{bot}":
        return Actor(bot, _kind(record), on_behalf_of=user)
    decider = record.first_text("reviewer", "updated_by")
    if decider is not None:
        return Actor(decider)
    return Actor(UNKNOWN) if user is None else Actor(user, _kind(record))


def _kind(record: Fields) -> str:
    if record.text("bot_name"):
        return "agent" if (record.text("event") or "").startswith(MCP_PREFIX) else "service"
    return USER_KINDS.get(record.integer("user_kind") or 0, UNKNOWN)


def requested(item: Fields) -> tuple[Resource, str | None]:
    """Return a resource that a request or certificate names, as sessions name it, and the part of it, if limited."""
    kind, name, inner = item.required_text("kind"), item.required_text("name"), item.text("sub_resource")
    if kind in _IN_KUBERNETES or kind.startswith("kube:"):
        return Resource("kubernetes_cluster", name), f"{kind} {inner}" if inner else kind
    return Resource(_KINDS.get(kind, kind), name), inner


def all_requested(record: Fields, *names: str) -> tuple[tuple[Resource, str | None], ...]:
    """Return the resources in the first of several members that has some. Newer ones wrap each id with constraints."""
    for name in names:
        items = record.objects(name)
        if items:
            return tuple(dict.fromkeys(requested(one.object("id") if one.has("id") else one) for one in items))
    return ()


def entitlement_on(role: str, inner: str | None) -> str:
    """Return the entitlement on a resource, or on a part of it."""
    return f"{role} on {inner}" if inner else role


def resource_of(record: Fields) -> Resource:
    """Return the accessed resource; the cluster if the record names nothing more specific."""
    if (record.text("event") or "").startswith("git."):
        return Resource("git_server", record.first_text("server_id", "server_hostname") or UNKNOWN)
    for kind, name in _RESOURCES:
        value = record.text(name)
        if value is not None:
            return Resource(kind, value, _environment(record))
    return cluster_of(record)


def cluster_of(record: Fields) -> Resource:
    """Return the cluster as a resource."""
    return Resource("teleport_cluster", record.text("cluster_name") or UNKNOWN)


def entitlement_of(record: Fields) -> str | None:
    """Return the account used on the resource: database user, Windows user, AWS role or login."""
    return record.first_text("db_user", "windows_user", "aws_role_arn", "login")


def client_ip_of(record: Fields) -> str | None:
    """Return the client's address without its port. Desktop records contain the desktop's address instead."""
    address = record.text("addr.remote")
    if address is None or address == record.text("desktop_addr"):
        return None
    host = address.rsplit(":", 1)[0] if address.count(":") == 1 or "]:" in address else address
    return ip_address_in(host.strip("[]"))


def grant_of(record: Fields) -> str | None:
    """Return the access request of a session; None if there are several."""
    requests = record.texts("access_requests")
    return requests[0] if len(requests) == 1 else None


def session_id_of(record: Fields, source: EventSource) -> str:
    """Return the session's id, or a synthesized one if Teleport records the action without a session."""
    native = record.first_text("sid", "session_chunk_id", "command_id")
    return native or synthesized("session", source.native_type, source.native_id)


def customer_of(record: Fields) -> str | None:
    """Return the customer that the labels of the resource, or the annotations of the access request, name."""
    named = (record.values.get(name) for name in (*_LABELS, "annotations"))
    return customer_in(*(one for one in named if isinstance(one, dict)))


def _environment(record: Fields) -> str | None:
    found = (record.object(labels).first_text("env", "environment") for labels in _LABELS)
    return next(filter(None, found), None)
