"""The watch on a real broker: each overdue grant is found on time and once, despite kills and our own lag."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer

from grantledger.kafka.options import transactional_options
from grantledger.kafka.topics import create_topics
from grantledger.ledger.keys import LocalSigner
from grantledger.processors.watch.kafka_snapshots import KafkaSnapshots
from grantledger.processors.watch.manifest_signature import ManifestSignature
from grantledger.producers import Event
from grantledger.schemas.catalog import SchemaCatalog, WriterSchema, event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import FINDINGS_TOPIC, LIFECYCLE_TOPIC
from grantledger.schemas.framing import Prefix
from grantledger.schemas.topics import COMMANDS_TOPIC, WATCH_TOPIC, topic_specs
from support.events import produce, written
from support.on_time import (
    GRACE,
    WATCH,
    activated,
    judged_until,
    recorded,
    revoked,
    send,
    short_policy,
    watching,
)
from support.pipeline import Pipeline
from support.shared_broker import RunningBroker
from support.waiting import wait_for

Published = tuple[str, str, str]
"""Type, rule and key of a finding or a command."""


@pytest.fixture(scope="module")
def pipeline(
    broker: RunningBroker, make_pipeline: Callable[..., Pipeline], tmp_path_factory: pytest.TempPathFactory
) -> Pipeline:
    running = short_policy(broker, make_pipeline, tmp_path_factory, watch_snapshot_seconds="0.2")
    running.start("seal", "watch")
    return running


def sent(event: Event) -> Event:
    """Return an event as the client library sends it, with its source."""
    return replace(event, source=replace(event.source, system="bot", instance="test"))


def published(pipeline: Pipeline, topic: str = FINDINGS_TOPIC) -> list[Published]:
    """Return what the watch has published to a topic, in order."""
    return [(one.event_type, one.rule, one.key) for one in recorded(pipeline, topic) if one.system == WATCH]


def about(pipeline: Pipeline, name: str) -> list[Published]:
    return [one for one in published(pipeline) if one[2] == name]


def test_overdue_is_found_commanded_and_resolved(pipeline: Pipeline) -> None:
    send(pipeline, activated("late", 0.5), activated("in time", 600), revoked("in time"))
    opened = [("finding.opened", "overdue", "late"), ("revoke.requested", "overdue", "late")]
    wait_for(lambda: about(pipeline, "late") == opened, "the overdue grant is found")
    assert published(pipeline, COMMANDS_TOPIC) == opened[1:]
    send(pipeline, revoked("late"))
    wait_for(lambda: about(pipeline, "late") == [*opened, ("finding.resolved", "overdue", "late")], "it is resolved")
    assert about(pipeline, "in time") == []
    assert "Traceback" not in pipeline.log("watch")


def test_our_own_lag_opens_no_finding(pipeline: Pipeline) -> None:
    given = activated("lagged", 12.0)
    assert given.expires_at is not None
    due = given.expires_at.timestamp() + GRACE
    send(pipeline, given)
    wait_for(lambda: pipeline.metric("watch", "grantledger_watch_grants") >= 3, "the grant is followed")
    pipeline.kill("seal")
    send(pipeline, revoked("lagged"))
    waits = lambda: pipeline.metric("watch", "grantledger_watch_unconfirmed") == 1  # noqa: E731
    wait_for(lambda: time.time() > due and waits(), "the watch reports that it cannot judge yet")
    assert pipeline.metric("watch", "grantledger_watch_lag_entries") == 1
    assert judged_until(pipeline) < due
    pipeline.start("seal")
    wait_for(lambda: judged_until(pipeline) > due, "everything is judged")
    assert about(pipeline, "lagged") == []


def test_an_aborted_transaction_at_the_end_of_the_log_delays_nothing(pipeline: Pipeline) -> None:
    send(pipeline, activated("marked", 4.0))
    producer = Producer(transactional_options(pipeline.cluster, "another-producer"))
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(
        pipeline.cluster.physical(LIFECYCLE_TOPIC), EventEncoder().encode(sent(revoked("marked"))), b"marked"
    )
    producer.flush(10)
    producer.abort_transaction(30)
    wait_for(
        lambda: len(about(pipeline, "marked")) == 2,
        "the aborted removal neither counts nor delays",
    )


def test_an_invalid_event_does_not_block_others(pipeline: Pipeline) -> None:
    schema = event_schema()
    odd, huge = (
        replace(sent(activated("odd", 0.5)), grant_id_kind="nativ"),
        sent(activated("huge" + "\0" * 300_000, 0.5)),
    )
    values = [written(one.to_datum(), schema.definition, schema.prefix) for one in (odd, huge)]
    produce(pipeline.cluster, LIFECYCLE_TOPIC, [{"value": value} for value in values])
    send(pipeline, activated("after odd", 0.5))
    wait_for(lambda: len(about(pipeline, "after odd")) == 2, "the other one is found")

    def faults() -> list[str]:
        return [key for _, rule, key in published(pipeline) if rule == "watch_fault"]

    wait_for(lambda: len(faults()) == 2, "both faults are on record")
    begun = time.time()
    wait_for(lambda: judged_until(pipeline) > begun, "the watch continues")
    entry, grant = sorted(faults())
    assert entry == "bot/test" and grant.startswith("grant default/bot/test/huge") and len(grant) < 1000
    assert about(pipeline, "odd") == []


def test_a_standby_takes_over(pipeline: Pipeline) -> None:
    pipeline.twin("standby", "watch", GRANTLEDGER_WATCH_INSTANCE="1")
    wait_for(lambda: '"standing_by"' in pipeline.log("standby") or watching(pipeline, "standby"), "it stands by")

    def parts() -> tuple[str, str] | None:
        for one, other in (("watch", "standby"), ("standby", "watch")):
            if watching(pipeline, one) and not watching(pipeline, other):
                return one, other
        return None

    first, second = wait_for(parts, "one of them watches")
    send(pipeline, activated("orphan", 0.5))
    pipeline.kill(first)
    wait_for(lambda: len(about(pipeline, "orphan")) == 2, "the other one has found it", limit=90)
    assert watching(pipeline, second)
    pipeline.stop("standby")
    if first == "watch":
        pipeline.start("watch")
    wait_for(lambda: watching(pipeline, "watch"), "the first watches again", limit=90)


def test_killed_at_any_moment_it_publishes_each_finding_once(pipeline: Pipeline) -> None:
    draw = random.Random(20261123)
    names = [f"k-{number}" for number in range(200)]
    late, removed_later = set(draw.sample(names, 120)), set(draw.sample(names, 40))
    send(pipeline, *(activated(name, draw.uniform(0.5, 16.0) if name in late else 3600) for name in names))
    began = time.monotonic()
    for _ in range(6):
        time.sleep(draw.uniform(0.3, 4.5))  # during its start, while it replays, or at work
        pipeline.kill("watch")
        send(pipeline, *(revoked(name) for name in draw.sample(sorted(removed_later), 5)))
        pipeline.start("watch")
    send(pipeline, *(revoked(name) for name in removed_later))
    until = time.time() + max(0.0, 16.0 + GRACE - (time.monotonic() - began))
    wait_for(lambda: judged_until(pipeline) > until, "everything is judged", limit=120)
    found = [one for one in published(pipeline) if one[2].startswith("k-")]
    assert len(found) == len(set(found)), "a finding was published twice"
    opened = {key for what, rule, key in found if (what, rule) == ("finding.opened", "overdue")}
    resolved = {key for what, _, key in found if what == "finding.resolved"}
    assert late - removed_later <= opened <= late
    assert resolved == opened & removed_later
    assert {key for what, _, key in found if what == "revoke.requested"} <= opened
    commands = [key for _, _, key in published(pipeline, COMMANDS_TOPIC) if key.startswith("k-")]
    assert sorted(commands) == sorted(key for what, _, key in found if what == "revoke.requested")
    assert late - removed_later <= set(commands)


def test_after_a_kill_it_continues_from_a_snapshot(pipeline: Pipeline) -> None:
    found = [json.loads(line) for line in pipeline.log("watch").splitlines() if '"restored"' in line]
    assert any(line["entries"] > 0 and line["grants"] > 0 for line in found), found


def test_without_snapshots_it_rebuilds_its_state_from_the_log(pipeline: Pipeline) -> None:
    before = published(pipeline)
    pipeline.stop("watch")
    admin = pipeline.cluster.admin
    topic = pipeline.cluster.physical(WATCH_TOPIC)
    for deleted in admin.delete_topics([topic]).values():
        deleted.result(30)
    wait_for(lambda: topic not in admin.list_topics(timeout=10).topics, "the topic is deleted")
    create_topics(pipeline.cluster, topic_specs(4, 0))
    pipeline.start("watch")
    began = time.time()
    wait_for(lambda: judged_until(pipeline) > began, "everything is judged again")
    assert '"entries": 0' in [line for line in pipeline.log("watch").splitlines() if '"restored"' in line][-1]
    assert published(pipeline) == before


def test_a_fenced_watch_cannot_write_snapshots(pipeline: Pipeline) -> None:
    pipeline.stop("watch")  # it writes to the same topic
    catalog, signer = SchemaCatalog((event_schema(),)), LocalSigner.generate()
    signature = ManifestSignature("fenced.example", signer, lambda: {signer.public_key})

    def taken_over() -> tuple[KafkaSnapshots, list[bytes]]:
        made = KafkaSnapshots(pipeline.cluster, catalog, signature)
        return made, list(made.manifests())

    locations: dict[bytes, list[int]] = {}

    def manifest(name: bytes) -> Callable[[Sequence[int]], bytes]:
        def named(found: Sequence[int]) -> bytes:
            locations[name] = list(found)
            return name

        return named

    first, before = taken_over()
    for name in (b"one", b"two", b"three"):
        first.write_snapshot([name + b"-a", name + b"-b"], manifest(name))
    second, found = taken_over()
    assert (before, found) == ([], [b"three", b"two"])
    for name in found:
        assert second.read_parts(locations[name]) == [name + b"-a", name + b"-b"]
    with pytest.raises(KafkaException):
        first.write_snapshot([b"late"], manifest(b"late"))
    second.write_snapshot([], manifest(b"four"))
    assert taken_over()[1] == [b"four", b"three"]
    assert second.read_parts([max(locations[b"three"]) + 1000]) == []
    other = SchemaCatalog((event_schema(), WriterSchema(Prefix(b"other"), "{}")))
    assert KafkaSnapshots(pipeline.cluster, other, signature).log_id() != second.log_id(), "it may decode more"


def test_an_invalid_policy_is_reported(pipeline: Pipeline, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[default]\ngrace = 5\n")
    pipeline.environment["GRANTLEDGER_WATCH_POLICY"], kept = (
        str(wrong),
        pipeline.environment["GRANTLEDGER_WATCH_POLICY"],
    )
    answer = pipeline.run("run", "watch")
    pipeline.environment["GRANTLEDGER_WATCH_POLICY"] = kept
    assert answer.returncode == 2
    assert "wrong.toml:2: default.grace" in answer.stderr and "Traceback" not in answer.stderr


def test_after_a_clean_stop_it_reads_nothing_again(
    broker: RunningBroker, make_pipeline: Callable[..., Pipeline], tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = short_policy(broker, make_pipeline, tmp_path_factory, watch_snapshot_seconds="3600")
    own.start("seal", "watch")
    send(own, activated("kept", 600), activated("overdue", 0.5))
    opened = [("finding.opened", "overdue", "overdue"), ("revoke.requested", "overdue", "overdue")]
    wait_for(lambda: about(own, "overdue") == opened, "the overdue grant is found")
    own.stop("watch")
    own.start("watch")
    began = time.time()
    wait_for(lambda: judged_until(own) > began, "it judges again")
    [restored] = [json.loads(line) for line in own.log("watch").splitlines() if '"restored"' in line]
    assert (restored["entries"], restored["grants"]) == (2, 2)
    assert about(own, "overdue") == opened
