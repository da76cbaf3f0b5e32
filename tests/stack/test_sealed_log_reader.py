"""The reader of sealed logs on a real broker: batches sealed so far, then new ones; what it skips; where it stops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from confluent_kafka import Producer, TopicPartition

from grantledger.kafka.identity import identify_topics
from grantledger.kafka.sealed_log import SealedLogProblem, SealedLogReader, SealedLogs, SealedLogStoppedError
from grantledger.kafka.sealed_log_findings import ProblemPublisher
from grantledger.ledger.batch import SealedBatch, encode
from grantledger.ledger.entry import NO_HEADERS
from grantledger.ledger.keys import LocalSigner, LogKeys
from grantledger.schemas.topics import FINDINGS_TOPIC, LIFECYCLE_TOPIC
from support.oracle import committed_records
from support.pipeline import Pipeline
from support.shared_broker import RunningBroker
from support.small_ledger import GENESIS, SIGNER, Entry, seal_parts

ENTRIES: list[Entry] = [(1, offset, 5, b"k", b"v", NO_HEADERS) for offset in range(8, 20)]
BATCHES, _ = seal_parts([ENTRIES[at : at + 3] for at in range(0, 12, 3)])
DEPLOYMENT, _, _ = BATCHES[0].origin.partition("/")
KEYS = LogKeys.single(SIGNER.public_key)


class SealedTopic:
    """The sealed lifecycle topic of a deployment without a sealer."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.cluster = pipeline.cluster
        self.problems: list[SealedLogProblem] = []
        self.logs = SealedLogs(self.cluster, DEPLOYMENT, KEYS, self.problems.append)

    def append(self, *values: SealedBatch | bytes) -> None:
        producer = Producer(self.cluster.options)
        for value in values:
            content = value if isinstance(value, bytes) else encode(value)
            producer.produce(self.cluster.physical(f"{LIFECYCLE_TOPIC}.sealed"), content, b"k", 0)
        assert producer.flush(20) == 0

    def problem_offsets(self) -> list[tuple[str, int]]:
        return [(problem.rule, problem.offset) for problem in self.problems]


@pytest.fixture
def topic(broker: RunningBroker, make_pipeline: Callable[..., Pipeline]) -> SealedTopic:
    return SealedTopic(make_pipeline(broker.bootstrap_servers))


def to_end(reader: SealedLogReader) -> Sequence[SealedBatch]:
    return [found.batch for found in reader.read_to_end()]


def test_a_reader_returns_the_batches_so_far_and_then_new_ones(topic: SealedTopic) -> None:
    topic.append(*BATCHES[:2])
    with topic.logs.open(LIFECYCLE_TOPIC) as reader:
        assert to_end(reader) == BATCHES[:2] and reader.poll(0.1) == []
        topic.append(BATCHES[2])
        assert [found.batch for found in reader.poll(10.0)] == [BATCHES[2]]
    with topic.logs.open(LIFECYCLE_TOPIC, start=2) as reader:
        assert to_end(reader) == [BATCHES[2]]
        assert reader.head is not None and reader.head.size == 9
    assert topic.problems == []


def test_a_record_without_a_valid_note_is_skipped_with_one_finding(topic: SealedTopic) -> None:
    topic.append(BATCHES[0], b"no batch", BATCHES[1], b"no batch either")
    publisher = ProblemPublisher(topic.cluster, DEPLOYMENT)
    for on_problem in (publisher, ProblemPublisher(topic.cluster, DEPLOYMENT), publisher):
        logs = SealedLogs(topic.cluster, DEPLOYMENT, KEYS, on_problem)
        with logs.open(LIFECYCLE_TOPIC) as reader:
            assert to_end(reader) == BATCHES[:2] and not reader.stopped
    found = committed_records(topic.cluster, [FINDINGS_TOPIC])[FINDINGS_TOPIC, 0]
    identities = {offset: b"sealed_record_invalid:access.lifecycle.sealed/0@%d" % offset for offset in (1, 3)}
    for identity in identities.values():
        # One per record and process; the same events, so two findings.
        assert sum(identity.hex() in (value or "") for _, _, value in found) == 2
    assert sum(b"sealed_record_invalid:".hex() in (value or "") for _, _, value in found) == 4
    # A reader that starts after such a record continues from the last batch before it.
    with topic.logs.open(LIFECYCLE_TOPIC, start=4) as reader:
        topic.append(BATCHES[2])
        assert to_end(reader) == [BATCHES[2]]


def test_the_last_batch_is_the_last_one_with_a_valid_note(topic: SealedTopic) -> None:
    assert topic.logs.last(LIFECYCLE_TOPIC) is None
    topic.append(*BATCHES[:2], *[b"no batch"] * 50)
    last = topic.logs.last(LIFECYCLE_TOPIC)
    assert last is not None and (last.batch, last.offset, last.head.size) == (BATCHES[1], 1, 6)
    assert topic.problem_offsets() == [("sealed_record_invalid", offset) for offset in range(51, 1, -1)]
    last = topic.logs.last(LIFECYCLE_TOPIC, before=1)
    assert last is not None and last.batch == BATCHES[0]


def test_with_another_key_there_is_no_last_batch_and_nothing_is_reported(topic: SealedTopic) -> None:
    topic.append(*BATCHES)
    other = LogKeys.single(LocalSigner.generate().public_key)
    logs = SealedLogs(topic.cluster, DEPLOYMENT, other, topic.problems.append)
    with pytest.raises(SealedLogStoppedError, match="key_file"):
        logs.last(LIFECYCLE_TOPIC)
    assert topic.problems == []


def test_a_reader_stops_at_a_batch_that_does_not_continue_the_log(topic: SealedTopic) -> None:
    topic.append(BATCHES[0], BATCHES[2], BATCHES[1])
    with topic.logs.open(LIFECYCLE_TOPIC) as reader:
        assert to_end(reader) == BATCHES[:1] and reader.stopped and reader.position == 1
        assert reader.poll(0.1) == []
    assert topic.problem_offsets() == [("sealed_log_discontinuous", 1)]
    with topic.logs.open(LIFECYCLE_TOPIC) as reader, pytest.raises(SealedLogStoppedError, match="offset 1"):
        list(reader.read_records())


def test_the_tail_continues_the_batch_before_it(topic: SealedTopic) -> None:
    assert topic.logs.tail(LIFECYCLE_TOPIC) is None
    topic.append(b"no batch", BATCHES[0])
    tail = topic.logs.tail(LIFECYCLE_TOPIC)
    assert tail is not None and tail.batch == BATCHES[0]
    topic.append(b"no batch", BATCHES[1], b"no batch")
    tail = topic.logs.tail(LIFECYCLE_TOPIC)
    assert tail is not None and tail.batch == BATCHES[1]
    topic.append(BATCHES[0])  # a copy of an older batch: its note is valid
    with pytest.raises(SealedLogStoppedError, match="offset 5, does not continue the batch before it"):
        topic.logs.tail(LIFECYCLE_TOPIC)
    assert topic.problem_offsets()[-1] == ("sealed_log_discontinuous", 5)


def test_a_log_that_begins_in_the_middle_has_no_tail(topic: SealedTopic) -> None:
    topic.append(BATCHES[1])
    with pytest.raises(SealedLogStoppedError, match="does not continue"):
        topic.logs.tail(LIFECYCLE_TOPIC)


@pytest.mark.parametrize("deleted", [0, 1, 4])
def test_a_log_without_its_beginning_is_not_whole(topic: SealedTopic, deleted: int) -> None:
    topic.append(*BATCHES)
    where = TopicPartition(topic.cluster.physical(f"{LIFECYCLE_TOPIC}.sealed"), 0, deleted)
    topic.cluster.admin.delete_records([where])[where].result(20)
    with topic.logs.open(LIFECYCLE_TOPIC) as reader:
        assert to_end(reader) == BATCHES[deleted:]
        if deleted:
            with pytest.raises(SealedLogStoppedError, match="does not begin with the first entry"):
                reader.check_whole()
        else:
            reader.check_whole()


@pytest.mark.parametrize("deleted", [0, 1])
def test_before_anything_is_sealed_the_input_topic_must_be_whole(topic: SealedTopic, deleted: int) -> None:
    producer, name = Producer(topic.cluster.options), topic.cluster.physical(LIFECYCLE_TOPIC)
    producer.produce(name, b"v", b"k", 0)
    assert producer.flush(20) == 0
    where = TopicPartition(name, 0, deleted)
    topic.cluster.admin.delete_records([where])[where].result(20)
    with topic.logs.open(LIFECYCLE_TOPIC) as reader:
        assert to_end(reader) == []
        if deleted:
            with pytest.raises(SealedLogStoppedError, match="restore the topic from a copy"):
                reader.check_whole()
        else:
            reader.check_whole()


def test_records_of_a_topic_that_was_created_again_are_not_sealed(
    broker: RunningBroker, make_pipeline: Callable[..., Pipeline]
) -> None:
    pipeline = make_pipeline(broker.bootstrap_servers)
    topic, name = SealedTopic(pipeline), pipeline.cluster.physical(LIFECYCLE_TOPIC)
    topic_id = identify_topics(pipeline.cluster, (LIFECYCLE_TOPIC,))[LIFECYCLE_TOPIC].topic_id
    batches, _ = seal_parts([ENTRIES[:3]], replace(GENESIS, topic_id=topic_id))
    topic.append(*batches)
    with topic.logs.open(LIFECYCLE_TOPIC) as reader:
        assert to_end(reader) == batches
        assert list(reader.read_unsealed()) == [] and reader.has_read_below(5)
        pipeline.remake_topics(LIFECYCLE_TOPIC)
        assert reader.has_read_below(0)
        producer = Producer(topic.cluster.options)
        producer.produce(name, b"new", b"k", 0)
        assert producer.flush(20) == 0
        assert not reader.has_read_below(1)
        assert [record.value for _, record in reader.read_unsealed()] == [b"new"]
