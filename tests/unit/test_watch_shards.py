"""A watch for each lifecycle shard: what each judges, and which findings on record are its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from grantledger.kafka.cluster import Cluster
from grantledger.kafka.topics import TopicError
from grantledger.processors.watch.kafka_snapshots import KafkaSnapshots
from grantledger.processors.watch.shard import ONLY_SHARD, Shard
from grantledger.processors.watch_policy import SourceLimits, WatchPolicy
from grantledger.runtime.settings import Settings, SettingsError
from grantledger.runtime.watches import watch_children, watch_name
from grantledger.schemas.catalog import SchemaCatalog
from grantledger.schemas.event import Event
from grantledger.schemas.placement import shard_of
from support.snapshot_memory import SIGNATURE
from support.watch_world import Paper, World, faults, given_until, ids, overdue

from .test_watch_at_work import closed
from .test_watch_decisions import Log, record
from .test_watch_decisions import findings as findings_of

TENANTS = ("acme", "globex")
"""The first belongs in shard 0 of 2, the second in shard 1."""


def of_tenant(tenant: str, ends: float = 100, name: str = "g") -> Event:
    return replace(given_until(ends, name), tenant=tenant)


def conflict_of(tenant: str) -> tuple[Event, Event]:
    return of_tenant(tenant), replace(of_tenant(tenant, 5000), salt=bytes(16))


@pytest.fixture
def worlds() -> list[World]:
    """The watches of two shards, which publish to the same topic."""
    assert [shard_of(tenant.encode(), 2) for tenant in TENANTS] == [0, 1]
    made = [World(Paper(Shard(number, 2))) for number in range(2)]
    made[1].paper.said = made[0].paper.said
    return made


def opened(world: World, rule: str) -> list[Event]:
    events = [event for _, event in world.paper.said if event.event_type == "finding.opened"]
    return [event for event in events if event.finding is not None and event.finding.rule == rule]


def test_each_shard_judges_its_tenants(worlds: list[World]) -> None:
    for world, tenant in zip(worlds, TENANTS, strict=True):
        world.hears(of_tenant(tenant))
        world.at(120)
    assert [(one.tenant, one.finding.key) for one in opened(worlds[0], "overdue") if one.finding] == [
        ("acme", "g"), ("globex", "g"),
    ]  # fmt: skip


def test_an_event_of_another_shard_is_a_fault_of_its_source_and_changes_nothing(worlds: list[World]) -> None:
    world = worlds[1]
    world.hears(of_tenant("globex", name="own"), *(of_tenant("acme", name=f"g{number}") for number in range(3)))
    world.at(120)
    assert ids(world) == {"globex/vault/prod/own"} and overdue(world) == ["own"]
    assert faults(world) == [("entry 1", "InvalidEventError: tenant (belongs in partition 0)")]
    [fault] = opened(world, "watch_fault")
    assert fault.finding is not None and fault.finding.key == "vault/prod#shard-1"
    assert json.loads(fault.finding.evidence)["count"] == 3, "one finding has all of a source and an hour"


def test_findings_about_a_source_are_different_ones_in_each_shard(worlds: list[World]) -> None:
    for world, tenant in zip(worlds, TENANTS, strict=True):
        world.hears(*conflict_of(tenant))
        world.at(50)
    conflicts = opened(worlds[0], "event_conflict")
    assert [one.finding.key for one in conflicts if one.finding] == ["vault/prod#shard-0", "vault/prod#shard-1"]
    assert len({one.event_id for one in conflicts}) == 2


def test_no_watch_of_several_judges_silence_because_it_sees_one_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = WatchPolicy(source=(SourceLimits(silent_after_seconds=10),))
    monkeypatch.setattr("support.watch_world.POLICY", policy)
    for shard, found in ((ONLY_SHARD, 1), (Shard(0, 2), 0)):
        world = World(Paper(shard))
        world.hears(of_tenant("acme", 5000))
        world.at(120)
        assert len(opened(world, "source_silent")) == found


def test_a_restarted_watch_repeats_none_of_its_findings_and_takes_up_no_others(worlds: list[World]) -> None:
    for world, tenant in zip(worlds, TENANTS, strict=True):
        world.hears(*conflict_of(tenant))
        world.at(120)
    said = len(worlds[0].paper.said)
    again = [World(world.paper) for world in worlds]
    for world in again:
        assert {key.partition("/")[0] for rule, key, _ in world.watch.judge.known if rule == "overdue"} <= {
            TENANTS[world.paper.shard.number]
        }
        assert len([one for one in world.watch.judge.known if one[0] == "event_conflict"]) == 1
        world.at(130)
    assert len(worlds[0].paper.said) == said


@pytest.mark.parametrize("restarted", [False, True])
def test_an_accepted_entry_is_one_of_the_shard_in_the_key(worlds: list[World], restarted: bool) -> None:
    for world, tenant in zip(worlds, TENANTS, strict=True):
        world.hears(*conflict_of(tenant))
        world.at(50)
    worlds[0].paper.said.append(("access.findings", closed("event_conflict", "vault/prod#shard-1", accept=1)))
    again = [World(world.paper) for world in worlds] if restarted else worlds
    for world in again:
        world.at(60)
        world.at(200)
    assert [one.tenant for one in opened(worlds[0], "overdue")] == ["acme"], "the longer one counts in shard 1"


@pytest.mark.parametrize(("number", "accepted"), [(1, {("vault/prod", 4)}), (0, set())])
def test_a_person_closes_the_finding_of_one_shard(
    monkeypatch: pytest.MonkeyPatch, number: int, accepted: set[tuple[str, int]]
) -> None:
    log = Log()
    watch = findings_of(log, monkeypatch, shard=Shard(number, 2))
    watch._sources.keys.lifecycle_shards = 2
    watch.take_over()
    log.sealed = [record("event_conflict", "vault/prod#shard-1", offset=1, accept=4)]
    assert watch.decisions().accepted == accepted


def test_the_number_on_record_must_be_that_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    watch = findings_of(log, monkeypatch)
    watch._sources.keys.lifecycle_shards = 2
    with pytest.raises(TopicError, match=r"lifecycle_shards is 1, and this ledger was created with 2"):
        watch.take_over()


def test_snapshots_of_one_shard_are_none_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifests have a valid signature, whichever partition of ``access.watch`` they are copied to."""
    identity = SimpleNamespace(topic_id=bytes(16))
    monkeypatch.setattr(
        "grantledger.processors.watch.kafka_snapshots.identify_topics", lambda _, names: dict.fromkeys(names, identity)
    )

    def log_id(shard: Shard) -> str:
        return KafkaSnapshots(Cluster({}), SchemaCatalog(()), SIGNATURE, shard=shard).log_id()

    assert len({log_id(shard) for shard in (ONLY_SHARD, Shard(0, 2), Shard(1, 2))}) == 3


def test_nothing_is_named_after_the_only_shard() -> None:
    assert (ONLY_SHARD.group("d"), ONLY_SHARD.published("k"), ONLY_SHARD.own("k"), ONLY_SHARD.mark) == (
        "d-watch", "k", "k", [],
    )  # fmt: skip
    first, second = Shard(0, 2), Shard(1, 2)
    assert [one.group("d") for one in (first, second)] == ["d-watch-0", "d-watch-1"]
    assert (second.own("k#shard-1"), second.own("k#shard-0"), first.own("k#shard-0#shard-0"), first.own("k")) == (
        "k", None, "k#shard-0", None,
    )  # fmt: skip


def test_a_stack_has_a_watch_for_each_shard() -> None:
    def named(children: Sequence[Any]) -> list[tuple[str, dict[str, str]]]:
        return [(one.name, dict(one.environment)) for one in children]

    assert named(watch_children(1)) == [("watch", {})]
    assert named(watch_children(2)) == [
        ("watch-0", {"GRANTLEDGER_WATCH_SHARD": "0"}), ("watch-1", {"GRANTLEDGER_WATCH_SHARD": "1"}),
    ]  # fmt: skip
    assert watch_name(Settings()) == "watch"
    assert watch_name(Settings(lifecycle_shards=2, watch_shard=1)) == "watch-1"
    with pytest.raises(SettingsError, match="watch_shard is 2, and lifecycle_shards is 2: shards are numbered from 0"):
        watch_name(Settings(lifecycle_shards=2, watch_shard=2))
