"""Snapshots of the watch: nothing is found twice or lost by a restart, and facts of what is over are dropped."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import pyarrow as pa
import pytest

from grantledger.ledger import packing
from grantledger.ledger.batch import SealedBatch
from grantledger.processors.watch import snapshot as snapshots
from grantledger.processors.watch.core.judge import Identity, Judge
from grantledger.processors.watch.decoding import decode_batch, facts_from, rows_of
from grantledger.processors.watch.snapshot import (
    FactArchive,
    LogPosition,
    Snapshot,
    decode_part,
    encode_parts,
    join_tables,
)
from grantledger.processors.watch_policy import WatchPolicy
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.simulator.faults import FAULTS
from support.simulation import LONG_AFTER, LOOK, Watched, differences, policy_in, sealed_batches
from support.snapshot_memory import SIGNATURE, EndlessSealedTopic, MemorySnapshots, WatchRecord
from support.virtual_time import Simulation

CATALOG = SchemaCatalog((event_schema(),))
MINUTE = 60 * 1_000_000
SEALED_TOPIC = EndlessSealedTopic()


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> WatchPolicy:
    return policy_in(tmp_path_factory.mktemp("policy"))


def first_append(batch: SealedBatch) -> int:
    return packing.unpack(packing.I64, batch.append_times)[0] * 1000


class Restarting:
    """A watch without Kafka that dies again and again, and continues from its last snapshot."""

    def __init__(self, policy: WatchPolicy, port: MemorySnapshots) -> None:
        self.policy, self.port = policy, port
        self.known: dict[Identity, bool] = {}
        self.batches: list[SealedBatch] = []
        self.decoded: list[tuple[pa.RecordBatch, list[Any]]] = []
        self.watched = Watched({}, set(), Judge(policy))
        self.most = self.read_again = self.forgot_in_the_past = 0

    def start(self) -> None:
        self.judge = Judge(self.policy, self.known)
        snapshot = Snapshot.load(self.port, SEALED_TOPIC)
        self.position = snapshot.position
        self.archive = FactArchive(snapshot)
        restore(self.judge, self.archive, snapshot)
        for number in range(self.position.sealed_offset, len(self.batches)):
            self.read_again += 1
            self.take(number)
            if self.archive.new_rows and number % 5 == 0:
                if self.archive.is_many(self.archive.unpruned_rows):
                    self.find(self.archive.latest, past=True)
                    self.forget()
                    self.forgot_in_the_past += 1
                self.archive.snapshot(self.position, self.judge.state).store(self.port)

    def take(self, number: int) -> None:
        batch = self.batches[number]
        if number == len(self.decoded):  # once: it is read again after each restart
            table, rows, *_ = decode_batch(batch, CATALOG)
            self.decoded.append((table, list(rows)))
        table, decoded = self.decoded[number]
        for fact in facts_from(iter(decoded)):
            self.judge.add(fact)
        self.position = LogPosition(batch.size, batch.next_offset, number + 1)
        self.archive.add(table)
        self.most = max(self.most, len(self.judge.state.grants))

    def forget(self) -> None:
        before = min(self.archive.latest, self.judge.judged_until) - 3 * MINUTE
        forgotten = {entity for entity in self.judge.forget(before) if entity is not None}
        list(self.archive.prune(forgotten, self.position.size, self.judge.state))

    def find(self, now: int, *, past: bool = False) -> None:
        changes = self.judge.judge(now, past=past)
        assert self.judge.faults == []
        self.watched.note(changes)
        self.known |= {change.identity: change.kind == "opened" for change in changes}

    def run(self, simulation: Simulation, draw: random.Random) -> None:
        self.start()
        now = 0
        for batch, now in sealed_batches(simulation):
            while (look := max(now, self.judge.next_time + LOOK)) < first_append(batch):
                self.find(look)
            self.batches.append(batch)
            self.take(len(self.batches) - 1)
            self.find(now)
            if draw.random() < 0.5:
                if draw.random() < 0.3:
                    self.forget()
                self.archive.snapshot(self.position, self.judge.state).store(self.port)
            if draw.random() < 0.06:
                if draw.random() < 0.3:
                    self.port.lose()
                elif draw.random() < 0.5 and self.port.stored:
                    self.port.change(self.port.manifest_records[0].at, b"{")
                self.start()
        while (look := max(now, self.judge.next_time + LOOK)) < now + LONG_AFTER:
            self.find(look)
        self.find(now + LONG_AFTER)


def restore(judge: Judge, archive: FactArchive, snapshot: Snapshot) -> None:
    for table in archive.tables():
        for fact in facts_from(rows_of(table)):
            judge.state.restore(fact)
    judge.state.restore_sources(snapshot.position.size, snapshot.sources)


@pytest.mark.parametrize(
    ("seed", "lives"),
    [(1, 150), *(pytest.param(seed, lives, marks=pytest.mark.slow) for seed, lives in ((1, 400), (2, 1200)))],
)
def test_it_finds_the_same_however_often_it_is_restarted(
    policy: WatchPolicy, monkeypatch: pytest.MonkeyPatch, seed: int, lives: int
) -> None:
    monkeypatch.setattr(snapshots, "PART_ROWS", lives // 4)
    monkeypatch.setattr(snapshots, "MANY_ROWS", lives * 5 // 4)
    # What is sent again after it was forgotten counts as new.
    repeated = {"imported_twice", "first_half_imported_again", "record_altered"}
    faults = {name: fault for name, fault in FAULTS.items() if name not in repeated}
    simulation, port = Simulation(seed, lives, share=0.07, rate=lives / 1200, faults=faults), MemorySnapshots()
    watch = Restarting(policy, port)
    watch.run(simulation, random.Random(seed))
    assert not differences(simulation.expected, watch.watched)
    everything = sum(batch.count for batch in watch.batches)
    assert watch.archive.rows < everything / 3, "facts of what is over are dropped"
    assert watch.most < simulation.lifecycles * 0.8 and len(watch.judge.state.grants) < watch.most
    assert watch.read_again and watch.forgot_in_the_past


@cache
def some_facts(count: int = 10, seed: int = 5) -> pa.RecordBatch:
    simulation = Simulation(seed, count, share=0.0, faults=FAULTS)
    return join_tables([decode_batch(batch, CATALOG).table for batch, _ in sealed_batches(simulation)])


def test_facts_are_the_same_after_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = some_facts()
    [part] = encode_parts([facts])
    assert part.rows == facts.num_rows
    assert list(facts_from(rows_of(decode_part(part.value)))) == list(facts_from(rows_of(facts)))
    monkeypatch.setattr(snapshots, "MAX_PART_BYTES", 2000)
    parts = encode_parts([facts])
    assert len(parts) > 1 and all(len(value) <= 2000 or rows == 1 for rows, value in parts)
    assert join_tables([decode_part(value) for _, value in parts]).equals(facts)
    assert encode_parts([facts.slice(0, 0)]) == []


def stored(port: MemorySnapshots, facts: pa.RecordBatch, size: int) -> None:
    """Store a snapshot of the first facts."""
    if not port.records:
        Snapshot.load(port, SEALED_TOPIC)  # takes over
    judge, archive = Judge(), FactArchive(Snapshot())
    for fact in facts_from(rows_of(facts.slice(0, size))):
        judge.add(fact)
    archive.add(facts.slice(0, size))
    archive.snapshot(LogPosition(size, size, size), judge.state).store(port)


def content_of(record: WatchRecord) -> bytes:
    """Return the content of a manifest."""
    return SIGNATURE.verified(record.name.decode(), record.content or b"")


def changed(**fields: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda manifest: json.dumps(manifest | fields).encode()


CONTENTS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "no json": lambda _: b"{",
    "json of something else": lambda _: b"[1, 2]",
    "nested json": lambda _: b"[" * 200_000,
    "another format": changed(format="0"),
    "a position of text": changed(position={"sealed_offset": "x"}),
    "a negative position": changed(position={"sealed_offset": -5}),
    "no parts": changed(parts=[], facts=0),
    "parts of text": changed(parts=["x"]),
    "facts of text": changed(facts="x"),
    "a position too far": changed(position={"sealed_offset": 1 << 63}),
}


@pytest.mark.parametrize("damage", [*CONTENTS, "a part is changed", "a part is gone"])
def test_an_unusable_snapshot_falls_back_to_the_one_before_and_then_to_the_log(damage: str) -> None:
    port, facts = MemorySnapshots(), some_facts(40)
    for size in (50, 100):
        stored(port, facts, size)
    assert Snapshot.load(port, SEALED_TOPIC).position.size == 100
    for expected in (50, 0):
        at = 0 if expected else 1
        record = port.manifest_records[at]
        manifest = json.loads(content_of(record))
        location = manifest["parts"][0][0]
        if damage in CONTENTS:
            port.change_content(record, CONTENTS[damage](manifest))
        elif damage == "a part is changed":
            port.change(location, port.parts[location][:-1] + b"?")
        else:
            del port.records[location]
        snapshot = Snapshot.load(port, SEALED_TOPIC)
        assert snapshot.position == LogPosition(expected, expected, expected)
        judge = Judge()
        restore(judge, FactArchive(snapshot), snapshot)
        assert bool(judge.state.grants) == bool(expected)


def test_a_snapshot_of_another_log_is_not_used() -> None:
    port = MemorySnapshots()
    stored(port, some_facts(), 50)
    port.log = "another"
    assert Snapshot.load(port, SEALED_TOPIC) == Snapshot()


class MeasuredTable:
    """A fact table of one row, that counts how often its size is computed: this takes a quarter of a millisecond."""

    num_rows = 1
    measured = 0

    def __init__(self, table: pa.RecordBatch) -> None:
        self.column = table.column

    @property
    def nbytes(self) -> int:
        MeasuredTable.measured += 1
        return 1000


def test_a_batch_costs_the_same_however_many_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[int] = []

    def join(tables: list[Any]) -> Any:
        joined.append(len(tables))
        return tables[0]

    monkeypatch.setattr(snapshots, "join_tables", join)
    monkeypatch.setattr(MeasuredTable, "measured", 0)
    archive, table = FactArchive(Snapshot()), MeasuredTable(some_facts().slice(0, 1))
    for _ in range(5000):
        archive.add(table)  # type: ignore[arg-type]
    assert archive.rows == 5000 < snapshots.PART_ROWS
    assert MeasuredTable.measured == 5000
    assert sum(joined) < 2 * 5000 and max(joined) <= snapshots.MANY_TABLES


def test_facts_that_arrive_while_others_are_dropped_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "PART_ROWS", 40)
    facts = some_facts(40)
    half = facts.num_rows // 2
    judge, archive = Judge(), FactArchive(Snapshot())
    for at in range(0, half, 10):
        archive.add(facts.slice(at, min(10, half - at)))
    for fact in facts_from(rows_of(facts)):
        judge.add(fact)
    grants = list(judge.state.grants)[::2]
    forgotten = {("grant", name) for name in grants}
    pruning = archive.prune(forgotten, half, judge.state)  # type: ignore[arg-type]
    for at in range(half, facts.num_rows, 7):
        next(pruning, None)
        archive.add(facts.slice(at, min(7, facts.num_rows - at)))
    list(pruning)
    left = [fact for table in FactArchive(archive.snapshot(LogPosition(), judge.state)).tables()
            for fact in facts_from(rows_of(table))]  # fmt: skip
    expected = [
        fact for fact in facts_from(rows_of(facts)) if fact.index >= half or ("grant", fact.grant_key) not in forgotten
        or not fact.event_type.startswith("grant.")
    ]  # fmt: skip
    assert [fact.index for fact in left] == [fact.index for fact in expected]
    assert archive.rows == len(left) < facts.num_rows
