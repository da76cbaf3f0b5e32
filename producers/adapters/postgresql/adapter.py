"""PostgreSQL: connections as sessions, statements as queries, roles as grants."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, ClassVar

from ....schemas.event import Action, Actor, Event, EventSource, Resource, Subject
from ...json_fields import Fields, Location, RecordError
from ...redaction.redactor import Redaction
from ..contract import Adapter, Mapped, Skipped
from ..values import UNKNOWN, ip_address_in, record_id, synthesized
from .audit import Audit, parse_audit
from .log_record import BEGINS_CSV, parse_line
from .redaction import MARK, without_parameters, without_quoted_passwords
from .roles import LOGIN, RoleChange, role_changes

_CONTINUATIONS = frozenset({"DETAIL", "HINT", "QUERY", "CONTEXT", "LOCATION", "STATEMENT", "BACKTRACE"})
_FAILED = frozenset({"ERROR", "FATAL", "PANIC"})
_STATEMENT = re.compile(
    r"(?P<duration>duration: [\d.]+ ms  )?(?:statement|execute (?:fetch from )?[^\n:]{0,128}): (?P<sql>.*)", re.DOTALL
)
_REFUSED_CONNECTION = ("authentication", "startup", "")
_ROLE_COMMANDS = frozenset({
    "GRANT", "GRANT ROLE", "REVOKE", "REVOKE ROLE", "CREATE ROLE", "CREATE USER", "CREATE GROUP", "ALTER ROLE",
    "ALTER USER", "ALTER GROUP", "DROP ROLE", "DROP USER", "DROP GROUP",
})  # fmt: skip
_VERB = re.compile(r"(?:\s|/\*.{0,10000}?\*/|--[^\n]*\n)*+([A-Za-z]{1,30})", re.DOTALL)
"""The first word after white space and comments, which are never tried in another way: senders choose the text."""
_ZONE = re.compile(r" (UTC|GMT)$|([+-]\d\d)(:?\d\d)?$")


class PostgresqlAdapter(Adapter):
    """Maps the server log, with or without pgaudit.

    A connection is a session. Only records that were written after a statement was carried out (pgaudit, or a duration)
    give or remove a role: ``log_statement`` writes before, so the statement may fail.
    """

    SYSTEM: ClassVar[str] = "postgresql"
    VERSION: ClassVar[str] = "2"
    COVERS: ClassVar[tuple[str, ...]] = (
        "connections and their ends, as sessions; refused connections",
        "statements (pgaudit, log_statement, log_min_duration_statement), as queries, without their passwords",
        "role memberships, as grants; a password with VALID UNTIL, as a grant until that time",
    )
    DOES_NOT_SAY: ClassVar[tuple[str, ...]] = (
        "whether a transaction was rolled back after a role was granted: compare with pg_auth_members",
        "that a password has passed its VALID UNTIL; sessions and other ways to authenticate go on",
        "which privileges on tables a role has: these statements are queries only",
        "which server it is: give --instance",
    )
    MARKS: ClassVar[tuple[frozenset[str], ...]] = (
        frozenset({"timestamp", "error_severity", "message", "pid"}),
        frozenset({"timestamp", "error_severity", "message", "backend_type"}),
    )
    HIDES: ClassVar[tuple[bytes, ...]] = (b"arameters: ", b"AUDIT: ", b"ERROR")
    SKIP_REASONS: ClassVar[dict[str, str]] = {
        "connection_step": "a connection that is not authorized yet",
        "continuation": "a DETAIL, HINT, CONTEXT or STATEMENT line, which belongs to the record before",
        "server_message": "a message of the server that says nothing about a connection or a statement",
    }

    def parse(self, raw: bytes, location: Location) -> Fields:
        """Return the members of a record: jsonlog, or csvlog and stderr, which begin with the time."""
        return Fields(parse_line(raw, location), location) if raw[:1].isdigit() else super().parse(raw, location)

    def begins(self, line: bytes) -> bool:
        """Return whether a line is the first of a record of csvlog."""
        return BEGINS_CSV.match(line) is not None

    def goes_on(self, line: bytes, begun: bool) -> bool:
        """Return whether a text in quotes is open at the end of a line of csvlog."""
        return (begun or self.begins(line)) and (line.count(b'"') % 2 == 1) != begun

    def redact(self, values: dict[str, Any], redaction: Redaction) -> dict[str, Any]:
        """Return a record without the parameters of statements, and without passwords that errors quote."""
        return without_parameters(without_quoted_passwords(values), redaction)

    def map(self, record: Fields) -> Mapped | Skipped:
        """Return the events of one record, or the reason to skip it."""
        severity, message = record.required_text("error_severity"), record.text("message") or ""
        base = self._base(record)
        if severity in _CONTINUATIONS:
            return Skipped("continuation", severity)
        if (audit := parse_audit(message)) is not None:
            return tuple(self._audited(audit, base))
        if severity in _FAILED:
            return self._failed(record, severity, message, base)
        if message.startswith("connection authorized:"):
            return (Event(event_type="session.started", **base, outcome="success"),)
        if message.startswith("disconnection:"):
            return (Event(event_type="session.ended", **base, outcome="success"),)
        if message.startswith(("connection received:", "connection authenticated:")):
            return Skipped("connection_step", message[:60])
        found = _STATEMENT.fullmatch(message)
        if found is None:
            return Skipped("server_message", message[:60] or severity)
        sql, done = found["sql"], found["duration"] is not None
        action = Action(command=_command_of(sql), query=sql, redacted=MARK in message)
        query = Event(event_type="session.query", **base, action=action, outcome="success" if done else "unknown")
        return (query, *(self._changes(sql, base) if done else ()))

    def _base(self, record: Fields) -> dict[str, Any]:
        instance = self.instance or self.SYSTEM
        session, line = record.text("session_id"), record.integer("line_num")
        native_id = f"{session}/{line}" if session and line is not None else record_id(record.values)
        user, database = record.text("user"), record.text("dbname")
        if user == "[unknown]":
            user = database = None
        if session is None:
            session = synthesized("session", str(record.integer("pid")), user or "", database or "")
        return {
            "occurred_at": _time(record),
            "source": EventSource(self.SYSTEM, instance, native_id, record.required_text("error_severity")),
            "subject": Subject(user or UNKNOWN),
            "actor": Actor(user or UNKNOWN),
            "resource": Resource("database", database or UNKNOWN),
            "session_id": session,
            "client_ip": ip_address_in(record.text("remote_host")),
        }

    def _failed(self, record: Fields, severity: str, message: str, base: dict[str, Any]) -> Mapped | Skipped:
        sql = record.text("statement")
        state = record.text("state_code") or ""
        refused = state == "42501" or message.startswith("permission denied")
        if sql is not None:
            action = Action(command=_command_of(sql), query=sql, redacted=MARK in sql)
            outcome = "denied" if refused else "failure"
            return (Event(event_type="session.query", **base, action=action, outcome=outcome, error=message),)
        if severity == "FATAL" and ((record.text("ps") or "") in _REFUSED_CONNECTION or state.startswith("28")):
            denied = Event(event_type="session.denied", **base, outcome="denied", error=message)
            if record.text("ps") != "startup":
                return (denied,)
            # It was authorized, and its end has no record of its own.
            return (denied, Event(event_type="session.ended", **base, outcome="failure", error=message))
        return Skipped("server_message", message[:60] or severity)

    def _audited(self, audit: Audit, base: dict[str, Any]) -> Iterator[Event]:
        named = [one for one in (audit.object_type, audit.object_name) if one]
        parameters = [f"parameters: {audit.parameters}"] if audit.parameters else []
        action = Action(
            command=audit.command,
            args=(f"{audit.audit_type} {audit.audit_class}", *([" ".join(named)] if named else []), *parameters),
            query=audit.statement,
            redacted=MARK in (audit.statement or ""),
            truncated=audit.cut,
        )
        yield Event(event_type="session.query", **base, action=action, outcome="success")
        if audit.command in _ROLE_COMMANDS and audit.statement is not None and not audit.cut:
            # pgaudit repeats a text with several statements in the record of each.
            yield from self._changes(audit.statement, base, verb=audit.command.partition(" ")[0].lower())

    def _changes(self, sql: str, base: dict[str, Any], *, verb: str | None = None) -> Iterator[Event]:
        for ordinal, change in enumerate(role_changes(sql)):
            if verb not in (None, change.verb):
                continue
            resource = Resource("postgresql_cluster", base["source"].instance)
            own = {**base, "resource": resource, "subject": Subject(change.member), "ordinal": ordinal}
            yield self._change(change, {**own, "outcome": "success", "grant_id_kind": "synthesized"})

    def _change(self, change: RoleChange, own: dict[str, Any]) -> Event:
        if change.kind in ("given", "taken"):
            fields = {**own, "grant_id": synthesized("role", change.role, change.member), "entitlement": change.role}
            if change.kind == "given":
                return Event(event_type="grant.activated", **fields, expiry_source="unknown")
            return Event(event_type="grant.revoked", **fields, removal_evidence="confirmed")
        fields = {**own, "grant_id": synthesized("password", change.member), "entitlement": LOGIN}
        if change.kind == "dropped":
            return Event(event_type="grant.revoked", **fields, removal_evidence="confirmed")
        until = _until(change.until)
        return Event(
            event_type="grant.extended" if change.kind == "changed" else "grant.activated",
            **fields,
            expires_at=until,
            expiry_source="native" if until else "unknown",
            # The password stops working then. Other ways to authenticate do not.
            ends_by_itself=True if until else None,
        )


def _command_of(sql: str) -> str:
    found = _VERB.match(sql)
    return found[1].upper() if found else UNKNOWN


def _time(record: Fields) -> datetime:
    """Return the time of a record. Its zone is an abbreviation, of which only UTC is clear to everybody."""
    text = record.required_text("timestamp")
    if _ZONE.search(text) is None:
        record.fail("timestamp", f"{text[:64]!r} is not in UTC: set log_timezone = 'UTC'")
    time = Fields({"timestamp": _with_zone(text)}, record.location).time("timestamp")
    if time is None:
        record.fail("timestamp", "is missing")
    return time


def _with_zone(text: str) -> str:
    text = re.sub(r" (UTC|GMT)$", "Z", text)
    return re.sub(r" ?([+-]\d\d)$", r"\1:00", text)


def _until(text: str | None) -> datetime | None:
    """Return the time of VALID UNTIL; None without one, or if its zone is that of the session."""
    if text is None:
        return None
    try:
        return Fields({"until": _with_zone(text)}, Location("", 0)).time("until")
    except RecordError:
        return None
