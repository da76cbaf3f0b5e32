"""A ledger with two lifecycle shards: tenants in both, from the sender to the findings, the tables and the verifier."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from grantledger.kafka.topics import add_partitions
from grantledger.ledger.source_keys import SourceKeys
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import LIFECYCLE_TOPIC, Actor, Event, Finding
from support.access_store import DEPLOYMENT, Story, stored
from support.events import produce
from support.on_time import POLICY, activated, recorded, revoked, send
from support.oracle import wait_until_stored
from support.pipeline import Pipeline
from support.shared_broker import RunningBroker
from support.waiting import wait_for

SHARDS = {"acme": 0, "globex": 1}
PROCESSES = ("seal", "store", "watch-0", "watch-1")


@pytest.fixture
def pipeline(broker: RunningBroker, tmp_path: Path) -> Iterator[Pipeline]:
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY + '[[source]]\nsystem = "quiet"\nsilent_after_seconds = 1\n')
    settings = {"LIFECYCLE_SHARDS": "2", "WATCH_POLICY": str(policy), "SWEEP_INTERVAL_SECONDS": "1"}
    environment = {f"GRANTLEDGER_{name}": value for name, value in settings.items()}
    made = Pipeline(
        broker.bootstrap_servers, tmp_path / "data", environment, deployment="shards.example", topic_prefix="shards-"
    )
    created = made.run("init")
    assert created.returncode == 0, created.stderr
    yield made
    made.stop()


def of(tenant: str, event: Event) -> Event:
    return replace(event, tenant=tenant)


def misplaced(pipeline: Pipeline, partition: int, event: Event) -> None:
    """Write an event to another partition than that of its tenant, without the client library."""
    whole = replace(event, source=replace(event.source, system="bot", instance="test"), event_id="")
    record = {"key": b"g", "value": EventEncoder().encode(whole), "partition": partition}
    produce(pipeline.cluster, LIFECYCLE_TOPIC, [record])


def opened(pipeline: Pipeline, rule: str) -> list[tuple[str, str]]:
    """Return tenant and key of each finding of a rule."""
    found = [one for one in recorded(pipeline) if (one.event_type, one.rule) == ("finding.opened", rule)]
    return sorted((one.datum["tenant"], one.key) for one in found)


def swept(pipeline: Pipeline, times: int) -> bool:
    return pipeline.metric("sweep", "grantledger_sweeps_total") >= times


def test_two_shards(pipeline: Pipeline) -> None:
    pipeline.start(*PROCESSES)
    given = [of(tenant, activated(name, ends)) for tenant in SHARDS for name, ends in (("late", 1), ("gone", 3600))]
    send(pipeline, *given, of("globex", revoked("gone")))
    misplaced(pipeline, 1, of("acme", revoked("late")))
    expected = [(tenant, "late") for tenant in SHARDS]
    wait_for(lambda: opened(pipeline, "overdue") == expected, "both watches have reported their tenant's grant")
    wait_for(lambda: opened(pipeline, "watch_fault"), "the misplaced removal is reported")
    assert opened(pipeline, "watch_fault") == [("acme", "bot/test#shard-1")]

    wait_until_stored(pipeline)
    pipeline.start("sweep")
    with pipeline.client(system="quiet", instance="test") as client:
        for tenant in SHARDS:
            client.send(of(tenant, activated("quiet", 3600)))
    wait_for(lambda: opened(pipeline, "source_silent"), "the sweep reports the silent source")
    wait_for(lambda: swept(pipeline, 2), "two sweeps")
    assert opened(pipeline, "source_silent") == [("default", "quiet/test")], "one finding, not one per shard"
    assert not opened(pipeline, "sweep_difference")
    states = {(row["tenant"], row["grant_id"]): row["state"] for row in pipeline.query("SELECT * FROM grants")}
    assert states == {
        ("acme", "late"): "overdue", ("globex", "late"): "overdue",
        ("acme", "gone"): "active", ("globex", "gone"): "removed",
        ("acme", "quiet"): "active", ("globex", "quiet"): "active",
    }  # fmt: skip
    places = pipeline.query("SELECT DISTINCT tenant, key, origin FROM entries WHERE origin LIKE '%/access.lifecycle/%'")
    assert {(row["tenant"], row["key"], row["origin"][-3:]) for row in places} == {
        ("acme", "acme", "0/0"), ("globex", "globex", "1/0"), ("acme", "g", "1/0"),
    }  # fmt: skip
    [rejected] = pipeline.query("SELECT origin, decode_error FROM rejected_events")
    assert rejected["decode_error"] == "event_invalid: tenant (belongs in partition 0)"

    status = json.loads(pipeline.run("status", "-o", "json").stdout)
    assert {one["name"] for one in status["processes"]} == {*PROCESSES, "sweep"}
    for shards in ("1", "3"):
        environment = {**pipeline.environment, "GRANTLEDGER_LIFECYCLE_SHARDS": shards}
        for command in (("topics", "create"), ("import", "vault", "/dev/null")):
            refused = pipeline.run(*command, environment=environment)
            assert refused.returncode == 2 and f"has 2 partitions, and lifecycle_shards is {shards}" in refused.stderr
    pipeline.stop()
    _, report = pipeline.verify()
    assert report["verdict"] == "sound_compared_with_nothing_outside", report["problems"]  # no anchor process runs
    the_record_counts(pipeline)


def the_record_counts(pipeline: Pipeline) -> None:
    """With another setting than the sealed number, nothing starts, and no epoch opens by that setting."""
    environment = {**pipeline.environment, "GRANTLEDGER_LIFECYCLE_SHARDS": "3"}
    refused = pipeline.run("up", environment=environment)
    assert refused.returncode == 2 and "lifecycle_shards is 3, and this ledger was created with 2" in refused.stderr
    add_partitions(pipeline.cluster, LIFECYCLE_TOPIC, 3)
    refused = pipeline.run("epoch", "show", "--without-store", environment=environment)
    assert refused.returncode == 3 and "access.lifecycle must have 2 partition(s) and has 3" in refused.stderr


def test_an_accepted_entry_is_one_of_the_shard_in_the_key(tmp_path: Path) -> None:
    """The tables follow the watch (tests/unit/test_watch_shards.py)."""
    story = Story()
    for tenant, shard in SHARDS.items():
        for ends, taken in ((-60, -100), (60, -99)):
            fields = {"tenant": tenant, "grant_id": "g", "subject": "alice", "expiry_source": "native"}
            event = story.event("grant.activated", -100, "g", expires_at=story.at(ends), **fields)
            story.add(event, taken)
            story.records[-1] = replace(story.records[-1], partition=shard)
    finding = Finding("event_conflict", "bot/eu-1#shard-1", "critical", accept_index=1)
    decision = {"finding": finding, "actor": Actor("carol", "human"), "reason": "the vendor confirmed it"}
    story.add(story.event("finding.closed", -50, "decision", **decision), -50)
    sources = SourceKeys(DEPLOYMENT)
    sources.lifecycle_shards = 2
    with stored(tmp_path, story.records, sources=sources) as ask:
        assert ask("SELECT tenant, place.2 AS place FROM accepted_versions") == [{"tenant": "globex", "place": 1}]
        believed = ask("SELECT tenant, `index` FROM events WHERE grant_id = 'g' AND believed ORDER BY tenant, `index`")
    assert [(row["tenant"], row["index"]) for row in believed] == [("acme", 0), ("acme", 1), ("globex", 1)]
