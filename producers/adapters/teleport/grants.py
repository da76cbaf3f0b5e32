"""Teleport: access requests and certificates, as ``request.*`` and ``grant.*``; locks, lists and rules beside them."""

from __future__ import annotations

from typing import Any

from ....schemas.event import Actor, Approval, Event, Resource, Subject
from ...json_fields import Fields
from ..contract import Mapped, Skipped
from ..values import UNKNOWN
from .access_lists import map_members
from .identity import actor_of, all_requested, cluster_of, entitlement_on, subject_of
from .locks import map_lock
from .policies import map_policy
from .seen import Seen

_DECISIONS = {"APPROVED": "approved", "DENIED": "denied", "PROMOTED": "approved"}
_REQUESTED = ("resource_ids", "RequestedResourceAccessIDs", "requested_resource_access_ids")
_ALLOWED = ("allowed_resource_ids", "AllowedResourceAccessIDs", "allowed_resource_access_ids")
_TYPES = {"approved": "request.approved", "denied": "request.denied"}


def map_access(event: str, record: Fields, base: dict[str, Any], seen: Seen) -> Mapped | Skipped | None:
    """Return the events of a record about access, or None for another type; ``base`` are their common fields."""
    if event == "access_request.create":
        return _created(record, base)
    if event in ("access_request.update", "access_request.review"):
        return _decided(event, record, base)
    if event == "access_request.delete":
        return _each_resource(record, "request.cancelled", base, subject=Subject(UNKNOWN), outcome="success")
    if event == "access_request.expire":
        return _expired(record, base, seen)
    if event == "cert.create":
        return _certificate(record, base)
    policy, members = map_policy(event, record, base), map_members(event, record, base)
    if policy is None or isinstance(policy, Skipped):
        return policy or members
    given = () if members is None or isinstance(members, Skipped) else members
    return (*policy, *map_lock(event, record, base, seen), *given)


def _each_resource(record: Fields, event_type: str, base: dict[str, Any], **more: Any) -> Mapped:
    """Return one event per requested resource, or one for the cluster if the request names only roles."""
    asked = all_requested(record, *_REQUESTED) or ((cluster_of(record), None),)
    role = ",".join(record.texts("roles")) or UNKNOWN
    fields = {
        "event_type": event_type,
        "request_id": record.required_text("id"),
        "actor": actor_of(record),
        **base,
        **more,
    }
    return tuple(
        Event(**fields, resource=resource, entitlement=entitlement_on(role, inner), ordinal=ordinal)
        for ordinal, (resource, inner) in enumerate(asked)
    )


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


def _expired(record: Fields, base: dict[str, Any], seen: Seen) -> Mapped:
    """Return the expiry of a request, and of its grant if the end of the access (``expires``) has passed.

    No certificate of the request outlives that end. A request that was never approved has no grant to end.
    """
    by_teleport = {"subject": Subject(UNKNOWN), "actor": Actor("teleport", "system"), "outcome": "success"}
    events = _each_resource(record, "request.expired", base, **by_teleport)
    until, request = record.time("expires"), record.required_text("id")
    state = record.text("state") or ("PENDING" if (base["source"].instance, request) in seen.undecided else "APPROVED")
    if until is not None and until <= base["occurred_at"] and _DECISIONS.get(state) == "approved":
        events += _each_resource(
            record,
            "grant.expired",
            base,
            grant_id=request,
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
        "expires_at": until,
        "expiry_source": "native" if until else "unknown",
        "ends_by_itself": True if until else None,
        "outcome": "success",
        **base,
        "client_ip": base["client_ip"] or identity.text("client_ip"),
    }
    role = ",".join(identity.texts("roles")) or f"{kind} certificate"
    allowed = _certified(identity, record)
    requests = identity.texts("access_requests")
    ids: list[dict[str, Any]] = [{"grant_id": one, "grant_id_kind": "native", "request_id": one} for one in requests]
    if not ids:
        ids = [{"grant_id": f"certificate:{base['source'].native_id}", "grant_id_kind": "synthesized"}]
    return tuple(
        Event(**grant, **_of_resource(given, number, one), resource=one[0], entitlement=entitlement_on(role, one[1]),
              ordinal=place * len(allowed) + number)
        for place, given in enumerate(ids)
        for number, one in enumerate(allowed)
    )  # fmt: skip


def _of_resource(ids: dict[str, Any], number: int, allowed: tuple[Resource, str | None]) -> dict[str, Any]:
    """Return the ids of the grant on one of several resources. The first has the id that sessions name."""
    if not number:
        return ids
    resource, inner = allowed
    parts = (ids["grant_id"], resource.kind, resource.id, *([inner] if inner else []))
    return {**ids, "grant_id": "/".join(parts), "grant_id_kind": "synthesized"}


def _certified(identity: Fields, record: Fields) -> tuple[tuple[Resource, str | None], ...]:
    """Return the resources that a certificate is good for, each with the part of it, if it is limited to one."""
    allowed = all_requested(identity, *_ALLOWED)
    if allowed:
        return allowed
    targets = {
        "database": identity.object("route_to_database").text("service_name"),
        "kubernetes_cluster": identity.text("kubernetes_cluster"),
        "application": identity.object("route_to_app").text("name"),
    }
    for kind, target in targets.items():
        if target is not None:
            return ((Resource(kind, target), None),)
    name = identity.text("teleport_cluster") or identity.text("route_to_cluster") or record.text("cluster_name")
    return ((Resource("teleport_cluster", name or UNKNOWN), None),)
