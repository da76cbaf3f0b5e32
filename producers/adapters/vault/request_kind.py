"""Vault: the kind of a request, from its operation, its path and the members of its response."""

from __future__ import annotations

from enum import Enum, auto

from ...json_fields import Fields


class RequestKind(Enum):
    """The effect of a Vault request."""

    LOGIN = auto()
    TOKEN_ISSUED = auto()
    TOKEN_RENEWED = auto()
    TOKEN_REVOKED = auto()
    LEASE_ISSUED = auto()
    LEASE_RENEWED = auto()
    LEASE_REVOKED = auto()
    CERTIFICATE_ISSUED = auto()
    CERTIFICATE_REVOKED = auto()
    WRAPPED = auto()
    UI_LOOKUP = auto()
    OTHER = auto()


TOKEN_REVOKES = tuple(f"auth/token/revoke{suffix}" for suffix in ("", "-self", "-accessor", "-orphan"))
TOKEN_RENEWALS = ("auth/token/renew", "auth/token/renew-self", "auth/token/renew-accessor")
LEASE_REVOKES = ("sys/leases/revoke", "sys/leases/revoke-prefix", "sys/leases/revoke-force")
OLD_LEASE_REVOKES = ("sys/revoke", "sys/revoke-prefix", "sys/revoke-force")
LEASE_RENEWALS = ("sys/leases/renew", "sys/renew")
UI_LOOKUPS = "sys/internal/ui/"


def request_kind_of(path: str, operation: str, response: Fields) -> RequestKind:
    """Return the kind of a request, given its path without the namespace. A failed request has the intended kind."""
    if path.startswith(UI_LOOKUPS):
        return RequestKind.UI_LOOKUP
    if under(path, TOKEN_RENEWALS):
        return RequestKind.TOKEN_RENEWED
    if under(path, TOKEN_REVOKES):
        return RequestKind.TOKEN_REVOKED
    if under(path, LEASE_RENEWALS):
        return RequestKind.LEASE_RENEWED
    if under(path, (*LEASE_REVOKES, *OLD_LEASE_REVOKES)):
        return RequestKind.LEASE_REVOKED
    if response.object("wrap_info").has("accessor"):
        return RequestKind.WRAPPED
    if is_login(path):
        return RequestKind.LOGIN
    if response.has("auth"):
        return RequestKind.TOKEN_ISSUED
    if response.object("secret").text("lease_id"):
        return RequestKind.LEASE_ISSUED
    return _certificate(path, operation, response)


def _certificate(path: str, operation: str, response: Fields) -> RequestKind:
    """Recognize ``<mount>/issue/<role>`` and ``<mount>/sign/<role>`` (PKI, SSH) by their serial number."""
    parts = path.split("/")
    if response.object("data").has("serial_number"):
        if any(step in ("issue", "sign", "sign-verbatim") for step in parts[-2:-1]) or parts[-1] == "sign-verbatim":
            return RequestKind.CERTIFICATE_ISSUED
        if parts[-1] == "revoke":
            return RequestKind.CERTIFICATE_REVOKED
    # The response to a revocation has no serial number; the request has.
    mounted = len(parts) > 1 and parts[0] not in ("auth", "sys")
    if parts[-1] == "revoke" and mounted and operation in ("update", "create"):
        return RequestKind.CERTIFICATE_REVOKED
    return RequestKind.OTHER


def is_login(path: str) -> bool:
    """Return whether this is ``auth/<mount>/login[/<name>]``; the mount may contain slashes."""
    return path.startswith("auth/") and "/login" in path and "login" in path.split("/")[2:]


def under(path: str, prefixes: tuple[str, ...]) -> bool:
    """Return whether the path equals one of the prefixes or is below it."""
    return any(path == prefix or path.startswith(prefix + "/") for prefix in prefixes)


def below(path: str, prefixes: tuple[str, ...]) -> str | None:
    """Return the rest of the path after the longest matching prefix, or None."""
    for prefix in sorted(prefixes, key=len, reverse=True):
        if path.startswith(prefix + "/"):
            return path.removeprefix(prefix + "/") or None
    return None
