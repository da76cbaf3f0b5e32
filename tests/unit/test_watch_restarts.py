"""The whole watch restarts, from a snapshot or from the beginning of the log."""

from __future__ import annotations

import asyncio
import threading

import pytest

from grantledger.processors.access import NEVER, SECOND
from grantledger.processors.watch import watcher
from grantledger.processors.watch.daemon_call import call_in_daemon
from grantledger.processors.watch.snapshot import Snapshot
from grantledger.processors.watch_policy import AccessLimits, Reporter, WatchPolicy
from support.watch_world import (
    START,
    World,
    given_until,
    ids,
    overdue,
    removed,
    started,
)


def test_a_restart_publishes_nothing_twice_and_repeats_have_the_same_id() -> None:
    first = World()
    event = given_until(100)
    first.hears(event)
    first.at(120)
    first.paper.lose()  # the whole log is read again
    again = World(first.paper)
    again.hears_again()
    again.at(130)
    assert len(first.paper.findings()) == 2
    fresh = World()
    fresh.hears(event)
    fresh.at(500)  # nothing on record, and looking much later
    assert [one.event_id for _, one in fresh.paper.said] == [one.event_id for _, one in first.paper.said]


def test_a_snapshot_never_contains_half_a_batch() -> None:
    world = World()
    world.hears(started(0, "first"))
    record = world.paper.append_sealed(world.batch(*(started(1 + at, f"g{at}") for at in range(1_200))))

    async def take_and_maintain() -> None:
        taking = asyncio.create_task(world.watch.take(record))
        while world.watch.judge.state.size <= 1:
            await asyncio.sleep(0)
        assert world.watch.judge.state.size < 1_201
        await world.watch._start_maintenance()
        await taking
        assert world.watch.maintenance is not None
        await world.watch.maintenance

    asyncio.run(take_and_maintain())
    snapshot = Snapshot.load(world.paper, world.paper)
    [source] = snapshot.sources
    assert source["last"] == START + (snapshot.position.size - 1) * SECOND


def test_a_snapshot_is_written_when_the_end_of_the_log_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "PART_ROWS", rows := 800)
    world = World(snapshot_every=NEVER)
    world.hears(*(started(0, f"g{at}") for at in range(rows)))
    assert Snapshot.load(world.paper, world.paper).position.size == 0
    world.at(1)
    assert Snapshot.load(world.paper, world.paper).position.size == rows
    world.hears(started(2, "one more"))
    world.at(3)
    assert Snapshot.load(world.paper, world.paper).position.size == rows


def test_it_continues_from_a_snapshot_and_publishes_nothing_twice() -> None:
    world = World()
    world.hears(given_until(100), given_until(5000, "other"))
    world.at(111)
    said = list(world.paper.said)
    again = World(world.paper)
    assert again.watch.position == 1 and ids(again) == {"g", "other"}
    again.at(200)
    assert again.paper.said == said
    again.head, again.records = world.head, world.records
    again.hears(removed(150))
    again.at(201)
    assert again.paper.findings()[-1] == ("finding.resolved", "overdue")


def test_a_clean_stop_writes_a_snapshot() -> None:
    world = World(snapshot_every=NEVER)
    asyncio.run(world.watch.store_last_snapshot())
    assert world.paper.writes == 0, "there is nothing new"
    world.hears(given_until(100), given_until(5000, "other"))
    assert world.paper.writes == 0
    asyncio.run(world.watch.store_last_snapshot())
    assert world.paper.writes == 1
    again = World(world.paper)
    assert again.watch.position == 1 and ids(again) == {"g", "other"}
    again.at(200)
    assert overdue(again) == ["g"]


def test_a_standby_and_a_failed_watch_write_no_snapshot_at_their_stop() -> None:
    world = World(snapshot_every=NEVER)
    world.hears(given_until(100))
    world.watch.stand_by()
    asyncio.run(world.watch.store_last_snapshot())
    world.watch.resume()
    world.paper.deaf = True
    with pytest.raises(OSError, match="do not answer"):
        world.at(111)
    asyncio.run(world.watch.store_last_snapshot())
    assert world.paper.writes == 0


def test_a_snapshot_that_hangs_does_not_keep_the_process_from_ending() -> None:
    hanging = threading.Event()

    async def stop() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call_in_daemon(lambda: hanging.wait() and None), 0.05)

    asyncio.run(stop())  # waits for the threads of asyncio.to_thread
    hanging.set()


def test_a_start_falls_back_to_the_snapshot_before_and_then_to_the_whole_log() -> None:
    world = World()
    world.hears(given_until(100))
    world.hears(given_until(100, "other"))
    first, _, second, _ = sorted(world.paper.parts)
    world.paper.change(second, b"nothing of ours")
    again = World(world.paper)
    assert again.watch.position == 1 and ids(again) == {"g"}
    world.paper.change(first, b"nothing of ours")
    again = World(world.paper)
    assert again.watch.position == 0 and again.watch.judge.state.grants == {}


def test_every_process_puts_the_same_policy_on_record() -> None:
    """A policy that differs from the one on record is put on record again."""
    policy = WatchPolicy(
        default=AccessLimits(removal=frozenset({"none", "deadline", "confirmed", "api_accepted"})),
        reporter=(Reporter(system="a", source="b", may=frozenset({"remove", "extend", "approve"})),),
    )
    content = policy.model_dump_json()
    assert '"removal":["api_accepted","confirmed","deadline","none"]' in content
    assert '"may":["approve","extend","remove"]' in content
