"""A person opens each kind of stop again: the log goes on as a new epoch, and everything verifies afterwards.

One ledger goes through all of them, one after the other: each test opens one more epoch. Verification reads every
epoch, so only the last tests verify: the last but one what Kafka has, the last one what the store has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewPartitions

from grantledger.console.address import read_address
from grantledger.kafka.membership import group_state
from grantledger.kafka.offsets import end_offset
from grantledger.kafka.options import reader_options
from grantledger.kafka.transactional_writer import TransactionalWriter
from grantledger.ledger import batch as batches
from grantledger.ledger.batch import Records
from grantledger.ledger.entry import NO_HEADERS
from grantledger.ledger.keys import LocalSigner
from grantledger.runtime.broker import LocalBroker
from grantledger.schemas.topics import ANCHORS_TOPIC, seal_group
from support.load import Load
from support.oracle import Row, committed_records
from support.pipeline import ANCHORED_OFTEN, PROCESSES, WITHOUT_STATES, Pipeline
from support.stopped_ledger import LIFECYCLE, Ledger, foreign_batch
from support.waiting import wait_for

SEALED = f"{LIFECYCLE}.sealed"


@pytest.fixture(scope="module")
def ledger(broker: LocalBroker, make_pipeline: Callable[..., Pipeline]) -> Ledger:
    """A ledger whose entries are sealed, stored and anchored, with nothing running."""
    ledger = Ledger(make_pipeline(broker.bootstrap_servers, ANCHORED_OFTEN | WITHOUT_STATES))
    ledger.store_and_anchor()
    return ledger


@pytest.fixture(autouse=True)
def _nothing_runs_afterwards(ledger: Ledger) -> Iterator[None]:
    yield
    ledger.pipeline.stop()


def with_store(ledger: Ledger) -> Ledger:
    """Start the store: commands ask it, which is much cheaper than to open its folder for each."""
    pipeline = ledger.pipeline
    pipeline.start("store")
    wait_for(lambda: read_address(pipeline.data_dir), "the store answers")
    return ledger


def opens(ledger: Ledger, rule: str, *logs: str, stopped: str = f"{LIFECYCLE}/0", found: str = "") -> None:
    """Show the stop, and open the epoch."""
    pipeline = ledger.pipeline
    shown = pipeline.run("epoch", "show", "-o", "json")
    assert shown.returncode == 3 and shown.stdout, shown.stderr
    rows = json.loads(shown.stdout)
    assert [(row["log"], row["rule"]) for row in rows] == [(stopped, rule)]
    answer = pipeline.run("epoch", "open", *logs, "--reason", "examined: ticket 17", "--as", "alice", "--yes")
    assert answer.returncode == 0, answer.stderr
    assert found in answer.stdout
    assert f"docs/runbooks/{rule}.md" in answer.stdout


def goes_on(ledger: Ledger) -> dict[str, int]:
    """Send records through the whole pipeline until they are stored and anchored; return the sizes in the store."""
    pipeline = ledger.pipeline
    Load(pipeline.cluster, 40, 2000, seed=11, odd=False).start().finish()
    pipeline.start(*(name for name in PROCESSES if not pipeline.children[name].alive()))
    wait_for(lambda: pipeline.metric("seal", "grantledger_seal_stopped") == 0, "sealing goes on")

    def all_stored() -> bool:
        return (
            pipeline.metric("store", "grantledger_stored_log_size_entries")
            >= pipeline.metric("seal", "grantledger_log_size_entries")
            > 0
        )

    wait_for(all_stored, "everything is stored")
    before = pipeline.metric("anchor", "grantledger_anchors_total")
    wait_for(lambda: pipeline.metric("anchor", "grantledger_anchors_total") >= before + 2, "anchoring goes on")
    wait_for(lambda: pipeline.metric("store", "grantledger_store_stopped") == 0, "the store goes on")
    assert pipeline.run("epoch", "show").returncode == 0, "there is nothing more to open"
    assert not ledger.findings("anchor_target_stopped")
    rows = pipeline.query("SELECT origin, count() AS size FROM entries GROUP BY origin")
    return {row["origin"]: row["size"] for row in rows}


def assert_sound(ledger: Ledger) -> None:
    """Verify what the running pipeline has stored and anchored, every epoch of it."""
    pipeline = ledger.pipeline
    pipeline.stop("anchor")

    def sound() -> bool:
        return pipeline.verify()[0] == 0

    wait_for(sound, "the store is sound", pause=1.0)


def sound_in_kafka(ledger: Ledger) -> dict[str, Any]:
    """Verify what Kafka has, and return the report."""
    _, report = ledger.pipeline.verify("--from", "kafka")
    assert report["sound"], report["problems"]
    return report


def head_of(ledger: Ledger) -> tuple[str, int]:
    """Return origin and size of the newest epoch of the lifecycle log."""
    last = ledger.logs().last(LIFECYCLE)
    assert last is not None
    return last.batch.origin, last.head.size


def restore(ledger: Ledger, topic: str, batches: list[Row]) -> None:
    """Write sealed batches to an empty topic again."""
    producer = Producer(ledger.pipeline.options)
    for _, key, value in batches:
        producer.produce(
            ledger.pipeline.cluster.physical(topic), bytes.fromhex(value or ""), bytes.fromhex(key or ""), 0
        )
    assert producer.flush(20) == 0


def after(origin: str) -> str:
    """Return the origin of the next epoch."""
    name, _, epoch = origin.rpartition("/")
    return f"{name}/{int(epoch) + 1}"


def opened_by(ledger: Ledger) -> list[str]:
    """Return who opened which epoch, as the store has it."""
    sql = "SELECT actor_id, subject_id, reason FROM entries WHERE event_type = 'epoch.opened' ORDER BY append_time"
    rows = wait_for(lambda: ledger.pipeline.query(sql), "the event is stored")
    return [f"{row['actor_id']} {row['subject_id']} {row['reason']}" for row in rows]


def test_nothing_is_opened_that_is_not_stopped(ledger: Ledger) -> None:
    pipeline = ledger.pipeline
    assert pipeline.run("epoch").stdout.strip() == "No log is stopped."
    answer = pipeline.run("epoch", "open", "--reason", "why", "--yes")
    assert answer.returncode == 2 and "nothing to open" in answer.stderr
    answer = pipeline.run("epoch", "open", "access.lifecycle/0", "--reason", "why", "--yes")
    assert answer.returncode == 2 and "not stopped" in answer.stderr
    assert pipeline.run("epoch", "open", "--yes").returncode == 2  # no reason


def test_an_input_topic_that_was_created_again(ledger: Ledger) -> None:
    """A running sealer seals the other logs meanwhile, and continues the stopped one without a restart."""
    pipeline, (origin, size) = ledger.pipeline, head_of(ledger)
    pipeline.remake_topics(LIFECYCLE)
    pipeline.start("seal")
    wait_for(lambda: pipeline.metric("seal", "grantledger_seal_stopped") == 1, "one log is stopped")
    declined = with_store(ledger).pipeline.run("epoch", "open", "--reason", "no", stdin="n\n")
    assert declined.returncode == 1, declined.stderr
    opens(ledger, "topic_replaced", found="it begins at input offset 0")
    assert pipeline.run("epoch", "open", "--reason", "again", "--yes").returncode == 2
    wait_for(lambda: pipeline.metric("seal", "grantledger_seal_stopped") == 0, "the log goes on")
    heads = goes_on(ledger)
    assert heads[origin] == size and after(origin) in heads
    assert opened_by(ledger) == [f"alice {after(origin)} examined: ticket 17"]


def test_an_emptied_sealed_topic(ledger: Ledger) -> None:
    """The store has everything: no entry is lost, and none is sealed twice. The commands open its folder."""
    origin, size = head_of(ledger)
    sent = len(committed_records(ledger.pipeline.cluster, [LIFECYCLE])[LIFECYCLE, 0])
    ledger.pipeline.remake_topics(SEALED)
    opens(ledger, "sealed_topic_lost", found="found in the store")
    heads = goes_on(ledger)
    more = len(committed_records(ledger.pipeline.cluster, [LIFECYCLE])[LIFECYCLE, 0]) - sent
    assert (heads[origin], heads[after(origin)]) == (size, more)


@pytest.mark.slow
def test_sealed_records_that_were_deleted(ledger: Ledger) -> None:
    where = TopicPartition(ledger.pipeline.cluster.physical(SEALED), 0, -1)
    ledger.admin.delete_records([where])[where].result(20)
    opens(with_store(ledger), "sealed_topic_lost", f"{LIFECYCLE}/0")
    goes_on(ledger)


def test_a_truncated_tail(ledger: Ledger) -> None:
    """The sealed topic comes back from a copy without its last batches. The store has them."""
    pipeline, (origin, size) = ledger.pipeline, head_of(ledger)
    copied = committed_records(pipeline.cluster, [SEALED])[SEALED, 0]
    assert len(copied) > 1
    pipeline.remake_topics(SEALED)
    restore(ledger, SEALED, copied[: len(copied) // 2])
    opens(with_store(ledger), "head_mismatch", found="are only in the store, no longer in Kafka")
    heads = goes_on(ledger)
    assert heads[origin] == size
    assert origin in sound_in_kafka(ledger)["lost"]


def add_partitions(ledger: Ledger, total: int, *topics: str) -> None:
    for topic in map(ledger.pipeline.cluster.physical, topics):
        ledger.admin.create_partitions([NewPartitions(topic, total)])[topic].result(20)


def test_lost_findings_come_back_from_a_copy_only(ledger: Ledger) -> None:
    """They register the sources, and the input topic has forgotten them. A new epoch would not bring them back."""
    pipeline, lost = ledger.pipeline, "access.findings.sealed"
    copied = committed_records(pipeline.cluster, [lost])[lost, 0]
    pipeline.remake_topics(lost)
    where = TopicPartition(pipeline.cluster.physical("access.findings"), 0, -1)
    ledger.admin.delete_records([where])[where].result(20)
    answer = pipeline.run("sources", "keys")
    assert answer.returncode == 3 and "restore" in answer.stderr
    for logs in ((), ("access.findings/0",)):
        refused = pipeline.run("epoch", "open", *logs, "--reason", "no copy", "--yes")
        assert refused.returncode == 3 and "restore access.findings.sealed" in refused.stderr
    restore(ledger, lost, copied)
    goes_on(ledger)
    assert pipeline.run("sources", "keys").returncode == 0


def test_a_changed_partition_count(ledger: Ledger) -> None:
    """The sealer restarts within its session, so the group returns its old partitions and forgets the new ones."""
    pipeline = ledger.pipeline
    pipeline.start("seal")
    wait_for(lambda: "access.activity/3/" in pipeline.log("seal"), "all partitions are sealed")
    pipeline.kill("seal")
    add_partitions(ledger, 6, "access.activity")
    pipeline.start("seal")
    wait_for(
        lambda: pipeline.metric("seal", "grantledger_seal_stopped") == 6, "all partitions of the topic are stopped"
    )
    assert '"group_joined_again"' in pipeline.log("seal")
    wait_for(lambda: ledger.findings("partition_count"), "the finding is on record")
    before = head_of(ledger)[1]
    Load(pipeline.cluster, 40, 2000, seed=12, odd=False).start().finish()
    wait_for(lambda: head_of(ledger)[1] > before, "the other topics are sealed")
    opens(with_store(ledger), "partition_count", stopped="access.activity")
    wait_for(lambda: pipeline.metric("seal", "grantledger_seal_stopped") == 0, "the topic goes on without a restart")
    assert "access.activity/5/" in pipeline.log("seal")
    goes_on(ledger)


@pytest.mark.slow
def test_of_two_sealers_one_joins_the_group_again(ledger: Ledger) -> None:
    """Both restart within their sessions after a topic got more partitions."""
    pipeline, names = ledger.pipeline, ("seal", "other")

    def start() -> None:
        pipeline.start("seal")
        pipeline.twin("other", "seal", GRANTLEDGER_SEALER_INSTANCE="1")

    def logs() -> str:
        return "".join(map(pipeline.log, names))

    start()
    wait_for(lambda: all('"partition_assigned"' in pipeline.log(name) for name in names), "both seal")
    for name in names:
        pipeline.kill(name)
    add_partitions(ledger, 8, "access.activity.sealed", "access.activity")
    start()
    wait_for(lambda: "access.activity/7/" in logs(), "the new partitions are sealed")
    group, added = seal_group(pipeline.deployment), [("access.activity", number) for number in range(8)]
    state = wait_for(
        lambda: found if (found := group_state(pipeline.cluster, group)).stable else None, "all have joined"
    )
    assert state.forgotten(added) == set()  # so that none will join again
    assert logs().count('"group_joined_again"') == 1
    assert all(pipeline.children[name].alive() for name in names)


@pytest.mark.slow
def test_records_that_expired_before_they_were_sealed(ledger: Ledger) -> None:
    pipeline, (origin, size) = ledger.pipeline, head_of(ledger)
    Load(pipeline.cluster, 40, 2000, seed=13, odd=False).start().finish()
    where = TopicPartition(ledger.lifecycle, 0, -1)  # all of them, as retention does after a long outage
    ledger.admin.delete_records([where])[where].result(20)
    opens(with_store(ledger), "input_expired", found="lost: ")
    heads = goes_on(ledger)
    assert heads[origin] == size and after(origin) in heads


def test_an_input_topic_that_lost_sealed_records(ledger: Ledger) -> None:
    """As after an unclean election: a new record has the offset of the first of three records that are sealed."""
    pipeline, last = ledger.pipeline, ledger.logs().last(LIFECYCLE)
    assert last is not None
    end, now = end_offset(pipeline.cluster, LIFECYCLE, 0), datetime.now(UTC)
    lost = Records([1] * 3, [end, end + 1, end + 2], [7] * 3, [b"k"] * 3, [b"lost"] * 3, [NO_HEADERS] * 3)
    batch, _ = batches.seal(last.head, lost, end + 3, now, LocalSigner.from_pem(ledger.pem(), None))
    consumer = Consumer(reader_options(pipeline.cluster, ledger.group))
    writer = TransactionalWriter(pipeline.cluster, f"{pipeline.deployment}-lost")
    writer.init()
    writer.begin()
    writer.produce(SEALED, batches.encode(batch), b"k", 0)
    writer.send_offsets({(LIFECYCLE, 0): end + 3}, consumer.consumer_group_metadata())
    writer.commit()
    consumer.close()
    Load(pipeline.cluster, 1, 2000, seed=14, odd=False).start().finish()
    assert end_offset(pipeline.cluster, LIFECYCLE, 0) < end + 3
    pipeline.start("seal")
    wait_for(lambda: pipeline.metric("seal", "grantledger_seal_stopped") == 1, "one log is stopped")
    wait_for(lambda: ledger.findings("input_truncated"), "the finding is on record")
    opens(ledger, "input_truncated", found=f"sealing continues at offset {end}")
    heads = goes_on(ledger)
    assert heads[batch.origin] == batch.size and after(batch.origin) in heads


def test_an_anchors_topic_that_was_created_again(ledger: Ledger) -> None:
    """Afterwards, everything in Kafka is sound: the logs with the epochs of all tests before this one."""
    pipeline = ledger.pipeline
    pipeline.remake_topics(ANCHORS_TOPIC)
    assert pipeline.run("run", "anchor").returncode == 3
    assert ledger.findings("anchors_lost")
    opens(with_store(ledger), "anchors_lost", stopped=ANCHORS_TOPIC, found="the new epoch binds")
    goes_on(ledger)
    sound_in_kafka(ledger)


def test_a_forged_tail_record(ledger: Ledger) -> None:
    """The key signed a batch that continues nothing. Readers skip it once a person has opened the next epoch.

    This is the last test of the ledger: its verification covers the epochs of all of them.
    """
    pipeline = ledger.pipeline
    producer = Producer(pipeline.options)
    producer.produce(pipeline.cluster.physical(SEALED), foreign_batch(ledger, LIFECYCLE, 0), b"k", 0)
    assert producer.flush(20) == 0
    pipeline.start("store")  # it stops this log, and goes on when the epoch is open
    wait_for(lambda: pipeline.metric("store", "grantledger_store_stopped") == 1, "one log is stopped")
    opens(ledger, "head_mismatch")
    wait_for(lambda: pipeline.metric("store", "grantledger_store_stopped") == 0, "the log goes on")
    goes_on(ledger)
    _, report = pipeline.verify("--from", "kafka")
    assert not report["sound"], "the forged record stays in Kafka, and `verify` names it"
    assert_sound(ledger)
