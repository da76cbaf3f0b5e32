"""Vault: the issue, renewal and revocation of tokens, leases and certificates, as ``grant.*``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ....schemas.event import Event, Resource, Subject
from ..contract import Mapped
from ..values import UNKNOWN, grant_ids, time_after
from .entry import Entry, policies
from .request_kind import LEASE_RENEWALS, LEASE_REVOKES, OLD_LEASE_REVOKES, RequestKind, below

_HMAC = "hmac-"


def map_grant(entry: Entry) -> Mapped | None:
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
    if kind is RequestKind.CERTIFICATE_REVOKED and _serial(entry) is not None:
        return (_certificate_revoked(entry),)
    if kind is RequestKind.WRAPPED:
        return _wrapped(entry)
    return None


def _event(entry: Entry, event_type: str, **own: Any) -> Event:
    fields = {"outcome": "success", "session_id": entry.token()["session_id"], **own}
    return Event(event_type=event_type, **fields, **entry.common())


def _expiry(until: datetime | None, source: str) -> dict[str, Any]:
    return {"expires_at": until, "expiry_source": source if until else UNKNOWN}


def _token(entry: Entry, event_type: str) -> Event:
    auth = entry.response.object("auth")
    renewed = event_type == "grant.extended"
    # Batch tokens have no accessor; only the request that created one can identify it.
    return _event(
        entry,
        event_type,
        subject=entry.holder(auth),
        resource=Resource("vault_namespace", entry.namespace),
        entitlement=policies(auth) or UNKNOWN,
        **grant_ids(auth.text("accessor"), "token", entry.source.native_id),
        **_expiry(entry.ends_after(auth, renewed=renewed), "derived"),
    )


def _token_revoked(entry: Entry) -> Event:
    own = entry.path.endswith("revoke-self")
    asked = entry.request.object("data")
    named = asked.text("accessor") or asked.text("token") or below(entry.path, ("auth/token/revoke",))
    target = entry.accessor if own else named
    return _event(
        entry,
        "grant.revoked",
        subject=entry.holder(entry.auth) if own else Subject(UNKNOWN),
        resource=Resource("vault_namespace", entry.namespace),
        entitlement=(own and policies(entry.auth)) or UNKNOWN,
        **grant_ids(target, "token", entry.source.native_id),
        removal_evidence="api_accepted",
    )


def _lease(entry: Entry, event_type: str, lease: str) -> Event:
    resource, role = _leased(lease if "/" in lease else entry.path)
    return _event(
        entry,
        event_type,
        subject=entry.holder(entry.auth),
        resource=resource,
        entitlement=role,
        grant_id=lease,
        grant_id_kind="native",
        # Audit entries contain no lease duration.
        **_expiry(None, UNKNOWN),
    )


def _lease_revoked(entry: Entry) -> Event:
    lease = _asked(entry, (*LEASE_REVOKES, *OLD_LEASE_REVOKES))
    many = "revoke-prefix" in entry.path or "revoke-force" in entry.path
    resource, role = (
        _leased(lease) if lease and not lease.startswith(_HMAC) else (Resource("vault_lease", UNKNOWN), UNKNOWN)
    )
    if many and lease:
        resource, role = Resource("vault_path", lease), "*"
    ids = grant_ids(lease, "lease", entry.source.native_id)
    if many and lease:
        ids = {"grant_id": f"prefix:{lease}", "grant_id_kind": "synthesized"}
    return _event(
        entry,
        "grant.revoked",
        subject=Subject(UNKNOWN),
        resource=resource,
        entitlement=role,
        **ids,
        removal_evidence="api_accepted",
    )


def _asked(entry: Entry, prefixes: tuple[str, ...]) -> str | None:
    """Return the lease that a request names: verbatim in its path, or as an HMAC in its data."""
    data = entry.request.object("data")
    return below(entry.path, prefixes) or data.text("lease_id") or data.text("prefix")


def _leased(lease: str) -> tuple[Resource, str]:
    """Return the engine's path and the role: the role of ``database/creds/readonly/<id>`` is ``readonly``."""
    parts = [part for part in lease.split("/") if part]
    path = parts[:-1] if len(parts) > 2 else parts
    return Resource("vault_path", "/".join(path) or UNKNOWN), (path[-1] if path else UNKNOWN)


def _certificate(entry: Entry) -> Event:
    mount, _, role = entry.path.rpartition("/")
    return _event(
        entry,
        "grant.activated",
        subject=entry.holder(entry.auth),
        resource=Resource("vault_path", entry.path),
        entitlement=role or mount,
        grant_id=entry.data.required_text("serial_number"),
        grant_id_kind="native",
        **_expiry(entry.data.unix_time("expiration"), "native"),
    )


def _serial(entry: Entry) -> str | None:
    return entry.request.object("data").text("serial_number")


def _certificate_revoked(entry: Entry) -> Event:
    return _event(
        entry,
        "grant.revoked",
        subject=Subject(UNKNOWN),
        resource=Resource("vault_path", entry.path.rpartition("/")[0]),
        entitlement=UNKNOWN,
        grant_id=_serial(entry),
        grant_id_kind="native",
        removal_evidence="api_accepted",
    )


def _wrapped(entry: Entry) -> Mapped:
    """Map a wrapped response: a token for one unwrapping, and the wrapped token if there is one."""
    wrap = entry.response.object("wrap_info")
    start = wrap.time("creation_time") or entry.occurred_at
    ttl = wrap.integer("ttl")
    until = time_after(start, ttl) if ttl else start
    events = [
        _event(
            entry,
            "grant.activated",
            subject=entry.holder(entry.auth),
            resource=Resource("vault_path", wrap.text("creation_path") or entry.path),
            entitlement="response-wrapping",
            grant_id=wrap.required_text("accessor"),
            grant_id_kind="native",
            **_expiry(until, "derived"),
        )
    ]
    inner = wrap.text("wrapped_accessor")
    if inner is not None:
        events.append(
            _event(
                entry,
                "grant.activated",
                subject=entry.holder(entry.auth),
                resource=Resource("vault_namespace", entry.namespace),
                entitlement=policies(entry.auth) or UNKNOWN,
                grant_id=inner,
                grant_id_kind="native",
                ordinal=1,
                **_expiry(None, UNKNOWN),
            )
        )
    return tuple(events)
