"""Inserts into the store: a block whose token is on record without its rows, after a kill, is stored again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client

from grantledger.ledger.anchor import Receipt, anchor_origin, append_anchor
from grantledger.ledger.batch import SealedBatch
from grantledger.ledger.merkle import Frontier
from grantledger.ledger.source_keys import SourceKeys
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.sinks import evidence
from grantledger.sinks.clickhouse import StoreAddress, connect
from grantledger.sinks.migrate import migrate
from grantledger.sinks.rows import entries_table, needed_columns
from support.events import event
from support.small_ledger import GENESIS, SIGNER, seal_parts

ENTRIES: list[Any] = [(1, 10 + at, 0, b"k", b"v", b"\0\0\0\0") for at in range(6)]
BATCHES, HEAD = seal_parts([ENTRIES[:2], ENTRIES[2:4], ENTRIES[4:]])
ANCHOR, _ = append_anchor(Frontier(), anchor_origin("test.example"), 1_000, [HEAD.checkpoint()], SIGNER)
RECEIPT = Receipt(ANCHOR.origin, 0, "file", datetime(2026, 3, 1, tzinfo=UTC), b"", "")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with connect(StoreAddress(tmp_path_factory.mktemp("inserts") / "store")) as client:
        migrate(client)
        yield client


def insert(client: Client, batch: SealedBatch) -> None:
    table = entries_table(batch, SchemaCatalog(), SourceKeys("test.example"))
    evidence.insert_entries_again(client, table, "token", batch.origin, batch.size - 1)


INSERTS: dict[str, Callable[[Client], None]] = {
    "entries": lambda client: insert(client, BATCHES[-1]),
    "origins": lambda client: evidence.insert_origin(client, GENESIS),
    "anchors": lambda client: evidence.insert_anchor(client, ANCHOR),
    "receipts": lambda client: evidence.insert_receipt(client, RECEIPT, 0),
}


@pytest.mark.parametrize("table", INSERTS)
def test_a_block_that_a_killed_engine_lost_is_stored_again(store: Client, table: str) -> None:
    rows = lambda: store.query(f"SELECT count() FROM {table}").result_rows[0][0]  # noqa: E731
    INSERTS[table](store)
    before = rows()
    INSERTS[table](store)
    assert rows() == before, "a repeated block is stored once"
    where = "index >= 4" if table == "entries" else "1"
    store.command(f"DELETE FROM {table} WHERE {where} SETTINGS lightweight_deletes_sync = 2")  # the tokens stay
    assert rows() < before
    INSERTS[table](store)
    assert rows() == before


@pytest.mark.parametrize("values", [[EventEncoder().encode(event("session.command", 1))], [b"v", b"", None]])
def test_columns_that_an_insert_leaves_out_have_the_same_values(store: Client, values: list[bytes | None]) -> None:
    [batch], _ = seal_parts([[(1, 10 + at, 0, b"k", value, b"\0\0\0\0") for at, value in enumerate(values)]])
    table = entries_table(batch, SchemaCatalog((event_schema(),)), SourceKeys("test.example"))
    less = table.select([name for name in table.schema.names if name in needed_columns(table)])
    assert {"erased_at", "query_rows", "finding_key", "finding_deadline"}.isdisjoint(less.schema.names)
    stored = []
    for rows in (table, less):
        origin = f"{less is rows} {len(values)}"
        rows = rows.set_column(0, "origin", pa.array([origin] * batch.count))  # noqa: PLW2901
        evidence.insert_entries(store, rows, origin)
        found = store.query(
            "SELECT * EXCEPT origin FROM entries WHERE origin = {origin:String} ORDER BY index", {"origin": origin}
        )
        stored.append(found.result_rows)
    assert stored[0] == stored[1] and len(stored[0]) == len(values)
