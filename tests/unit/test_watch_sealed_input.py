"""The sealed records as the watch accepts them: forged, missing, contradicting, delivered again or out of order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from grantledger.base.errors import EXIT_STOPPED
from grantledger.kafka.errors import KafkaUnavailableError
from grantledger.kafka.sealed_log import SealedLogStoppedError
from grantledger.ledger import batch as batches
from grantledger.ledger.keys import LocalSigner
from grantledger.schemas.finding_rules import FINDING_RULES
from support.watch_world import (
    NOON,
    World,
    given_until,
    ids,
    removed,
)


def test_a_record_that_is_no_batch_is_reported_and_skipped() -> None:
    world = World()
    world.hears(given_until(100))
    world.take(b"no batch")
    world.hears(given_until(5000, "later"))
    for seconds in (1, 2, 111):
        world.at(seconds)
    assert world.paper.problems == [("sealed_record_invalid", 2)]
    assert ids(world) == {"g", "later"}
    assert ("finding.opened", "overdue") in world.paper.findings()  # the others are judged all the same


def test_entries_that_retention_has_deleted_are_a_finding_once() -> None:
    world = World()
    world.paper.begin = 4
    asyncio.run(world.start())
    world.batch(given_until(100, "lost"), given_until(100, "lost as well"))
    world.batch(given_until(100, "lost too"))
    world.hears(given_until(100))
    world.hears(given_until(5000, "later"))
    for seconds in (1, 2, 111):
        world.at(seconds)
    first = world.paper.said[0][1].finding
    assert first is not None and first.rule == "watch_fault" and first.key == "entries 0 to 2"
    assert [rule for _, rule in world.paper.findings()].count("watch_fault") == 1
    assert ("finding.opened", "overdue") in world.paper.findings()
    assert ids(world) == {"g", "later"}


def stops(world: World) -> bool:
    """Whether the watch ends with exit code 3, and stays stopped."""
    with pytest.raises(SealedLogStoppedError) as stopped:
        world.at(1)
    return stopped.value.exit_code == EXIT_STOPPED


def test_entries_that_no_sealed_record_contains_stop_the_watch() -> None:
    world = World()
    world.hears(given_until(100))
    world.batch(removed(50))  # never in the sealed topic
    world.hears(given_until(5000, "later"))
    assert world.paper.reads == [(1, 2)], "it looks for them first"
    assert world.paper.problems == [("sealed_log_discontinuous", 2)] and stops(world)
    world.hears(given_until(5000, "last"))
    assert ids(world) == {"g"}


def test_a_batch_that_contradicts_the_log_stops_the_watch() -> None:
    world = World()
    genesis = world.head
    world.hears(given_until(100))
    world.head, world.records = genesis, 0
    world.hears(given_until(5000))  # signed, and about the same entry
    assert world.paper.problems == [("sealed_log_discontinuous", 2)] and stops(world)
    assert ids(world) == {"g"} and world.watch.position == 1


def forged(world: World, **changes: Any) -> bytes:
    """Return a batch that claims to be the next one, signed with another key."""
    other = LocalSigner(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    batch, _ = batches.seal(world.head, batches.Records(), world.records, NOON, other)
    return batches.encode(replace(batch, **changes))


@pytest.mark.parametrize("changes", [{}, {"first_index": 7}, {"first_index": 0}, {"previous_leaf_hash": bytes(32)}])
def test_a_batch_that_another_key_signed_is_skipped_with_a_critical_finding(changes: dict[str, Any]) -> None:
    world = World()
    world.hears(given_until(100))
    world.take(forged(world, **changes))
    world.hears(removed(50))
    world.at(200)
    assert world.paper.problems == [("sealed_record_invalid", 2)]
    assert FINDING_RULES["sealed_record_invalid"].severity == "critical"
    assert world.paper.findings() == []


@pytest.mark.parametrize("first", [0, 1, 2, 3])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_record_that_is_delivered_before_earlier_ones_is_applied_after_them(first: int, restarted: bool) -> None:
    world = World()
    world.hears(given_until(100))
    if restarted:
        head, records = world.head, world.records
        world = World(world.paper)
        world.head, world.records = head, records
    later = [given_until(5000, "later"), removed(50), given_until(5000, "third"), given_until(5000, "last")]
    delivered = [world.paper.append_sealed(world.batch(event)) for event in later]
    order = [delivered[first], *world.paper.sealed_log.values()]  # the seek takes effect
    for record in order:
        world.deliver(record)
    world.at(200)
    assert world.paper.problems == [] and world.paper.findings() == []
    assert ids(world) == {"g", "later", "third", "last"}
    assert world.watch.position == delivered[-1].offset() + 1  # type: ignore[operator]
    assert len(world.paper.reads) <= 1, "records in order are not read again"


@pytest.mark.parametrize("junk", [lambda world: b"no batch", forged], ids=["no batch", "another key"])
def test_a_skipped_record_that_is_delivered_first_hides_none_before_it(junk: Callable[[World], bytes]) -> None:
    world = World()
    world.hears(given_until(100))
    bad = junk(world)
    world.paper.append_sealed(world.batch(removed(50)))
    skipped = world.paper.append_sealed(bad)
    world.paper.append_sealed(world.batch(given_until(5000, "later")))
    for record in (skipped, *world.paper.sealed_log.values()):
        world.deliver(record)
    world.at(200)
    assert set(world.paper.problems) == {("sealed_record_invalid", 4)}
    assert world.paper.findings() == [] and ids(world) == {"g", "later"}


def test_a_gap_that_cannot_be_read_now_ends_the_watch_and_is_no_discontinuity() -> None:
    world = World()
    world.hears(given_until(100))
    world.paper.append_sealed(world.batch(removed(50)))
    last = world.paper.append_sealed(world.batch(given_until(5000, "later")))
    world.paper.unreachable = True
    world.deliver(last)
    with pytest.raises(KafkaUnavailableError):
        world.at(1)
    assert world.paper.problems == [] and ids(world) == {"g"}


def test_records_that_are_delivered_again_are_ignored() -> None:
    world = World()
    world.hears(given_until(100))
    world.hears(given_until(5000, "later"))
    for record in list(world.paper.sealed_log.values()) * 2:
        world.deliver(record)
    world.hears(given_until(5000, "last"))
    world.at(1)
    assert world.paper.problems == [] and world.paper.reads == []
    assert ids(world) == {"g", "later", "last"}


def test_records_before_the_position_of_the_snapshot_are_ignored() -> None:
    world = World()
    world.hears(given_until(100))
    world.hears(given_until(5000, "later"))
    again = World(world.paper)
    again.head, again.records = world.head, world.records
    again.hears_again()
    again.hears(removed(50))
    again.at(200)
    assert world.paper.problems == [] and world.paper.findings() == []
