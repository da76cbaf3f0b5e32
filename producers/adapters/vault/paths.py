"""Vault: what a request was about, from its operation, its path and the parts that its answer has."""

from __future__ import annotations

from enum import Enum

from ..reading import Fields


class Deed(Enum):
    """What a Vault request did."""

    LOGIN = "login"
    TOKEN_ISSUED = "token_issued"  # noqa: S105 - a word, not a secret
    TOKEN_RENEWED = "token_renewed"  # noqa: S105
    TOKEN_REVOKED = "token_revoked"  # noqa: S105
    LEASE_ISSUED = "lease_issued"
    LEASE_RENEWED = "lease_renewed"
    LEASE_REVOKED = "lease_revoked"
    CERTIFICATE_ISSUED = "certificate_issued"
    CERTIFICATE_REVOKED = "certificate_revoked"
    WRAPPED = "wrapped"
    UI_LOOKUP = "ui_lookup"
    OTHER = "other"


TOKEN_REVOKES = frozenset(
    {
        "auth/token/revoke",
        "auth/token/revoke-self",
        "auth/token/revoke-accessor",
        "auth/token/revoke-orphan",
    }
)
TOKEN_RENEWALS = frozenset({"auth/token/renew", "auth/token/renew-self", "auth/token/renew-accessor"})
LEASE_REVOKES = ("sys/leases/revoke", "sys/leases/revoke-prefix", "sys/leases/revoke-force")
OLD_LEASE_REVOKES = ("sys/revoke", "sys/revoke-prefix", "sys/revoke-force")
LEASE_RENEWALS = ("sys/leases/renew", "sys/renew")
UI_LOOKUPS = "sys/internal/ui/"


def deed_of(path: str, operation: str, response: Fields) -> Deed:
    """Return what a request did, by its path without the namespace. A failed request is judged by what it asked for."""
    if path.startswith(UI_LOOKUPS):
        return Deed.UI_LOOKUP
    if under(path, TOKEN_RENEWALS):
        return Deed.TOKEN_RENEWED
    if under(path, TOKEN_REVOKES):
        return Deed.TOKEN_REVOKED
    if under(path, LEASE_RENEWALS):
        return Deed.LEASE_RENEWED
    if under(path, (*LEASE_REVOKES, *OLD_LEASE_REVOKES)):
        return Deed.LEASE_REVOKED
    if response.object("wrap_info").has("accessor"):
        return Deed.WRAPPED
    if is_login(path):
        return Deed.LOGIN
    if response.has("auth"):
        return Deed.TOKEN_ISSUED
    if response.object("secret").text("lease_id"):
        return Deed.LEASE_ISSUED
    return _certificate(path, operation, response)


def _certificate(path: str, operation: str, response: Fields) -> Deed:
    """``<mount>/issue/<role>`` and ``<mount>/sign/<role>`` of the PKI and SSH engines answer with a serial number."""
    parts = path.split("/")
    if response.object("data").has("serial_number"):
        if any(step in ("issue", "sign", "sign-verbatim") for step in parts[-2:-1]) or parts[-1] == "sign-verbatim":
            return Deed.CERTIFICATE_ISSUED
        if parts[-1] == "revoke":
            return Deed.CERTIFICATE_REVOKED
    # Revoking answers without the serial number; the request has it.
    if (
        parts[-1] == "revoke"
        and len(parts) > 1
        and parts[0] not in ("auth", "sys")
        and operation in ("update", "create")
    ):
        return Deed.CERTIFICATE_REVOKED
    return Deed.OTHER


def is_login(path: str) -> bool:
    """Whether this is ``auth/<mount>/login``, with or without a name or role behind it; a mount may have slashes."""
    return path.startswith("auth/") and "/login" in path and "login" in path.split("/")[2:]


def under(path: str, prefixes: tuple[str, ...] | frozenset[str]) -> bool:
    """Whether the path is one of these, or below one."""
    return any(path == prefix or path.startswith(prefix + "/") for prefix in prefixes)


def below(path: str, prefixes: tuple[str, ...]) -> str | None:
    """Return what stands behind the longest of the prefixes, None where nothing does."""
    for prefix in sorted(prefixes, key=len, reverse=True):
        if path.startswith(prefix + "/"):
            return path.removeprefix(prefix + "/") or None
    return None
