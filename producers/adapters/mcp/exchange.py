"""MCP: one line of a log: a JSON-RPC message, and what the log says around it.

The form that we document (``docs/sources/mcp.md``)::

    {"time": "…", "session_id": "…", "user": "…", "agent": "…", "server": "…", "client_ip": "…", "from": "client",
     "message": {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {…}}}

A log may have the message's own members beside the others, and the call and its answer in one line as ``request`` and
``response``.
"""

from __future__ import annotations

import json
from typing import Any

from ....schemas.event import Actor, EventSource, Resource, Subject
from ...json_fields import Fields
from ..values import UNKNOWN, email_in, ip_address_in, synthesized

SYSTEM = "mcp"
_MESSAGES = ("message", "request", "response")
_MEMBERS = ("method", "result", "error")


def carries_message(record: dict[str, Any]) -> bool:
    """Return whether a JSON object is a JSON-RPC message, or has one."""
    return any(
        isinstance(one, dict) and "jsonrpc" in one and any(member in one for member in _MEMBERS)
        for one in (record, *(record.get(name) for name in _MESSAGES))
    )


class Exchange:
    """A line. The constructor raises RecordError if a required member is missing or wrong.

    Attributes:
        asked: the request, the notification, or the answer if the line has only that.
        answer: the answer, if the line has it beside the request.
        by_server, by_client: whether the log says that the server, or the agent, sent the message.
        truncated: whether the log cut the message.
    """

    def __init__(self, record: Fields, instance: str | None) -> None:
        name = next((name for name in _MESSAGES if record.has(name)), None)
        if name is None and not any(record.has(member) for member in _MEMBERS):
            record.fail("message", "is missing: a line needs a JSON-RPC message")
        self.asked = record if name is None else record.object(name)
        self.answer = record.object("response") if name == "request" and record.has("response") else None
        self.method = self.asked.text("method")
        if self.method is None and not (self.asked.has("result") or self.asked.has("error")):
            self.asked.fail("method", "is missing, and there is no result and no error")
        self.params = _object(self.asked, "params")
        self.by_server, self.by_client = (record.text("from") == sender for sender in ("server", "client"))
        self.truncated = record.flag("truncated") or False
        self.session = record.first_text("session_id", "session", "sid")
        self.server = record.first_text("server", "server_name") or UNKNOWN
        self.user = record.text("user")
        self.agent = record.first_text("agent", "client") or _object(self.params, "clientInfo").text("name")
        self.client_ip = ip_address_in(record.text("client_ip"))
        self.number = number_of(self.asked)
        clock = next((one for one in ("time", "timestamp", "ts") if record.has(one)), "time")
        self.occurred_at = record.required_time(clock)
        self.source = EventSource(
            SYSTEM, instance or SYSTEM, record.text("event_id") or self._id(record.required_text(clock)), self._kind()
        )

    def _kind(self) -> str:
        return self.method or ("error" if self.asked.has("error") else "result")

    def _id(self, time: str) -> str:
        """Return an id from what identifies a message. It is the same whatever is redacted in the arguments."""
        parts = (time, self.server, self.session or "", str(self.by_server), self.number or "", self._kind())
        return synthesized("message", *parts, self.tool or "")

    @property
    def tool(self) -> str | None:
        """The tool of a call."""
        return self.params.text("name") if self.method == "tools/call" else None

    @property
    def resource(self) -> Resource:
        """The MCP server."""
        return Resource("mcp_server", self.server)


def person(user: str | None) -> Subject:
    """Return the person for whom an agent acts."""
    return Subject(user, email=email_in(user)) if user else Subject(UNKNOWN)


def agent_of(agent: str | None, user: str | None) -> Actor:
    """Return the agent, on behalf of the person, if the log names one."""
    return Actor(agent or UNKNOWN, "agent", on_behalf_of=user)


def arguments(values: Fields) -> tuple[str, ...]:
    """Return arguments of a call as ``name=value``."""
    found = []
    for name in values.values:
        text = values.text(name) if isinstance(values.values[name], str) else values.compact(name)
        label = name.encode("utf-8", "backslashreplace").decode()  # the sender's name may have lone surrogates
        found.append(f"{label}={'' if text is None else text}")
    return tuple(found)


def number_of(message: Fields) -> str | None:
    """Return the id of a request or an answer: a number or a text, as JSON."""
    number = message.values.get("id")
    return json.dumps(number) if isinstance(number, (int, str)) and not isinstance(number, bool) else None


def _object(record: Fields, name: str) -> Fields:
    """Return an object; empty for a list, which JSON-RPC allows in the place of named parameters."""
    return Fields({}, record.location) if isinstance(record.values.get(name), list) else record.object(name)
