"""Migrations: statements, what is pending, and texts that changed after they were applied. No database needed."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from grantledger.sinks import migrate as module
from grantledger.sinks.migrate import Migration, MigrationError, available, migrate, pending, repeatable


class Fake:
    """Remembers commands and the rows of ``migrations``."""

    def __init__(self, fail_at: str = "") -> None:
        self.commands: list[str] = []
        self.applied: list[list] = []
        self.fail_at = fail_at

    def command(self, statement: str, parameters: dict | None = None) -> None:
        if statement.startswith("INSERT INTO migrations "):
            assert parameters is not None and list(parameters) == ["version", "name", "sha256"]
            self.applied.append(list(parameters.values()))
            return
        if self.fail_at and self.fail_at in statement:
            raise ConnectionError(statement)
        self.commands.append(statement)

    def query(self, sql: str) -> SimpleNamespace:
        if "system.tables" in sql:
            return SimpleNamespace(
                result_rows=[(int(any("TABLE IF NOT EXISTS migrations" in c for c in self.commands)),)]
            )
        return SimpleNamespace(result_rows=[tuple(row[:3]) for row in self.applied])


def test_statements_end_with_a_semicolon_at_the_end_of_a_line() -> None:
    text = (
        "-- a comment; with one\nCREATE TABLE a\n(\n    x String COMMENT 'a; b'\n);  \n\n"
        "-- another\nINSERT INTO a VALUES (';');\nSELECT 1"
    )
    assert Migration(1, "0001_a.sql", text).statements == [
        "CREATE TABLE a\n(\n    x String COMMENT 'a; b'\n)",
        "INSERT INTO a VALUES (';')",
        "SELECT 1",
    ]
    assert Migration(1, "0001_a.sql", "-- nothing\n;\n").statements == []


def test_the_migrations_are_numbered_without_gaps() -> None:
    found = available()
    assert [migration.version for migration in found] == list(range(1, len(found) + 1))
    for migration in found:
        assert re.fullmatch(r"\d{4}_[a-z_]+\.sql", migration.name)
        assert migration.statements
        assert all(statement.count("'") % 2 == 0 for statement in migration.statements), "a literal was cut in two"


def test_no_table_has_an_index_that_could_hide_rows() -> None:
    """Its content can differ from its definition, and then rows that are there are missing in some answers."""
    for migration in available():
        assert not re.search(r"\b(INDEX|PROJECTION)\s+\w+", migration.text), migration.name


def test_every_statement_may_be_repeated() -> None:
    """A crash between a statement and the record of it must not stop every later start."""
    for migration in available():
        for statement in migration.statements:
            assert re.match(
                r"(CREATE (TABLE|VIEW|MATERIALIZED VIEW) IF NOT EXISTS|CREATE OR REPLACE VIEW"
                r"|ALTER TABLE .* IF NOT EXISTS) ",
                repeatable(statement),
            ), statement[:80]
    assert repeatable("CREATE TABLE IF NOT EXISTS a") == "CREATE TABLE IF NOT EXISTS a"
    assert repeatable("CREATE OR REPLACE VIEW a AS SELECT 1") == "CREATE OR REPLACE VIEW a AS SELECT 1"
    assert repeatable("INSERT INTO a SELECT 'CREATE TABLE b'") == "INSERT INTO a SELECT 'CREATE TABLE b'"


def test_pending_migrations_are_applied_in_order_and_once() -> None:
    client = Fake()
    assert migrate(client) == available()
    made = [command for command in client.commands if "CREATE TABLE IF NOT EXISTS migrations" not in command]
    assert made == [repeatable(statement) for migration in available() for statement in migration.statements]
    assert [row[:3] for row in client.applied] == [[m.version, m.name, m.sha256] for m in available()]
    assert migrate(client) == []


def test_a_migration_that_fails_half_way_is_pending() -> None:
    statements = available()[-1].statements
    client = Fake(fail_at=repeatable(statements[-1])[:60])
    with pytest.raises(ConnectionError):
        migrate(client)
    assert [row[0] for row in client.applied] == [migration.version for migration in available()[:-1]]
    client.fail_at = ""
    assert pending(client) == available()[-1:]
    assert migrate(client) == available()[-1:]


def test_a_text_that_changed_after_it_was_applied_is_noticed() -> None:
    client = Fake()
    migrate(client)
    client.applied[0][2] = "0" * 64
    with pytest.raises(MigrationError, match=r"migration 0001_evidence\.sql was applied with other text"):
        migrate(client)


def test_a_store_of_a_later_version_is_refused() -> None:
    client = Fake()
    migrate(client)
    client.applied.append([99, "0099_later.sql", "", None])
    with pytest.raises(MigrationError, match=r"does not know \(0099_later\.sql\): upgrade grantledger"):
        migrate(client)


def test_a_line_end_counts_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Fake()
    migrate(client)
    changed = [Migration(m.version, m.name, m.text + "\n") for m in available()]
    monkeypatch.setattr(module, "available", lambda: changed)
    with pytest.raises(MigrationError):
        pending(client)
