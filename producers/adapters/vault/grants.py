"""Vault: the issue, renewal and revocation of tokens, leases and certificates, as ``grant.*``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ....schemas.event import Event, Resource, Subject
from ..contract import Mapped
from ..values import UNKNOWN, grant_ids, time_after
from .entry import AuditEntry, policies
from .request_kind import LEASE_RENEWALS, LEASE_REVOKES, OLD_LEASE_REVOKES, RequestKind, below

_HMAC = "hmac-"


def map_grant(entry: AuditEntry) -> Mapped | None:
    """Return the events of a successful request that changed access; None for any other request."""
    kind = entry.kind
    if kind in (RequestKind.LOGIN, RequestKind.TOKEN_ISSUED) and entry.response.has("auth"):
        return (_token(entry, "grant.activated"),)
    if kind is RequestKind.TOKEN_RENEWED and entry.response.has("auth"):
        return (_token(entry, "grant.extended"),)
    if kind is RequestKind.TOKEN_REVOKED:
        return (_token_revoked(entry),)
    if kind is RequestKind.LEASE_ISSUED:
        return (_lease(entry, "grant.activated", entry.response.object("secret").required_text("lease_id")),)
    if kind is RequestKind.LEASE_RENEWED:
        lease = entry.response.object("secret").text("lease_id") or _asked(entry, LEASE_RENEWALS)
        return (_lease(entry, "grant.extended", lease or UNKNOWN),)
    if kind is RequestKind.LEASE_REVOKED:
        return (_lease_revoked(entry),)
    if kind is RequestKind.CERTIFICATE_ISSUED:
        return (_certificate(entry),)
    if kind is RequestKind.CERTIFICATE_REVOKED and (serial := entry.request.object("data").text("serial_number")):
        resource = _path(entry, entry.path.rpartition("/")[0])
        return (_revoked(entry, resource, UNKNOWN, grant_id=entry.in_vault(serial)),)
    if kind is RequestKind.WRAPPED:
        return _wrapped(entry)
    return None


def _event(entry: AuditEntry, event_type: str, resource: Resource, entitlement: str, **own: Any) -> Event:
    fields: dict[str, Any] = {
        "subject": entry.holder(entry.auth),
        "grant_id_kind": "native",
        "session_id": entry.token()["session_id"],
        "outcome": "success",
        **entry.common(),
        **own,
    }
    return Event(event_type=event_type, resource=resource, entitlement=entitlement, **fields)


def _given(
    entry: AuditEntry, resource: Resource, entitlement: str, until: datetime | None, source: str = UNKNOWN, **own: Any
) -> Event:
    own = {"event_type": "grant.activated", "expires_at": until, "expiry_source": source if until else UNKNOWN, **own}
    return _event(entry, resource=resource, entitlement=entitlement, **own)


def _revoked(entry: AuditEntry, resource: Resource, entitlement: str, **own: Any) -> Event:
    own = {"subject": Subject(UNKNOWN), "removal_evidence": "api_accepted", **own}
    return _event(entry, "grant.revoked", resource, entitlement, **own)


def _path(entry: AuditEntry, path: str) -> Resource:
    return Resource("vault_path", entry.in_vault(path))


def _namespace(entry: AuditEntry) -> Resource:
    return Resource("vault_namespace", entry.namespace)


def _token(entry: AuditEntry, event_type: str) -> Event:
    auth = entry.response.object("auth")
    # Batch tokens have no accessor; only the request that created one can identify it.
    ids = grant_ids(auth.text("accessor"), "token", entry.source.native_id)
    until = entry.ends_after(auth, renewed=event_type == "grant.extended")
    batch = True if until and auth.text("token_type") == "batch" else None
    own = {"event_type": event_type, "subject": entry.holder(auth), "ends_by_itself": batch, **ids}
    return _given(entry, _namespace(entry), policies(auth) or UNKNOWN, until, "derived", **own)


def _token_revoked(entry: AuditEntry) -> Event:
    own = entry.path.endswith("revoke-self")
    asked = entry.request.object("data")
    named = asked.text("accessor") or asked.text("token") or below(entry.path, ("auth/token/revoke",))
    ids = grant_ids(entry.accessor if own else named, "token", entry.source.native_id)
    subject = entry.holder(entry.auth) if own else Subject(UNKNOWN)
    return _revoked(entry, _namespace(entry), (own and policies(entry.auth)) or UNKNOWN, subject=subject, **ids)


def _lease(entry: AuditEntry, event_type: str, lease: str) -> Event:
    path, role = _leased(lease if "/" in lease else entry.path)
    # Audit entries contain no lease duration; only a certificate that is issued with a lease has an end.
    until = entry.data.unix_time("expiration") if entry.data.has("serial_number") else None
    own = {"event_type": event_type, "grant_id": entry.in_vault(lease), "ends_by_itself": True if until else None}
    return _given(entry, _path(entry, path), role, until, "native", **own)


def _lease_revoked(entry: AuditEntry) -> Event:
    lease = _asked(entry, (*LEASE_REVOKES, *OLD_LEASE_REVOKES))
    if lease and ("revoke-prefix" in entry.path or "revoke-force" in entry.path):
        prefix = f"prefix:{entry.in_vault(lease)}"
        return _revoked(entry, _path(entry, lease), "*", grant_id=prefix, grant_id_kind="synthesized")
    resource, role = Resource("vault_lease", UNKNOWN), UNKNOWN
    if lease and not lease.startswith(_HMAC):
        path, role = _leased(lease)
        resource = _path(entry, path)
    named = lease and entry.in_vault(lease)
    return _revoked(entry, resource, role, **grant_ids(named, "lease", entry.source.native_id))


def _asked(entry: AuditEntry, prefixes: tuple[str, ...]) -> str | None:
    """Return the lease that a request names: verbatim in its path, or as an HMAC in its data."""
    data = entry.request.object("data")
    return below(entry.path, prefixes) or data.text("lease_id") or data.text("prefix")


def _leased(lease: str) -> tuple[str, str]:
    """Return the engine's path and the role: the role of ``database/creds/readonly/<id>`` is ``readonly``."""
    parts = [part for part in lease.split("/") if part]
    path = parts[:-1] if len(parts) > 2 else parts
    return "/".join(path) or UNKNOWN, (path[-1] if path else UNKNOWN)


def _certificate(entry: AuditEntry) -> Event:
    mount, _, role = entry.path.rpartition("/")
    serial = entry.data.required_text("serial_number")
    until, id = entry.data.unix_time("expiration"), entry.in_vault(serial)
    own = {"grant_id": id, "ends_by_itself": True if until else None}
    return _given(entry, _path(entry, entry.path), role or mount, until, "native", **own)


def _wrapped(entry: AuditEntry) -> Mapped:
    """Map a wrapped response: a token for one unwrapping, and the wrapped token if there is one."""
    wrap = entry.response.object("wrap_info")
    start = wrap.time("creation_time") or entry.occurred_at
    until = time_after(start, wrap.integer("ttl")) if wrap.integer("ttl") else start
    path = _path(entry, wrap.text("creation_path") or entry.path)
    outer = _given(entry, path, "response-wrapping", until, "derived", grant_id=wrap.required_text("accessor"))
    inner = wrap.text("wrapped_accessor")
    if inner is None:
        return (outer,)
    entitlement = policies(entry.auth) or UNKNOWN
    return outer, _given(entry, _namespace(entry), entitlement, None, grant_id=inner, ordinal=1)
