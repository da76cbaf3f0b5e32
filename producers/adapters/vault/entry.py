"""Vault: one response entry taken apart: who, with which token, did what, and what came of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from ....schemas.event import Action, Actor, Event, Resource, Source, Subject
from ..contract import synthesized
from ..reading import Fields
from .paths import Deed, deed_of, is_login

UNKNOWN = "unknown"
"""Stands where a rule of ours asks for a text that the entry does not hold."""
_REFUSALS = ("permission denied", "missing client token", "bad token", "invalid token", "access denied")


class Entry:
    """A response entry, read once. Raises RecordError where a member that every entry has is missing or wrong."""

    def __init__(self, record: Fields, instance: str | None) -> None:
        self.auth = record.object("auth")
        self.request = record.object("request")
        self.response = record.object("response")
        self.data = self.response.object("data")
        self.path = self.request.required_text("path")
        self.operation = self.request.text("operation") or UNKNOWN
        self.deed = deed_of(self.path, self.operation, self.response)
        self.occurred_at: datetime = record.required_time("time")
        self.error = record.text("error")
        space = self.request.object("namespace")
        self.namespace = (space.text("path") or space.text("id") or "root").rstrip("/") or "root"
        self.source = Source("vault", instance or self.namespace, self.request.required_text("id"), "response")
        self.accessor = self.auth.text("accessor") or self.request.text("client_token_accessor")

    @property
    def refused(self) -> bool:
        """Whether Vault said no: to the token, by its policies, or to who tried to log in."""
        if self.deed is Deed.LOGIN and not self.response.has("auth"):
            return self.failed
        if self.auth.object("policy_results").flag("allowed") is False:
            return True
        return any(words in (self.error or "").lower() for words in _REFUSALS)

    @property
    def failed(self) -> bool:
        """Whether it went wrong. Some engines put the error into the answer's data only."""
        # An engine's error stands alone there; a stored secret may well have a key of that name beside others.
        return self.error is not None or set(self.data.values) == {"error"}

    def holder(self, auth: Fields) -> Subject:
        """Return who holds a token: Vault's display name begins with the mount, so it is unique where a name is not."""
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
        """Return the fields of every event made from this entry."""
        return {
            "occurred_at": self.occurred_at,
            "source": self.source,
            "actor": self.actor,
            "client_ip": self.request.text("remote_address"),
            "error": self.error,
        }

    def token(self) -> dict[str, Any]:
        """Return the ids of the token that the request came with."""
        session = self.accessor or synthesized("session", self.source.native_id)
        return {
            "grant_id": self.accessor,
            "grant_id_kind": "native" if self.accessor else None,
            "session_id": session,
        }

    def session_event(self, event_type: str, outcome: str) -> Event:
        """Return the event of something done, or tried, with a token."""
        return Event(
            event_type=event_type,
            subject=self.holder(self.auth),
            resource=Resource("vault_path", self.path),
            entitlement=policies(self.auth),
            outcome=outcome,
            # What was sent stands in the entry as HMACs only.
            action=Action(command=self.operation, args=(self.path,), redacted=self.request.has("data")),
            **self.token(),
            **self.common(),
        )

    def ends_after(self, auth: Fields, *, renewed: bool = False) -> datetime | None:
        """Return when a token ends: its TTL, where the entry has one, from its issue, or from now when renewed."""
        seconds = auth.integer("token_ttl") or 0
        if seconds <= 0:
            return None
        return later(self.occurred_at if renewed else auth.time("token_issue_time") or self.occurred_at, seconds)


def policies(auth: Fields) -> str | None:
    """Return the policies of a token as one text, in Vault's order."""
    return ",".join(auth.texts("policies") or auth.texts("token_policies")) or None


def later(start: datetime, seconds: int) -> datetime | None:
    """Return the time so many seconds later, None where no calendar holds it."""
    try:
        return start + timedelta(seconds=seconds)
    except OverflowError:
        return None
