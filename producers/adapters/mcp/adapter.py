"""MCP: logs of JSON-RPC messages, one per line, and the audit log of the gateway ToolHive.

Sources: the specification of the Model Context Protocol (2025-11-25), ``docs/middleware.md`` and ``pkg/audit`` of
ToolHive, and logs of Claude Desktop that their owners have published.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ...json_fields import Fields, Location
from ..contract import Adapter, Mapped, Skipped
from .desktop import BEGINS, parse_line
from .exchange import Exchange, carries_message
from .messages import map_message
from .seen import Seen
from .toolhive import is_audit_event, map_audit_event

_OTHERS = frozenset({"event", "time"})
"""Members of a record of Teleport or hoop, which have JSON-RPC messages too, and adapters of their own."""


class McpAdapter(Adapter):
    """Maps the messages that agents exchange with MCP servers.

    Three properties of the protocol determine the mapping. A message names neither its time nor a person: what the log
    puts around it does, or nothing. The agent names itself only in ``initialize``, so the adapter remembers that. The
    answer to a call names only its number, so a call and its answer are separate events, unless one line has both.
    """

    SYSTEM: ClassVar[str] = "mcp"
    VERSION: ClassVar[str] = "1"
    COVERS: ClassVar[tuple[str, ...]] = (
        "tool calls of AI agents, as commands with their arguments, on behalf of a person",
        "resources and prompts that agents read, refused and failed calls",
        "logs with one JSON-RPC message per line, the audit log of ToolHive, the log of Claude Desktop",
    )
    DOES_NOT_SAY: ClassVar[tuple[str, ...]] = (
        "who the person is, unless a gateway adds the user: add it to each line",
        "what a tool did on its server: connect the systems that it reaches",
        "the end of a session",
    )
    REMEMBERS: ClassVar[bool] = True
    SKIP_REASONS: ClassVar[dict[str, str]] = {
        "call_result": "the answer to a call that succeeded; the call is mapped",
        "client_notice": "a line of the client about itself, such as the start of a server",
        "event_unknown": "a type that ToolHive does not document",
        "protocol": "a message that reaches no data: lists, pings, notifications, requests of the server to the agent",
    }

    def __init__(self, *, instance: str | None = None, tenant: str = "default") -> None:
        super().__init__(instance=instance, tenant=tenant)
        self._seen = Seen()

    @classmethod
    def owns(cls, record: dict[str, Any]) -> bool:
        """Return whether this is a line with a JSON-RPC message, or an audit event of ToolHive."""
        return is_audit_event(record) or (carries_message(record) and not record.keys() >= _OTHERS)

    def parse(self, raw: bytes, location: Location) -> Fields:
        """Return the members of a line: JSON, or the text of Claude Desktop, which begins with the time."""
        return Fields(parse_line(raw, location), location) if BEGINS.match(raw) else super().parse(raw, location)

    def begins(self, line: bytes) -> bool:
        """Return whether a line is the first of a record of Claude Desktop."""
        return BEGINS.match(line) is not None

    def goes_on(self, line: bytes, begun: bool) -> bool:
        """Return whether an object that Claude Desktop prints over several lines is open at the end of a line."""
        return line.strip() != b"}" if begun else self.begins(line) and line.rstrip().endswith(b"{")

    def map(self, record: Fields) -> Mapped | Skipped:
        """Return the events of one record, or the reason to skip it."""
        if is_audit_event(record.values):
            return map_audit_event(record, self.instance)
        notice = record.text("notice")
        if notice is not None:
            return Skipped("client_notice", notice[:60])
        return map_message(Exchange(record, self.instance), self._seen)
