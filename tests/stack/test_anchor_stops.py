"""The anchor process stops anchoring a log that is rolled back, reports it, and goes on with the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Producer

from grantledger.kafka.anchor_log import last_anchor
from grantledger.kafka.records import last_record
from grantledger.kafka.sealed_log import SealedLogs
from grantledger.ledger.anchor import (
    Anchor,
    Receipt,
    anchor_origin,
    append_anchor,
    decode_anchor,
    encode_anchor,
    encode_receipt,
)
from grantledger.ledger.batch import SealedBatch, encode
from grantledger.ledger.entry import NO_HEADERS
from grantledger.ledger.keys import LogKeys
from grantledger.ledger.merkle import Frontier
from grantledger.ledger.note import Checkpoint
from grantledger.processors.anchor import Anchorer, AnchoringStoppedError
from grantledger.schemas.topics import (
    ACTIVITY_TOPIC,
    ANCHORS_TOPIC,
    FINDINGS_TOPIC,
    LIFECYCLE_TOPIC,
    RECEIPTS_TOPIC,
    sealed,
)
from grantledger.sinks.file_target import FileTarget, read_anchor_file
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
        self.pipeline, self.cluster = pipeline, pipeline.cluster
        self.logs = SealedLogs(self.cluster, DEPLOYMENT, LogKeys.single(SIGNER.public_key), lambda problem: None)

    def append(self, topic: str, *batches: SealedBatch) -> None:
        producer = Producer(self.cluster.options)
        for batch in batches:
            producer.produce(self.cluster.physical(sealed(topic)), encode(batch), b"k", 0)
        assert producer.flush(20) == 0

    def append_anchors(self, *anchors: Anchor) -> None:
        self._produce(ANCHORS_TOPIC, *map(encode_anchor, anchors))

    def leave_receipt(self, anchor: Anchor) -> None:
        receipt = Receipt(anchor.origin, anchor.index, "file", datetime.now(UTC), b"")
        self._produce(RECEIPTS_TOPIC, encode_receipt(receipt))

    def _produce(self, topic: str, *values: bytes) -> None:
        producer = Producer(self.cluster.options)
        for value in values:
            producer.produce(self.cluster.physical(topic), value, b"k", 0)
        assert producer.flush(20) == 0

    def last_index(self) -> int:
        """Return the index of the last anchor in the topic, or -1."""
        last = last_anchor(self.logs)
        return last.index if last is not None else -1

    def anchored(self) -> dict[str, int]:
        """Return the sizes in the last anchor."""
        last = last_record(self.cluster, ANCHORS_TOPIC, 0)
        heads = decode_anchor(last.value() or b"").checkpoints() if last is not None else []
        return {head.origin.split("/")[1]: head.size for head in heads}

    def findings(self, rule: str = "anchoring_stopped") -> int:
        records = committed_records(self.cluster, [FINDINGS_TOPIC]).get((FINDINGS_TOPIC, 0), [])
        return sum(f"{rule}:".encode().hex() in (value or "") for _, _, value in records)

    @contextmanager
    def anchoring(self, *targets: FileTarget) -> Iterator[Callable[[], list[BaseException]]]:
        """Run the anchor process in a thread; yield its failures."""
        anchorer = Anchorer(self.logs, SIGNER, targets, interval=0.1)
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


def held_by(target: FileTarget) -> list[Anchor]:
    """Return the anchors in the file of a target."""
    return list(read_anchor_file(target.path)) if target.path.exists() else []


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


def test_a_lost_anchors_topic_is_never_begun_again(topics: SealedTopics, tmp_path: Path) -> None:
    """The true key would sign anchor 0 again. A target, a receipt or the store's offset shows the anchors before."""
    target = FileTarget(tmp_path / "anchors.jsonl")
    topics.append(LIFECYCLE_TOPIC, *LOGS[LIFECYCLE_TOPIC][:2])
    with topics.anchoring(target) as failures:
        wait_for(lambda: len(held_by(target)) >= 3, "anchors are in the file")
    held = held_by(target)
    for names, known in (
        ((ANCHORS_TOPIC,), target),
        ((ANCHORS_TOPIC, RECEIPTS_TOPIC), target),
        ((ANCHORS_TOPIC,), None),
    ):
        topics.pipeline.remake_topics(*names)
        if RECEIPTS_TOPIC in names:
            assert last_record(topics.cluster, RECEIPTS_TOPIC, 0) is None
        elif known is None:
            topics.leave_receipt(held[-1])
        with topics.anchoring(*([known] if known is not None else [])) as failures:
            wait_for(failures, "the process stops")
            [error] = failures()
            assert isinstance(error, AnchoringStoppedError) and "lost anchors" in str(error)
        assert last_record(topics.cluster, ANCHORS_TOPIC, 0) is None
        assert held_by(target) == held
    assert topics.findings("anchors_lost") == 3


def test_a_shortened_anchors_topic_is_not_continued(topics: SealedTopics, tmp_path: Path) -> None:
    target = FileTarget(tmp_path / "anchors.jsonl")
    topics.append(LIFECYCLE_TOPIC, LOGS[LIFECYCLE_TOPIC][0])
    with topics.anchoring(target):
        wait_for(lambda: len(held_by(target)) >= 3, "anchors are in the file")
    held = held_by(target)
    topics.pipeline.remake_topics(ANCHORS_TOPIC)
    topics.append_anchors(*held[:2])
    with topics.anchoring(target) as failures:
        wait_for(failures, "the process stops")
        assert f"file holds anchor {held[-1].index}" in str(failures()[0])


def test_a_target_gets_the_anchors_that_it_missed(topics: SealedTopics, tmp_path: Path) -> None:
    target = FileTarget(tmp_path / "anchors.jsonl")
    topics.append(LIFECYCLE_TOPIC, LOGS[LIFECYCLE_TOPIC][0])
    with topics.anchoring(target):
        wait_for(lambda: len(held_by(target)) >= 2, "anchors are in the file")
    before = len(held_by(target))
    with topics.anchoring():  # the target is away
        wait_for(lambda: topics.last_index() >= before + 2, "anchors are in the topic")
    with topics.anchoring(target):
        wait_for(lambda: len(held_by(target)) > before + 3, "the file caught up")
    indices = [anchor.index for anchor in held_by(target)]
    assert indices == list(range(len(indices)))


def test_a_target_with_another_history_stops_alone(topics: SealedTopics, tmp_path: Path) -> None:
    """The anchor log goes on, and another target gets its anchors."""
    forged, good = FileTarget(tmp_path / "forged.jsonl"), FileTarget(tmp_path / "good.jsonl")
    topics.append(LIFECYCLE_TOPIC, LOGS[LIFECYCLE_TOPIC][0])
    with topics.anchoring(good):
        wait_for(lambda: len(held_by(good)) >= 2, "anchors are in the file")
    head = Checkpoint(f"{DEPLOYMENT}/{LIFECYCLE_TOPIC}/0/0", 7, bytes(32))
    forged.publish(append_anchor(Frontier(), anchor_origin(DEPLOYMENT), 1, [head], SIGNER)[0])
    before = len(held_by(good))
    with topics.anchoring(forged, good) as failures:
        wait_for(lambda: len(held_by(good)) >= before + 2, "the other target goes on")
        assert not failures()
    assert len(held_by(forged)) == 1
    assert topics.findings("anchor_target_stopped") == 1


def test_a_foreign_record_in_the_anchors_topic_is_skipped(topics: SealedTopics, tmp_path: Path) -> None:
    """Anyone who can write to the topic could otherwise stop anchoring, sealing and the store."""
    topics.append(LIFECYCLE_TOPIC, LOGS[LIFECYCLE_TOPIC][0])
    with topics.anchoring():
        wait_for(lambda: topics.last_index() >= 1, "anchors are in the topic")
    producer = Producer(topics.cluster.options)
    producer.produce(topics.cluster.physical(ANCHORS_TOPIC), b"\x00not an anchor", b"k", 0)
    assert producer.flush(20) == 0
    last = last_anchor(topics.logs)
    assert last is not None and last.index >= 1
    with topics.anchoring() as failures:
        wait_for(lambda: topics.last_index() > last.index, "anchoring goes on")
        assert not failures()
