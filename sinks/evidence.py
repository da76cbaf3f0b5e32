"""Read and insert the evidence of each log. ClickHouse is the only authority on the rows that have been inserted."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa
from clickhouse_connect.driver.client import Client

from ..base.errors import StoppedError
from ..base.times import EPOCH, micros_of
from ..ledger.anchor import Anchor, Receipt, anchor_entry
from ..ledger.entry import Genesis, epoch_of
from ..ledger.key_change import SUBJECT as KEY_CHANGE_KEY
from ..ledger.key_change import KeyChange, key_change
from ..ledger.registered_schemas import KEY_PREFIX, collect_schemas
from ..ledger.source_keys import KEY_PREFIX as SOURCE_KEY_PREFIX
from ..ledger.source_keys import SHARDS_KEY, SignedRecord, SourceKeys
from ..schemas.catalog import SchemaCatalog
from ..schemas.event import FINDINGS_TOPIC
from ..schemas.evidence import ANCHORS_SCHEMA, ORIGINS_SCHEMA, RECEIPTS_SCHEMA
from .arrow_insert import insert_rows
from .clickhouse import Ask, asking

SYNCHRONOUS = {
    "async_insert": 0,
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    # More threads do not speed up a block of ten thousand rows, and cost a third more CPU.
    "max_threads": 1,
    "max_insert_threads": 1,
    "input_format_parallel_parsing": 0,
}
"""An insert is complete when the call returns; a repeated block is stored once."""
SETTLE_SECONDS = 0.5
MOST_TOKENS = 3
"""Inserts of one block, each under a new token, before storing stops."""
ARROW = {"output_format_arrow_string_as_string": 0, "output_format_arrow_low_cardinality_as_dictionary": 0}
"""Strings are returned as bytes, valid UTF-8 or not."""

_LAST_ANCHOR = """
SELECT origin, `index`, toUnixTimestamp64Milli(time) AS time_ms, bodies, base64Encode(frontier) AS frontier, note
FROM anchors WHERE startsWith(origin, {log:String})
ORDER BY length(origin) DESC, origin DESC, `index` DESC LIMIT 1
"""
_ANCHOR_NOTE = "SELECT note FROM anchors WHERE origin = {origin:String} AND `index` = {index:UInt64}"


@dataclass(frozen=True, slots=True)
class Stored:
    """How far a log is stored: entries, and the leaf hash of the last one."""

    origin: str
    size: int
    last_leaf: bytes


class StoringStoppedError(StoppedError):
    """Kafka and ClickHouse contradict each other; a person must examine them. The message names the place."""


def check_visible(client: Client) -> None:
    """Check that ClickHouse hides no entry from us.

    Raises:
        StoringStoppedError: it has more rows than it returns; they would be inserted again and again.
    """
    sql = "SELECT sum(rows) FROM system.parts WHERE database = currentDatabase() AND table = 'entries' AND active"
    stored = int(client.query(sql).result_rows[0][0])  # first, because another process may insert meanwhile
    returned = _count(client, "SELECT count() FROM entries")
    if returned < stored:
        raise StoringStoppedError(
            f"ClickHouse has {stored} rows in entries and returns {returned} of them to this user. Remove the row "
            "policies of this table for the store's user (SHOW ROW POLICIES ON entries)"
        )


def stored_log(client: Client, log: str) -> Stored | None:
    """Return how far the newest epoch of a log is stored; ``log`` is the origin without its epoch."""
    rows = client.query(
        "SELECT origin, max(index) + 1, hex(argMax(leaf_hash, index)) FROM entries "
        "WHERE origin IN (SELECT origin FROM origins WHERE startsWith(origin, {prefix:String})) GROUP BY origin",
        parameters={"prefix": log + "/"},
    ).result_rows
    if not rows:
        return None
    origin, size, leaf = max(rows, key=lambda row: epoch_of(row[0]))
    return Stored(origin, int(size), bytes.fromhex(leaf))


def insert_entries(client: Client, table: pa.Table, token: str) -> None:
    """Store consecutive entries of one log and one month for the first time: one insert, one block."""
    insert_rows(client, "entries", table, SYNCHRONOUS | {"insert_deduplication_token": token})


def insert_entries_again(client: Client, table: pa.Table, token: str, origin: str, last_index: int) -> None:
    """Store entries that this process or an earlier one may have tried to store, with the same token.

    Raises:
        StoringStoppedError: they stay invisible.
    """
    _insert(client, "entries", table, token, lambda: _has_entry(client, origin, last_index))


def insert_origin(client: Client, genesis: Genesis) -> None:
    """Store the genesis of a log unless it is stored already."""

    def is_stored() -> bool:
        sql = "SELECT count() FROM origins WHERE origin = {origin:String}"
        return _count(client, sql, origin=genesis.origin) > 0

    if is_stored():
        return
    values = (genesis.origin, genesis.topic_id, genesis.first_offset, genesis.previous_size, genesis.previous_root)
    _insert(client, "origins", _row(ORIGINS_SCHEMA, (*values, genesis.hash())), genesis.origin, is_stored)


def stored_anchor(ask: Ask, log: str) -> Anchor | None:
    """Return the last stored anchor of the newest epoch, unverified; ``log`` is the origin without its epoch."""
    rows = ask(_LAST_ANCHOR, log=log + "/")
    if not rows:
        return None
    row, bodies = rows[0], tuple(rows[0]["bodies"])
    entry, frontier = anchor_entry(row["time_ms"], bodies), base64.b64decode(row["frontier"])
    return Anchor(row["origin"], row["index"], row["time_ms"], bodies, entry, frontier, row["note"])


def stored_anchor_note(ask: Ask, origin: str, index: int) -> str | None:
    """Return the note of a stored anchor, or None if there is no such anchor."""
    rows = ask(_ANCHOR_NOTE, origin=origin, index=index)
    return str(rows[0]["note"]) if rows else None


def insert_anchor(client: Client, anchor: Anchor) -> None:
    """Store one anchor."""
    at = EPOCH + timedelta(milliseconds=anchor.time_ms)
    values = (anchor.origin, anchor.index, at, list(anchor.bodies), anchor.entry, anchor.frontier, anchor.note)
    is_stored = lambda: stored_anchor_note(asking(client), anchor.origin, anchor.index) is not None  # noqa: E731
    _insert(client, "anchors", _row(ANCHORS_SCHEMA, values), f"{anchor.origin}:{anchor.index}", is_stored)


def has_receipt(client: Client, receipt: Receipt) -> bool:
    """Whether a receipt is stored: a target sends one receipt for an anchor at a time."""
    at = micros_of(receipt.at)
    sql = (
        "SELECT count() FROM receipts WHERE origin = {origin:String} AND index = {index:UInt64} "
        "AND target = {target:String} AND toUnixTimestamp64Micro(at) = {at:Int64}"
    )
    return _count(client, sql, origin=receipt.origin, index=receipt.index, target=receipt.target, at=at) > 0


def insert_receipt(client: Client, receipt: Receipt, offset: int) -> None:
    """Store one receipt unless it is stored already; ``offset`` is its Kafka offset, the deduplication token."""
    if has_receipt(client, receipt):
        return
    values = (receipt.origin, receipt.index, receipt.target, receipt.at, receipt.receipt, receipt.error)
    _insert(client, "receipts", _row(RECEIPTS_SCHEMA, values), str(offset), lambda: has_receipt(client, receipt))


def _insert(client: Client, name: str, table: pa.Table, token: str, is_stored: Callable[[], bool]) -> None:
    """Insert a block once, even if it is not known whether an earlier insert of it has succeeded.

    ClickHouse records the token just before it adds the block, and ignores every later block with this token. If it is
    killed in between, the block is missing forever: then it needs another token.
    """
    for attempt in range(MOST_TOKENS):
        own = token if attempt == 0 else f"{token}:{attempt}"
        insert_rows(client, name, table, SYNCHRONOUS | {"insert_deduplication_token": own})
        if is_stored():
            return
        time.sleep(SETTLE_SECONDS)  # a server may be about to add the block of an earlier insert
        if is_stored():
            return
    raise StoringStoppedError(
        f"ClickHouse accepted {MOST_TOKENS} inserts into {name}, and a query does not return the rows. Check its row "
        f"policies (SHOW ROW POLICIES ON {name}) and its log; then run `grantledger verify`"
    )


def _has_entry(client: Client, origin: str, index: int) -> bool:
    sql = "SELECT count() FROM entries WHERE origin = {origin:String} AND index = {index:UInt64}"
    return _count(client, sql, origin=origin, index=index) > 0


def _count(client: Client, sql: str, **values: Any) -> int:
    settings = {"select_sequential_consistency": 1}  # replicas must have what another one has acknowledged
    return int(client.query(sql, parameters=values, settings=settings).result_rows[0][0])


def _row(schema: pa.Schema, values: Sequence[Any]) -> pa.Table:
    columns = [pa.array([value], field.type) for value, field in zip(values, schema, strict=True)]
    return pa.table(columns, schema=schema)


def read_key_changes(client: Client, findings_origins: str, sources: SourceKeys) -> list[KeyChange]:
    """Return the changes of the log key on record in the logs whose origins begin with ``findings_origins``.

    Args:
        sources: those on record there.
    """
    table = client.query_arrow(
        "SELECT origin, index, key, value, headers, append_time FROM entries "
        "WHERE startsWith(origin, {prefix:String}) AND key = {key:String} ORDER BY origin, index",
        parameters={"prefix": findings_origins, "key": KEY_CHANGE_KEY},
        settings=ARROW,
    )
    times: Sequence[int] = table.column("append_time").cast(pa.int64()).to_pylist() if table.num_rows else []
    found = []
    for row, time_ms in zip(table.to_pylist(), times, strict=True):
        record = SignedRecord(FINDINGS_TOPIC, row["key"], row["value"], row["headers"], time_ms)
        if (change := key_change(record, row["origin"].decode(), row["index"], sources)) is not None:
            found.append(change)
    return found


def read_catalog(client: Client, findings_origins: str, sources: SourceKeys) -> SchemaCatalog:
    """Return the writer schemas on record in the stored logs whose origins begin with ``findings_origins``.

    The sources on record there are added to ``sources``.
    """
    table = client.query_arrow(
        "SELECT key, value, headers, append_time FROM entries WHERE startsWith(origin, {prefix:String}) "
        "AND (startsWith(ifNull(key, ''), {schema:String}) OR startsWith(ifNull(key, ''), {source:String}) "
        "OR key = {shards:String}) "
        "ORDER BY origin, index",
        parameters={
            "prefix": findings_origins,
            "schema": KEY_PREFIX.decode(),
            "source": SOURCE_KEY_PREFIX.decode(),
            "shards": SHARDS_KEY.decode(),
        },
        settings=ARROW,
    )
    catalog = SchemaCatalog()
    if table.num_rows:
        times: Sequence[int] = table.column("append_time").cast(pa.int64()).to_pylist()
        keys, values, headers = (table.column(name).to_pylist() for name in ("key", "value", "headers"))
        collect_schemas(keys, values, times, catalog, headers=headers, sources=sources)
    return catalog
