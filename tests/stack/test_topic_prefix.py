"""Two deployments share a Kafka cluster, each with a topic prefix of its own: neither reads the other's records."""

from __future__ import annotations

from pathlib import Path

from grantledger.producers import Client, grant_activated
from grantledger.runtime.broker import LocalBroker
from grantledger.schemas.topics import topic_specs
from support.oracle import wait_until_stored
from support.pipeline import Pipeline

SENT = {"blue.": 3, "green-": 5}


def test_two_prefixes_on_one_cluster(broker: LocalBroker, tmp_path: Path) -> None:
    pipelines = {}
    try:
        for prefix, count in SENT.items():
            name = prefix[:-1]
            environment = {"GRANTLEDGER_DEPLOYMENT": f"{name}.example", "GRANTLEDGER_TOPIC_PREFIX": prefix}
            (tmp_path / name).mkdir()
            running = Pipeline(broker.bootstrap_servers, tmp_path / name, environment, topic_prefix=prefix)
            pipelines[prefix] = running
            made = running.run("topics", "create")
            assert made.returncode == 0, made.stderr
            running.start("seal", "store", "anchor", "watch")
            with Client(running.cluster.options, system="test", topic_prefix=prefix) as client:
                for number in range(count):
                    client.send(grant_activated(f"{name}-{number}", subject="alice", resource="db", until=None))
        for prefix, running in pipelines.items():
            running.wait_stored(SENT[prefix])
            wait_until_stored(running)
            rows = running.query("SELECT grant_id, origin FROM events WHERE grant_id != ''")
            name = prefix[:-1]
            assert sorted(row["grant_id"] for row in rows) == [f"{name}-{n}" for n in range(SENT[prefix])]
            assert {row["origin"] for row in rows} == {f"{name}.example/access.lifecycle/0/0"}
            for source in ("clickhouse", "kafka"):
                code, report = running.verify("--from", source)
                assert code == 0, report["problems"]
                assert report["entries"] == SENT[prefix] + 1  # and the registered schema
    finally:
        for running in pipelines.values():
            running.stop()
    names = {spec.name for spec in topic_specs(4, 0)}
    topics = set(running.cluster.admin.list_topics(timeout=10).topics)
    assert {prefix + name for prefix in SENT for name in names} <= topics
    assert not names & topics, "no topic without a prefix"
