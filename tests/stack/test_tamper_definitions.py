"""The verifier names every definition that is not the migrations': analysts read views, it reads tables by name."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing

import pytest
from clickhouse_connect.driver.client import Client

from grantledger.ledger.keys import LogKeys
from grantledger.sinks.clickhouse import StoreAddress, connect
from grantledger.sinks.migrate import migrate
from grantledger.sinks.states import TABLES
from grantledger.verifier.clickhouse_source import ClickHouseEvidence
from grantledger.verifier.definitions import check_definitions, read_definitions
from grantledger.verifier.report import VerifyReport
from grantledger.verifier.scratch import Scratch
from grantledger.verifier.steps import Problem
from grantledger.verifier.verdict import Verdict

LYING_VIEW = """
CREATE VIEW entries AS SELECT * REPLACE (
    if(toString(getSetting('output_format_arrow_string_as_string')) = 'false', subject_id, 'nobody') AS subject_id
) FROM hidden
"""
ATTACKS: dict[str, tuple[Sequence[str], Sequence[str], str]] = {
    "a view in the place of entries": (
        ("RENAME TABLE entries TO hidden", LYING_VIEW),
        ("DROP VIEW entries", "RENAME TABLE hidden TO entries"),
        "entries is not a table of the MergeTree family",
    ),
    "a table of another engine": (
        ("RENAME TABLE origins TO hidden", "CREATE TABLE origins AS hidden ENGINE = Memory"),
        ("DROP TABLE origins", "RENAME TABLE hidden TO origins"),
        "origins is not a table of the MergeTree family",
    ),
    "a table that merges rows away": (
        (
            "RENAME TABLE anchors TO hidden",
            "CREATE TABLE anchors AS hidden ENGINE = ReplacingMergeTree ORDER BY origin",
        ),
        ("DROP TABLE anchors", "RENAME TABLE hidden TO anchors"),
        "anchors is not a table of the MergeTree family",
    ),
    "a replaced view": (
        ("CREATE OR REPLACE VIEW rejected_events AS SELECT * FROM entries WHERE decode_error != '' AND false",),
        (),
        "rejected_events (View) has another definition",
    ),
    "a view with one more condition": (
        ("CREATE OR REPLACE VIEW checkpoints AS SELECT origin, index + 1 AS size FROM entries WHERE note != ''",),
        (),
        "checkpoints (View) has another definition",
    ),
    "a table in the place of a view": (
        (
            "DROP VIEW active_grants",
            "CREATE TABLE active_grants (grant_id String) ENGINE = MergeTree ORDER BY grant_id",
        ),
        ("DROP TABLE active_grants",),
        "active_grants (MergeTree) has another definition",
    ),
    "a dropped view": (("DROP VIEW removal_latency",), (), "View removal_latency is missing"),
    "a materialized view": (
        ("CREATE MATERIALIZED VIEW copies ENGINE = Memory AS SELECT subject_id FROM entries",),
        ("DROP VIEW copies",),
        "MaterializedView copies is not ours",
    ),
    "an index that hides rows": (
        (
            "ALTER TABLE entries ADD INDEX by_grant concat(grant_id, 'x') TYPE bloom_filter(0.01)",
            "ALTER TABLE entries MATERIALIZE INDEX by_grant SETTINGS mutations_sync = 2",
        ),
        ("ALTER TABLE entries DROP INDEX by_grant SETTINGS mutations_sync = 2",),
        "entries (MergeTree) has another definition",
    ),
    "a TTL": (
        ("ALTER TABLE entries MODIFY TTL toDateTime(sealed_at) + INTERVAL 100 YEAR",),
        ("ALTER TABLE entries REMOVE TTL",),
        "entries (MergeTree) has another definition",
    ),
    "a TTL of a column": (
        ("ALTER TABLE entries MODIFY COLUMN reason String TTL toDateTime(sealed_at) + INTERVAL 100 YEAR",),
        ("ALTER TABLE entries MODIFY COLUMN reason REMOVE TTL",),
        "entries (MergeTree) has another definition",
    ),
    "a column more": (
        ("ALTER TABLE receipts ADD COLUMN hidden String ALIAS 'x'",),
        ("ALTER TABLE receipts DROP COLUMN hidden",),
        "receipts (MergeTree) has another definition",
    ),
    "a setting of a table": (
        ("ALTER TABLE entries MODIFY SETTING non_replicated_deduplication_window = 0",),
        ("ALTER TABLE entries MODIFY SETTING non_replicated_deduplication_window = 10000",),
        "entries (MergeTree) has another definition",
    ),
    "a function": (("CREATE FUNCTION mine AS (x) -> x",), ("DROP FUNCTION mine",), "the SQL function mine is not ours"),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    with connect(StoreAddress(tmp_path_factory.mktemp("definitions") / "store")) as client:
        migrate(client)
        yield client


def found_in(client: Client) -> list[str]:
    definitions = read_definitions(client, server=False)
    found = [*definitions.unreadable(), *check_definitions(definitions)]
    return [one.message if isinstance(one, Problem) else one for one in found]


def test_a_new_store_has_the_definitions_of_the_migrations(store: Client) -> None:
    assert found_in(store) == []


def test_only_the_evidence_and_what_verify_compares_with_it_is_stored(store: Client) -> None:
    """All else is a view, computed at each query."""
    engines = {name: engine for name, (engine, _) in read_definitions(store, server=False).tables.items()}
    tables = {name for name, engine in engines.items() if engine != "View"}
    evidence = {"entries", "origins", "anchors", "receipts", "migrations"}
    assert tables == evidence | set(TABLES) | {"state_refreshes"}
    assert {engines[name] for name in evidence} == {"MergeTree"}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_named(store: Client, attack: str) -> None:
    statements, undo, expected = ATTACKS[attack]
    with ExitStack() as after:
        if any(statement.startswith(("CREATE OR REPLACE VIEW", "DROP VIEW")) for statement in statements):
            after.callback(migrate_again, store)
        for statement in reversed(undo):
            after.callback(store.command, statement)
        for statement in statements:
            store.command(statement)
        assert any(message.startswith(expected) for message in found_in(store)), found_in(store)
    assert found_in(store) == []


def migrate_again(client: Client) -> None:
    """Restore all views."""
    for name, (engine, _) in read_definitions(client, server=False).tables.items():
        if engine == "View":
            client.command(f"DROP VIEW {name}")
    client.command("TRUNCATE TABLE migrations")
    migrate(client)


def test_a_migration_recorded_twice_is_the_same_level(store: Client) -> None:
    """As after an insert whose answer was lost."""
    store.command("INSERT INTO migrations SELECT * FROM migrations WHERE version = 2")
    try:
        assert found_in(store) == []
    finally:
        migrate_again(store)


@pytest.mark.parametrize("change", ["reverse(sha256)", "sha256"])
def test_an_unknown_level_cannot_be_checked(store: Client, change: str) -> None:
    """Text that this version does not ship, or a migration after the last one."""
    level = "version" if change != "sha256" else "version + 100"
    store.command(
        f"INSERT INTO migrations SELECT {level}, name, {change}, applied_at FROM migrations WHERE version = 1"
    )
    try:
        assert found_in(store) == [
            "the definitions of the store: its recorded migrations are not those of this version"
        ]
        report = VerifyReport("clickhouse", "test.example", anchors=1)
        with closing(Scratch()) as scratch:
            evidence = ClickHouseEvidence(store, "test.example")
            evidence.verify_logs(LogKeys.single(bytes(32)), {}, scratch, report, lambda done, total: None)
        assert report.verdict is Verdict.could_not_check
    finally:
        migrate_again(store)


def test_an_earlier_level_is_compared_with_its_own_definitions(store: Client) -> None:
    engines = {name: engine for name, (engine, _) in read_definitions(store, server=False).tables.items()}
    for name in (name for name, engine in engines.items() if engine == "View"):
        store.command(f"DROP VIEW {name}")
    for name in (*TABLES, "state_refreshes"):
        store.command(f"DROP TABLE {name}")
    store.command("TRUNCATE TABLE migrations")
    migrate(store, 2)
    try:
        assert found_in(store) == []
        store.command("DROP VIEW events")
        assert found_in(store) == ["View events is missing"]
    finally:
        migrate_again(store)
