"""The gateway is killed, and Kafka is away, while events are sent: every acknowledged event is in Kafka."""

from __future__ import annotations

import itertools
import json
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from grantledger.runtime.broker import LocalBroker
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import decode
from support.gateway import TOKENS, GatewayProcess
from support.oracle import committed_records
from support.pipeline import Pipeline
from support.waiting import wait_for

TOPICS = ("access.lifecycle", "access.activity")
KILLS = 4
PER_REQUEST = 10
SENDERS = 4


@pytest.fixture(scope="module")
def pipeline(own_broker: LocalBroker, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    return make_pipeline(own_broker.bootstrap_servers)


@pytest.fixture(scope="module")
def gateway(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(pipeline, tmp_path_factory.mktemp("gateway"))
    process.start()
    wait_for(lambda: "Kafka answers" in process.client.get("/readyz").text, "Kafka answers")
    yield process
    process.child.stop()


class Senders:
    """Threads that send events, each with an id of its own, and note where the acknowledged ones are."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.acknowledged: dict[str, str] = {}
        self.refused: Counter[int] = Counter()
        self._gateway = gateway
        prefix = secrets.token_hex(4)
        self._numbers = (f"{prefix}-{number}" for number in itertools.count())
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]

    def __enter__(self) -> Senders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait(self, more: int, where: str = "") -> None:
        """Wait until so many more events are acknowledged."""

        def count() -> int:
            return sum(1 for place in list(self.acknowledged.values()) if place.startswith(where))

        expected = count() + more
        wait_for(lambda: count() >= expected, f"{more} more events are acknowledged")

    def _send(self) -> None:
        headers = {"authorization": f"Bearer {TOKENS['bot']}"}
        while not self._stop.is_set():
            url = self._gateway.url
            with httpx.Client(base_url=url, timeout=30, headers=headers) as client:
                while not self._stop.is_set() and url == self._gateway.url:
                    try:
                        self._take(client.post("/v1/events", json=[self._event() for _ in range(PER_REQUEST)]))
                        self._stop.wait(0.05)  # the order of faults matters, not the load
                    except httpx.HTTPError:
                        self._stop.wait(0.05)

    def _event(self) -> dict[str, Any]:
        with self._lock:
            number = next(self._numbers)
        native = {"native_id": f"n{number}"}
        return {"event_type": "session.started", "subject": "alice", "session_id": f"s{number}", "source": native}

    def _take(self, response: httpx.Response) -> None:
        if response.status_code != 200:
            self.refused[response.status_code] += 1
            self._stop.wait(0.05)
            return
        answer = response.json()
        self.acknowledged |= dict.fromkeys(answer["event_ids"], answer["stored"])


def counts(pipeline: Pipeline) -> Counter[str]:
    """Return how often each event id is in Kafka."""
    catalog = SchemaCatalog((event_schema(),))
    found = committed_records(pipeline.cluster, TOPICS).values()
    return Counter(decode(bytes.fromhex(value or ""), catalog, 0)["event_id"] for rows in found for _, _, value in rows)


def wait_sent(pipeline: Pipeline) -> None:
    wait_for(
        lambda: pipeline.metric("gateway", "grantledger_gateway_spool_events") == 0, "everything on the spool is sent"
    )


def test_every_acknowledged_event_is_in_kafka_once_after_an_outage(
    own_broker: LocalBroker, pipeline: Pipeline, gateway: GatewayProcess
) -> None:
    with Senders(gateway) as senders:
        senders.wait(200, "kafka")
        own_broker.kill()
        senders.wait(500, "spool")
        text = gateway.client.get("/readyz").text
        assert text.startswith("ready: Kafka is away") and "wait on the spool" in text
        own_broker.start()
        senders.wait(200, "kafka")
    wait_sent(pipeline)
    found = counts(pipeline)
    assert senders.acknowledged.keys() <= found.keys()
    assert {found[one] for one in senders.acknowledged} == {1}
    assert senders.refused == {}


def test_kills_lose_no_acknowledged_event(own_broker: LocalBroker, pipeline: Pipeline, gateway: GatewayProcess) -> None:
    with Senders(gateway) as senders:
        for number in range(KILLS):
            senders.wait(100)
            if number == 1:
                own_broker.kill()
                senders.wait(100, "spool")
            pipeline.kill("gateway")
            gateway.start()
            if number == 2:
                own_broker.start()
        senders.wait(100, "kafka")
    wait_sent(pipeline)
    found = counts(pipeline)
    assert senders.acknowledged.keys() <= found.keys()
    in_kafka = [one for one, where in senders.acknowledged.items() if where == "kafka"]
    assert {found[one] for one in in_kafka} == {1}


def test_a_stop_answers_what_has_begun_and_leaves_nothing_behind(
    own_broker: LocalBroker, pipeline: Pipeline, gateway: GatewayProcess
) -> None:
    with Senders(gateway) as senders:
        senders.wait(100)
        assert gateway.child.stop()
    assert gateway.child.exit_code == 0
    assert senders.acknowledged.keys() <= counts(pipeline).keys()
    lines = [json.loads(line) for line in Path(gateway.child.log_path).read_text().splitlines()]
    assert [one["event"] for one in lines if one["level"] == "error"] == []
