"""Definitions of a store on a server: row policies and families of engines. tests/stack has the other attacks."""

from __future__ import annotations

from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from grantledger.sinks.migrate import available
from grantledger.verifier import definitions
from grantledger.verifier.definitions import check_definitions, read_definitions
from grantledger.verifier.reference_store import ReferenceStoreError
from grantledger.verifier.steps import Problem

OURS = [(migration.version, migration.sha256) for migration in available()]
TABLE = "CREATE TABLE audit.{0} (`a` String) ENGINE = {1} ORDER BY a"
NAMES = ("entries", "origins", "anchors", "migrations")
EXPECTED = {name: ("MergeTree", TABLE.format(name, "MergeTree")) for name in NAMES}


class Answer:
    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self.result_rows = rows


class Server:
    """A server with these tables and row policies. None: the verifier may not see policies."""

    def __init__(self, tables: dict[str, tuple[str, str]], policies: list[str] | None) -> None:
        self.tables, self.policies = tables, policies

    def query(self, sql: str) -> Answer:
        if "system.tables" in sql:
            return Answer([(name, engine, text) for name, (engine, text) in self.tables.items()])
        if "row_policies" in sql:
            if self.policies is None:
                raise DatabaseError("Code: 497. Not enough privileges")
            return Answer([(name,) for name in self.policies])
        if "FROM migrations" in sql:
            return Answer(list(OURS))
        return Answer([("audit",)] if "currentDatabase()" in sql else [])


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definitions, "reference_tables", lambda database, level: EXPECTED)
    monkeypatch.setattr(definitions, "normalized", lambda database, texts: [text.replace("  ", " ") for text in texts])


def found(tables: dict[str, tuple[str, str]], policies: list[str] | None = None, *, server: bool = True) -> list[str]:
    stored = read_definitions(Server(tables, policies), server=server)  # type: ignore[arg-type]
    return [
        one.message if isinstance(one, Problem) else f"not checked: {one}"
        for one in (*stored.unreadable(), *check_definitions(stored))
    ]


@pytest.mark.parametrize(
    "engine",
    [
        "MergeTree", "ReplicatedMergeTree", "ReplicatedMergeTree('/clickhouse/{uuid}/{shard}', '{replica}')",
        "SharedMergeTree('/x', '{replica}')",
    ],
)  # fmt: skip
def test_the_family_of_the_engine_may_differ(reference: None, engine: str) -> None:
    name = engine.partition("(")[0]
    assert found({table: (name, TABLE.format(table, engine)) for table in EXPECTED}, []) == []


def test_a_text_is_compared_as_one_engine_formats_it(reference: None) -> None:
    spaced = {name: (engine, text.replace(" (", "  (")) for name, (engine, text) in EXPECTED.items()}
    assert found(spaced, []) == []


def test_a_row_policy_is_named(reference: None) -> None:
    assert found(EXPECTED, ["hide ON audit.entries"]) == [
        "the row policy hide ON audit.entries hides rows from some readers"
    ]


def test_row_policies_that_the_verifier_may_not_see_are_not_checked(reference: None) -> None:
    [only] = found(EXPECTED, None)
    assert only.startswith("not checked: the row policies") and "SHOW ROW POLICIES" in only
    assert found(EXPECTED, None, server=False) == []


def test_without_an_engine_of_its_own_it_cannot_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(database: str, level: int) -> None:
        raise ReferenceStoreError("the verifier's own engine did not start: No module named 'chdb'")

    monkeypatch.setattr(definitions, "reference_tables", absent)
    [only] = found(EXPECTED, [])
    assert only.startswith("not checked: the definitions of the store") and "chdb" in only
