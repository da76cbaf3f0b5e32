"""Others write to the sealed topic: the watch skips forged records and stops at a discontinuity."""

from __future__ import annotations

from confluent_kafka import Producer

from grantledger.kafka.records import read_whole
from grantledger.schemas.event import LIFECYCLE_TOPIC
from grantledger.schemas.topics import sealed
from support.on_time import FOUND, about, activated, recorded, revoked, send, supervised
from support.pipeline import Pipeline
from support.waiting import wait_for

LOG = sealed(LIFECYCLE_TOPIC)


def append(pipeline: Pipeline, value: bytes) -> None:
    """Write a record to the sealed topic, as only the sealer should."""
    producer = Producer(pipeline.options)
    producer.produce(pipeline.cluster.physical(LOG), value)
    assert producer.flush(30) == 0


def test_the_watch_goes_on_after_its_input_topic_was_created_again(pipeline: Pipeline) -> None:
    """A person opens the next epoch. The sealer and the watch need no hand."""
    send(pipeline, activated("before", 6.0))
    wait_for(lambda: pipeline.metric("watch", "grantledger_watch_grants") >= 1, "it is applied")
    with supervised(pipeline.children) as seen:
        pipeline.remake_topics(LIFECYCLE_TOPIC)
        send(pipeline, activated("unsealed", 0.5))
        wait_for(lambda: pipeline.metric("seal", "grantledger_seal_stopped") == 1, "the log is stopped")
        opened = pipeline.run("epoch", "open", "--without-store", "--reason", "a test", "--yes")
        assert opened.returncode == 0, opened.stderr
        send(pipeline, activated("after", 0.5))
        for name in ("before", "unsealed", "after"):
            wait_for(lambda name=name: about(pipeline, name)[:2] == FOUND, f"{name} is found")
        send(pipeline, revoked("before"))
        wait_for(lambda: "finding.resolved" in about(pipeline, "before"), "the removal counts")
    assert "watch" not in seen.ends


def test_a_forged_record_is_skipped_and_a_discontinuity_stops_the_watch(pipeline: Pipeline) -> None:
    send(pipeline, activated("first", 0.5))
    wait_for(lambda: "finding.opened" in about(pipeline, "first"), "the watch is at work")
    genuine = next(read_whole(pipeline.cluster, LOG, 0)).value() or b""
    append(pipeline, genuine[:-20] + bytes(20))
    append(pipeline, b"no batch")
    send(pipeline, revoked("first"), activated("second", 0.5))
    wait_for(lambda: "finding.opened" in about(pipeline, "second"), "reading continues after the forged records")
    wait_for(lambda: "finding.resolved" in about(pipeline, "first"), "later batches count")

    def rules() -> list[str]:
        found = [one.rule for one in recorded(pipeline) if one.rule.startswith("sealed_")]
        return sorted(found)

    wait_for(lambda: rules() == ["sealed_record_invalid"] * 2, "both findings are on record")
    append(pipeline, genuine)
    child = pipeline.children["watch"]
    wait_for(lambda: not child.alive(), "the watch stops")
    assert child.exit_code == 3 and "does not continue" in pipeline.log("watch")
    wait_for(lambda: rules() == ["sealed_log_discontinuous", *["sealed_record_invalid"] * 2], "it is on record")
