"""MCP: the audit log of ToolHive: one JSON object per request, with the person, the agent and the tool.

Sources: "Audit Middleware" in ToolHive's documentation, ``pkg/audit`` of ToolHive and ``audit`` of ``toolhive-core``.
"""

from __future__ import annotations

from typing import Any

from ....schemas.event import Action, Event, EventSource, Resource
from ...json_fields import Fields
from ..contract import Mapped, Skipped
from ..values import UNKNOWN, ip_address_in, synthesized
from .exchange import SYSTEM, agent_of, arguments, person

_MARKS = frozenset({"audit_id", "logged_at", "subjects"})
_ANONYMOUS = "anonymous"
_READS = {"mcp_resource_read": "resources/read", "mcp_prompt_get": "prompts/get"}
_PROTOCOL = frozenset({
    "http_request", "mcp_completion", "mcp_logging", "mcp_notification", "mcp_ping", "mcp_prompts_list",
    "mcp_resources_list", "mcp_roots_list_changed", "mcp_tools_list", "sse_connection", "vmcp_workflow_completed",
    "vmcp_workflow_failed", "vmcp_workflow_started", "vmcp_workflow_step_skipped", "vmcp_workflow_step_started",
    "vmcp_workflow_timed_out",
})  # fmt: skip
"""Types that reach no data. Of a workflow, the ends of its steps name the tools that they called."""
_STEP = "vmcp_workflow_step_"
_OUTCOMES = {"success": "success", "denied": "denied", "failure": "failure", "error": "failure",
             "application_error": "failure"}  # fmt: skip


def is_audit_event(record: dict[str, Any]) -> bool:
    """Return whether a JSON object is an audit event of ToolHive."""
    return record.keys() >= _MARKS


def map_audit_event(record: Fields, instance: str | None) -> Mapped | Skipped:
    """Return the event of a record, or the reason to skip it."""
    kind = record.required_text("type")
    outcome = _OUTCOMES.get(record.text("outcome") or "", UNKNOWN)
    if outcome == "denied":
        return (_event(record, instance, "session.denied", outcome, _action(record, kind)),)
    if kind == "mcp_initialize":
        return (_event(record, instance, "session.started", outcome, None),)
    if kind in _PROTOCOL:
        return Skipped("protocol", kind)
    if kind in ("mcp_tool_call", "mcp_request", *_READS) or kind.startswith(_STEP):
        return (_event(record, instance, "session.command", outcome, _action(record, kind)),)
    return Skipped("event_unknown", kind[:60])


def _action(record: Fields, kind: str) -> Action:
    """Return tool and arguments. ToolHive records arguments only with ``includeRequestData``."""
    target = record.object("target")
    name, tool = target.text("name"), target.text("tool_name")
    params = _params(record)
    if kind in _READS:
        args = tuple(filter(None, (name, *arguments(_object(params, "arguments")))))
        command: str | None = _READS[kind]
    else:
        args = arguments(_object(params, "arguments"))
        command = tool or name or target.text("method") or kind
    return Action(command=command, args=args)


def _params(record: Fields) -> Fields:
    """Return the parameters of the request, if the record has it: the JSON-RPC message, or its parameters alone."""
    request = _object(_object(record, "data"), "request")
    return _object(request, "params") if "params" in request.values else request


def _object(record: Fields, name: str) -> Fields:
    """Return an object; empty for another value: a request that is no JSON is a text."""
    value = record.values.get(name)
    return Fields(value if isinstance(value, dict) else {}, record.location, f"{record.path}{name}.")


def _event(record: Fields, instance: str | None, event_type: str, outcome: str, action: Action | None) -> Event:
    subjects, extra = record.object("subjects"), _object(_object(record, "metadata"), "extra")
    named = subjects.first_text("user", "user_id")
    user = None if named == _ANONYMOUS else named
    agent = (
        _delegate(record) or subjects.text("client_name") or record.object("source").object("extra").text("user_agent")
    )
    server = extra.text("backend_name") or record.text("component") or UNKNOWN
    return Event(
        event_type=event_type,
        occurred_at=record.required_time("logged_at"),
        source=EventSource(SYSTEM, instance or SYSTEM, record.required_text("audit_id"), record.required_text("type")),
        subject=person(user),
        actor=agent_of(agent, user),
        resource=Resource("mcp_server", server),
        # ToolHive does not record the session of the protocol.
        session_id=synthesized("session", record.text("component") or "", user or "", agent or ""),
        client_ip=ip_address_in(record.object("source").text("value")),
        outcome=outcome,
        error=extra.text("jsonrpc_error_message"),
        action=action,
    )


def _delegate(record: Fields) -> str | None:
    """Return the agent that presented a delegated token (RFC 8693): the first of the chain."""
    chain = record.object("delegation").objects("chain") if record.has("delegation") else ()
    return next((one.text("sub") for one in chain[:1]), None)
