"""A real PostgreSQL writes jsonlog and csvlog, with pgaudit and without, while ``follow`` reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from grantledger.schemas.event import Event
from support.following import Follow
from support.gateway import GatewayInProcess, imported_ids
from support.postgresql_server import PostgresqlServer, running
from support.waiting import wait_for

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sources" / "postgresql.md").read_text("utf-8")
WITHOUT_PGAUDIT = "log_min_duration_statement = 0\n"
ROLES = (
    "CREATE ROLE dba",
    "CREATE ROLE alice LOGIN PASSWORD 'hunter2'",
    "ALTER ROLE alice VALID UNTIL '2040-01-01 00:00:00+00'",
    "GRANT dba TO\n  alice",
    "CREATE ROLE bob LOGIN IN ROLE dba VALID UNTIL '2040-01-01 02:00:00+02'",
    "CREATE ROLE eve LOGIN PASSWORD 'hunter2' IN ROLE dba",
    'CREATE ROLE "Carol, the ""second"""; GRANT dba TO "Carol, the ""second"""; REVOKE dba FROM alice',
    "CREATE TABLE orders (id int)",
    "CREATE TABLE own AS SELECT 1 AS id",
    "GRANT SELECT ON own TO alice",
)
WRONG = (
    "SELECT id FROM orders",
    "SELECT nope",
    "ALTER ROLE alice PASSWORD 'hunter2",
    "ALTER ROLE alice PASSWORD hunter2",
    'ALTER ROLE alice PASSWORD "hunter2"',
)
ENDS = ("ALTER ROLE alice NOLOGIN", "DROP ROLE bob")
UNTIL = datetime(2040, 1, 1, tzinfo=UTC)
CAROL = 'Carol, the "second"'
MARK = "[redacted:sql_password]"
GRANTS = [
    ("grant.extended", "alice", "password", UNTIL),
    ("grant.activated", "alice", "dba", None),
    ("grant.activated", "bob", "dba", None),
    ("grant.activated", "bob", "password", UNTIL),
    ("grant.activated", "eve", "dba", None),
    ("grant.activated", CAROL, "dba", None),
    ("grant.revoked", "alice", "dba", None),
    ("grant.revoked", "alice", "password", None),
    ("grant.revoked", "bob", "password", None),
]


@dataclass
class Logged:
    """What a server wrote, in both formats, and the events that ``follow`` made of jsonlog meanwhile."""

    with_pgaudit: bool
    json: bytes
    csv: bytes
    followed: list[Event]

    def of(self, user: str) -> list[Event]:
        return [one for one in self.followed if one.actor.id == user and one.event_type.startswith("session.")]


def with_pgaudit() -> Path:
    """Return the programs of a server for which pgaudit is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("1[5-9]/lib/pgaudit.so"))
    if not found:
        pytest.skip(
            "no PostgreSQL from 15 on with pgaudit is installed (Debian: apt-get install postgresql-15-pgaudit)"
        )
    return found[-1].parents[1] / "bin"


def use(server: PostgresqlServer, step: Callable[[], None]) -> None:
    """Give and remove roles, connect, and run statements that succeed and fail."""
    with server.connect() as admin:
        for statement in ROLES:
            admin.execute(statement.encode())
        step()
        with server.connect("alice", "hunter2") as alice:
            alice.execute("SELECT id, %s::text\nFROM own WHERE id = %s", ("a,\n\"b\" 'c'", 1))
            for wrong in WRONG:
                with pytest.raises(psycopg.Error):
                    alice.execute(wrong.encode())
        step()
        for user, password in (("alice", "hunter3"), ("mallory", "hunter3")):
            with pytest.raises(psycopg.OperationalError):
                server.connect(user, password)
        for statement in ENDS:
            admin.execute(statement.encode())


@pytest.fixture(scope="module", params=[True, False], ids=["pgaudit", "without pgaudit"])
def logged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    [settings] = re.findall(r"```\n(logging_collector.*?)```", PAGE, re.DOTALL)
    if not request.param:
        settings = re.sub(r".*pgaudit.*\n", "", settings) + WITHOUT_PGAUDIT
    settings = settings.replace("'jsonlog'", "'jsonlog,csvlog'") + "log_filename = 'server.log'\n"
    folder = tmp_path_factory.mktemp("postgresql")
    with running(with_pgaudit() if request.param else None, settings) as server:
        json = server.log_folder / "server.json"
        follow = Follow(folder, str(server.log_folder / "*.json"), tool="postgresql")
        use(server, follow.step)
        wait_for(lambda: json.read_bytes().count(b"disconnection") >= 3, "the log is written", pause=0.02)
        follow.step()
        follow.kill()
        server.halt()
        follow.start()
        follow.step()
        yield Logged(
            request.param, json.read_bytes(), (server.log_folder / "server.csv").read_bytes(), follow.kafka.events
        )


def test_roles_are_given_and_removed(logged: Logged) -> None:
    grants = [
        (one.event_type, one.subject.id, one.entitlement, one.expires_at)
        for one in logged.followed
        if one.event_type.startswith("grant.")
    ]
    # pgaudit cuts a statement at its password.
    assert grants == [one for one in GRANTS if not (logged.with_pgaudit and one[1] == "eve")]


def test_a_session_has_what_was_done_in_it(logged: Logged) -> None:
    [*session, refused] = logged.of("alice")
    assert len({one.session_id for one in session}) == 1 and session[0].client_ip == "127.0.0.1"
    assert [(one.event_type, one.outcome, one.error) for one in session] == [
        ("session.started", "success", None),
        ("session.query", "success", None),
        ("session.query", "denied", "permission denied for table orders"),
        ("session.query", "failure", 'column "nope" does not exist'),
        ("session.query", "failure", f'unterminated quoted string at or near "\'{MARK}"'),
        ("session.query", "failure", f'syntax error at or near "{MARK}"'),
        ("session.query", "failure", f'syntax error at or near ""{MARK}""'),
        ("session.ended", "success", None),
    ]
    query = session[1].action
    assert query and query.query == "SELECT id, $1::text\nFROM own WHERE id = $2"
    assert (refused.event_type, refused.outcome) == ("session.denied", "denied")
    assert [one.error for one in logged.of("mallory")] == ['password authentication failed for user "mallory"']


def test_no_password_is_kept(logged: Logged) -> None:
    assert b"hunter2" in logged.json
    assert not any(b"hunter2" in (one.raw or b"") or "hunter2" in repr(one) for one in logged.followed)


def test_import_follow_and_gateway_give_the_same_ids_in_both_formats(logged: Logged, tmp_path: Path) -> None:
    ids = imported_ids("postgresql", logged.json)
    assert ids and ids == imported_ids("postgresql", logged.csv)
    assert [one.event_id for one in logged.followed] == imported_ids("postgresql", logged.json, instance=None)
    with GatewayInProcess(tmp_path) as gateway:
        answer: dict[str, Any] = gateway.post("/ingest/postgresql", logged.json, source="postgresql").json()
        assert [one["event_id"] for one in gateway.kafka.events] == ids
    assert answer["refused_count"] == 0 and set(answer["skipped"]) == {"server_message", "connection_step"}
