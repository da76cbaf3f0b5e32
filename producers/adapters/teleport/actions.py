"""Teleport: ``action`` and ``outcome`` of a record about a session."""

from __future__ import annotations

from ....schemas.event import Action
from ...json_fields import Fields
from .event_types import ARGUMENTS, FAILURES, MCP_PREFIX, POSITIONAL, QUERY_PREFIX, SFTP_ACTIONS


def action_of(event: str, record: Fields) -> Action:
    """Return the action of a record whose type is ``event``."""
    args = _arguments(event, record)
    exit_code = _exit_code(record)
    if event.startswith(QUERY_PREFIX):
        query = _query(event, record)
        plain = event in ("db.session.query", "db.session.query.failed")
        command = None if plain else event.removeprefix(QUERY_PREFIX)
        return Action(command=command, args=args, query=query, exit_code=exit_code)
    return Action(command=_command(event, record), args=args, exit_code=exit_code)


def outcome_of(event: str, record: Fields) -> str:
    """Return the outcome that the code, the HTTP status, the exit code and ``success`` indicate."""
    status = record.integer("response_code") or record.integer("status_code") or 0
    if status in (401, 403):
        return "denied"
    code = record.text("code") or ""
    if has_failed(record) or status >= 400 or event in FAILURES or _exit_code(record) not in (None, 0):
        return "denied" if "denied" in (error_of(record) or "").lower() else "failure"
    return "success" if record.flag("success") or code.endswith("I") else "unknown"


def has_failed(record: Fields) -> bool:
    """Return whether Teleport reports a failure. Its codes end in I for success, and in W or E for failure."""
    return record.flag("success") is False or (record.text("code") or "").endswith(("W", "E"))


def error_of(record: Fields) -> str | None:
    """Return Teleport's error message."""
    return record.text("error") or record.text("exitError")


def _exit_code(record: Fields) -> int | None:
    for name in ("exitCode", "exit_code", "return_code"):
        code = record.integer(name)
        if code is not None:
            return code
    return None


def _command(event: str, record: Fields) -> str:
    if event == "exec":
        return record.text("command") or event
    if event in ("session.command", "session.disk", "session.network"):
        path = record.text("path") if event == "session.command" else None
        return path or record.text("program") or event
    if event == "scp":
        return f"scp {record.text('action') or 'transfer'}"
    if event == "sftp":
        number = record.integer("action")
        known = number is not None and 0 < number < len(SFTP_ACTIONS)
        return f"sftp {SFTP_ACTIONS[number] if known and number else number}"
    if event.startswith(MCP_PREFIX):
        message = record.object("message")
        return _tool_call(message).text("name") or message.text("method") or event
    if event == "git.command":
        return record.text("service") or record.text("command") or event
    if event == "kube.request":
        return record.text("verb") or event
    if event in ("app.session.request", "app.session.dynamodb.request"):
        return record.text("method") or event
    return event


def _query(event: str, record: Fields) -> str | None:
    if event == "db.session.cassandra.batch":
        queries = [child.text("query") or "" for child in record.objects("children")]
        return "\n".join(queries) or None
    if event == "db.session.dynamodb.request":
        return record.compact("body")
    return record.text("db_query") or record.text("query")


def _arguments(event: str, record: Fields) -> tuple[str, ...]:
    if event == "sftp_summary":
        stats = record.objects("file_transfer_stats")
        return tuple(path for path in (stat.text("path") for stat in stats) if path)
    if event.startswith(MCP_PREFIX):
        message = record.object("message")
        tool = _tool_call(message)
        given = tool.object("arguments") if tool.has("name") else message.object("params")
        return _named(given, tuple(given.values), positional=frozenset() if tool.has("name") else POSITIONAL)
    return _named(record, ARGUMENTS.get(event, ())) + _references(event, record)


def _references(event: str, record: Fields) -> tuple[str, ...]:
    """Return what a Git command changed: action, reference, old and new commit."""
    changes = record.objects("actions") if event == "git.command" else ()
    named = ((change.text(name) for name in ("action", "reference", "old", "new")) for change in changes)
    return tuple(" ".join(filter(None, names)) for names in named)


def _tool_call(message: Fields) -> Fields:
    """Return tool and arguments of a JSON-RPC message that calls a tool of an MCP server; empty for any other."""
    return message.object("params") if message.text("method") == "tools/call" else Fields({}, message.location)


def _named(record: Fields, names: tuple[str, ...], positional: frozenset[str] = POSITIONAL) -> tuple[str, ...]:
    found: list[str] = []
    for name in names:
        value = record.values.get(name)
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            values = record.texts(name)
        elif isinstance(value, str):
            values = tuple(text for text in (record.text(name),) if text)
        else:
            values = tuple(text for text in (record.compact(name),) if text)
        label = name.encode("utf-8", "backslashreplace").decode()  # a sender's name may have lone surrogates
        found += values if name in positional else [f"{label}={value}" for value in values]
    return tuple(found)
