"""Teleport: access requests, certificates, locks and access lists, as ``request.*`` and ``grant.*``."""

from __future__ import annotations

from typing import Any

from ....schemas.event import Actor, Approval, Event, Resource, Subject
from ...json_fields import Fields
from ..contract import Mapped, Skipped
from ..values import UNKNOWN
from .identity import actor_of, cluster_of, subject_of

_DECISIONS = {"APPROVED": "approved", "DENIED": "denied", "PROMOTED": "approved"}
_TYPES = {"approved": "request.approved", "denied": "request.denied"}


def map_access(event: str, record: Fields, base: dict[str, Any]) -> Mapped | Skipped | None:
    """Return the events of a record about access, or None for another type; ``base`` are their common fields."""
    if event == "access_request.create":
        return _created(record, base)
    if event in ("access_request.update", "access_request.review"):
        return _decided(event, record, base)
    if event == "access_request.delete":
        return _each_resource(record, "request.cancelled", base, subject=Subject(UNKNOWN), outcome="success")
    if event == "access_request.expire":
        return _expired(record, base)
    if event == "cert.create":
        return _certificate(record, base)
    if event == "lock.created":
        return _locked(record, base)
    if event.startswith("access_list.member."):
        return _members(event, record, base)
    return None


def _each_resource(record: Fields, event_type: str, base: dict[str, Any], **more: Any) -> Mapped:
    """Return one event per requested resource, or one for the cluster if the request names only roles."""
    resources = tuple(_requested(item) for item in record.objects("resource_ids")) or (cluster_of(record),)
    fields = {
        "event_type": event_type,
        "request_id": record.required_text("id"),
        "actor": actor_of(record),
        "entitlement": ",".join(record.texts("roles")) or UNKNOWN,
        **base,
        **more,
    }
    return tuple(Event(**fields, resource=resource, ordinal=ordinal) for ordinal, resource in enumerate(resources))


def _requested(item: Fields) -> Resource:
    name = item.required_text("name")
    inner = item.text("sub_resource")
    return Resource(item.required_text("kind"), f"{name}/{inner}" if inner else name)


def _requested_end(record: Fields) -> dict[str, Any]:
    until = record.time("max_duration") or record.time("expires")
    return {"expires_at": until, "expiry_source": "native" if until else None}


def _created(record: Fields, base: dict[str, Any]) -> Mapped:
    end = _requested_end(record)
    until = end["expires_at"]
    seconds = int((until - base["occurred_at"]).total_seconds()) if until else None
    asked = {
        "subject": subject_of(record),
        "starts_at": record.time("assume_start_time"),
        **end,
        "requested_seconds": seconds if seconds is not None and seconds >= 0 else None,
    }
    events = _each_resource(record, "request.created", base, outcome="pending", **asked)
    decision = _DECISIONS.get(record.text("state") or "")
    if decision is not None:
        # An administrator or a plugin can create a request that is already decided.
        events += _each_resource(record, _TYPES[decision], base, outcome=_outcome(decision), **asked)
    return events


def _decided(event: str, record: Fields, base: dict[str, Any]) -> Mapped | Skipped:
    state = record.text("state") or ""
    review = event == "access_request.review"
    decision = _DECISIONS.get((record.text("proposed_state") if review else None) or state)
    if decision is None:
        return Skipped("nothing_changed", f"{event} leaves the request in state {state or UNKNOWN}")
    # One of several required reviews does not decide the request: its outcome is pending.
    settled = _DECISIONS.get(state) == decision
    reviewer = record.first_text("reviewer", "delegator", "updated_by", "user")
    approval = Approval(reviewer or UNKNOWN, decision, at=base["occurred_at"], reason=base["reason"])
    return _each_resource(
        record,
        _TYPES[decision],
        base,
        subject=Subject(UNKNOWN),
        actor=Actor(reviewer) if reviewer else Actor(UNKNOWN),
        approvals=(approval,),
        **_requested_end(record),
        outcome=_outcome(decision) if settled else "pending",
    )


def _outcome(decision: str) -> str:
    return "success" if decision == "approved" else "denied"


def _expired(record: Fields, base: dict[str, Any]) -> Mapped:
    """Return the expiry of a request, and of its grant if the end of the access (``expires``) has passed.

    No certificate of the request outlives that end. A pending request expires earlier; it has no grant to end.
    """
    by_teleport = {"subject": Subject(UNKNOWN), "actor": Actor("teleport", "system"), "outcome": "success"}
    events = _each_resource(record, "request.expired", base, **by_teleport)
    until = record.time("expires")
    if until is not None and until <= base["occurred_at"]:
        events += _each_resource(
            record,
            "grant.expired",
            base,
            grant_id=record.required_text("id"),
            grant_id_kind="native",
            expires_at=until,
            expiry_source="native",
            removal_evidence="deadline",
            **by_teleport,
        )
    return events


def _certificate(record: Fields, base: dict[str, Any]) -> Mapped | Skipped:
    kind = record.text("cert_type") or "user"
    if kind != "user":
        return Skipped("machine_identity", f"a {kind} certificate")
    identity = record.object("identity")
    until = identity.time("expires")
    grant = {
        "event_type": "grant.activated",
        "subject": subject_of(identity),
        "actor": actor_of(identity),
        "resource": _certified(identity, record),
        "entitlement": ",".join(identity.texts("roles")) or f"{kind} certificate",
        "expires_at": until,
        "expiry_source": "native" if until else "unknown",
        "outcome": "success",
        **base,
        "client_ip": base["client_ip"] or identity.text("client_ip"),
    }
    requests = identity.texts("access_requests")
    if not requests:
        certificate = f"certificate:{base['source'].native_id}"
        return (Event(**grant, grant_id=certificate, grant_id_kind="synthesized"),)
    return tuple(
        Event(**grant, grant_id=request, grant_id_kind="native", request_id=request, ordinal=ordinal)
        for ordinal, request in enumerate(requests)
    )


def _certified(identity: Fields, record: Fields) -> Resource:
    allowed = identity.objects("allowed_resource_ids")
    if len(allowed) == 1:
        return _requested(allowed[0])
    targets = {
        "database": identity.object("route_to_database").text("service_name"),
        "kubernetes_cluster": identity.text("kubernetes_cluster"),
        "application": identity.object("route_to_app").text("name"),
    }
    for kind, target in targets.items():
        if target is not None:
            return Resource(kind, target)
    name = identity.text("teleport_cluster") or identity.text("route_to_cluster") or record.text("cluster_name")
    return Resource("teleport_cluster", name or UNKNOWN)


def _locked(record: Fields, base: dict[str, Any]) -> Mapped | Skipped:
    """Map a lock: it ends sessions and blocks new ones immediately."""
    name = record.text("name") or ""
    if not record.has("target"):
        return Skipped("lock_target_unknown", f"lock {name} has no target")
    target = record.object("target")
    request, user = target.text("access_request"), target.text("user")
    if request is None and user is None:
        return Skipped("lock_not_a_person", f"lock {name} targets neither a user nor an access request")
    return (
        Event(
            event_type="grant.revoked",
            subject=Subject(user) if user else Subject(UNKNOWN),
            actor=actor_of(record),
            resource=cluster_of(record),
            entitlement=UNKNOWN if request else "*",
            grant_id=request or f"user:{user}",
            grant_id_kind="native" if request else "synthesized",
            request_id=request,
            removal_evidence="api_accepted",
            outcome="success",
            **base,
        ),
    )


def _members(event: str, record: Fields, base: dict[str, Any]) -> Mapped | Skipped:
    failed = (record.text("code") or "").endswith("E")
    kinds = {
        "access_list.member.create": "grant.failed" if failed else "grant.activated",
        "access_list.member.delete": None if failed else "grant.revoked",
    }
    event_type = kinds.get(event)
    members = record.objects("members")
    if event_type is None or not members:
        return Skipped("nothing_changed", f"{event} {record.text('code') or ''} changes no membership")
    name = record.text("access_list_name") or UNKNOWN
    more: dict[str, Any] = {"outcome": "failure" if failed else "success"}
    if event_type == "grant.activated":
        more["expiry_source"] = "unknown"
    if event_type == "grant.revoked":
        more["removal_evidence"] = "api_accepted"
    return tuple(
        Event(
            event_type=event_type,
            subject=Subject(member.required_text("member_name")),
            actor=actor_of(record),
            resource=Resource("access_list", name),
            entitlement=record.text("access_list_title") or name,
            grant_id=f"access_list:{name}/{member.required_text('member_name')}",
            grant_id_kind="synthesized",
            ordinal=ordinal,
            **{**base, "reason": member.text("reason") or base["reason"]},
            **more,
        )
        for ordinal, member in enumerate(members)
    )
