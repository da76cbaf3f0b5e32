"""hoop.dev: tool calls of AI agents: the audit events of mcpproxy, which hoop's agent embeds.

Source: ``audit/audit.go`` of mcpproxy 0.1.0, and the places that emit each event. hoop stores them in the stream of the
session, mcpproxy in one file per session (``wal_dir``). They have the size and a digest of arguments, and no arguments.
"""

from __future__ import annotations

from typing import Any

from ....schemas.event import Action, Actor, Approval, Event, EventSource, Resource
from ...json_fields import Fields
from ..contract import Mapped, Skipped
from ..teleport.seen import Recent
from ..values import UNKNOWN, synthesized
from .record import SYSTEM, person

_PREFIX = "mcp."
_OF_TELEPORT = "mcp.session."
_ANONYMOUS = "anonymous"
_NOTICES = frozenset({
    "mcp.budget_exceeded", "mcp.error", "mcp.guardrail_block", "mcp.redacted", "mcp.server_request",
    "mcp.server_request_denied", "mcp.session_start", "mcp.tools_changed", "mcp.tools_listed",
})  # fmt: skip
"""Not actions. ``mcp.initialize`` follows the start of a session, and ``mcp.tool_denied`` a budget or a guardrail."""
_EXPIRY = "expiry"
Agents = Recent[tuple[str | None, str | None]]
"""Agent and person of the sessions of one run: only ``mcp.initialize`` names the agent, and some events no person."""


def is_mcp_event(record: dict[str, Any]) -> bool:
    """Return whether a JSON object is an event of mcpproxy. Those of Teleport are named ``mcp.session.…``."""
    event = record.get("event")
    named = isinstance(event, str) and event.startswith(_PREFIX) and not event.startswith(_OF_TELEPORT)
    return named and record.keys() >= {"sid", "time"}


def map_mcp_event(record: Fields, instance: str | None, agents: Agents) -> Mapped | Skipped:
    """Return the events of a record, or the reason to skip it."""
    event = _McpEvent(record, instance, agents)
    kind = event.kind
    if kind in _NOTICES:
        return Skipped("mcp_notice", kind)
    match kind.removeprefix(_PREFIX):
        case "initialize":
            return (event.of("session.started", outcome="success"),)
        case "session_end":
            return (event.of("session.ended", outcome="success"),)
        case "session_killed":
            return (event.of("session.ended", outcome="failure", error=record.text("reason")),)
        case "tool_call":
            return (event.of("session.command", outcome="unknown", action=event.action()),)
        case "tool_result":
            code = event.fields.integer("error_code")
            if code is None:
                return Skipped("call_result", record.text("tool") or kind)
            return (event.of("session.command", outcome="failure", error=f"error {code}", action=event.action()),)
        case "tool_denied":
            return (event.of("session.denied", outcome="denied", error=record.text("reason"), action=event.action()),)
        case "approval_pending":
            return (event.of("request.created", outcome="pending", entitlement=event.tool, request_id=event.approval),)
        case "approval_resolved":
            return (_resolved(event),)
    return Skipped("event_unknown", kind)


class _McpEvent:
    def __init__(self, record: Fields, instance: str | None, agents: Agents) -> None:
        self.record = record
        self.kind = record.required_text("event")
        self.fields = record.object("fields")
        self.tool = record.text("tool") or UNKNOWN
        self.session = record.required_text("sid")
        self.approval = self.fields.text("approval_id") or synthesized("approval", self.session, self.tool)
        user = record.text("user")
        place = (instance or SYSTEM, self.session)
        known_agent, known_user = agents.get(place, (None, None))
        self.agent = (self.fields.text("client") if self.kind == "mcp.initialize" else None) or known_agent
        self.user = None if user == _ANONYMOUS else user or known_user
        if (self.agent, self.user) != (known_agent, known_user):
            agents.put(place, (self.agent, self.user))
        time = record.required_text("time")
        parts = (time, self.session, self.kind, record.text("tool") or "", self.fields.text("approval_id") or "")
        self.source = EventSource(SYSTEM, place[0], synthesized("mcp", *parts), self.kind)

    def action(self) -> Action:
        """Return the tool, and what the record says of the arguments in their place."""
        said = (f"{name}={self.fields.compact(name)}".replace('"', "") for name in ("args_bytes", "args_sha256")
                if self.fields.has(name))  # fmt: skip
        exposed = self.fields.text("exposed_tool")
        return Action(
            command=self.tool, args=(*((f"exposed_tool={exposed}",) if exposed else ()), *said), redacted=True
        )

    def of(self, event_type: str, **own: Any) -> Event:
        """Return an event of this record."""
        backend = self.record.text("backend")
        shared = {
            "occurred_at": self.record.required_time("time"),
            "source": self.source,
            "subject": person(self.user),
            "actor": Actor(self.agent or UNKNOWN, "agent", on_behalf_of=self.user),
            # Where hoop embeds mcpproxy, the name of the connection.
            "resource": Resource("connection", backend or UNKNOWN) if backend or "entitlement" in own else None,
            "session_id": self.session,
        }
        return Event(event_type=event_type, **{**shared, **own})


def _resolved(event: _McpEvent) -> Event:
    """Map the end of a wait for approval. There are two records: of the store that decided, and of the gateway.

    The store's has a ``source``. After the gateway's, an approved call runs, without ``mcp.tool_call``.
    """
    approved, source = event.fields.flag("approved"), event.fields.text("source")
    reason = event.record.text("reason")
    if source is None:
        action = event.action()
        if approved:
            return event.of("session.command", outcome="unknown", request_id=event.approval, action=action)
        return event.of("session.denied", outcome="denied", error=reason, request_id=event.approval, action=action)
    asked: dict[str, Any] = {"request_id": event.approval, "entitlement": event.tool, "reason": reason}
    if source == _EXPIRY:
        return event.of("request.expired", actor=Actor(SYSTEM, "system"), outcome="success", **asked)
    at = event.record.required_time("time")
    decision = "approved" if approved else "denied"
    asked["approvals"] = (Approval(UNKNOWN, decision, at=at, reason=reason),)
    return event.of(f"request.{decision}", actor=Actor(UNKNOWN), outcome="success" if approved else "denied", **asked)
