"""The producer client and ``demo --traffic-only`` on a real broker."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer

from grantledger.kafka.cluster import Cluster
from grantledger.kafka.offsets import end_offset
from grantledger.producers import Client, DeliveryError, Resource, grant_activated, session_query
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import decode
from support.pipeline import Pipeline
from support.shared_broker import RunningBroker

TOPICS = {"access.lifecycle": 1, "access.activity": 4}


class Tail:
    """Reads the records that arrive in the input topics from now on."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._consumer = Consumer(
            {**cluster.options, "group.id": "tail", "enable.auto.commit": False, "isolation.level": "read_committed"}
        )
        self._consumer.assign(
            [
                cluster.partition(topic, number, end_offset(cluster, topic, number))
                for topic, count in TOPICS.items()
                for number in range(count)
            ]
        )

    def read(self, count: int, seconds: float = 20.0) -> list[tuple[str, bytes, dict[str, Any]]]:
        """Return up to ``count`` records as topic, key and decoded value."""
        catalog = SchemaCatalog((event_schema(),))
        found: list[tuple[str, bytes, dict[str, Any]]] = []
        deadline = time.monotonic() + seconds
        while len(found) < count and time.monotonic() < deadline:
            for message in self._consumer.consume(500, timeout=0.2):
                assert message.error() is None
                topic = self._cluster.logical(message.topic())
                found.append((topic, message.key(), decode(message.value(), catalog, 0)))
        return found

    def close(self) -> None:
        self._consumer.close()


@pytest.fixture(scope="module")
def pipeline(broker: RunningBroker, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    return make_pipeline(broker.bootstrap_servers)


@pytest.fixture
def tail(pipeline: Pipeline) -> Iterator[Tail]:
    opened = Tail(pipeline.cluster)
    yield opened
    opened.close()


def test_sent_events_are_there_under_their_keys(pipeline: Pipeline, tail: Tail) -> None:
    with pipeline.client(system="deploy-bot", instance="eu-1") as client:
        granted = client.send(
            grant_activated(
                subject="alice",
                resource=Resource("database", "orders"),
                entitlement="readwrite",
                expires_at=datetime.now(UTC) + timedelta(hours=1),
            )
        )
        for number in range(2000):
            client.send(session_query(subject="alice", session_id=f"s{number % 7}", query=f"select {number}"))
    assert client.acknowledged == 2001
    found = tail.read(2001)
    assert sorted(value["source"]["seq"] for _, _, value in found) == [1, *range(1, 2001)]  # one counter per topic
    topic, key, value = next(record for record in found if record[0] == "access.lifecycle")
    assert (topic, key.decode(), value["event_id"]) == ("access.lifecycle", granted.grant_id, granted.event_id)


def test_an_unreachable_broker_is_reported_with_the_event() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        servers = f"127.0.0.1:{unused.getsockname()[1]}"
        client = Client({"bootstrap.servers": servers}, system="x")
        event = client.send(session_query(subject="alice", session_id="s", query="select 1"))
        with pytest.raises(DeliveryError, match="not acknowledged") as caught:
            client.close(timeout=10)
    assert caught.value.failures[0].event_id == event.event_id
    assert "refused" in str(caught.value)


def test_a_missing_topic_is_reported_with_the_event(pipeline: Pipeline) -> None:
    class Misdirected:
        """The real producer, sending to a topic that does not exist."""

        def __init__(self, options: dict[str, Any]) -> None:
            self.real = Producer({**options, "message.timeout.ms": 3000})

        def produce(self, topic: str, **record: Any) -> None:
            self.real.produce("no.such.topic", **record)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    client = Client(pipeline.options, system="x", make_producer=Misdirected)
    event = client.send(session_query(subject="alice", session_id="s", query="select 1"))
    with pytest.raises(DeliveryError) as caught:
        client.flush()
    assert caught.value.failures[0].event_id == event.event_id
    client.close()


def test_traffic_runs_until_sigterm_then_ends_open_access_and_exits_0(
    pipeline: Pipeline, tail: Tail, tmp_path: Path
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "grantledger.cli", "demo", "--traffic-only", "--rate", "10"],
        env=pipeline.environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    found = tail.read(40, seconds=90.0)
    assert len(found) >= 40
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=90)
    assert child.returncode == 0
    assert err.startswith("sending simulated traffic (seed ") and err.count("\n") == 1
    assert "events acknowledged" in out
    acknowledged = int(out.split(" events acknowledged")[0].rsplit(" ", 1)[1])
    found += tail.read(acknowledged - len(found), seconds=60.0)
    found += tail.read(1, seconds=1.0)  # and nothing more
    assert len(found) == acknowledged
    values = [value for _, _, value in found]
    given = {value["grant_id"] for value in values if value["event_type"] == "grant.activated"}
    # AWS's temporary credentials expire automatically, and AWS writes no record of it.
    given = {grant for grant in given if not grant.startswith("ASIA")}
    taken = {value["grant_id"] for value in values if value["event_type"] in ("grant.revoked", "grant.expired")}
    assert given == taken
    assert given
