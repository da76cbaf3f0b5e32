"""The SQL of the roles of a ClickHouse server. tests/stack has the engine that enforces them."""

from __future__ import annotations

import os
from pathlib import Path

from clickhouse_connect.driver.exceptions import DatabaseError

from grantledger.console.roles import ANALYST, AUDITOR
from grantledger.schemas.arrow import DECODED
from grantledger.sinks.clickhouse import StoreAddress, explain
from grantledger.sinks.erasure import ERASED_COLUMNS
from grantledger.sinks.server_roles import ServerRoles, analyst_views, identifier, objects
from support.command import run_command

ROLES = ServerRoles("audit")


def run(*arguments: str) -> tuple[int, str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRANTLEDGER_")}
    done = run_command("init", *arguments, environment=environment)
    return done.returncode, done.stdout, done.stderr


def test_analysts_of_a_server_read_what_those_of_the_embedded_engine_read() -> None:
    assert set(analyst_views()) == set(objects("VIEW")) - ANALYST.hidden_views
    assert AUDITOR.hidden_views < ANALYST.hidden_views


def test_an_erasure_is_the_only_change_of_evidence_that_the_writer_may_make() -> None:
    [update] = [right for right in ROLES.writer.rights if right.startswith("ALTER UPDATE")]
    assert update == f"ALTER UPDATE({', '.join(ERASED_COLUMNS)}) ON audit.entries"
    kept = {"origin", "index", "offset", "append_time", "flags", "previous_leaf_hash", "leaf_hash", "payload_hash",
            "sealed_at", "note"}  # fmt: skip
    assert set(objects("TABLE")["entries"]) - set(ERASED_COLUMNS) == kept
    assert {column.name for column in DECODED} < set(ERASED_COLUMNS)


def test_each_database_has_roles_of_its_own() -> None:
    first, second = (set(ServerRoles(name).statements(["acme"])) for name in ("audit", "staging"))
    assert len(first) == len(second) and not first & second


def test_names_that_are_no_words_are_quoted() -> None:
    role = ROLES.tenant("o'neil`\\-1")
    assert identifier(role.name) == "`grantledger_audit_tenant_o'neil\\`\\\\-1`"
    [policy] = [one for one in ROLES.statements(["o'neil`\\-1"]) if "ON audit.grants USING tenant" in one]
    assert "USING tenant = 'o\\'neil`\\\\-1' TO `grantledger_audit_tenant_" in policy


def test_a_dry_run_prints_everything_and_needs_nothing() -> None:
    code, sql, errors = run("--clickhouse-roles", "--dry-run", "--tenant", "acme", "--tenant", "acme")
    assert (code, errors) == (0, "")
    assert sql.startswith("CREATE DATABASE IF NOT EXISTS audit;\nUSE audit;\n")
    assert sql.count("CREATE ROLE IF NOT EXISTS grantledger_audit_tenant_acme;") == 1
    assert "IDENTIFIED BY" not in sql


def test_wrong_options_are_named() -> None:
    assert run("--clickhouse-roles")[0] == 2 and "clickhouse_url is not set" in run("--clickhouse-roles")[2]
    assert "--tenant: '' is empty" in run("--clickhouse-roles", "--dry-run", "--tenant", "")[2]
    code, _, errors = run("--tenant", "acme")
    assert code == 2 and "belong to --clickhouse-roles" in errors


def test_a_missing_right_is_explained() -> None:
    address = StoreAddress(Path("x"), "https://ch:8443", "store")
    error = DatabaseError(
        "Code: 497. DB::Exception: store: Not enough privileges. … CREATE TABLE ON audit.*. (ACCESS_DENIED)"
    )
    text = explain(address, error)
    assert "user 'store' lacks a right" in text and "init --clickhouse-roles" in text and "CREATE TABLE" in text
