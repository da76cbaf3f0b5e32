"""The page about enforcement is up to date: its SQL, policy, example and names are checked."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from grantledger.base.toml import load_toml
from grantledger.enforcers import metrics
from grantledger.enforcers.contract import AttemptStatus, Presence, RevokeCommand
from grantledger.enforcers.enforcement_policy import EnforcementPolicy, PostgresqlTarget
from grantledger.enforcers.events import BREAKER_RULE, INVALID_RULE, LOST_RULE
from grantledger.enforcers.postgresql import PostgresqlPlugin
from grantledger.enforcers.webhook import EVENT_TYPE, LOOKUP_TYPE, cloud_event
from grantledger.runtime.settings import Settings
from grantledger.schemas.event import IssuingSource, Resource, Subject
from support.postgresql_server import PASSWORD, running

from .test_enforce_command_rules import command

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "enforcement.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_documented_body_is_the_one_that_is_sent() -> None:
    [block] = blocks("json")
    shown = command(
        "g-17",
        subject=Subject("alice@example.com", "human"),
        grant_source=IssuingSource("teleport", "eu-1"),
        occurred_at=datetime(2026, 3, 1, 12, 0, 1, tzinfo=UTC),
    )
    assert shown.resource == Resource("database", "orders", "production")
    sent = cloud_event(shown, "prod.example.com", EVENT_TYPE, shown.command_id)
    assert json.loads(block) == json.loads(sent)


def test_every_name_in_code_and_documentation_matches() -> None:
    told = set(re.findall(r"`(grantledger_enforce_\w+)", PAGE))
    [*known] = re.findall(r'"(grantledger_enforce_\w+)"', inspect.getsource(metrics))
    assert told == set(known) and len(known) == 8
    for name in [name for name in Settings.model_fields if name.startswith("enforce_")]:
        assert f"`{name}`" in PAGE or f"GRANTLEDGER_{name.upper()}" in PAGE
    for word in (BREAKER_RULE, INVALID_RULE, LOST_RULE, LOOKUP_TYPE):
        assert f"`{word}`" in PAGE


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PostgresqlPlugin, Any]]:
    """The page's target over a server on which the page's statements have run; and a connection that sees all."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "enforce.toml").write_text("\n".join(blocks("toml")))
    config = load_toml(folder / "enforce.toml", EnforcementPolicy).targets["orders-db"]
    assert isinstance(config, PostgresqlTarget) and config.password is not None
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o600)
    password = config.password.model_copy(update={"file": folder / "password"})
    with running() as server, server.connect() as admin:
        for name in ("alice", "robert", "app"):
            admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'".encode())
        for name in ("orders_rw", "orders_ro", "orders_owner", "access_tool", "team"):
            admin.execute(f"CREATE ROLE {name}".encode())
        admin.execute("CREATE TABLE orders (id int); ALTER TABLE orders OWNER TO orders_owner")
        admin.execute("GRANT orders_rw, orders_ro, orders_owner TO access_tool WITH ADMIN TRUE, INHERIT FALSE")
        [statements] = blocks("sql")
        assert statements.count("PASSWORD '…'") == 1
        admin.execute(statements.replace("'…'", f"'{PASSWORD}'").encode())
        update = {"conninfo": server.conninfo("grantledger_enforcer"), "password": password}
        assert "user=grantledger_enforcer" in config.conninfo
        yield PostgresqlPlugin(config.model_copy(update=update)), (server, admin)


def of(subject: str, entitlement: str) -> RevokeCommand:
    return command(subject=Subject(subject, "human"), entitlement=entitlement)


def take(plugin: PostgresqlPlugin, asked: RevokeCommand) -> None:
    assert plugin.read_back(asked).presence is Presence.present
    attempt = plugin.revoke(asked)
    assert attempt.status is AttemptStatus.accepted, attempt
    seen = plugin.read_back(asked)
    assert seen.presence is Presence.absent, seen


def test_the_pages_role_takes_memberships_away(plugin: tuple[PostgresqlPlugin, Any]) -> None:
    taking, (_, admin) = plugin
    for role in ("alice", "robert"):
        admin.execute(f"GRANT orders_rw, orders_ro TO {role} GRANTED BY access_tool")
    take(taking, of("alice@example.com", "readwrite"))
    held = "SELECT pg_has_role(%s, 'orders_rw', 'MEMBER')"
    assert admin.execute(held, ("alice",)).fetchone() == (False,)
    assert admin.execute(held, ("robert",)).fetchone() == (True,)
    take(taking, of("bob@example.com", "readonly"))  # whose role has another name


def test_the_pages_role_takes_privileges_away(plugin: tuple[PostgresqlPlugin, Any]) -> None:
    taking, (_, admin) = plugin
    admin.execute("SET ROLE orders_owner; GRANT SELECT, UPDATE, DELETE ON orders TO alice; RESET ROLE")
    take(taking, of("alice@example.com", "repair"))
    assert admin.execute("SELECT has_table_privilege('alice', 'orders', 'DELETE')").fetchone() == (True,)


def test_the_pages_role_closes_logins_and_ends_sessions(plugin: tuple[PostgresqlPlugin, Any]) -> None:
    taking, (server, admin) = plugin
    admin.execute("GRANT orders_owner TO alice WITH ADMIN OPTION GRANTED BY access_tool")
    with server.connect("alice") as session:
        session.execute("GRANT orders_owner TO team")  # handed on
        take(taking, of("alice@example.com", "admin"))
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        server.connect("alice")
    assert admin.execute("SELECT pg_has_role('team', 'orders_owner', 'MEMBER')").fetchone() == (False,)


def test_the_documented_statements_protect_other_access(plugin: tuple[PostgresqlPlugin, Any]) -> None:
    taking, (_, admin) = plugin
    admin.execute("GRANT orders_rw TO app GRANTED BY access_tool")
    assert taking.revoke(of("app", "readwrite")).status is AttemptStatus.failed
    assert admin.execute("SELECT pg_has_role('app', 'orders_rw', 'MEMBER')").fetchone() == (True,)
