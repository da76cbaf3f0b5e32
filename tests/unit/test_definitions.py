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


Policy = tuple[str, str, str, str, int, int, list[str]]
"""Name, database, table, condition, whether it is restrictive, whether it is for everybody, for whom."""


class Answer:
    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self.result_rows = rows


class Server:
    """A server with these tables and row policies. None: the verifier may not see policies."""

    def __init__(self, tables: dict[str, tuple[str, str]], policies: list[Policy] | None) -> None:
        self.tables, self.policies = tables, policies

    def query(self, sql: str) -> Answer:
        if "system.tables" in sql:
            return Answer([(name, engine, text) for name, (engine, text) in self.tables.items()])
        if "row_policies" in sql:
            if self.policies is None:
                raise DatabaseError("Code: 497. Not enough privileges")
            return Answer(list(self.policies))
        if "FROM migrations" in sql:
            return Answer(list(OURS))
        return Answer([("audit",)] if "currentDatabase()" in sql else [])


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definitions, "reference_tables", lambda database, level: EXPECTED)
    monkeypatch.setattr(definitions, "normalized", lambda database, texts: [text.replace("  ", " ") for text in texts])


def found(
    tables: dict[str, tuple[str, str]], policies: list[Policy] | None = None, *, server: bool = True
) -> list[str]:
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
    policy = ("hide ON audit.entries", "audit", "entries", "tenant = 'acme'", 0, 0, [ROLE])
    assert found(EXPECTED, [policy]) == ["the row policy hide ON audit.entries hides rows from some readers"]


ROLE = "grantledger_audit_tenant_acme"
OWN: Policy = ("p", "audit", "events", "tenant = 'acme'", 0, 0, [ROLE])


@pytest.mark.parametrize(
    ("policy", "ours"),
    [
        (OWN, True),
        (("p", "audit", "events", "1", 0, 0, ["analysts"]), True),
        (("p", "audit", "events", "tenant = 'o\\'neil'", 0, 0, ["grantledger_audit_tenant_o'neil"]), True),
        (("p", "audit", "events", "tenant = 'globex'", 0, 0, [ROLE]), False),
        (("p", "audit", "events", "tenant = 'acme'", 0, 0, [ROLE, "grantledger_audit_analyst"]), False),
        (("p", "audit", "events", "tenant = 'acme'", 0, 1, []), False),
        (("p", "audit", "events", "tenant = 'acme'", 1, 0, [ROLE]), False),
        (("p", "audit", "grant_timeline", "1", 0, 0, [ROLE]), False),
        (("p", "audit", "", "tenant = 'acme'", 0, 0, [ROLE]), False),
        (("p", "other", "events", "tenant = 'acme'", 0, 0, [ROLE]), False),
    ],
)  # fmt: skip
def test_only_policies_of_tenants_are_ours(reference: None, policy: Policy, ours: bool) -> None:
    assert (found(EXPECTED, [policy]) == []) is ours


VIEW = "CREATE VIEW audit.v (`a` String) COMMENT 'it\\'s' AS SELECT a FROM audit.entries WHERE b = 'x'"


@pytest.mark.parametrize(
    "rights",
    ["DEFINER = audit_views SQL SECURITY DEFINER", "DEFINER = `a b` SQL SECURITY DEFINER", "SQL SECURITY INVOKER"],
)
def test_the_rights_of_a_view_may_differ_and_nothing_else(monkeypatch: pytest.MonkeyPatch, rights: str) -> None:
    expected = EXPECTED | {"v": ("View", VIEW)}
    monkeypatch.setattr(definitions, "reference_tables", lambda database, level: expected)
    monkeypatch.setattr(definitions, "normalized", lambda database, texts: list(texts))
    for text, count in (
        (VIEW.replace(") COMMENT", f") {rights} COMMENT"), 0),
        (VIEW.replace("'x'", f"'x {rights}'"), 1),
        (VIEW.replace("'x'", f"'x) {rights} AS SELECT'"), 1),
        (VIEW.replace(") COMMENT", f") {rights} COMMENT").replace("'x'", "'y'"), 1),
    ):
        assert len(found(expected | {"v": ("View", text)}, [])) == count, text


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
