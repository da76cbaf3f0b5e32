"""Batches merged into inserts: whatever fails or comes late, ClickHouse has each entry once, in one order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import OperationalError
from confluent_kafka import KafkaError, TopicPartition
from hypothesis import example, given
from hypothesis import strategies as st

from grantledger.kafka.cluster import Cluster
from grantledger.ledger.batch import SealedBatch, seal
from grantledger.ledger.source_keys import SourceKeys
from grantledger.schemas.catalog import SchemaCatalog
from grantledger.sinks import evidence, insert_group
from grantledger.sinks.continuity import StoredPartition
from grantledger.sinks.evidence import Stored, StoringStoppedError, check_visible, stored_log
from grantledger.sinks.insert_attempt import InsertAttempt
from grantledger.sinks.insert_group import InsertGroup
from grantledger.sinks.inserts import Inserts
from grantledger.sinks.rows import entries_table
from support.small_ledger import GENESIS, SIGNER, records_of, seal_parts

ENTRIES: list[Any] = [(1, 10 + at, 0, b"k", b"v", b"\0\0\0\0") for at in range(24)]
BATCHES, HEAD = seal_parts([ENTRIES[at : at + 1 + at % 3] for at in (0, 1, 3, 6, 7, 9, 12, 13, 15, 18, 19, 21)])
TABLES = [entries_table(batch, SchemaCatalog(), SourceKeys("test.example")) for batch in BATCHES]
TOPIC = "access.lifecycle.sealed"


def message(offset: int) -> Any:
    """Return the Kafka record of a batch."""
    return Mock(offset=lambda: offset)


def partition(stored: Stored | None = None, attempted: InsertAttempt | None = None) -> StoredPartition:
    return StoredPartition(TOPIC, 0, Mock(), stored, stored, attempted)


class ClickHouse:
    """A server that deduplicates inserts by token. ``fate`` is what happens to the next insert."""

    uri = "http://clickhouse:8123"

    def __init__(self) -> None:
        self.rows: list[tuple[int, bytes]] = []
        self.tokens: set[str] = set()
        self.late: list[tuple[str, list[tuple[int, bytes]]]] = []
        self.fate = "stored"
        self.sizes: list[int] = []

    def insert_arrow(self, name: str, table: pa.Table, settings: dict[str, Any]) -> None:
        assert name == "entries" and table.column("index").num_chunks == 1
        rows = list(zip(table.column("index").to_pylist(), table.column("leaf_hash").to_pylist(), strict=True))
        fate, self.fate, token = self.fate, "stored", settings["insert_deduplication_token"]
        if fate in ("stored", "answer lost"):
            self.apply(token, rows)
        elif fate == "killed after the token":
            self.tokens.add(token)
        elif fate == "late":
            self.late.append((token, rows))
        if fate != "stored":
            raise OperationalError(fate)

    def apply(self, token: str, rows: list[tuple[int, bytes]]) -> None:
        if token not in self.tokens:
            self.tokens.add(token)
            self.rows += rows
            self.sizes.append(len(rows))

    def deliver_late(self) -> None:
        if self.late:
            self.apply(*self.late.pop(0))

    def query(self, sql: str, parameters: dict[str, Any], settings: Any = None) -> Any:
        if "max(index)" in sql:
            last = max(self.rows, default=None)
            return Mock(result_rows=[(GENESIS.origin, last[0] + 1, last[1].hex())] if last else [])
        assert "count()" in sql
        return Mock(result_rows=[(sum(index == parameters["index"] for index, _ in self.rows),)])


@dataclass
class Kafka:
    """The committed position of the group, and the commit whose result is under way."""

    offset: int = 0
    metadata: str = ""
    sent: list[TopicPartition] = field(default_factory=list)

    def answer(self, inserts: Inserts, *, fails: bool) -> None:
        for position in self.sent[:1]:
            if not fails:
                self.offset, self.metadata = position.offset, position.metadata
            inserts.on_commit(KafkaError(KafkaError.REBALANCE_IN_PROGRESS) if fails else None, [position])
        self.sent.clear()
        if not fails:
            inserts.step(flush=True)


class Process:
    """One life of the store, from what Kafka and ClickHouse have."""

    def __init__(self, server: ClickHouse, kafka: Kafka) -> None:
        self.server, self.kafka = server, kafka
        client: Any = server
        self.inserts = Inserts(
            Cluster({}), client, most_bytes=1 << 20, commit=kafka.sent.append, persist=self.persist,
            on_failure=lambda error: None, on_stored=lambda table: None,
        )  # fmt: skip
        stored = stored_log(client, "")
        attempted = InsertAttempt.of_metadata(kafka.metadata)
        if attempted is not None and not attempted.is_open(stored):
            attempted = None
        self.partition = partition(stored, attempted)
        self.next = kafka.offset

    def persist(self, attempt: Any) -> None:
        while True:
            try:
                return attempt(self.server)
            except OperationalError:
                self.server.deliver_late()

    def read(self) -> None:
        """Read the next batch."""
        if self.next < len(BATCHES):
            batch, self.next = BATCHES[self.next], self.next + 1
            if self.partition.read is None or batch.size > self.partition.read.size:
                assert batch.first_index == (self.partition.read.size if self.partition.read else 0)
                self.inserts.add(self.partition, batch, TABLES[self.next - 1], message(self.next - 1))

    def end(self) -> None:
        self.inserts.wait(10)
        self.inserts.close()


ROUNDS = st.tuples(
    st.integers(1, 3),
    st.sampled_from(["stored", "answer lost", "request lost", "killed after the token", "late"]),
    st.sampled_from(["commit", "commit", "commit", "commit fails", "no result"]),
    st.sampled_from(["finish", "crash", "go on"]),
    st.booleans(),
)
"""Batches that are read, the fate of the next insert, of its commit, and of the process; and whether ClickHouse then
processes a late insert."""


@given(st.lists(ROUNDS, min_size=4, max_size=12))
@example([(2, "late", "commit", "crash", False), (3, "stored", "commit", "finish", True)])
@example([(2, "killed after the token", "commit", "crash", False), (3, "stored", "commit", "finish", False)])
@example([(2, "killed after the token", "commit", "finish", False), (3, "late", "commit", "go on", True)])
def test_every_entry_is_stored_once_whatever_happens(rounds: list[tuple[int, str, str, str, bool]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence, "SETTLE_SECONDS", 0)
        server, kafka = ClickHouse(), Kafka()
        process = Process(server, kafka)
        for reads, server.fate, commit, then, late in rounds:
            for _ in range(reads):
                process.read()
            process.inserts.step(flush=True)
            if commit != "no result":
                kafka.answer(process.inserts, fails=commit == "commit fails")
                process.inserts.wait(10)  # so that the same rounds do the same again
            if then == "finish":
                process.inserts.finish()
            elif then == "crash":
                process.end()
                kafka.sent.clear()
                process = Process(server, kafka)
            if late:
                server.deliver_late()
        server.fate = "stored"
        while process.next < len(BATCHES) or not process.inserts.idle:
            process.read()
            process.inserts.step(flush=True)
            kafka.answer(process.inserts, fails=False)
            process.inserts.finish()
        process.end()
        while server.late:
            server.deliver_late()
    assert [index for index, _ in sorted(server.rows)] == list(range(HEAD.size))


def test_batches_that_wait_are_one_insert() -> None:
    server, kafka = ClickHouse(), Kafka()
    process = Process(server, kafka)
    process.read()
    process.inserts.step()  # the first is not delayed
    kafka.answer(process.inserts, fails=False)
    for _ in BATCHES[1:]:
        process.read()
    process.inserts.finish()
    process.inserts.step()
    kafka.answer(process.inserts, fails=False)
    assert not process.inserts.runs, "the next waits for more batches"
    process.inserts.step(flush=True)
    kafka.answer(process.inserts, fails=False)
    kafka.answer(process.inserts, fails=False)
    process.inserts.step(flush=True)
    kafka.answer(process.inserts, fails=False)
    process.inserts.finish()
    assert server.sizes == [BATCHES[0].count, HEAD.size - BATCHES[0].count]
    process.inserts.step()
    kafka.answer(process.inserts, fails=False)
    assert (kafka.offset, kafka.metadata) == (len(BATCHES), "")
    process.end()


def group_of(batch: SealedBatch, table: pa.Table, attempted: InsertAttempt | None = None) -> InsertGroup:
    group = InsertGroup.begin_with(partition(None, attempted), batch, message(0), 0.0, most_bytes=1 << 20)
    assert group.takes(batch, table)
    group.add(batch, table, message(0))
    return group


def test_a_group_has_one_log_and_one_month(monkeypatch: pytest.MonkeyPatch) -> None:
    group, (batch, table) = group_of(BATCHES[0], TABLES[0]), (BATCHES[1], TABLES[1])
    assert group.takes(batch, table)
    assert not group.takes(replace(batch, sealed_at=batch.sealed_at + timedelta(days=40)), table)
    other, _ = seal(HEAD, records_of([]), HEAD.next_offset, batch.sealed_at, SIGNER)
    assert not group.takes(replace(other, genesis=replace(GENESIS, origin=f"{GENESIS.origin[:-1]}1")), table)
    monkeypatch.setattr(insert_group, "MAX_ROWS", batch.count)
    assert not group.takes(batch, table)
    monkeypatch.setattr(insert_group, "MAX_ROWS", 1000)
    group.most_bytes = group.bytes
    assert not group.takes(batch, table)


def test_a_repeated_insert_has_the_same_range_and_token() -> None:
    attempted = InsertAttempt(GENESIS.origin, 0, BATCHES[1].size, "t")
    group = group_of(BATCHES[0], TABLES[0], attempted)
    assert not group.complete
    assert group.takes(BATCHES[1], TABLES[1])
    group.add(BATCHES[1], TABLES[1], message(1))
    assert group.complete and group.attempt == attempted
    assert not group.takes(BATCHES[2], TABLES[2])


def test_a_repeated_insert_whose_batches_are_gone_is_a_stop() -> None:
    attempted = InsertAttempt(GENESIS.origin, 0, BATCHES[1].size - 1, "t")
    group = group_of(BATCHES[0], TABLES[0], attempted)
    with pytest.raises(StoringStoppedError, match=f"up to index {BATCHES[1].size - 2} was begun"):
        group.takes(BATCHES[1], TABLES[1])


@given(st.text(max_size=40) | st.from_regex("insert .*", fullmatch=True))
def test_foreign_metadata_is_no_attempt_and_no_error(text: str) -> None:
    found = InsertAttempt.of_metadata(text)
    assert found is None or found.metadata() == text or found.first_index >= 0


@pytest.mark.parametrize(
    ("stored", "first_index", "is_open"),
    [(None, 0, True), (None, 3, False), (3, 3, True), (2, 3, False), (5, 3, False), (0, 0, True), (5, 0, False)],
)
def test_an_attempt_is_open_if_it_is_the_next_insert(stored: int | None, first_index: int, is_open: bool) -> None:
    attempt = InsertAttempt("d/t/0/1", first_index, 5, "t")
    assert InsertAttempt.of_metadata(attempt.metadata()) == attempt
    assert attempt.is_open(Stored("d/t/0/1", stored, b"") if stored is not None else None) == is_open
    assert InsertAttempt("d/t/0/2", 0, 5, "t").is_open(Stored("d/t/0/1", 9, b""))
    assert not InsertAttempt("d/t/0/0", 0, 5, "t").is_open(Stored("d/t/0/1", 9, b""))


def test_rows_that_stay_invisible_are_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "SETTLE_SECONDS", 0)
    client: Any = Mock(uri=ClickHouse.uri, query=lambda *_, **__: Mock(result_rows=[(0,)]))
    with pytest.raises(StoringStoppedError, match="row policies"):
        evidence.insert_entries_again(client, TABLES[0], "t", GENESIS.origin, 0)
    assert client.insert_arrow.call_count == evidence.MOST_TOKENS


def test_rows_that_are_hidden_are_a_stop_before_the_first_insert() -> None:
    client: Any = Mock(query=lambda sql, **_: Mock(result_rows=[(7 if "system.parts" in sql else 6,)]))
    with pytest.raises(StoringStoppedError, match="7 rows in entries and returns 6"):
        check_visible(client)
