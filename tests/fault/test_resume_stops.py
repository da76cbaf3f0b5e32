"""Kafka contradicts the ledger in some way: the partition stops, a finding reports it, and the log never forks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition

from grantledger.ledger.keys import LocalSigner, public_pem
from grantledger.runtime.settings import load_settings
from grantledger.schemas.topics import SEALED_TOPICS
from support.load import Load
from support.oracle import committed_records
from support.pipeline import WITHOUT_STATES, Pipeline
from support.shared_broker import RunningBroker
from support.stopped_ledger import LIFECYCLE, SINGLE, Ledger, foreign_batch
from support.waiting import wait_for


@pytest.fixture(scope="module")
def make(broker: RunningBroker, make_pipeline: Callable[..., Pipeline]) -> Callable[..., Ledger]:
    def ledger(**environment: str) -> Ledger:
        return Ledger(make_pipeline(broker.bootstrap_servers, WITHOUT_STATES | environment))

    return ledger


@pytest.fixture(scope="module")
def ledger(make: Callable[..., Ledger]) -> Ledger:
    return make()


@pytest.fixture
def key(ledger: Ledger) -> Path:
    """The private key, which is restored after the test."""
    path = load_settings(ledger.pipeline.data_dir).private_key_path
    before, public = path.read_bytes(), path.with_suffix(".pub").read_bytes()
    yield path
    path.write_bytes(before)
    path.chmod(0o600)
    path.with_suffix(".pub").write_bytes(public)


def test_a_missing_key_is_never_replaced(ledger: Ledger, key: Path) -> None:
    key.unlink()
    ledger.refuses(str(key), "key_file", "backup", code=2)
    assert not key.exists() and ledger.sealed_stays()


def test_a_key_that_others_can_read_is_refused(ledger: Ledger, key: Path) -> None:
    key.chmod(0o644)
    ledger.refuses(str(key), "chmod 600", code=2)


def test_a_wrong_passphrase_names_the_setting(ledger: Ledger, key: Path) -> None:
    signer = LocalSigner.from_pem(key.read_bytes(), None)
    key.write_bytes(signer.to_pem(b"right"))
    environment = ledger.pipeline.environment
    ledger.refuses("key_passphrase", code=2)  # none given
    environment["GRANTLEDGER_KEY_PASSPHRASE"] = "wrong"
    try:
        ledger.refuses("key_passphrase", code=2)
    finally:
        del environment["GRANTLEDGER_KEY_PASSPHRASE"]
    assert ledger.sealed_stays()


def test_another_key_stops_every_log(ledger: Ledger, key: Path) -> None:
    other = LocalSigner.generate()
    key.write_bytes(other.to_pem(None))
    key.with_suffix(".pub").write_bytes(public_pem(other.public_key))
    ledger.refuses("every partition is stopped", "key_file", rule="head_mismatch")
    assert ledger.sealed_stays()


def test_a_changed_committed_offset_stops_that_log(ledger: Ledger) -> None:
    asked = [ConsumerGroupTopicPartitions(ledger.group, [TopicPartition(ledger.lifecycle, 0)])]
    [right] = ledger.admin.list_consumer_group_offsets(asked)[ledger.group].result(10).topic_partitions
    ledger.alter(right.offset - 5)
    ledger.stops_one("offset_mismatch")
    assert ledger.sealed_stays()
    ledger.alter(right.offset)


def test_an_expired_group_is_restored_from_the_sealed_tail(ledger: Ledger) -> None:
    def deleted() -> bool:
        try:
            ledger.admin.delete_consumer_groups([ledger.group])[ledger.group].result(10)
        except Exception:
            return False
        return True

    wait_for(deleted, "the group is deleted")
    ledger.seal_until_done(70)
    _, report = ledger.pipeline.verify("--from", "kafka")
    assert report["sound"], report["problems"]


def test_a_foreign_record_in_a_sealed_topic_is_skipped(ledger: Ledger) -> None:
    pipeline = ledger.pipeline
    producer = Producer(pipeline.options)
    for topic in (f"{ledger.lifecycle}.sealed", pipeline.cluster.physical("access.findings.sealed")):
        producer.produce(topic, b"\x00not a batch", b"someone", 0)
    assert producer.flush(20) == 0
    before = pipeline.verify("--from", "kafka")
    assert before[0] == 1 and before[1]["problems"]
    pipeline.start()
    Load(pipeline.cluster, 50, 2000, seed=7, odd=False).start().finish()
    wait_for(ledger.all_sealed, "sealing continues")
    wait_for(lambda: len(ledger.findings("sealed_record_invalid")) >= 2, "the findings are on record")
    wait_for(ledger.all_stored, "storing continues")
    wait_for(lambda: pipeline.metric("anchor", "grantledger_anchors_total") >= 1, "anchoring continues")
    ledger.stop_drained()
    assert [pipeline.children[name].exit_code for name in ("seal", "store", "anchor")] == [0, 0, 0]
    assert len(ledger.findings("sealed_record_invalid")) == len(set(ledger.findings("sealed_record_invalid")))
    assert pipeline.verify("--from", "clickhouse")[0] == 0
    code, report = pipeline.verify("--from", "kafka")
    assert code == 1 and len(report["problems"]) == len(before[1]["problems"])


def test_the_store_stops_at_discontinuous_logs(make: Callable[..., Ledger]) -> None:
    ledger = make()
    pipeline, producer = ledger.pipeline, Producer(ledger.pipeline.options)
    partitions = [*((topic, 0) for topic in SINGLE), *(("access.activity", number) for number in range(4))]
    for number, (topic, partition) in enumerate(partitions):
        physical = pipeline.cluster.physical(f"{topic}.sealed")
        producer.produce(physical, foreign_batch(ledger, topic, partition), b"k", partition)
        assert producer.flush(20) == 0
        if number == 0:
            pipeline.start("store")
            wait_for(lambda: pipeline.metric("store", "grantledger_store_stopped") == 1, "one log is stopped")
            wait_for(ledger.all_stored, "the other logs are stored")
            assert "storing of access.lifecycle/0 is stopped" in " ".join(pipeline.health("store").waits)
            assert '"partition_stopped"' in pipeline.log("store")
            assert ledger.findings("sealed_log_discontinuous")
            pipeline.stop("store")
            assert pipeline.children["store"].exit_code == 0
    answer = pipeline.run("run", "store", timeout=60)
    assert answer.returncode == 3 and "Traceback" not in answer.stderr, answer.stderr[-2000:]
    assert "every log is stopped" in answer.stderr.splitlines()[-1]
    # A sealer must not append to a batch that continues nothing.
    ledger.refuses("every partition is stopped", "does not continue the batch before it", rule="head_mismatch")


def test_lost_sealed_topics_are_never_restarted(make: Callable[..., Ledger]) -> None:
    ledger = make()
    ledger.pipeline.remake_topics(*SEALED_TOPICS)
    ledger.refuses("every partition is stopped", "its batches are lost", rule="sealed_topic_lost")
    assert committed_records(ledger.pipeline.cluster, [f"{LIFECYCLE}.sealed"]) == {(f"{LIFECYCLE}.sealed", 0): []}
    # Without the key too, it must not pass for a new deployment.
    shutil.rmtree(ledger.pipeline.data_dir / "keys")
    ledger.refuses("key_file", "backup", code=2)


@pytest.mark.slow
def test_a_replaced_input_topic_stops_its_log(make: Callable[..., Ledger]) -> None:
    ledger = make()
    ledger.pipeline.remake_topics(LIFECYCLE)
    # At least as many records as before: only the topic id shows the replacement.
    Load(ledger.pipeline.cluster, 200, 2000, seed=9, odd=False).start().finish()
    ledger.stops_one("topic_replaced")
    assert ledger.sealed_stays()


def test_a_topic_replaced_under_a_running_sealer_stops_its_log(make: Callable[..., Ledger]) -> None:
    ledger = make()
    pipeline = ledger.pipeline
    pipeline.start("seal")
    wait_for(lambda: pipeline.log("seal").count("partition_assigned") >= 6, "sealing has begun")
    pipeline.remake_topics(LIFECYCLE)
    Load(pipeline.cluster, 400, 2000, seed=9, odd=False).start().finish()

    def stopped() -> bool:
        pipeline.restart_failed()
        return pipeline.metric("seal", "grantledger_seal_stopped") == 1 and '"topic_replaced"' in pipeline.log("seal")

    wait_for(stopped, "the log is stopped")
    pipeline.stop("seal")
    assert ledger.sealed_stays()


@pytest.mark.slow
def test_unsealed_input_deleted_by_retention_stops_its_log(make: Callable[..., Ledger]) -> None:
    ledger = make()
    Load(ledger.pipeline.cluster, 100, 2000, seed=9, odd=False).start().finish()
    where = TopicPartition(ledger.lifecycle, 0, -1)  # everything up to its end
    ledger.admin.delete_records([where])[where].result(20)
    ledger.stops_one("input_expired")
    assert ledger.sealed_stays()


def test_transaction_markers_deleted_by_retention_are_not_unsealed_input(make: Callable[..., Ledger]) -> None:
    """The log ends with a transaction marker: it is not a record, and expires like one."""
    ledger = make(GRANTLEDGER_HEAD_RESTATE_SECONDS="1")
    pipeline = ledger.pipeline
    producer = Producer({**pipeline.options, "transactional.id": "markers"})
    producer.init_transactions(20)
    producer.begin_transaction()
    for _ in range(3):
        producer.produce(ledger.lifecycle, b"the last record before a long silence", b"k")
    producer.commit_transaction(20)
    pipeline.start("seal")

    def passed() -> bool:
        samples = pipeline.children["seal"].metrics().items()
        end = max(offset for offset, _, _ in committed_records(pipeline.cluster, [LIFECYCLE])[LIFECYCLE, 0])
        return any(
            name == "grantledger_seal_position_offset" and LIFECYCLE in labels and value == end + 2
            for name, labels, value in ((name, labels, value) for (name, labels), value in samples)
        )

    wait_for(passed, "the restated head has passed the marker")
    pipeline.stop("seal")
    where = TopicPartition(ledger.lifecycle, 0, -1)
    ledger.admin.delete_records([where])[where].result(20)
    pipeline.start("seal")
    wait_for(lambda: pipeline.log("seal").count("partition_assigned") >= 6, "sealing continues")
    assert pipeline.metric("seal", "grantledger_seal_stopped") == 0

    # The idle log restates its head repeatedly, and everything is sound.
    def restated() -> int:
        return len(committed_records(pipeline.cluster, [f"{LIFECYCLE}.sealed"])[f"{LIFECYCLE}.sealed", 0])

    before = restated()
    wait_for(lambda: restated() >= before + 2, "an idle log restates its head")
    pipeline.start("store")
    wanted = pipeline.metric("seal", "grantledger_log_size_entries")
    wait_for(lambda: pipeline.metric("store", "grantledger_stored_log_size_entries") >= wanted, "everything is stored")
    for source in ("clickhouse", "kafka"):
        _, report = pipeline.verify("--from", source)
        assert report["sound"], json.dumps(report["problems"])
    pipeline.stop()
