"""What the watch keeps between two starts: nothing is found twice or lost by it, and what is over goes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa
import pytest

from grantledger.ledger import packing
from grantledger.ledger.batch import SealedBatch
from grantledger.processors.watch import keeper as keeping
from grantledger.processors.watch import memory
from grantledger.processors.watch.keeper import Keeper
from grantledger.processors.watch.memory import MemoryUnreadableError, Place, decode, encode, joined, manifest_of
from grantledger.processors.watch.policy import Policy
from grantledger.processors.watch.reading import facts_from, read, rows_of
from grantledger.processors.watch.state import Identity, WatchState
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.simulator.faults import FAULTS
from grantledger.simulator.simulation import Simulation
from support.shelf import Power, Shelf
from support.simulation import LONG_AFTER, LOOK, Watched, differences, policy_in, sealed_batches

CATALOG = SchemaCatalog((event_schema(),))
MINUTE = 60 * 1_000_000
Answer = TypeVar("Answer")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return policy_in(tmp_path_factory.mktemp("policy"))


async def at_once(call: Callable[[], Answer]) -> Answer:
    return call()


def first_append(batch: SealedBatch) -> int:
    return packing.unpack_i64(batch.append_times)[0] * 1000


def keeper_of(shelf: Shelf, days: int = 3) -> Keeper:
    return Keeper(shelf, at_once, every=1, days=days)


class Restarting:
    """A watch without Kafka, which dies again and again, and goes on from what it has kept."""

    def __init__(self, policy: Policy, shelf: Shelf) -> None:
        self.policy, self.shelf = policy, shelf
        self.known: dict[Identity, bool] = {}
        self.batches: list[SealedBatch] = []
        self.watched = Watched({}, set(), WatchState(policy))
        self.most = self.read_again = self.forgot_in_the_past = 0

    async def start(self) -> None:
        self.state = WatchState(self.policy, self.known)
        self.keeper = keeper_of(self.shelf)
        self.place = await self.keeper.recall()
        async for rows in self.keeper.load(self.state):
            for fact in facts_from(rows):
                self.state.recall(fact)
        for number in range(self.place.record, len(self.batches)):
            self.read_again += 1
            latest = await self.take(number)
            if self.keeper.is_due(number + 1):
                await self.keeper.write(self.place, self.state)
                if self.keeper.is_time_to_forget(live=False):
                    self.judge(latest, past=True)
                    await self.keeper.forget(self.state)
                    self.forgot_in_the_past += 1

    async def take(self, number: int) -> int:
        batch = self.batches[number]
        table, rows, _ = read(batch, CATALOG)
        for fact in facts_from(rows):
            self.state.add(fact)
        self.place = Place(batch.size, batch.next_offset, number + 1)
        self.keeper.take(table, number)
        self.most = max(self.most, len(self.state.grants))
        latest: int = table.column("append")[-1].as_py()
        return latest

    def judge(self, now: int, *, past: bool = False) -> None:
        changes = self.state.judge(now, past=past)
        assert self.state.faults == []
        self.watched.note(changes)
        self.known |= {change.finding[:3]: change.what == "opened" for change in changes}

    async def run(self, simulation: Simulation, draw: random.Random) -> None:
        await self.start()
        now = 0
        for batch, now in sealed_batches(simulation):
            while (look := max(now, self.state.next_look + LOOK)) < first_append(batch):
                self.judge(look)
            self.batches.append(batch)
            await self.take(len(self.batches) - 1)
            self.judge(now)
            if draw.random() < 0.5 and self.keeper.is_due(2 * len(self.batches)):
                await self.keeper.write(self.place, self.state)
                if self.keeper.is_time_to_forget(live=True):
                    await self.keeper.forget(self.state)
            if draw.random() < 0.06:
                if draw.random() < 0.3:
                    self.shelf.lose()
                await self.start()
        while (look := max(now, self.state.next_look + LOOK)) < now + LONG_AFTER:
            self.judge(look)
        self.judge(now + LONG_AFTER)


@pytest.mark.parametrize("seed", [1, 2])
def test_it_finds_the_same_whenever_it_is_started_again(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(keeping, "DAY", MINUTE)
    monkeypatch.setattr(keeping, "SEGMENT_ROWS", 300)
    monkeypatch.setattr(keeping, "MANY", 4)
    simulation, shelf = Simulation(seed, 1200, share=0.07, rate=1.0, faults=FAULTS), Shelf()
    watch = Restarting(policy, shelf)
    asyncio.run(watch.run(simulation, random.Random(seed)))
    assert not differences(simulation.expected, watch.watched)
    everything = sum(batch.count for batch in watch.batches)
    kept = sum(decode(value).num_rows for value in shelf.lying.values())
    assert kept < everything / 3, "what is over is gone"
    assert watch.most < simulation.lives * 0.8 and len(watch.state.grants) < watch.most
    assert watch.read_again and watch.forgot_in_the_past


def some_facts(count: int = 10, seed: int = 5) -> pa.RecordBatch:
    simulation = Simulation(seed, count, share=0.0, faults=FAULTS)
    return joined([read(batch, CATALOG)[0] for batch, _ in sealed_batches(simulation)])


def test_facts_come_out_as_they_went_in(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = some_facts()
    [(rows, value)] = encode(facts)
    assert rows == facts.num_rows
    assert list(facts_from(rows_of(decode(value)))) == list(facts_from(rows_of(facts)))
    monkeypatch.setattr(memory, "SEGMENT_BYTES", 2000)
    pieces = list(encode(facts))
    assert len(pieces) > 1 and all(len(value) <= 2000 or rows == 1 for rows, value in pieces)
    assert joined([decode(value) for _, value in pieces]).equals(facts)
    assert list(encode(facts.slice(0, 0))) == []


async def kept_by(shelf: Shelf, facts: pa.RecordBatch) -> Keeper:
    keeper = keeper_of(shelf)
    await keeper.recall()
    state = WatchState()
    for fact in facts_from(rows_of(facts)):
        state.add(fact)
    keeper.take(facts, 0)
    await keeper.write(Place(facts.num_rows, facts.num_rows, 1), state)
    return keeper


async def recalled_from(shelf: Shelf) -> tuple[Place, WatchState]:
    keeper, state = keeper_of(shelf), WatchState()
    place = await keeper.recall()
    async for rows in keeper.load(state):
        for fact in facts_from(rows):
            state.recall(fact)
    return place, state


@pytest.mark.parametrize("damage", ["no json", "another format", "another log"])
def test_what_cannot_be_used_is_not_recalled(damage: str) -> None:
    shelf, facts = Shelf(), some_facts()
    asyncio.run(kept_by(shelf, facts))
    place, state = asyncio.run(recalled_from(shelf))
    assert place.size == facts.num_rows and state.grants
    if damage == "no json":
        shelf.manifest = b"{"
    elif damage == "another format":
        shelf.manifest = json.dumps(json.loads(shelf.manifest) | {"format": "0"}).encode()
    else:
        shelf.log = "another"
    place, state = asyncio.run(recalled_from(shelf))
    assert place == Place() and not state.grants
    asyncio.run(kept_by(shelf, facts))
    assert len(shelf.lying) == (2 if damage == "no json" else 1), "what is of no use does not stay for ever"


def test_a_segment_that_cannot_be_read_is_an_error_and_is_thrown_away() -> None:
    shelf = Shelf()
    asyncio.run(kept_by(shelf, some_facts()))
    [offset] = shelf.lying
    shelf.lying[offset] = shelf.lying[offset][:100]
    with pytest.raises(MemoryUnreadableError, match="a segment of what the watch keeps"):
        asyncio.run(recalled_from(shelf))

    async def discard() -> None:
        keeper = keeper_of(shelf)
        await keeper.recall()
        await keeper.discard()

    asyncio.run(discard())
    assert asyncio.run(recalled_from(shelf))[0] == Place() and not shelf.lying


def test_when_sorting_out_is_cut_short_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "SEGMENT_ROWS", 40)
    shelf, facts = Shelf(), some_facts(40)

    async def go(lasts: int) -> set[int]:
        keeper = keeper_of(shelf)
        await keeper.recall()
        state = WatchState()
        for at in range(0, facts.num_rows, 40):
            part = facts.slice(at, 40)
            keeper.take(part, 0)
            for fact in facts_from(rows_of(part)):
                state.add(fact)
            await keeper.write(Place(at + part.num_rows, 0, at), state)
        shelf.lasts = lasts
        with contextlib.suppress(Power):
            await keeper._sort_out(keeper._kept.segments, lambda row: row[0] % 2 == 0)
        shelf.lasts = 1 << 30
        again = keeper_of(shelf)
        await again.recall()
        found = {fact.index async for rows in again.load(WatchState()) for fact in facts_from(rows)}
        again.take(facts.slice(0, 1), 0)
        await again.write(Place(facts.num_rows, 0, 99), state)
        assert len(shelf.lying) == len(manifest_of(shelf.manifest).segments), "what counts no more is dropped"
        shelf.lose()
        return found

    everything = set(range(facts.num_rows))
    outcomes = [asyncio.run(go(lasts)) for lasts in range(12)]
    assert all(found in (everything, {one for one in everything if one % 2}) for found in outcomes)
    assert outcomes[0] == everything != outcomes[-1]
