"""HashiCorp Vault: the audit log, one JSON object per line and two lines per request.

Source: "Audit log entry schema" in Vault's documentation.
"""

from __future__ import annotations

from typing import ClassVar

from ...json_fields import Fields
from ..contract import Adapter, Mapped, Skipped
from .entry import AuditEntry, path_of
from .grants import map_grant
from .policies import map_policy
from .request_kind import RequestKind
from .seen import Seen


class VaultAdapter(Adapter):
    """Maps Vault audit entries.

    The ``response`` entry contains the outcome and becomes the event; the ``request`` entry is skipped. A token is a
    grant, identified by its accessor; events of requests made with the token carry the accessor as grant and session.
    Vault writes accessors as an HMAC that is constant per audit device. Audit entries contain no lease duration, and
    revocations at the end of a TTL are not in this log.
    """

    SYSTEM: ClassVar[str] = "vault"
    VERSION: ClassVar[str] = "4"
    COVERS: ClassVar[tuple[str, ...]] = (
        "tokens, leases and certificates, as grants: issue, renewal, revocation",
        "every request with a token, as a command, and refused requests",
        "changes of policies, roles, users, groups and auth methods, as policy.changed",
    )
    DOES_NOT_SAY: ClassVar[tuple[str, ...]] = (
        "how long a lease lasts: limit it in the watch policy",
        "revocations at the end of a TTL: they are only in the server log",
        "requests whose response an audit device could not write",
    )
    MARKS: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"type", "request"}),)
    REMEMBERS: ClassVar[bool] = True
    SKIP_REASONS: ClassVar[dict[str, str]] = {
        "kmip": "an operation by KMIP: machines with a client certificate, without token, path or id",
        "request_half": "the request entry; the response entry with the same request id is mapped",
        "ui_lookup": "a successful lookup of mounts by the command line or the web page",
    }

    def __init__(self, *, instance: str | None = None, tenant: str = "default") -> None:
        super().__init__(instance=instance, tenant=tenant)
        self._seen = Seen()

    def map(self, record: Fields) -> Mapped | Skipped:
        """Return the events of one record, or the reason to skip it."""
        kind = record.required_text("type")
        request = record.object("request")
        if kind.startswith("kmip-"):
            return Skipped("kmip", kind)
        path = path_of(request)
        if kind == "request":
            return Skipped("request_half", f"{request.text('operation') or ''} {path}".strip())
        if kind != "response":
            record.fail("type", f"{kind[:40]!r} is neither request nor response")
        entry = AuditEntry(record, self.instance)
        if entry.kind is RequestKind.UI_LOOKUP and not entry.refused and not entry.failed:
            return Skipped("ui_lookup", path)
        if entry.refused:
            return (entry.session_event("session.denied", "denied"), *map_policy(entry, "denied"))
        if not entry.failed:
            granted = map_grant(entry)
            if granted is not None:
                return self._seen.add(entry, granted)
        outcome = "failure" if entry.failed else "success"
        return (entry.session_event("session.command", outcome), *map_policy(entry, outcome))
