"""The anchor process stops anchoring a log that is rolled back, reports it, and goes on with the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from confluent_kafka import Producer

from grantledger.kafka.records import last_record
from grantledger.kafka.sealed_log import SealedLogs
from grantledger.ledger.anchor import decode_anchor
from grantledger.ledger.batch import SealedBatch, encode
from grantledger.ledger.entry import NO_HEADERS
from grantledger.ledger.keys import LogKeys
from grantledger.processors.anchor import Anchorer, AnchoringStoppedError
from grantledger.schemas.topics import ACTIVITY_TOPIC, ANCHORS_TOPIC, FINDINGS_TOPIC, LIFECYCLE_TOPIC, sealed
from support.oracle import committed_records
from support.pipeline import Pipeline
from support.shared_broker import RunningBroker
from support.small_ledger import GENESIS, SIGNER, Entry, seal_parts
from support.waiting import wait_for

ENTRIES: list[Entry] = [(1, offset, 5, b"k", b"v", NO_HEADERS) for offset in range(8, 20)]
PARTS = [ENTRIES[at : at + 3] for at in range(0, 12, 3)]
DEPLOYMENT = "test.example"
LOGS = {
    topic: seal_parts(PARTS, replace(GENESIS, origin=f"{DEPLOYMENT}/{topic}/0/0"))[0]
    for topic in (LIFECYCLE_TOPIC, ACTIVITY_TOPIC)
}


class SealedTopics:
    """Two sealed topics of a deployment without a sealer."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.cluster = pipeline.cluster
        self.logs = SealedLogs(self.cluster, DEPLOYMENT, LogKeys.single(SIGNER.public_key), lambda problem: None)

    def append(self, topic: str, *batches: SealedBatch) -> None:
        producer = Producer(self.cluster.options)
        for batch in batches:
            producer.produce(self.cluster.physical(sealed(topic)), encode(batch), b"k", 0)
        assert producer.flush(20) == 0

    def anchored(self) -> dict[str, int]:
        """Return the sizes in the last anchor."""
        last = last_record(self.cluster, ANCHORS_TOPIC, 0)
        heads = decode_anchor(last.value() or b"").checkpoints() if last is not None else []
        return {head.origin.split("/")[1]: head.size for head in heads}

    def findings(self) -> int:
        records = committed_records(self.cluster, [FINDINGS_TOPIC]).get((FINDINGS_TOPIC, 0), [])
        return sum(b"anchoring_stopped:".hex() in (value or "") for _, _, value in records)

    @contextmanager
    def anchoring(self) -> Iterator[Callable[[], list[BaseException]]]:
        """Run the anchor process in a thread; yield its failures."""
        anchorer = Anchorer(self.logs, SIGNER, [], interval=0.1)
        failures: list[BaseException] = []

        def run() -> None:
            try:
                anchorer.run()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        yield lambda: failures
        anchorer.stop()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def topics(broker: RunningBroker, make_pipeline: Callable[..., Pipeline]) -> SealedTopics:
    return SealedTopics(make_pipeline(broker.bootstrap_servers))


def test_a_log_that_is_rolled_back_stops_alone(topics: SealedTopics) -> None:
    lifecycle, activity = LOGS[LIFECYCLE_TOPIC], LOGS[ACTIVITY_TOPIC]
    topics.append(LIFECYCLE_TOPIC, *lifecycle[:2])
    topics.append(ACTIVITY_TOPIC, activity[0])
    with topics.anchoring() as failures:
        wait_for(lambda: topics.anchored() == {LIFECYCLE_TOPIC: 6, ACTIVITY_TOPIC: 3}, "both logs are anchored")
        topics.append(LIFECYCLE_TOPIC, lifecycle[0])
        wait_for(lambda: topics.findings() == 1, "the finding is on record")
        topics.append(ACTIVITY_TOPIC, activity[1])
        wait_for(lambda: topics.anchored() == {LIFECYCLE_TOPIC: 6, ACTIVITY_TOPIC: 6}, "the other log goes on")
        assert not failures()
    # The next process compares with the last anchor, so it stops the same log.
    with topics.anchoring() as failures:
        topics.append(ACTIVITY_TOPIC, activity[2])
        wait_for(lambda: topics.anchored() == {LIFECYCLE_TOPIC: 6, ACTIVITY_TOPIC: 9}, "the other log goes on")
        assert topics.findings() == 2 and not failures()


def test_without_any_log_left_anchoring_stops(topics: SealedTopics) -> None:
    topics.append(LIFECYCLE_TOPIC, LOGS[LIFECYCLE_TOPIC][1])
    with topics.anchoring() as failures:
        wait_for(failures, "the process stops")
        [error] = failures()
        assert isinstance(error, AnchoringStoppedError)
        assert "does not continue the batch before it" in str(error)
    assert topics.findings() == 1
