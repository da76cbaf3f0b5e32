"""Kubernetes: tokens of service accounts and client certificates: credentials that end by themselves.

Sources: the API reference of ``authentication.k8s.io/v1`` and ``certificates.k8s.io/v1``, "Certificates and Certificate
Signing Requests", and KEP-4193 about the ids of tokens in audit records.
"""

from __future__ import annotations

from typing import Any

from ....schemas.event import Approval, Event
from ...json_fields import Fields
from ..contract import Mapped, Skipped
from ..values import UNKNOWN, grant_ids, ordinal_of, synthesized, time_after
from .certificate import end_of_certificate
from .request import NODE, SERVICE_ACCOUNT, Request, user_subject

ISSUED_ID = "authentication.kubernetes.io/issued-credential-id"
_CERTIFICATES = "certificates.k8s.io"
_SIGNERS_OF_NODES = ("kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving")
_NODE_REQUESTERS = (NODE, "system:bootstrap:")
_DEFAULT_SECONDS = 3600
_EXTENDED_SECONDS = 3607
"""Asked for by kubelets: the API server may give a year to such a token of a pod, and answers with this time anyway."""


def map_token(request: Request) -> Mapped | Skipped | None:
    """Return the event of a request for a token of a service account; None for any other request."""
    target = request.target
    if (target.kind, request.verb) != ("serviceaccounts/token", "create"):
        return None
    account = f"{SERVICE_ACCOUNT}{target.namespace}:{target.name}"
    if request.by_node:
        return Skipped("workload_token", f"{account} for {request.username}")
    fields: dict[str, Any] = {"entitlement": account, "session_id": None}
    if request.refused:
        refused = synthesized("token_refused", request.native_id)
        return (request.event("grant.failed", **fields, **grant_ids(None, refused, request.native_id)),)
    issued = request.annotations.text(ISSUED_ID)
    ids = grant_ids(issued, "token", request.native_id)
    return (request.event("grant.activated", **fields, **ids, **_token_end(request)),)


def _token_end(request: Request) -> dict[str, Any]:
    """Return the end of a token: from the response, else from the requested time, which the server may shorten."""
    asked = request.asked.object("spec")
    native = request.answer.object("status").time("expirationTimestamp")
    seconds = asked.integer("expirationSeconds")
    if not request.asked.values and native is None:
        return {"expiry_source": "unknown"}
    if seconds == _EXTENDED_SECONDS and asked.object("boundObjectRef").text("kind") == "Pod":
        return {"expiry_source": "unknown", "requested_seconds": seconds}
    until = native or time_after(request.ended, seconds if seconds and seconds > 0 else _DEFAULT_SECONDS)
    return {
        "expires_at": until,
        "expiry_source": "native" if native else "derived" if until else "unknown",
        "ends_by_itself": True if until else None,
        "requested_seconds": seconds if seconds and seconds > 0 else None,
    }


def map_certificate(request: Request) -> Mapped | Skipped | None:
    """Return the events of a certificate signing request, its approval and its issue; None for any other request."""
    target = request.target
    if target.group != _CERTIFICATES or target.resource != "certificatesigningrequests":
        return None
    changes = request.verb in ("update", "patch")
    if not (request.verb in ("create", "delete", "deletecollection") or changes):
        return None
    found = request.answer if request.answer.has("spec") else request.asked
    spec = found.object("spec")
    requester = spec.text("username") or (request.username if request.verb == "create" else "")
    if spec.text("signerName") in _SIGNERS_OF_NODES and requester.startswith(_NODE_REQUESTERS):
        return Skipped("node_certificate", f"{request.verb} {target.kind} {target.name}")
    if request.verb == "create" and not target.subresource:
        return (_requested(request, found, spec),)
    if changes and target.subresource == "approval":
        return _decided(request, found, spec)
    if changes and target.subresource == "status":
        return _issued(request, found, spec)
    return Skipped("request_cleanup", f"{request.verb} {target.kind} {target.name}")


def _common(request: Request, found: Fields, spec: Fields) -> dict[str, Any]:
    """Return the request's id and what all its events name. Names are used again: the UID is preferred."""
    metadata = found.object("metadata")
    reference = request.record.object("objectRef").text("uid")
    id = metadata.text("uid") or reference or metadata.text("name") or request.target.name or request.native_id
    seconds = spec.integer("expirationSeconds")
    return {
        "request_id": id,
        "subject": user_subject(spec.text("username") or (request.username if request.verb == "create" else UNKNOWN)),
        "entitlement": spec.text("signerName") or UNKNOWN,
        "requested_seconds": seconds if seconds is not None and seconds >= 0 else None,
    }


def _requested(request: Request, found: Fields, spec: Fields) -> Event:
    fields = _common(request, found, spec)
    if request.refused:
        fields["request_id"] = synthesized("certificate_request_refused", request.native_id)
        return request.event("request.created", **fields)
    return request.event("request.created", **{**fields, "outcome": "pending"})


def _decided(request: Request, found: Fields, spec: Fields) -> Mapped | Skipped:
    fields = _common(request, found, spec)
    if request.refused:
        return (_refused(request, fields),)
    decisions = {
        condition.text("type"): condition
        for condition in found.object("status").objects("conditions")
        if condition.text("type") in ("Approved", "Denied")
    }
    if not decisions:
        return _undecided(request, found)
    denied = "Denied" in decisions
    condition = decisions["Denied" if denied else "Approved"]
    reason = condition.text("message") or condition.text("reason")
    decision = "denied" if denied else "approved"
    approval = Approval(request.username, decision, at=request.ended, reason=reason)
    outcome = "denied" if denied else "success"
    own = {**fields, "approvals": (approval,), "reason": reason, "outcome": outcome}
    return (request.event(f"request.{decision}", **own),)


def _issued(request: Request, found: Fields, spec: Fields) -> Mapped | Skipped:
    fields = _common(request, found, spec)
    if request.refused:
        return (_refused(request, fields),)
    status = found.object("status")
    certificate = status.text("certificate")
    failed = next((one for one in status.objects("conditions") if one.text("type") == "Failed"), None)
    if certificate is None and failed is not None:
        error = failed.text("message") or failed.text("reason")
        return (_refused(request, {**fields, "outcome": "failure", "error": error}),)
    if certificate is None:
        return _undecided(request, found)
    until = end_of_certificate(certificate)
    native = until is not None
    until = until or time_after(request.ended, fields["requested_seconds"])
    end = {
        "expires_at": until,
        "expiry_source": "native" if native else "derived" if until else "unknown",
        # A signer may give more time than requested.
        "ends_by_itself": True if native else None,
    }
    ids = {"grant_id": fields["request_id"], "grant_id_kind": "native"}
    return (request.event("grant.activated", **fields, **ids, **end),)


def _undecided(request: Request, found: Fields) -> Skipped:
    reason = "nothing_changed" if "status" in found.values else "content_not_logged"
    return Skipped(reason, f"{request.verb} {request.target.kind} {request.target.name}")


def _refused(request: Request, fields: dict[str, Any]) -> Event:
    """Map a refused approval or issue: a grant of its own, so that the request is not affected."""
    grant = synthesized("certificate_refused", request.native_id)
    own = {"grant_id": grant, "grant_id_kind": "synthesized", "request_id": None, "ordinal": ordinal_of(grant)}
    return request.event("grant.failed", **{**fields, **own})
