"""Kubernetes: sessions in containers, requests that are forwarded to workloads, and refused requests."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from ....schemas.event import Action, Event
from ...json_fields import Fields
from ..contract import Mapped
from ..values import synthesized
from .request import Request, in_namespace

CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
POD_NAME = "authentication.kubernetes.io/pod-name"
STREAMS = ("pods/exec", "pods/attach", "pods/portforward")
_PROXIES = ("nodes/proxy", "pods/proxy", "services/proxy")
_OF_KUBELET = ("exec", "run", "attach", "portForward", "cri")
"""Paths of the kubelet by which a proxied request runs commands in a container."""
_CONNECTS = ("create", "get")


def is_stream(request: Request) -> bool:
    """Return whether this is a session in a container. WebSockets connect with ``get``."""
    return request.target.kind in STREAMS and request.verb in _CONNECTS


def map_session(request: Request) -> Mapped | None:
    """Return the events of a session, or of a request that is forwarded to a workload; None for any other request."""
    if is_stream(request):
        return _stream(request)
    if request.target.kind == "pods/ephemeralcontainers" and request.verb in ("update", "patch"):
        return _ephemeral(request)
    if request.target.kind in _PROXIES and (not request.by_component or _runs_commands(request)):
        return _proxied(request)
    return None


def map_refusal(request: Request) -> Mapped | None:
    """Return the event of a request that was denied to somebody who is not a part of the cluster; None for others."""
    if request.outcome != "denied" or request.by_component or not request.target.resource:
        return None
    wanted = in_namespace(f"{request.verb} {request.target.kind} {request.target.name}".strip(),
                          request.target.namespace)  # fmt: skip
    return (request.event("session.denied", **_session(request), entitlement=wanted),)


def _session(request: Request) -> dict[str, Any]:
    """Return the ids of a session. A token that belongs to no pod is the grant of its session."""
    extra = request.user.object("extra")
    credential = next(iter(extra.texts(CREDENTIAL_ID)), None)
    token = credential is not None and credential.startswith("JTI=") and not extra.has(POD_NAME)
    grant = {"grant_id": credential, "grant_id_kind": "native"} if token else {}
    return {"session_id": request.audit_id, "reason": request.allowed_by, **grant}


def _entitlement(request: Request, what: str, container: str | None = None) -> str:
    """Return what a session may do, and where: ``exec on default/web-0/app``."""
    return f"{what} on {'/'.join(filter(None, (request.target.place, container)))}"


def _stream(request: Request) -> Mapped:
    """Map a session. Its start is the same event in the records of its start and of its end."""
    what = request.target.subresource
    container = next(iter(request.parameters("container")), None)
    common = {**_session(request), "entitlement": _entitlement(request, what, container)}
    if request.stage == "Panic":
        return (request.event("session.ended", **common),)
    if request.refused:
        return (request.event("session.denied", **common, action=_command(request)),)
    began = {**common, "occurred_at": request.began}
    events = [request.event("session.started", **began)]
    action = _command(request)
    if action is not None:
        # No record has the result of a command.
        events.append(request.event("session.command", **{**began, "outcome": "unknown"}, action=action))
    if request.stage == "ResponseComplete" and request.record.has("requestReceivedTimestamp") and _has_end(request):
        events.append(request.event("session.ended", **common))
    return tuple(events)


def _has_end(request: Request) -> bool:
    """Return whether the record of the whole request has the time of its end."""
    return request.ended > request.began


def _command(request: Request) -> Action | None:
    """Return what a session was started with. A command may also be in the object of a GKE entry."""
    if request.target.subresource == "portforward":
        ports = tuple(port for one in request.parameters("ports") for port in one.split(",") if port)
        return Action(command="portforward", args=ports) if ports else None
    if request.target.subresource != "exec":
        return None
    asked = request.asked.values.get("command")
    words = request.parameters("command") or (request.asked.texts("command") if isinstance(asked, list) else ())
    return _action(words)


def _action(words: tuple[str, ...]) -> Action | None:
    if not words:
        return None
    return Action(command=words[0], args=words[1:])


def _ephemeral(request: Request) -> Mapped:
    """Map the start of ephemeral containers. No record reports their end."""
    containers = [one for one in _containers(request) if one.text("name") or one.text("image")]
    names = ",".join(filter(None, (one.text("name") for one in containers)))
    common = {**_session(request), "entitlement": _entitlement(request, "ephemeral container", names or None)}
    if request.refused:
        return (request.event("session.denied", **common),)
    events: list[Event] = [request.event("session.started", **common)]
    for number, one in enumerate(containers):
        words = one.texts("command") + one.texts("args")
        image = one.text("image")
        action = _action(words) or Action(command=image) if image or words else None
        if action is not None:
            own = {**common, "outcome": "unknown", "action": action, "ordinal": number}
            events.append(request.event("session.command", **own))
    return tuple(events)


def _containers(request: Request) -> tuple[Fields, ...]:
    """Return the containers in a request: a pod, a merge patch, or the values of a JSON Patch."""
    found = request.record.values.get("requestObject")
    if not isinstance(found, list):
        return request.asked.object("spec").objects("ephemeralContainers")
    values: list[Any] = []
    for step in found:
        value = step.get("value") if isinstance(step, dict) else None
        values += value if isinstance(value, list) else [value]
    location = request.record.location
    return tuple(Fields(one, location, "requestObject.") for one in values if isinstance(one, dict))


def _runs_commands(request: Request) -> bool:
    """Return whether a request to a kubelet runs a command in a container, whoever sends it."""
    if request.target.kind != "nodes/proxy" or request.by_node:
        return False
    step = _proxied_path(request).partition("/")[0]
    return step in _OF_KUBELET


def _proxied_path(request: Request) -> str:
    try:
        path = urlsplit(request.uri).path
    except ValueError:
        return ""
    return path.partition("/proxy/")[2]


def _proxied(request: Request) -> Mapped:
    common = {**_session(request), "entitlement": _entitlement(request, "proxy")}
    if request.outcome == "denied":
        return (request.event("session.denied", **common),)
    query = urlsplit(request.uri).query if request.uri and _proxied_path(request) else ""
    called = "/".join(("", _proxied_path(request))) + (f"?{query}" if query else "")
    action = Action(command=f"proxy {request.verb}", args=(called,))
    common["session_id"] = synthesized("proxy_session", request.username, request.target.kind, request.target.place)
    return (request.event("session.command", **common, action=action),)
