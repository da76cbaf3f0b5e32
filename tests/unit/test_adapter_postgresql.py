"""PostgreSQL: records that PostgreSQL 15.18 with pgaudit 1.7.0 wrote for these tests, and statements made by hand."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.producers.adapters import RecordError, make_adapter
from grantledger.producers.adapters.contract import DEFAULT_REDACTOR
from grantledger.producers.adapters.postgresql.audit import parse_audit
from grantledger.producers.adapters.postgresql.roles import role_changes
from grantledger.producers.importer import MAX_RECORD_BYTES, Importer, ImportReport
from grantledger.schemas.event import Event
from support.adapters import HERE, Result, assert_maps_or_fails, one, read, reason, several
from support.examples import few
from support.mangling import mangled

SESSION = {"user": "alice", "dbname": "orders", "pid": 1061, "remote_host": "127.0.0.1", "remote_port": 35366,
           "session_id": "6b0c3889.425", "line_num": 9, "ps": "GRANT ROLE", "session_start": "2026-11-29 14:36:57 UTC",
           "vxid": "3/4", "txid": 726, "application_name": "psql", "backend_type": "client backend"}  # fmt: skip
CSV = (
    b'2026-11-29 14:36:57.337 UTC,"postgres","orders",1061,"127.0.0.1:35366",6b0c3889.425,9,"GRANT ROLE",'
    b"2026-11-29 14:36:57 UTC,3/4,726,LOG,00000,"
    b'"AUDIT: SESSION,4,1,ROLE,GRANT ROLE,,,GRANT dba TO alice WITH ADMIN OPTION,<not logged>",,,,,,,,,"psql",'
    b'"client backend",,0'
)
STDERR = (
    b"2026-11-29 14:36:57.337 UTC [1061] postgres@orders 127.0.0.1 6b0c3889.425 9 LOG:  "
    b"AUDIT: SESSION,4,1,ROLE,GRANT ROLE,,,GRANT dba TO alice WITH ADMIN OPTION,<not logged>"
)


def logged(message: str, severity: str = "LOG", **more: Any) -> dict[str, Any]:
    """A record of jsonlog."""
    return {
        "timestamp": "2026-11-29 14:36:57.337 UTC",
        **SESSION,
        "error_severity": severity,
        "message": message,
        **more,
    }


def mapped(message: str, severity: str = "LOG", **more: Any) -> Result:
    return read("postgresql", logged(message, severity, **more), instance="pg-1")


def changes(sql: str) -> list[tuple[str, str, str, str | None]]:
    return [(change.kind, change.member, change.role, change.until) for change in role_changes(sql)]


def audited(command: str, sql: str, audit_class: str = "ROLE") -> tuple[Event, ...]:
    quoted = '"' + sql.replace('"', '""') + '"'
    return several(mapped(f"AUDIT: SESSION,4,1,{audit_class},{command},,,{quoted},<not logged>"))


class TestFormats:
    @pytest.mark.parametrize("raw", [CSV, STDERR])
    def test_the_formats_say_the_same(self, raw: bytes) -> None:
        query, granted = several(make_adapter("postgresql", instance="pg-1").read(raw, HERE))
        message = STDERR.decode().partition("LOG:  ")[2]
        like = json.dumps(logged(message, user="postgres")).encode()
        others = several(make_adapter("postgresql", instance="pg-1").read(like, HERE))
        assert [event.event_id for event in (query, granted)] == [event.event_id for event in others]
        assert (granted.event_type, granted.subject.id, granted.entitlement) == ("grant.activated", "alice", "dba")
        assert granted.resource and (granted.resource.kind, granted.resource.id) == ("postgresql_cluster", "pg-1")
        assert (query.actor.id, query.client_ip, query.session_id) == ("postgres", "127.0.0.1", "6b0c3889.425")
        assert query.raw == raw

    def test_the_prefix_of_debian_has_no_session(self) -> None:
        line = b"2026-11-29 14:36:57.337 UTC [1061] alice@orders LOG:  statement: select 1"
        event = one(make_adapter("postgresql").read(line, HERE))
        assert event.session_id and event.session_id.startswith("synthesized:session:")
        assert (event.subject.id, event.client_ip) == ("alice", None)

    @pytest.mark.parametrize(
        ("raw", "problem"),
        [
            (b"2026-11-29 14:36:57.337 UTC,1,2", "3 columns instead of 23"),
            (CSV[:200], "not csvlog: unexpected end"),
            (b"2026-11-29 something else", "no record of jsonlog, of csvlog, or of stderr"),
            (b"2026-11-29 14:36:57.337 CET [1] LOG:  x", "log_timezone = 'UTC'"),
            (b"2026-11-29 \xff", "not UTF-8 at byte 11"),
        ],
    )
    def test_other_lines_fail(self, raw: bytes, problem: str) -> None:
        with pytest.raises(RecordError, match=problem):
            make_adapter("postgresql").read(raw, HERE)

    def test_a_numeric_zone_is_clear(self) -> None:
        event = one(mapped("disconnection: session time: 0:00:00.159", timestamp="2026-11-29 14:36:57.337 +01"))
        assert event.occurred_at.isoformat() == "2026-11-29T14:36:57.337000+01:00"


SEVERAL_LINES = CSV.replace(b"GRANT dba TO alice WITH ADMIN OPTION", b'""GRANT dba\n\n  TO\n{""""x""""}, alice""')


class TestStatementsOverSeveralLines:
    def imported(self, content: bytes, **more: Any) -> tuple[list[Event], ImportReport]:
        events: list[Event] = []
        importer = Importer(make_adapter("postgresql"), events.append, **more)
        for record in importer.envelopes.records(io.BytesIO(content).read, "pg.csv"):
            importer.take(record)
        return events, importer.report

    def test_csvlog_is_joined(self) -> None:
        events, report = self.imported(SEVERAL_LINES + b"\n" + CSV.replace(b",9,", b",10,") + b"\n")
        assert (report.mapped, report.failed) == (2, 0)
        assert events[0].action and events[0].action.query == 'GRANT dba\n\n  TO\n{"x"}, alice'
        assert events[0].raw == SEVERAL_LINES

    @pytest.mark.parametrize("rest", [b"", b"\n" + CSV])
    def test_a_missing_end_is_named(self, rest: bytes) -> None:
        _, report = self.imported(SEVERAL_LINES.rpartition(b"\n")[0] + rest)
        assert (report.failed, report.mapped) == (1, 1 if rest else 0)
        assert report.failures[0].problem == "the last part of the line is missing"

    def test_a_line_that_is_too_long_ends_the_record(self) -> None:
        begun = SEVERAL_LINES.partition(b"\n")[0]
        _, report = self.imported(begun + b"\n" + b"x" * (MAX_RECORD_BYTES + 9) + b"\n" + CSV)
        assert (report.mapped, report.failed) == (1, 2)

    def test_a_record_that_is_too_long_ends(self) -> None:
        _, report = self.imported(SEVERAL_LINES[:200] + b"\nx" * 1_000 + b"\n" + CSV, max_record_bytes=1_000)
        assert report.mapped == 1 and "longer than" in report.failures[0].problem


class TestSessions:
    def test_connections(self) -> None:
        started = one(mapped("connection authorized: user=alice database=orders application_name=psql"))
        ended = one(mapped("disconnection: session time: 0:00:00.159 user=alice database=orders host=127.0.0.1"))
        assert (started.event_type, ended.event_type) == ("session.started", "session.ended")
        assert started.resource and (started.resource.kind, started.resource.id) == ("database", "orders")
        assert reason(mapped("connection received: host=127.0.0.1 port=35366")) == "connection_step"

    def test_refused_connections(self) -> None:
        denied = one(mapped('password authentication failed for user "alice"', "FATAL", ps="authentication"))
        assert (denied.event_type, denied.outcome) == ("session.denied", "denied")
        events = several(mapped('role "mallory" does not exist', "FATAL", ps="startup", state_code="28000"))
        assert [event.event_type for event in events] == ["session.denied", "session.ended"]

    def test_statements(self) -> None:
        before = one(mapped("statement: select * from t"))
        after = one(mapped("duration: 0.412 ms  execute <unnamed>: select $1::int"))
        assert (before.outcome, after.outcome) == ("unknown", "success")
        assert (
            before.action
            and after.action
            and (after.action.command, after.action.query) == ("SELECT", "select $1::int")
        )
        refused = one(mapped("permission denied for table t", "ERROR", statement="select * from t", state_code="42501"))
        failed = one(mapped('relation "nope" does not exist', "ERROR", statement="select * from nope"))
        assert (refused.outcome, failed.outcome, failed.error) == (
            "denied",
            "failure",
            'relation "nope" does not exist',
        )

    def test_what_is_skipped(self) -> None:
        assert reason(mapped("checkpoint starting: shutdown immediate")) == "server_message"
        assert reason(mapped("parameters: $1 = '1'", "DETAIL")) == "continuation"
        assert (
            reason(mapped("terminating connection due to administrator command", "FATAL", ps="idle"))
            == "server_message"
        )


class TestRoles:
    def test_a_membership_is_given_and_taken(self) -> None:
        _, given_ = audited("GRANT ROLE", "GRANT dba TO alice WITH ADMIN OPTION")
        _, taken = audited("REVOKE ROLE", "REVOKE dba FROM alice CASCADE")
        assert (given_.event_type, taken.event_type) == ("grant.activated", "grant.revoked")
        assert given_.grant_id == taken.grant_id and taken.removal_evidence == "confirmed"
        assert given_.actor.id == "alice"  # who ran it, in this session

    def test_valid_until_is_a_grant_with_an_end(self) -> None:
        _, made = audited("CREATE ROLE", "CREATE ROLE bob LOGIN VALID UNTIL '2026-12-01 12:00:00+00'")
        assert (made.event_type, made.subject.id, made.entitlement) == ("grant.activated", "bob", "password")
        assert made.expires_at and made.expires_at.isoformat() == "2026-12-01T12:00:00+00:00"
        assert (made.expiry_source, made.ends_by_itself) == ("native", True)
        _, changed = audited("ALTER ROLE", "ALTER ROLE bob VALID UNTIL 'infinity'")
        assert (changed.event_type, changed.expires_at, changed.ends_by_itself) == ("grant.extended", None, None)
        assert changed.grant_id == made.grant_id
        _, dropped = audited("DROP ROLE", "DROP ROLE bob")
        assert (dropped.event_type, dropped.grant_id) == ("grant.revoked", made.grant_id)

    def test_only_a_record_after_the_statement_gives_a_role(self) -> None:
        assert one(mapped("statement: GRANT dba TO alice")).event_type == "session.query"
        events = several(mapped("duration: 1.2 ms  statement: GRANT dba TO alice"))
        assert [event.event_type for event in events] == ["session.query", "grant.activated"]

    def test_of_a_text_with_several_statements_each_record_tells_its_own(self) -> None:
        sql = "GRANT a TO x; REVOKE a FROM x"
        assert [event.event_type for event in audited("GRANT ROLE", sql)][1:] == ["grant.activated"]
        assert [event.event_type for event in audited("REVOKE ROLE", sql)][1:] == ["grant.revoked"]

    @pytest.mark.parametrize(
        ("sql", "expected"),
        [
            ('GRANT a, "B c" TO x, GROUP y GRANTED BY z', [("given", "x", "a"), ("given", "y", "a"),
                                                          ("given", "x", "B c"), ("given", "y", "B c")]),
            ("grant A to X", [("given", "x", "a")]),
            ("GRANT a TO x WITH INHERIT TRUE, SET FALSE", [("given", "x", "a")]),
            ("REVOKE ADMIN OPTION FOR a FROM x", []),
            ("GRANT SELECT ON t TO x", []),
            ("GRANT /* a; b */ a -- c\n TO x", [("given", "x", "a")]),
            ("CREATE USER u PASSWORD <REDACTED> IN ROLE a, b LOGIN", [("given", "u", "a"), ("given", "u", "b")]),
            ("ALTER GROUP g ADD USER u, v", [("given", "u", "g"), ("given", "v", "g")]),
            ("ALTER GROUP g DROP USER u", [("taken", "u", "g")]),
            ("ALTER ROLE u NOLOGIN", [("dropped", "u", "")]),
            ("ALTER ROLE u RENAME TO v", []),
            ("ALTER ROLE ALL SET x = 1", []),
            ("DROP ROLE IF EXISTS u, v", [("dropped", "u", ""), ("dropped", "v", "")]),
            ("SELECT 'GRANT a TO x; GRANT b TO y'", []),
            ("GRANT", []),
            ("GRANT a", []),
        ],
    )  # fmt: skip
    def test_statements(self, sql: str, expected: list[tuple[str, str, str]]) -> None:
        assert [change[:3] for change in changes(sql)] == expected

    def test_a_time_without_a_zone_is_no_end(self) -> None:
        _, made = audited("CREATE ROLE", "CREATE ROLE bob VALID UNTIL '2026-12-01'")
        assert (made.expires_at, made.expiry_source) == (None, "unknown")


class TestPasswords:
    @pytest.mark.parametrize(
        "sql",
        [
            "CREATE ROLE a PASSWORD 'hunter2'",
            "CREATE ROLE a PASSWORD'hunter2' LOGIN",
            "alter user a with encrypted password /* new */ 'hunter2'",
            "ALTER ROLE a PASSWORD E'x\\'hunter2'",
            "ALTER ROLE a PASSWORD 'it''s hunter2'",
            "ALTER ROLE a PASSWORD $$hunter2$$",
            "ALTER ROLE a PASSWORD $x$hunter2$$$x$",
            "ALTER ROLE a PASSWORD U&'hunter2'",
            "ALTER ROLE a PASSWORD 'hunter2",
            "ALTER ROLE a PASSWORD E'hunter2\\",
            "ALTER ROLE a PASSWORD hunter2",
            'CREATE USER a LOGIN ENCRYPTED PASSWORD "hunter2"',
            "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'a', password 'hunter2')",
            "CREATE SUBSCRIPTION s CONNECTION 'host=h password=hunter2 user=a' PUBLICATION p",
            "SELECT dblink_connect('postgresql://a:hunter2@host/db')",
        ],
    )
    def test_none_is_kept_anywhere(self, sql: str) -> None:
        assert "hunter2" not in DEFAULT_REDACTOR.text(sql)
        event = one(mapped(f"statement: {sql}"))
        assert event.raw and b"hunter2" not in event.raw and b"[redacted:" in event.raw
        assert event.action and event.action.redacted and "hunter2" not in (event.action.query or "")
        failed = one(mapped("syntax error", "ERROR", statement=sql, detail=sql))
        assert failed.action and failed.action.redacted and failed.raw and b"hunter2" not in failed.raw

    @pytest.mark.parametrize(
        "sql",
        [
            "ALTER ROLE a PASSWORD 'hunter2",
            "ALTER ROLE a PASSWORD hunter2 LOGIN",
            'ALTER ROLE a PASSWORD "hunter2"',
        ],
    )
    def test_an_error_does_not_quote_one(self, sql: str) -> None:
        """PostgreSQL quotes where its parser stopped."""
        failed = one(mapped('syntax error at or near "hunter2"', "ERROR", statement=sql))
        assert failed.error == 'syntax error at or near "[redacted:sql_password]"'
        assert failed.raw and b"hunter2" not in failed.raw
        other = one(mapped('role "a" does not exist', "ERROR", statement="ALTER ROLE a PASSWORD 'a b'"))
        assert other.error == 'role "a" does not exist'

    def test_other_statements_stay_as_they_are(self) -> None:
        for sql in (
            "SELECT password FROM account WHERE name = 'a'",
            "ALTER ROLE a PASSWORD NULL",
            "SELECT 1",
            "ALTER ROLE a RENAME TO password",
            "ALTER ROLE a; SELECT password FROM t",
        ):
            assert DEFAULT_REDACTOR.text(sql) == sql

    def test_what_pgaudit_redacted_is_marked(self) -> None:
        [query] = audited("ALTER ROLE", "ALTER ROLE a PASSWORD <REDACTED>")
        assert query.action and query.action.redacted


class TestAudit:
    def test_objects_and_parameters(self) -> None:
        message = 'AUDIT: OBJECT,1,1,WRITE,INSERT,TABLE,public.t,"INSERT INTO t VALUES ($1)","1,a",1'
        event = one(mapped(message))
        assert event.action and event.action.args == ("OBJECT WRITE", "TABLE public.t", "parameters: 1,a")
        assert event.action.query == "INSERT INTO t VALUES ($1)"

    def test_a_statement_without_its_end_is_marked_and_gives_nothing(self) -> None:
        event = one(mapped('AUDIT: SESSION,4,1,ROLE,GRANT ROLE,,,"GRANT dba TO alice'))
        assert event.action and event.action.truncated

    @pytest.mark.parametrize("message", ["AUDIT: ", "AUDIT: SESSION,1", "audit: x", "AUDIT: OTHER,1,1,A,B,C,D,E,F"])
    def test_other_messages(self, message: str) -> None:
        assert parse_audit(message) is None
        assert reason(mapped(message)) == "server_message"


@pytest.mark.parametrize(
    "sql",
    [
        "/**/" * 5_000 + "1",
        "ALTER ROLE a PASSWORD " + "/**/" * 5_000 + "1",
        "PASSWORD" + " " * 100_000 + "x",
        "password/*" * 20_000,
        "ALTER ROLE " * 20_000,
        "ALTER ROLE " + "password " * 20_000,
        'ALTER ROLE a PASSWORD "' * 20_000,
        "GRANT " + "/*" * 20_000,
        "GRANT " + '"' * 20_001 + " TO x",
        "PASSWORD E'" + "\\" * 50_001,
        "PASSWORD $" + "a" * 50_000,
    ],
)
def test_a_statement_made_to_be_slow_is_not(sql: str) -> None:
    """With a pattern that tries all divisions of a text, one of these would not end."""
    several(mapped(f"duration: 1 ms  statement: {sql}"))


@few(100)
@given(data=st.data())
def test_mangled_records_map_are_skipped_or_fail(data: st.DataObject) -> None:
    records = [logged("AUDIT: SESSION,4,1,ROLE,GRANT ROLE,,,GRANT dba TO alice,<not logged>"),
               logged("syntax error", "ERROR", statement="ALTER ROLE a PASSWORD 'x'")]  # fmt: skip
    assert_maps_or_fails("postgresql", data.draw(mangled(records)))


@few(100)
@given(at=st.integers(0, 400), raw=st.binary(max_size=6), line=st.sampled_from([CSV, STDERR]))
def test_damaged_lines_map_are_skipped_or_fail(at: int, raw: bytes, line: bytes) -> None:
    try:
        make_adapter("postgresql").read(line[:at] + raw + line[at + len(raw) :], HERE)
    except RecordError as error:
        assert error.location == HERE


@few(200)
@given(st.text(alphabet="GRANTTOFROM ;,'\"$abc/*-\n", max_size=60))
def test_any_text_can_be_read_as_sql(sql: str) -> None:
    list(role_changes(f"GRANT {sql}"))
    DEFAULT_REDACTOR.text(f"PASSWORD {sql}")
