"""The plug-in for PostgreSQL, against a real server."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from grantledger.base.toml import ConfigError
from grantledger.enforcers.contract import Attempt, AttemptStatus, Presence, RevokeCommand
from grantledger.enforcers.enforcement_policy import PostgresqlTarget
from grantledger.enforcers.postgresql import PostgresqlPlugin
from grantledger.schemas.event import Subject
from support.postgresql_server import PASSWORD, PostgresqlServer, running
from support.waiting import wait_for

from .test_enforce_command_rules import command

ENFORCER = "grantledger_enforcer"
ODD = 'al"ice; DROP ROLE bystander --'


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    with running() as server:
        with server.connect() as connection:
            connection.execute("CREATE TABLE orders (id int)")
        yield server


@pytest.fixture
def roles(server: PostgresqlServer) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Roles as a company has them; the enforcer is no superuser. Removed after each test."""
    names = ["alice", "bystander", "orders_rw", "orders_ro", "team", "granter", ENFORCER]
    with server.connect() as admin:
        for name in names[:3:]:
            admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
        for name in names[3:]:
            admin.execute(f"CREATE ROLE {name} PASSWORD '{PASSWORD}'")
        admin.execute(f"ALTER ROLE {ENFORCER} LOGIN CREATEROLE")
        admin.execute(f"GRANT pg_signal_backend, pg_read_all_stats TO {ENFORCER}")
        admin.execute(f"GRANT orders_rw, orders_ro, alice TO {ENFORCER} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
        admin.execute(f"SET ROLE {ENFORCER}; GRANT orders_rw, orders_ro TO alice, bystander; RESET ROLE")
        yield admin
        for name in [*names, ODD]:
            quoted = psycopg.sql.Identifier(name).as_string()
            if admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone():
                admin.execute(f"DROP OWNED BY {quoted} CASCADE".encode())
        for name in [*names[::-1], ODD]:
            admin.execute(f"DROP ROLE IF EXISTS {psycopg.sql.Identifier(name).as_string()}".encode())


def plugin(server: PostgresqlServer, tmp_path: Path, *, user: str = ENFORCER, **fields: Any) -> PostgresqlPlugin:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    (tmp_path / "password").chmod(0o600)
    action = {"entitlement": "readwrite"} | fields.pop("action", {"roles": ["orders_rw"]})
    return PostgresqlPlugin(
        PostgresqlTarget.model_validate(
            {
                "plugin": "postgresql",
                "conninfo": server.conninfo(user),
                "password": {"file": tmp_path / "password"},
                "actions": [action],
                **fields,
            }
        )
    )


def of(subject: str = "alice", entitlement: str = "readwrite") -> RevokeCommand:
    return command(subject=Subject(subject, "human"), entitlement=entitlement)


def members(admin: psycopg.Connection[tuple[Any, ...]], role: str) -> set[str]:
    rows = admin.execute(
        "SELECT member::regrole::text FROM pg_auth_members WHERE roleid = %s::regrole AND member <> %s::regrole",
        (role, ENFORCER),
    )
    return {name for (name,) in rows}


Admin = psycopg.Connection[tuple[Any, ...]]


def test_a_membership_is_taken_away_and_nothing_else(server: PostgresqlServer, roles: Admin, tmp_path: Path) -> None:
    enforcer = plugin(server, tmp_path)
    assert enforcer.read_back(of()).presence is Presence.present
    attempt = enforcer.revoke(of())
    assert attempt.status is AttemptStatus.accepted, attempt
    assert enforcer.read_back(of()).presence is Presence.absent
    assert members(roles, "orders_rw") == {"bystander"} and members(roles, "orders_ro") == {"alice", "bystander"}
    assert enforcer.revoke(of()).status is AttemptStatus.accepted  # once more is harmless


def test_reading_back_sees_a_restored_membership(server: PostgresqlServer, roles: Admin, tmp_path: Path) -> None:
    enforcer = plugin(server, tmp_path)
    enforcer.revoke(of())
    assert enforcer.read_back(of()).presence is Presence.absent
    roles.execute("GRANT orders_rw TO alice")
    seen = enforcer.read_back(of())
    assert seen.presence is Presence.present and "orders_rw" in seen.detail


def test_a_membership_through_another_role_is_still_there(
    server: PostgresqlServer, roles: Admin, tmp_path: Path
) -> None:
    roles.execute("GRANT orders_rw TO team; GRANT team TO alice")
    enforcer = plugin(server, tmp_path)
    enforcer.revoke(of())
    assert members(roles, "orders_rw") == {"bystander", "team"}
    assert enforcer.read_back(of()).presence is Presence.present


def test_every_grantors_membership_is_taken_away(server: PostgresqlServer, roles: Admin, tmp_path: Path) -> None:
    roles.execute("GRANT orders_rw TO granter WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
    roles.execute("GRANT orders_rw TO alice GRANTED BY granter")
    enforcer = plugin(server, tmp_path, user="postgres")
    assert enforcer.revoke(of()).status is AttemptStatus.accepted
    assert enforcer.read_back(of()).presence is Presence.absent


def test_the_login_is_closed_and_open_sessions_are_ended(
    server: PostgresqlServer, roles: Admin, tmp_path: Path
) -> None:
    enforcer = plugin(server, tmp_path, action={"nologin": True, "roles": ["orders_rw"]})
    with server.connect("alice") as session, server.connect("bystander") as other:
        session.execute("SET ROLE orders_rw")  # a session keeps that, whatever happens to the membership
        assert enforcer.revoke(of()).status is AttemptStatus.accepted
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
        assert other.execute("SELECT 1").fetchone() == (1,)
    assert enforcer.read_back(of()).presence is Presence.absent
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        server.connect("alice")
    roles.execute("ALTER ROLE alice LOGIN")
    assert "login" in enforcer.read_back(of()).detail


def test_a_session_from_before_is_access_and_one_from_afterwards_is_not(
    server: PostgresqlServer, roles: Admin, tmp_path: Path
) -> None:
    enforcer, after_restart = plugin(server, tmp_path), plugin(server, tmp_path)
    with server.connect("alice") as session:
        session.execute("SET ROLE orders_rw")
        roles.execute(f"SET ROLE {ENFORCER}; REVOKE orders_rw FROM alice; RESET ROLE")
        assert session.execute("SELECT current_user").fetchone() == ("orders_rw",)
        assert "session" in enforcer.read_back(of()).detail
        assert enforcer.revoke(of()).status is AttemptStatus.accepted
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    with server.connect("alice"):
        assert enforcer.read_back(of()).presence is Presence.absent
        assert after_restart.read_back(of()).presence is Presence.present  # it cannot know: it will make sure


def test_privileges_are_taken_away_and_read_back_as_they_work(
    server: PostgresqlServer, roles: Admin, tmp_path: Path
) -> None:
    roles.execute("GRANT SELECT, INSERT, DELETE ON orders TO alice; GRANT SELECT ON orders TO bystander")
    privileges = [{"privileges": ["SELECT", "INSERT"], "on": "table", "name": ["public", "orders"]}]
    enforcer = plugin(server, tmp_path, user="postgres", action={"privileges": privileges})
    assert "SELECT on public.orders, INSERT" in enforcer.read_back(of()).detail
    assert enforcer.revoke(of()).status is AttemptStatus.accepted
    assert enforcer.read_back(of()).presence is Presence.absent
    held = "SELECT has_table_privilege(%s, 'orders', %s)"
    assert roles.execute(held, ("alice", "DELETE")).fetchone() == (True,)
    assert roles.execute(held, ("bystander", "SELECT")).fetchone() == (True,)
    roles.execute("GRANT SELECT ON orders TO PUBLIC")
    assert enforcer.read_back(of()).presence is Presence.present
    roles.execute("REVOKE SELECT ON orders FROM PUBLIC")


def test_a_privilege_on_one_column_is_still_there(server: PostgresqlServer, roles: Admin, tmp_path: Path) -> None:
    privileges = [{"privileges": ["SELECT", "UPDATE"], "on": "table", "name": ["public", "orders"]}]
    enforcer = plugin(server, tmp_path, user="postgres", action={"privileges": privileges})
    roles.execute("GRANT UPDATE (id) ON orders TO alice; GRANT SELECT (id) ON orders TO PUBLIC")
    assert enforcer.revoke(of()).status is AttemptStatus.accepted
    assert enforcer.read_back(of()).detail == "role alice still has SELECT on public.orders"
    roles.execute("REVOKE SELECT (id) ON orders FROM PUBLIC")
    assert enforcer.read_back(of()).presence is Presence.absent


def test_a_privilege_of_a_role_that_one_can_become_is_still_there(
    server: PostgresqlServer, roles: Admin, tmp_path: Path
) -> None:
    privileges = [{"privileges": ["DELETE"], "on": "table", "name": ["public", "orders"]}]
    enforcer = plugin(server, tmp_path, user="postgres", action={"privileges": privileges})
    roles.execute("GRANT DELETE ON orders TO team; GRANT team TO alice WITH INHERIT FALSE, SET TRUE")
    held = "SELECT has_table_privilege('alice', 'orders', 'DELETE')"
    assert roles.execute(held).fetchone() == (False,)  # not at once: only after SET ROLE
    assert enforcer.read_back(of()).detail == "role alice still has DELETE on public.orders through role team"
    roles.execute("REVOKE team FROM alice")
    assert enforcer.read_back(of()).presence is Presence.absent


def test_names_with_any_characters(server: PostgresqlServer, roles: Admin, tmp_path: Path) -> None:
    quoted = psycopg.sql.Identifier(ODD).as_string()
    roles.execute(f"CREATE ROLE {quoted} LOGIN; GRANT orders_rw TO {quoted}".encode())
    enforcer = plugin(server, tmp_path, user="postgres", action={"roles": ["orders_rw"], "nologin": True})
    assert enforcer.revoke(of(ODD)).status is AttemptStatus.accepted
    assert enforcer.read_back(of(ODD)).presence is Presence.absent
    assert members(roles, "orders_rw") == {"alice", "bystander"}


def test_a_role_that_is_not_there_is_never_taken_for_access_that_is_gone(
    server: PostgresqlServer, roles: Admin, tmp_path: Path
) -> None:
    for enforcer, asked in (
        (plugin(server, tmp_path), of("nobody")),
        (plugin(server, tmp_path, action={"roles": ["orders_writers"]}), of()),
        (plugin(server, tmp_path), of(entitlement="admin")),
    ):
        assert enforcer.read_back(asked).presence is Presence.unknown
        assert enforcer.revoke(asked).status is AttemptStatus.failed


@pytest.mark.parametrize("subject", ["postgres", ENFORCER, "bystander", "pg_monitor"])
def test_superusers_itself_and_protected_roles_are_left_alone(
    server: PostgresqlServer, roles: Admin, tmp_path: Path, subject: str
) -> None:
    user = ENFORCER if subject == ENFORCER else "postgres"
    action = {"nologin": True, "roles": ["orders_rw"]}
    enforcer = plugin(server, tmp_path, user=user, protected=["bystander"], action=action)
    before = roles.execute("SELECT rolname, rolcanlogin FROM pg_roles ORDER BY 1").fetchall()
    assert enforcer.revoke(of(subject)).status is AttemptStatus.failed
    assert roles.execute("SELECT rolname, rolcanlogin FROM pg_roles ORDER BY 1").fetchall() == before


def test_without_the_privilege_the_attempt_fails_with_the_reason(
    server: PostgresqlServer, roles: Admin, tmp_path: Path
) -> None:
    roles.execute(f"REVOKE ADMIN OPTION FOR orders_rw FROM {ENFORCER} CASCADE")
    roles.execute("GRANT orders_rw TO alice")
    attempt = plugin(server, tmp_path).revoke(of())
    assert attempt.status is AttemptStatus.failed and attempt.detail.startswith("42501: permission denied")
    assert "alice" in members(roles, "orders_rw")


def test_passed_on_memberships_are_revoked_only_if_the_policy_allows(
    server: PostgresqlServer, roles: Admin, tmp_path: Path
) -> None:
    roles.execute("REVOKE orders_rw FROM alice GRANTED BY grantledger_enforcer")
    roles.execute("GRANT orders_rw TO alice WITH ADMIN OPTION; GRANT orders_rw TO team GRANTED BY alice")
    refused = plugin(server, tmp_path, user="postgres").revoke(of())
    assert refused.status is AttemptStatus.failed and refused.detail.startswith("2BP01")
    enforcer = plugin(server, tmp_path, user="postgres", action={"roles": ["orders_rw"], "cascade": True})
    assert enforcer.revoke(of()).status is AttemptStatus.accepted
    assert members(roles, "orders_rw") == {"bystander"}


def test_a_lock_is_waited_for_no_longer_than_the_limit(server: PostgresqlServer, roles: Admin, tmp_path: Path) -> None:
    enforcer = plugin(server, tmp_path, timeout_seconds=5)
    with server.connect() as blocker, blocker.transaction():
        blocker.execute("LOCK TABLE pg_auth_members IN SHARE ROW EXCLUSIVE MODE")
        attempt = enforcer.revoke(of())
    assert attempt.status is AttemptStatus.retry and attempt.detail.startswith(("55P03", "57014"))
    assert "alice" in members(roles, "orders_rw")


def test_a_server_that_is_away_or_refuses_us_is_tried_again(server: PostgresqlServer, tmp_path: Path) -> None:
    config = {"plugin": "postgresql", "conninfo": "host=127.0.0.1 port=1 dbname=x user=y", "actions": [
        {"entitlement": "*", "nologin": True}]}  # fmt: skip
    away = PostgresqlPlugin(PostgresqlTarget.model_validate(config))
    assert away.revoke(of()).status is AttemptStatus.retry and away.read_back(of()).presence is Presence.unknown
    (tmp_path / "wrong").write_text("wrong-password-4711")
    (tmp_path / "wrong").chmod(0o600)
    config |= {"conninfo": server.conninfo(), "password": {"file": tmp_path / "wrong"}}
    refused = PostgresqlPlugin(PostgresqlTarget.model_validate(config)).revoke(of())
    assert refused.status is AttemptStatus.retry and "4711" not in refused.detail


def test_a_silent_server_does_not_block(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        config = {"plugin": "postgresql", "conninfo": f"host=127.0.0.1 port={port}", "timeout_seconds": 2,
                  "actions": [{"entitlement": "*", "nologin": True}]}  # fmt: skip
        answers = []
        thread = threading.Thread(
            target=lambda: answers.append(PostgresqlPlugin(PostgresqlTarget.model_validate(config)).revoke(of()))
        )
        thread.start()
        wait_for(lambda: answers, "the attempt ends", limit=60.0)
        thread.join()
    assert answers[0].status is AttemptStatus.retry


def test_a_frozen_server_does_not_block(server: PostgresqlServer, roles: Admin, tmp_path: Path) -> None:
    """Frozen, it cannot end a statement by its own clock, while its kernel keeps the connection alive."""
    enforcer = plugin(server, tmp_path, timeout_seconds=3)
    answers: list[Attempt] = []
    waiting = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE '%-enforcer' AND wait_event_type = 'Lock'"
    with server.connect() as blocker, blocker.transaction():
        blocker.execute("LOCK TABLE pg_auth_members IN SHARE ROW EXCLUSIVE MODE")
        thread = threading.Thread(target=lambda: answers.append(enforcer.revoke(of())))
        thread.start()
        [pid] = wait_for(lambda: roles.execute(waiting.encode()).fetchone(), "it waits for the lock", pause=0.01)
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_for(lambda: answers, "the attempt ends", limit=60.0)
        finally:
            os.kill(pid, signal.SIGCONT)
            thread.join()
    assert answers[0].status is AttemptStatus.retry and answers[0].detail.startswith("no connection")
    assert "alice" in members(roles, "orders_rw")


@pytest.mark.parametrize(
    "conninfo",
    ["host=db password=hunter2", "postgresql://u:hunter2@db/x", "sslpassword=hunter2", "no conninfo at all ="],
)
def test_a_password_in_the_connection_string_is_refused(conninfo: str) -> None:
    config = {"plugin": "postgresql", "conninfo": conninfo, "actions": [{"entitlement": "*", "nologin": True}]}
    with pytest.raises(ConfigError) as refused:
        PostgresqlPlugin(PostgresqlTarget.model_validate(config))
    assert "hunter2" not in str(refused.value)


def test_subjects_become_roles_by_the_policy() -> None:
    config = {"plugin": "postgresql", "conninfo": "", "strip_domain": "example.com", "subjects": {"b@x": "bob"},
              "actions": [{"entitlement": "*", "nologin": True}]}  # fmt: skip
    found = PostgresqlTarget.model_validate(config)
    assert [found.role_of(subject) for subject in ("alice@example.com", "alice@evil.example", "b@x", "carol")] == [
        "alice",
        "alice@evil.example",
        "bob",
        "carol",
    ]


def test_a_name_with_a_nul_character_is_refused_and_not_taken_for_a_lost_connection(
    server: PostgresqlServer, roles: Admin, tmp_path: Path
) -> None:
    taking = plugin(server, tmp_path)
    attempt = taking.revoke(of("ali\0ce"))
    assert attempt.status is AttemptStatus.failed and "NUL" in attempt.detail
    assert taking.read_back(of("ali\0ce")).presence is Presence.unknown
