"""The roles of a ClickHouse server, enforced by the real engine. In test_server_mode.py, the store is the writer."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from grantledger.sinks.clickhouse import StoreAddress, connect
from grantledger.sinks.server_roles import COMPUTED, QUERY_LOG, WRITTEN, Role, analyst_views, objects, tenant_views
from grantledger.verifier.definitions import read_definitions
from support.access_store import fill
from support.clickhouse_users import ROLES, ask_as
from support.lives import KEYS, lives

DENIED = 497
READ_ONLY = 164
"""Setting or statement refused by ``readonly``."""
CONSTRAINT = 452
Ask = Callable[[Role, Sequence[str]], list[Any]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with two tenants, whose views read with the rights of their definer."""
    filled = fill(tmp_path_factory.mktemp("lives"), lives(random.Random(7), 40).records, sources=KEYS)
    changes = [statement for statement in ROLES.statements() if statement.startswith("ALTER ")]
    assert len(changes) == len(objects("VIEW"))
    assert ask_as(None, filled, filled.parent, changes) == [[]] * len(changes)
    return filled


@pytest.fixture(scope="module")
def ask(store: Path) -> Ask:
    return lambda role, statements: ask_as(role, store, store.parent, statements)


def test_analysts_read_views_and_nothing_else(ask: Ask) -> None:
    read = [f"SELECT count() FROM {view}" for view in analyst_views()]
    refused = [f"SELECT count() FROM {name}" for name in (*objects("TABLE"), "migrations", QUERY_LOG, *COMPUTED)]
    refused += [
        "SELECT * FROM system.row_policies", "SELECT * FROM file('/etc/hostname', LineAsString)",
        "SELECT * FROM url('http://127.0.0.1:1/', LineAsString)",
    ]  # fmt: skip
    limits = [
        "SELECT getSetting('readonly'), getSetting('max_execution_time')", "SELECT 1 SETTINGS max_execution_time = 300",
        "SELECT 1 SETTINGS max_execution_time = 301", "SELECT 1 SETTINGS max_execution_time = 0",
        "SELECT 1 SETTINGS max_memory_usage = 0", "SELECT 1 SETTINGS readonly = 2",
        "SET readonly = 0", "INSERT INTO entries (origin) VALUES ('x')",
    ]  # fmt: skip
    found = ask(ROLES.analyst, [*read, *refused, *limits])
    counts = dict(zip(analyst_views(), found, strict=False))
    assert all(isinstance(rows, list) and len(rows) == 1 for rows in counts.values()), counts
    assert int(counts["events"][0][0]) > 40 and int(counts["grants"][0][0]) >= 20
    assert set(found[len(read) : len(read) + len(refused)]) == {DENIED}
    allowed, *others = found[len(read) + len(refused) :]
    assert [int(value) for value in allowed[0]] == [2, 30]
    assert others == [[[1]], CONSTRAINT, CONSTRAINT, CONSTRAINT, [[1]], READ_ONLY, DENIED]


def test_auditors_read_everything_and_change_nothing(ask: Ask) -> None:
    read = [f"SELECT count() FROM {name}" for name in (*objects("TABLE"), *COMPUTED, QUERY_LOG, "migrations")]
    found = ask(ROLES.auditor, [
        *read, "SELECT name FROM system.row_policies", "INSERT INTO entries (origin) VALUES ('x')",
        "ALTER TABLE entries UPDATE subject_id = 'x' WHERE 1", "DROP TABLE entries",
    ])  # fmt: skip
    assert all(isinstance(rows, list) for rows in found[:-3])
    assert found[-3:] == [DENIED] * 3


def test_the_writer_changes_what_the_store_must_and_nothing_else(ask: Ask) -> None:
    state = "ALTER TABLE stored_grants DROP PARTITION 999"
    erasure = (
        "ALTER TABLE entries UPDATE value = NULL, subject_id = '' WHERE `index` = 1000000 SETTINGS mutations_sync = 2"
    )
    allowed = [
        *(f"INSERT INTO {table} SELECT * FROM {table} WHERE 0" for table in WRITTEN), state, erasure,
        "SELECT count() FROM computed_grants", "SELECT sum(rows) FROM system.parts WHERE table = 'entries' AND active",
    ]  # fmt: skip
    refused = [
        "ALTER TABLE entries UPDATE leaf_hash = '' WHERE 1", "ALTER TABLE entries UPDATE note = '' WHERE 1",
        "ALTER TABLE entries DELETE WHERE 1", "ALTER TABLE entries DROP PARTITION 202601", "TRUNCATE TABLE entries",
        "ALTER TABLE anchors DELETE WHERE 1", "DROP TABLE entries", "DROP VIEW grants",
        "CREATE TABLE x (a Int8) ENGINE = Null", "CREATE OR REPLACE VIEW grants AS SELECT 1",
        "ALTER TABLE events MODIFY SQL SECURITY INVOKER",
        "INSERT INTO migrations (version) VALUES (9)", "CREATE FUNCTION lower2 AS x -> x", "CREATE DATABASE other",
    ]  # fmt: skip
    found = ask(ROLES.writer, [*allowed, *refused])
    assert all(isinstance(rows, list) for rows in found[: len(allowed)]), found
    assert found[len(allowed) :] == [DENIED] * len(refused)


def test_a_tenant_sees_its_own_rows_only(ask: Ask) -> None:
    by_tenant = [f"SELECT tenant, count() FROM {view} GROUP BY tenant ORDER BY tenant" for view in tenant_views()]
    everything = dict(zip(tenant_views(), ask(ROLES.analyst, by_tenant), strict=True))
    assert {row[0] for row in everything["grants"]} == {"acme", "globex", "default"}
    inside = [
        "SELECT count() FROM (SELECT * FROM grants WHERE tenant != 'acme')", "SELECT count() FROM people",
        "SELECT count() FROM grant_timeline", "SELECT count() FROM entries", "SET max_threads = 7",
    ]  # fmt: skip
    found = ask(ROLES.tenant("acme"), [*by_tenant, *inside])
    for view, rows in zip(tenant_views(), found, strict=False):
        assert rows == [row for row in everything[view] if row[0] == "acme"], view
    assert found[-5:] == [[[0]], DENIED, DENIED, DENIED, READ_ONLY]
    assert ask(ROLES.tenant("o'neil`\\"), [by_tenant[1], "SELECT count() FROM grants"]) == [[], [[0]]]


def test_the_engine_reads_every_statement(tmp_path: Path) -> None:
    """Roles, users and row policies can only be made on a server. The engine's parser is the same."""
    statements = list(ROLES.statements(["acme", "o'neil`\\"]))
    with connect(StoreAddress(tmp_path / "store")) as client:
        for statement in statements:
            client.query("SELECT formatQuery({text:String})", parameters={"text": statement})
            assert client.query(f"EXPLAIN AST {statement}").result_rows, statement


def test_what_is_read_from_the_migrations_is_what_they_make(store: Path) -> None:
    with connect(StoreAddress(store)) as client:
        tables = read_definitions(client, server=False).tables
        columns = "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String}"
        for kind in ("TABLE", "VIEW"):
            for name, found in objects(kind).items():
                stored = client.query(columns, parameters={"table": name}).result_rows
                assert list(found) == [row[0] for row in stored], name
                assert (tables[name][0] == "View") is (kind == "VIEW")
    assert set(objects("TABLE")) | set(objects("VIEW")) | {"migrations"} == set(tables)
