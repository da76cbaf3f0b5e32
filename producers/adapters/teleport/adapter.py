"""Teleport: the audit log of the event handler or the file backend, one JSON object per line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from ....schemas.event import Actor, Event, Subject
from ...json_fields import Fields
from ..contract import Adapter, Mapped, Skipped
from . import event_types
from .actions import action_of, error_of, has_failed, outcome_of
from .grants import map_access
from .identity import (
    SYSTEM,
    actor_of,
    client_ip_of,
    customer_of,
    entitlement_of,
    grant_of,
    issuer_of_requests,
    resource_of,
    session_id_of,
    source_of,
    subject_of,
)
from .seen import Seen


class TeleportAdapter(Adapter):
    """Maps Teleport audit events.

    Three properties of Teleport determine the mapping. An approved request is not a grant; the certificate issued for
    it is. A decision record names the reviewer but not the requester. Sessions name their access requests, so the id
    of the request is also the id of the grant.
    """

    SYSTEM: ClassVar[str] = SYSTEM
    VERSION: ClassVar[str] = "4"
    COVERS: ClassVar[tuple[str, ...]] = (
        "access requests and their reviews",
        "certificates, as grants that end by themselves; locks, which take grants away",
        "memberships of access lists, as grants",
        "changes of roles, users, locks, access lists and connectors, as policy.changed",
        "sessions on servers, databases, clusters, applications and desktops, with commands and queries",
        "tool calls of AI agents (MCP)",
    )
    DOES_NOT_SAY: ClassVar[tuple[str, ...]] = (
        "the expiry of a certificate: it ends by itself",
        "what is typed in a session, unless enhanced recording is on",
        "which grants a lock takes: import the log from the oldest running grant on",
    )
    MARKS: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"event", "time"}),)
    REMEMBERS: ClassVar[bool] = True
    SKIP_REASONS: ClassVar[dict[str, str]] = event_types.SKIP_REASONS

    def __init__(self, *, instance: str | None = None, tenant: str = "default") -> None:
        super().__init__(instance=instance, tenant=tenant)
        self._seen = Seen()

    @classmethod
    def owns(cls, record: dict[str, Any]) -> bool:
        """Return whether this is a Teleport event. Collectors use the member ``event`` too, for an object."""
        return isinstance(record.get("event"), str) and super().owns(record)

    def map(self, record: Fields) -> Mapped | Skipped:
        """Return the events of one record, or the reason to skip it."""
        event = record.required_text("event")
        for reason, types in event_types.SKIPPED_TYPES.items():
            if event in types:
                return Skipped(reason, event)
        base = {
            "occurred_at": record.required_time("time"),
            "source": source_of(record, self.instance),
            "client_ip": client_ip_of(record),
            "error": error_of(record),
            "reason": record.text("reason"),
            "customer": customer_of(record),
        }
        access = map_access(event, record, base, self._seen)
        if access is not None:
            if not isinstance(access, Skipped):
                self._seen.add(access)
            return access
        event_type = _session_type(event, record)
        if event_type is not None:
            return (self._with_agent(_session_event(event_type, event, record, base), event, record),)
        for reason, prefixes in event_types.SKIPPED_PREFIXES.items():
            if event.startswith(prefixes):
                return Skipped(reason, event)
        return Skipped("event_unknown", event)

    def _with_agent(self, mapped: Event, event: str, record: Fields) -> Event:
        """Return an event of an MCP session with the agent that acts for the user, once it has said its name.

        It does so in the message ``initialize``. A bot is named by every record.
        """
        user = record.text("user")
        if not event.startswith(event_types.MCP_PREFIX) or user is None or record.text("bot_name"):
            return mapped
        place = (mapped.source.instance, mapped.session_id or "")
        message = record.object("message")
        name = message.object("params").object("clientInfo").text("name") if _initializes(message) else None
        if name is not None:
            self._seen.agents.put(place, name)
        agent = self._seen.agents.get(place)
        return replace(mapped, actor=Actor(agent, "agent", on_behalf_of=user), event_id="") if agent else mapped


def _initializes(message: Fields) -> bool:
    return message.text("method") == "initialize"


def _session_type(event: str, record: Fields) -> str | None:
    failed = has_failed(record)
    if event in event_types.SESSION_STARTS:
        return "session.denied" if failed else "session.started"
    if event in event_types.SESSION_ENDS:
        # A server may refuse to end an MCP session.
        return "session.command" if failed and event.startswith(event_types.MCP_PREFIX) else "session.ended"
    if event in event_types.DENIALS:
        return "session.denied"
    if event.startswith(event_types.QUERY_PREFIX):
        return "session.query"
    if event in event_types.ACTIONS or event.startswith(event_types.ACTION_PREFIXES):
        return "session.command"
    return None


def _session_event(event_type: str, event: str, record: Fields, base: dict[str, Any]) -> Event:
    grant = grant_of(record)
    issuer = issuer_of_requests(record) if grant else None
    discovery = event in event_types.DISCOVERY_ACTIONS
    acts = event_type in ("session.command", "session.query")
    return Event(
        event_type=event_type,
        subject=Subject(SYSTEM, "system") if discovery else subject_of(record),
        actor=Actor(SYSTEM, "system") if discovery else actor_of(record),
        resource=None if event == "session.upload" else resource_of(record),
        entitlement=entitlement_of(record),
        grant_id=grant,
        grant_id_kind="native" if grant else None,
        grant_source=issuer,
        request_id=grant,
        request_source=issuer,
        session_id=session_id_of(record, base["source"]),
        outcome="denied" if event_type == "session.denied" else outcome_of(event, record),
        action=action_of(event, record) if acts else None,
        **base,
    )
