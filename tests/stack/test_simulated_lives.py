"""Simulated lives with planted faults through Kafka and Faust: the watch finds the planted faults and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import Producer

from grantledger.kafka.options import transactional_options
from grantledger.ledger.batch import encode
from grantledger.ledger.entry import Genesis
from grantledger.processors.watch.core.judge import Identity, Judge
from grantledger.processors.watch_policy import WatchPolicy
from grantledger.runtime.keys import load_signer
from grantledger.runtime.settings import load_settings
from grantledger.schemas.event import FINDINGS_TOPIC, LIFECYCLE_TOPIC
from grantledger.simulator.company_policy import POLICY
from support.events import produce, read_datum
from support.oracle import committed_records
from support.pipeline import Pipeline
from support.shared_broker import RunningBroker
from support.simulation import Seen, Watched, differences, sealed_batches
from support.virtual_time import Simulation
from support.waiting import wait_for


@pytest.mark.parametrize("lives", [600, pytest.param(2000, marks=pytest.mark.slow)])
def test_planted_faults_are_found_through_kafka_and_faust(
    broker: RunningBroker, make_pipeline: Callable[..., Pipeline], tmp_path: Path, lives: int
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    pipeline = make_pipeline(broker.bootstrap_servers, {"GRANTLEDGER_WATCH_POLICY": str(policy)})
    # A week ago, so that everything has fallen due. The broker would stamp today: the batches are sealed here.
    simulation = Simulation(11, lives, share=0.07, start=datetime.now(UTC) - timedelta(days=7))
    producer = Producer(transactional_options(pipeline.cluster, f"simulation-{lives}"))
    producer.init_transactions(30)
    pipeline.make_key()
    signer = load_signer(load_settings(pipeline.data_dir))
    genesis = Genesis(pipeline.origin(LIFECYCLE_TOPIC), bytes(16), 0)
    for batch, _ in sealed_batches(simulation, 20.0, genesis=genesis, signer=signer):
        producer.begin_transaction()
        producer.produce(pipeline.cluster.physical("access.lifecycle.sealed"), encode(batch), batch.origin, 0)
        producer.commit_transaction(30)
    # What was sealed here never stood in the input; something must, or the watch would not wait for it.
    produce(pipeline.cluster, LIFECYCLE_TOPIC, ({"value": b"sealed already"} for _ in range(batch.next_offset)))
    assert simulation.lifecycles >= lives and len(simulation.planted) > 20
    pipeline.start("watch")
    now = datetime.now(UTC).timestamp()
    judged = "grantledger_watch_judged_until_seconds"
    wait_for(lambda: pipeline.metric("watch", judged) > now, "everything is judged", limit=240)
    assert pipeline.metric("watch", "grantledger_watch_faults_total") == 0
    watched = told(pipeline)
    expected = simulation.expected  # what is gone by then needs no enforcer
    overdue = {(one.key, one.deadline) for one in expected if one.rule == "overdue"}
    still = {(one.key, one.deadline) for one in expected if one.rule == "overdue" and one.ends is None}
    assert still <= watched.revokes <= overdue
    watched.revokes = overdue
    assert differences(expected, watched) == []
    assert len(expected) > lives / 20


def told(pipeline: Pipeline) -> Watched:
    """What the watch has put on record, and who was to be revoked."""
    findings: dict[Identity, Seen] = {}
    revokes: set[tuple[str, int]] = set()
    for _, _, value in committed_records(pipeline.cluster, [FINDINGS_TOPIC])[FINDINGS_TOPIC, 0]:
        datum = read_datum(bytes.fromhex(value or ""))
        if datum["finding"] is None:
            continue
        rule, key, deadline = json.loads(datum["source"]["native_id"])
        at = round(datum["occurred_at"].timestamp() * 1_000_000)
        evidence = json.loads(datum["finding"]["evidence"])
        if datum["event_type"] == "revoke.requested":
            revokes.add((key, deadline))
        elif datum["event_type"] == "finding.opened":
            assert (rule, key, deadline) not in findings, "said twice"
            findings[rule, key, deadline] = Seen(at)
        else:
            seen = findings[rule, key, deadline]
            assert seen.ends is None, "resolved twice"
            seen.ends, seen.late = at, evidence.get("late_seconds")
    return Watched(findings, revokes, Judge(WatchPolicy()))
