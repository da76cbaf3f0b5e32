"""MCP: every real message, and what the adapter makes of particular lines.

``mcp_messages.jsonl`` are the messages of a client and a server of the Python SDK (``mcp`` 1.30.0), written down
between the two. The audit event of ToolHive is the one of its ``docs/middleware.md``, and the lines of Claude Desktop
have the form of published logs.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.producers.adapters import RecordError, Skipped, make_adapter, recognise
from grantledger.schemas.event import Event
from support.adapters import HERE, Result, one, read, reason
from support.examples import few

MESSAGES = Path(__file__).resolve().parents[1] / "support" / "mcp_messages.jsonl"
TIME = "2026-03-01T12:00:00.123Z"


def line(message: dict[str, Any], **members: Any) -> dict[str, Any]:
    around = {"time": TIME, "session_id": "s1", "user": "alice@example.com", "agent": "ops-agent", "server": "ops"}
    return {**around, "message": {"jsonrpc": "2.0", **message}, **members}


def called(name: str = "run_query", **arguments: Any) -> dict[str, Any]:
    return {"id": 7, "method": "tools/call", "params": {"name": name, "arguments": arguments}}


def mcp(message: dict[str, Any], **members: Any) -> Result:
    return read("mcp", line(message, **members))


def run(*records: dict[str, Any] | bytes) -> list[Event | str]:
    """Return events and reasons of lines, read by one adapter as in one run."""
    adapter = make_adapter("mcp")
    found: list[Event | str] = []
    for record in records:
        result = adapter.read(record if isinstance(record, bytes) else json.dumps(record).encode(), HERE)
        found += [result.reason] if isinstance(result, Skipped) else result
    return found


def types(found: list[Event | str]) -> list[str]:
    return [one if isinstance(one, str) else one.event_type for one in found]


class TestRealMessages:
    def test_results_by_kind(self) -> None:
        found = run(*MESSAGES.read_bytes().splitlines())
        assert Counter(types(found)) == {
            "session.command": 9, "call_result": 6, "protocol": 3, "session.started": 1,
        }  # fmt: skip

    def test_the_agent_acts_for_the_person(self) -> None:
        for event in run(*MESSAGES.read_bytes().splitlines()):
            if isinstance(event, Event):
                assert (event.actor.id, event.actor.kind, event.actor.on_behalf_of) == (
                    "ops-agent", "agent", "alice@example.com",
                )  # fmt: skip
                assert (event.subject.id, event.session_id) == ("alice@example.com", "sess-1")
                assert event.resource and (event.resource.kind, event.resource.id) == ("mcp_server", "ops-tools")

    def test_each_call_is_a_command_and_each_error_another(self) -> None:
        found = [one for one in run(*MESSAGES.read_bytes().splitlines()) if isinstance(one, Event) and one.action]
        assert [(one.action.command, one.outcome, one.error) for one in found if one.action][:4] == [
            ("run_query", "unknown", None),
            ("restart_service", "unknown", None),
            ("restart_service", "failure", "Error executing tool restart_service: not allowed to restart billing"),
            ("no_such_tool", "unknown", None),
        ]


class TestCalls:
    def test_tool_and_arguments(self) -> None:
        event = one(mcp(called(query="SELECT 1", limit=3, tags=["a"])))
        assert event.action and (event.action.command, event.action.args) == (
            "run_query", ("query=SELECT 1", "limit=3", 'tags=["a"]'),
        )  # fmt: skip
        assert (event.event_type, event.outcome, event.source.native_type) == (
            "session.command", "unknown", "tools/call",
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("answer", "event_type", "outcome", "error"),
        [
            ({"result": {"content": []}}, "session.command", "success", None),
            ({"result": {"isError": True}}, "session.command", "failure", "the tool reports an error"),
            ({"error": {"code": -32000, "message": "no"}}, "session.command", "failure", "no"),
            ({"error": {"code": 403}}, "session.denied", "denied", "error 403"),
            ({"error": {"code": -32010, "message": 'tool "x" is denied'}}, "session.denied", "denied",
             'tool "x" is denied'),
        ],
    )  # fmt: skip
    def test_a_line_with_request_and_response(
        self, answer: dict[str, Any], event_type: str, outcome: str, error: str | None
    ) -> None:
        both = {"request": {"jsonrpc": "2.0", **called()}, "response": {"jsonrpc": "2.0", "id": 7, **answer}}
        event = one(read("mcp", {"time": TIME, "session_id": "s", "user": "alice", **both}))
        assert (event.event_type, event.outcome, event.error) == (event_type, outcome, error)
        assert event.action and event.action.command == "run_query"

    def test_an_error_names_the_tool_that_was_called(self) -> None:
        failed = line({"id": 7, "error": {"code": -1, "message": "gone"}})
        _, event = run(line(called()), failed)
        assert (
            isinstance(event, Event) and event.action and (event.action.command, event.error) == ("run_query", "gone")
        )
        (alone,) = run(failed)
        assert isinstance(alone, Event) and alone.action and alone.action.command == "unknown"
        assert alone.event_id == event.event_id

    def test_an_error_about_a_list_is_none_of_a_call(self) -> None:
        refused = line({"id": 1, "error": {"code": -32601, "message": "Method not found"}})
        assert types(run(line({"id": 1, "method": "prompts/list"}), refused)) == ["protocol", "protocol"]
        assert types(run(refused)) == ["protocol"]

    @pytest.mark.parametrize("method", ["tools/list", "ping", "notifications/cancelled", "logging/setLevel"])
    def test_messages_that_reach_no_data(self, method: str) -> None:
        assert reason(mcp({"method": method})) == "protocol"

    def test_what_the_server_asks_is_none_of_the_persons_actions(self) -> None:
        asked = line({"id": 1, "method": "sampling/createMessage"}, **{"from": "server"})
        answer = line({"id": 1, "result": {}}, **{"from": "client"})
        assert types(run(asked, answer)) == ["protocol", "protocol"]

    @pytest.mark.parametrize("method", ["resources/read", "prompts/get", "resources/subscribe", "tasks/cancel"])
    def test_other_requests_are_commands_too(self, method: str) -> None:
        event = one(mcp({"id": 1, "method": method, "params": {"uri": "file:///etc/motd"}}))
        assert event.action and (event.action.command, event.action.args) == (method, ("uri=file:///etc/motd",))

    def test_the_message_itself_may_have_the_members_of_the_log(self) -> None:
        event = one(read("mcp", {"jsonrpc": "2.0", **called(), "timestamp": TIME, "sid": "s", "user": "alice"}))
        assert (event.session_id, event.subject.id) == ("s", "alice")


class TestSessions:
    def test_only_the_beginning_names_the_agent(self) -> None:
        nobody = {"agent": None, "user": None}
        begin = {"id": 0, "method": "initialize", "params": {"clientInfo": {"name": "ops-agent"}}}
        start, call = run(line(begin, agent=None), line(called(), **nobody))
        assert isinstance(start, Event) and isinstance(call, Event)
        assert start.event_type == "session.started"
        assert (call.actor, call.subject) == (start.actor, start.subject)
        (alone,) = run(line(called(), **nobody))
        assert isinstance(alone, Event) and (alone.actor.id, alone.actor.kind, alone.subject.id) == (
            "unknown", "agent", "unknown",
        )  # fmt: skip
        assert alone.event_id == call.event_id

    def test_without_an_id_a_session_begins_with_initialize(self) -> None:
        begin = {"id": 0, "method": "initialize", "params": {}}
        later = "2026-03-01T13:00:00Z"
        found = run(*(line(one, session_id=None, time=time) for time in (TIME, later) for one in (begin, called())))
        ids = [event.session_id for event in found if isinstance(event, Event)]
        assert ids[0] == ids[1] != ids[2] == ids[3]
        assert all(one and one.startswith("synthesized:session:") for one in ids)

    def test_a_refused_session(self) -> None:
        begin = {"jsonrpc": "2.0", "id": 0, "method": "initialize"}
        answer = {"jsonrpc": "2.0", "id": 0, "error": {"code": -32000, "message": "unauthorized"}}
        assert one(read("mcp", {"time": TIME, "request": begin, "response": answer})).event_type == "session.denied"


class TestSecrets:
    def test_arguments_named_like_secrets_and_secrets_in_texts(self) -> None:
        given = {"password": "hunter2", "nested": {"api_key": "k-123"}, "command": "curl -u bob:hunter3 https://x"}
        event = one(mcp(called(**given)))
        assert event.action and event.action.redacted and event.raw is not None
        for secret in ("hunter2", "k-123", "hunter3"):
            assert secret not in str(event.action.args) and secret.encode() not in event.raw

    def test_answers(self) -> None:
        failed = {"isError": True, "content": [{"type": "text", "text": "bad password=hunter2"}]}
        event = one(mcp({"id": 7, "result": failed}))
        assert event.error == "bad password=[redacted:password]"

    def test_the_id_is_that_of_the_record_with_other_secrets(self) -> None:
        assert one(mcp(called(password="a"))).event_id == one(mcp(called(password="b"))).event_id


TOOLHIVE = {
    "time": "2025-12-15T10:38:32.164200Z", "level": "AUDIT", "msg": "audit_event",
    "audit_id": "01be8d47-3ab0-4aa9-ad14-bd5bb408005d", "type": "mcp_tool_call",
    "logged_at": "2025-12-15T10:38:32.164124Z", "outcome": "success", "component": "vmcp-server",
    "source": {"type": "network", "value": "192.168.1.100",
               "extra": {"user_agent": "mcp-client/1.0", "request_id": "req-12345"}},
    "subjects": {"user_id": "user123", "user": "john.doe@example.com", "client_name": "my-mcp-client",
                 "client_version": "1.0.0"},
    "delegation": {"chain": [{"iss": "https://auth.example.com", "sub": "agent-client-1"}, {"sub": "agent-client-2"}],
                   "truncated": False, "omitted": 0, "malformed": False},
    "target": {"endpoint": "/messages", "method": "tools/call", "type": "tool", "name": "weather_tool"},
    "metadata": {"extra": {"duration_ms": 150, "transport": "streamable-http", "response_size_bytes": 1024}},
    "data": {"request": {"location": "New York"}, "response": {"temperature": "22°C", "humidity": "65%"}},
}  # fmt: skip


def toolhive(**members: Any) -> Result:
    return read("mcp", {**TOOLHIVE, **members})


class TestToolHive:
    def test_a_tool_call(self) -> None:
        event = one(toolhive())
        assert (event.event_type, event.outcome, event.source.native_id) == (
            "session.command", "success", TOOLHIVE["audit_id"],
        )  # fmt: skip
        assert (event.subject.id, event.actor.id, event.actor.kind, event.actor.on_behalf_of) == (
            "john.doe@example.com", "agent-client-1", "agent", "john.doe@example.com",
        )  # fmt: skip
        assert event.action and event.action.command == "weather_tool"
        assert (event.client_ip, event.resource and event.resource.id) == ("192.168.1.100", "vmcp-server")

    def test_the_arguments_of_a_logged_request(self) -> None:
        request = {"jsonrpc": "2.0", **called("weather_tool", location="New York", token="t")}
        action = one(toolhive(data={"request": request})).action
        assert action and (action.args, action.redacted) == (("location=New York", "token=[redacted:secret]"), True)
        cut = one(toolhive(data={"request": '{"jsonrpc":"2.0","id'})).action
        assert cut and cut.args == ()

    @pytest.mark.parametrize(
        ("kind", "outcome", "event_type"),
        [
            ("mcp_initialize", "success", "session.started"),
            ("mcp_tool_call", "denied", "session.denied"),
            ("mcp_tool_call", "application_error", "session.command"),
            ("mcp_resource_read", "failure", "session.command"),
            ("http_request", "denied", "session.denied"),
            ("vmcp_workflow_step_completed", "success", "session.command"),
        ],
    )
    def test_other_types(self, kind: str, outcome: str, event_type: str) -> None:
        event = one(toolhive(type=kind, outcome=outcome))
        assert (event.event_type, event.source.native_type) == (event_type, kind)

    def test_types_that_reach_no_data(self) -> None:
        for kind in ("mcp_tools_list", "mcp_ping", "sse_connection", "vmcp_workflow_started"):
            assert reason(toolhive(type=kind)) == "protocol"
        assert reason(toolhive(type="mcp_teleport")) == "event_unknown"

    def test_nobody_signed_in(self) -> None:
        event = one(toolhive(subjects={"user": "anonymous"}, delegation=None))
        assert (event.subject.id, event.actor.id, event.actor.on_behalf_of) == ("unknown", "mcp-client/1.0", None)


CLIENT = b"2026-03-01T12:00:00.123Z [info] [weather] Message from client: "
CALL = b'{"method":"tools/call","params":{"name":"get_forecast","arguments":{"latitude":38.5}},"jsonrpc":"2.0","id":13}'


class TestDesktop:
    @pytest.mark.parametrize(
        "raw",
        [
            CLIENT + CALL,
            CLIENT.replace(b"[info] [weather]", b"[weather] [info]") + CALL + b" { metadata: undefined }",
        ],
    )
    def test_a_call(self, raw: bytes) -> None:
        (event,) = run(raw)
        assert isinstance(event, Event) and event.action and event.resource
        assert (event.action.command, event.action.args, event.action.truncated) == (
            "get_forecast", ("latitude=38.5",), False,
        )  # fmt: skip
        assert (event.resource.id, event.subject.id, event.raw) == ("weather", "unknown", raw)

    def test_a_cut_message_keeps_the_tool(self) -> None:
        raw = (
            CLIENT
            + CALL.replace(b'"latitude":38.5', b'"path":"R...[14696 chars truncated]...')
            + b" { metadata: undefined }"
        )
        (event,) = run(raw)
        assert isinstance(event, Event) and event.action
        assert (event.action.command, event.action.truncated) == ("get_forecast", True)

    def test_the_newest_versions_write_the_method_alone(self) -> None:
        begin = b"2026-07-22T20:23:53.331Z [info] [vault] Message from "
        call, answer = run(begin + b'client: method="tools/call" id=3 params', begin + b"server: id=3 result")
        assert isinstance(call, Event) and call.action and (call.action.command, call.action.truncated) == (
            "tools/call", True,
        )  # fmt: skip
        assert answer == "call_result"

    def test_notices(self) -> None:
        assert run(b"2026-03-01T12:00:00.123Z [info] [weather] Initializing server...") == ["client_notice"]
        adapter = make_adapter("mcp")
        first = b"2026-03-01T12:00:00.123Z [info] [weather] Using MCP server command: npx with args and path: {"
        assert [adapter.goes_on(first, False), adapter.goes_on(b"  paths: [", True), adapter.goes_on(b"}", True)] == [
            True, True, False,
        ]  # fmt: skip

    @pytest.mark.parametrize("end", [b"{broken", b"[1]", b"", b'{"a":1} {"method":'])
    def test_a_message_that_is_none_fails(self, end: bytes) -> None:
        with pytest.raises(RecordError, match=r"^records.jsonl:7: "):
            make_adapter("mcp").read(CLIENT + end, HERE)

    @few(100)
    @given(at=st.integers(0, 200), raw=st.binary(max_size=6))
    def test_damaged_lines_map_are_skipped_or_fail(self, at: int, raw: bytes) -> None:
        damaged = CLIENT + CALL
        try:
            make_adapter("mcp").read(damaged[:at] + raw + damaged[at + len(raw) :], HERE)
        except RecordError as error:
            assert error.location == HERE


def test_records_are_recognised() -> None:
    assert recognise(TOOLHIVE) == recognise(line(called())) == "mcp"
    session = {"event": "mcp.session.request", "time": TIME, "message": {"jsonrpc": "2.0", **called()}}
    assert recognise(session) == "teleport"
    assert recognise({"event": "mcp.tool_call", "time": TIME, "sid": "s", "tool": "x"}) == "hoop"
