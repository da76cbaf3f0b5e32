"""Vault: one parsed response entry: the caller, the token, the request and its result."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ....schemas.event import Action, Actor, Event, EventSource, Resource, Subject
from ...json_fields import Fields
from ..values import UNKNOWN, customer_in, record_id, synthesized, time_after
from .request_kind import RequestKind, is_login, request_kind_of

_REFUSALS = ("permission denied", "missing client token", "bad token", "invalid token", "access denied")


class AuditEntry:
    """A response entry. The constructor raises RecordError if a required member is missing or wrong."""

    def __init__(self, record: Fields, instance: str | None) -> None:
        self.auth = record.object("auth")
        self.request = record.object("request")
        self.response = record.object("response")
        self.data = self.response.object("data")
        self.operation = self.request.text("operation") or UNKNOWN
        self.path = path_of(self.request)
        self.kind = request_kind_of(self.path, self.operation, self.response)
        self.occurred_at: datetime = record.required_time("time")
        self.error = record.text("error")
        space = self.request.object("namespace")
        self.namespace = (space.text("path") or space.text("id") or "root").rstrip("/") or "root"
        self.source = EventSource(
            "vault", instance or self.namespace, self.request.text("id") or record_id(record.values), "response"
        )
        self.accessor = self.auth.text("accessor") or self.request.text("client_token_accessor")

    def in_vault(self, path: str) -> str:
        """Return a path, or an id that is unique in a namespace only, with its namespace, as Vault's own full paths.

        Two namespaces of one Vault have the same paths, and may have the same leases. Accessors are unique in a Vault,
        and a token may be used in the namespaces below its own: they are not changed.
        """
        return path if self.namespace == "root" else f"{self.namespace}/{path}"

    @property
    def refused(self) -> bool:
        """Whether Vault rejected the token, the login, or the request by policy."""
        if self.kind is RequestKind.LOGIN and not self.response.has("auth"):
            return self.failed
        if self.auth.object("policy_results").flag("allowed") is False:
            return True
        return any(text in (self.error or "").lower() for text in _REFUSALS)

    @property
    def failed(self) -> bool:
        """Whether the request failed. Some engines report the error only in the response data."""
        # There it is the only key. A stored secret may have a key of that name among others.
        return self.error is not None or set(self.data.values) == {"error"}

    def holder(self, auth: Fields) -> Subject:
        """Return the holder of a token. Vault's display name includes the mount, which makes it unique."""
        metadata = auth.object("metadata")
        name = auth.text("display_name") or auth.text("entity_id")
        if name is None and is_login(self.path):
            tail = self.path.rpartition("/login/")[2]
            name = tail if tail != self.path else None
        kind = "human" if metadata.text("username") else "service" if metadata.text("role_name") else UNKNOWN
        return Subject(name or UNKNOWN, kind, metadata.text("email"))

    @property
    def actor(self) -> Actor:
        """Who sent the request."""
        holder = self.holder(self.auth)
        return Actor(holder.id, holder.kind)

    def common(self) -> dict[str, Any]:
        """Return the fields that all events of this entry share."""
        return {
            "occurred_at": self.occurred_at,
            "source": self.source,
            "actor": self.actor,
            "client_ip": self.request.text("remote_address"),
            "error": self.error,
            "customer": customer_in(
                *(one.object("metadata").values for one in (self.response.object("auth"), self.auth))
            ),
        }

    def token(self) -> dict[str, Any]:
        """Return the ids of the token that the request used."""
        session = self.accessor or synthesized("session", self.source.native_id)
        kind = "native" if self.accessor else None
        return {"grant_id": self.accessor, "grant_id_kind": kind, "session_id": session}

    def session_event(self, event_type: str, outcome: str) -> Event:
        """Return the event of a request made with a token."""
        return Event(
            event_type=event_type,
            subject=self.holder(self.auth),
            resource=Resource("vault_path", self.in_vault(self.path)),
            entitlement=policies(self.auth),
            outcome=outcome,
            # The entry contains the request data only as HMACs.
            action=Action(command=self.operation, args=(self.path,), redacted=self.request.has("data")),
            **self.token(),
            **self.common(),
        )

    def ends_after(self, auth: Fields, *, renewed: bool = False) -> datetime | None:
        """Return the end of a token: its TTL after its issue, or after this entry if renewed. None without a TTL."""
        seconds = auth.integer("token_ttl") or 0
        if seconds <= 0:
            return None
        return time_after(self.occurred_at if renewed else auth.time("token_issue_time") or self.occurred_at, seconds)


def path_of(request: Fields) -> str:
    """Return the path of a request. Vault leaves an empty one out: help on the root."""
    return request.text("path") or ("/" if request.text("operation") == "help" else request.required_text("path"))


def policies(auth: Fields) -> str | None:
    """Return the policies of a token as one string, in Vault's order."""
    return ",".join(auth.texts("policies") or auth.texts("token_policies")) or None
