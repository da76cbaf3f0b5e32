"""Vault: tokens, leases and certificates given, prolonged and taken away, as ``grant.*``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ....schemas.event import Event, Resource, Subject
from ..contract import Mapped, synthesized
from .entry import UNKNOWN, Entry, later, policies
from .paths import LEASE_RENEWALS, LEASE_REVOKES, OLD_LEASE_REVOKES, Deed, below

_HMAC = "hmac-"


def map_grant(entry: Entry) -> Mapped | None:
    """Return the events of a request that went well, where it gave or took access; None where it was something else."""
    deed = entry.deed
    if deed in (Deed.LOGIN, Deed.TOKEN_ISSUED) and entry.response.has("auth"):
        return (_token(entry, "grant.activated"),)
    if deed is Deed.TOKEN_RENEWED and entry.response.has("auth"):
        return (_token(entry, "grant.extended"),)
    if deed is Deed.TOKEN_REVOKED:
        return (_token_revoked(entry),)
    if deed is Deed.LEASE_ISSUED:
        return (_lease(entry, "grant.activated", entry.response.object("secret").required_text("lease_id")),)
    if deed is Deed.LEASE_RENEWED:
        lease = entry.response.object("secret").text("lease_id") or _asked(entry, LEASE_RENEWALS)
        return (_lease(entry, "grant.extended", lease or UNKNOWN),)
    if deed is Deed.LEASE_REVOKED:
        return (_lease_revoked(entry),)
    if deed is Deed.CERTIFICATE_ISSUED:
        return (_certificate(entry),)
    if deed is Deed.CERTIFICATE_REVOKED and _serial(entry) is not None:
        return (_certificate_revoked(entry),)
    if deed is Deed.WRAPPED:
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
    # Batch tokens have no accessor; only the request that made one can name it.
    accessor = auth.text("accessor")
    return _event(
        entry,
        event_type,
        subject=entry.holder(auth),
        resource=Resource("vault_namespace", entry.namespace),
        entitlement=policies(auth) or UNKNOWN,
        grant_id=accessor or synthesized("token", entry.source.native_id),
        grant_id_kind="native" if accessor else "synthesized",
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
        grant_id=target or synthesized("token", entry.source.native_id),
        grant_id_kind="native" if target else "synthesized",
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
        # Audit entries hold no lease duration.
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
    named = f"prefix:{lease}" if many else lease
    return _event(
        entry,
        "grant.revoked",
        subject=Subject(UNKNOWN),
        resource=resource,
        entitlement=role,
        grant_id=named or synthesized("lease", entry.source.native_id),
        grant_id_kind="synthesized" if many or not lease else "native",
        removal_evidence="api_accepted",
    )


def _asked(entry: Entry, prefixes: tuple[str, ...]) -> str | None:
    """Return the lease that a request names: in its path as it is, or in its data, where Vault writes an HMAC."""
    data = entry.request.object("data")
    return below(entry.path, prefixes) or data.text("lease_id") or data.text("prefix")


def _leased(lease: str) -> tuple[Resource, str]:
    """Return the engine's path and the role: ``database/creds/readonly/<id>`` is of role ``readonly``."""
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
    """A wrapped answer: a token that is good for one look inside, and a token within, where there is one."""
    wrap = entry.response.object("wrap_info")
    start = wrap.time("creation_time") or entry.occurred_at
    until = later(start, wrap.integer("ttl") or 0)
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
