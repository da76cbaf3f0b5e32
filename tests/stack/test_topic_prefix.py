"""Two deployments share a Kafka cluster, each with a topic prefix of its own: neither reads the other's records."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from grantledger.producers import grant_activated
from grantledger.schemas.event import Resource
from grantledger.schemas.topics import topic_specs
from support.oracle import wait_until_stored
from support.pipeline import WITHOUT_STATES, Pipeline
from support.shared_broker import RunningBroker
from support.waiting import wait_for

DATABASE = Resource("database", "orders")
SENT = {"blue.": 3, "green-": 5}


def reported(pipeline: Pipeline, grants: set[str]) -> bool:
    rows = pipeline.query("SELECT grant_id AS g FROM events WHERE event_type = 'finding.opened'")
    return grants <= {row["g"] for row in rows}


def test_two_prefixes_on_one_cluster(broker: RunningBroker, tmp_path: Path) -> None:
    pipelines = {}
    try:
        for prefix, count in SENT.items():
            name = prefix[:-1]
            environment = {
                "GRANTLEDGER_DEPLOYMENT": f"{name}.example",
                "GRANTLEDGER_TOPIC_PREFIX": prefix,
                **WITHOUT_STATES,
            }
            (tmp_path / name).mkdir()
            running = Pipeline(broker.bootstrap_servers, tmp_path / name, environment, topic_prefix=prefix)
            pipelines[prefix] = running
            running.make_topics()
            running.start("seal", "store", "anchor", "watch")
            with running.client(system="test") as client:
                for number in range(count):
                    grant = {"grant_id": f"{running.cluster.topic_prefix}{number}", "expires_at": None}
                    client.send(grant_activated(subject="alice", resource=DATABASE, entitlement="read", **grant))
        for prefix, running in pipelines.items():
            running.wait_stored(SENT[prefix])
            wait_until_stored(running)
            own = {f"{prefix}{number}" for number in range(SENT[prefix])}
            wait_for(partial(reported, running, own), "the watch has reported every grant without an end")
            deployment = f"{prefix[:-1]}.example"
            origins = {row["origin"] for row in running.query("SELECT DISTINCT origin FROM entries")}
            assert origins == {f"{deployment}/access.lifecycle/0/0", f"{deployment}/access.findings/0/0"}
            assert {row["g"] for row in running.query("SELECT DISTINCT grant_id AS g FROM events")} - {""} == own
            for source in ("clickhouse", "kafka"):
                code, report = running.verify("--from", source)
                assert code == 0, report["problems"]
    finally:
        for running in pipelines.values():
            running.stop()
    names = {spec.name for spec in topic_specs(4, 0)}
    topics = set(running.cluster.admin.list_topics(timeout=10).topics)
    assert {prefix + name for prefix in SENT for name in names} <= topics
    assert not names & topics, "no topic without a prefix"
