"""``grantledger run alert`` with Kafka: it delivers each finding, even if it is killed at the worst moments."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from grantledger.kafka.offsets import end_offset
from grantledger.kafka.records import last_record, read_whole
from grantledger.ledger import batch as batches
from grantledger.producers import Actor, Event
from grantledger.runtime.children import Child, ChildSpec
from grantledger.schemas.event import FINDINGS_TOPIC
from grantledger.schemas.topics import sealed
from support.alerting import FindingsLog, alertmanager_toml, event, soon, webhook_toml
from support.alertmanager import Alertmanager, running
from support.pipeline import Pipeline
from support.receiver import SECRET, Receiver, receiving
from support.shared_broker import RunningBroker
from support.waiting import wait_for


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    with running(tmp_path_factory.mktemp("alertmanager")) as started:
        yield started


@pytest.fixture(scope="module")
def pipeline(
    broker: RunningBroker,
    make_pipeline: Callable[..., Pipeline],
    receiver: Receiver,
    alertmanager: Alertmanager,
    tmp_path_factory: pytest.TempPathFactory,
) -> Pipeline:
    folder = tmp_path_factory.mktemp("alerts")
    secret = folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    config = folder / "alerts.toml"
    config.write_text(
        "storm_after = 1000\n"
        + webhook_toml("tickets", receiver.url, str(secret), backoff_seconds=0.1, timeout_seconds=20)
        + alertmanager_toml("oncall", alertmanager.url, interval_seconds=0.5, ends_after_seconds=60)
    )
    made = make_pipeline(broker.bootstrap_servers, {"GRANTLEDGER_ALERT_CONFIG": str(config)})
    made.start("seal")
    return made


def publish(pipeline: Pipeline, *events: Event) -> None:
    """Publish findings, and wait until they are sealed."""
    pipeline.publish(*events)
    end = end_offset(pipeline.cluster, FINDINGS_TOPIC, 0)

    def is_sealed() -> bool:
        samples = pipeline.children["seal"].metrics().items()
        return any(
            n == "grantledger_seal_position_offset" and FINDINGS_TOPIC in at and v >= end for (n, at), v in samples
        )

    wait_for(is_sealed, "the findings are sealed", pause=0.05)


def wait_read(pipeline: Pipeline) -> None:
    """Wait until all sealed findings have been read."""
    last = last_record(pipeline.cluster, sealed(FINDINGS_TOPIC), 0)
    assert last is not None
    wanted = (last.offset() or 0) + 1
    wait_for(lambda: pipeline.metric("alert", "grantledger_alert_position_offset") >= wanted, "all is read", pause=0.05)


def listed(pipeline: Pipeline) -> dict[str, Any]:
    answer = pipeline.run("channels", "-o", "json")
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def firing(alertmanager: Alertmanager) -> set[str]:
    return {alert["labels"]["key"] for alert in alertmanager.alerts()}


def test_killed_during_a_delivery_it_neither_loses_nor_repeats_a_finding(
    pipeline: Pipeline, receiver: Receiver, alertmanager: Alertmanager
) -> None:
    publish(pipeline, event("opened", "past"), event("opened", "b", at=soon(-60)), event("resolved", "past"))
    receiver.answer(0)  # accepts the message and never answers
    pipeline.start("alert")
    wait_for(lambda: receiver.requests, "the first message has arrived")
    pipeline.kill("alert")
    (taken,) = receiver.requests
    assert taken.json["data"]["key"] == "b", "findings that ended before the first start are not delivered"

    receiver.answer(200)
    pipeline.start("alert")
    wait_for(lambda: len(receiver.requests) >= 2, "it is delivered again")
    wait_for(lambda: firing(alertmanager) == {"b"}, "Alertmanager has it")
    publish(pipeline, event("opened", "c", at=soon(0)), event("resolved", "b", at=soon(0)))
    wait_for(lambda: len(receiver.requests) >= 4, "later findings are delivered")
    wait_for(lambda: firing(alertmanager) == {"c"}, "Alertmanager shows what is open now")

    publish(pipeline, event("opened", "c"), event("opened", "b"), event("resolved", "past"))  # an exact replay
    wait_read(pipeline)
    publish(pipeline, event("opened", "last", at=soon(0)))
    wait_for(lambda: receiver.findings()[-1][1] == "last", "findings after the replay are delivered")
    delivered = receiver.findings()
    assert [what for what, key in delivered if key == "b"] == ["finding.opened", "finding.opened", "finding.resolved"]
    assert [one for one in delivered if one[1] != "b"] == [("finding.opened", "c"), ("finding.opened", "last")]
    ids = receiver.ids()
    assert ids[0] == ids[1] and len(set(ids)) == 4
    assert receiver.requests[0].body == receiver.requests[1].body
    wait_for(lambda: firing(alertmanager) == {"c", "last"}, "no ended finding fires again")


def test_killed_repeatedly_under_load_it_delivers_each_finding(pipeline: Pipeline, receiver: Receiver) -> None:
    receiver.requests.clear()
    keys = [f"load-{number}" for number in range(24)]
    kills = 3
    for part in range(kills + 1):
        mine = keys[part * 6 : part * 6 + 6]
        before = len(receiver.requests)
        publish(pipeline, *(event("opened", key, at=soon(0)) for key in mine))
        wait_for(lambda before=before: len(receiver.requests) >= before + 2, "some are delivered", pause=0.005)
        if part < kills:
            pipeline.kill("alert")
            pipeline.start("alert")
    wait_for(lambda: {key for _, key in receiver.findings()} >= set(keys), "each is delivered")
    wait_read(pipeline)
    wait_for(lambda: all(one["pending"] == 0 for one in listed(pipeline)["channels"]), "nothing is pending", pause=0.5)
    by_key: dict[str, set[str]] = {}
    for request in receiver.requests:
        by_key.setdefault(request.json["data"]["key"], set()).add(request.headers["webhook-id"])
    assert set(by_key) == set(keys)
    assert all(len(ids) == 1 for ids in by_key.values()), "a repeated message has the same id"
    twice = [key for key, times in Counter(key for _, key in receiver.findings()).items() if times > 1]
    assert len(twice) <= kills, "only messages in flight at a kill are repeated"
    assert len({key for keys in [by_key] for key in keys}) == len(keys)


def test_the_command_lists_channels_and_open_alerts(pipeline: Pipeline) -> None:
    status = listed(pipeline)
    assert {one["key"] for one in status["open"]} == {"c", "last", *(f"load-{number}" for number in range(24))}
    assert {one["name"]: one["state"] for one in status["channels"]} == {"oncall": "ready", "tickets": "ready"}
    answer = pipeline.run("channels")
    assert answer.returncode == 0 and "alice@example.com" in answer.stdout and "oncall repeating" in answer.stdout
    assert pipeline.run("channels", "-q").stdout.split() == ["oncall", "tickets"]
    refused = pipeline.run("channels", "enable", "oncal")
    assert refused.returncode == 2
    assert "there is no channel oncal; there are oncall, tickets. Did you mean 'oncall'?" in refused.stderr
    assert "tickets was not disabled" in pipeline.run("channels", "enable", "tickets").stdout
    person = {"actor": Actor("carol", "human"), "reason": "a false alarm, INC-1"}
    publish(pipeline, event("acknowledged", "c", at=soon(0), **person))
    wait_read(pipeline)
    (shown,) = [one for one in listed(pipeline)["open"] if one["key"] == "c"]
    assert shown["acknowledged_by"] == "carol"
    publish(pipeline, event("closed", "c", at=soon(0), **person))
    wait_read(pipeline)
    assert "c" not in {one["key"] for one in listed(pipeline)["open"]}


def test_a_second_process_over_the_same_outbox_is_refused(pipeline: Pipeline) -> None:
    second = pipeline.run("run", "alert")
    assert second.returncode == 1 and "in use" in second.stderr


def test_metrics_and_logs(pipeline: Pipeline) -> None:
    wait_for(lambda: pipeline.metric("alert", "grantledger_alert_reading") == 1, "Kafka is read")
    assert pipeline.metric("alert", "grantledger_alert_pending") == 0
    assert pipeline.metric("alert", "grantledger_alert_deliveries_total") > 0
    assert pipeline.metric("alert", "grantledger_alert_unreadable_total") == 0
    assert pipeline.metric("alert", "grantledger_alert_missed_entries_total") == 0
    text = pipeline.log("alert")
    for word in (SECRET, SECRET.removeprefix("whsec_"), "alice@example.com"):
        assert word not in text


def test_pending_alerts_are_delivered_without_kafka(pipeline: Pipeline, receiver: Receiver) -> None:
    receiver.requests.clear()
    receiver.answer(503)
    publish(pipeline, event("opened", "waiting", at=soon(0)))
    wait_for(lambda: receiver.requests, "a delivery was attempted")
    pipeline.stop("alert")
    assert pipeline.children["alert"].exit_code == 0, "a stop is not a failure"
    receiver.answer(200)
    count = len(receiver.requests)
    alone = {**pipeline.environment, "GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    child = Child(ChildSpec("alert", ("run", "alert")), Path(pipeline.data_dir), alone)
    child.start()
    try:
        wait_for(lambda: len(receiver.requests) > count, "it is delivered without Kafka")
        assert receiver.findings()[-1] == ("finding.opened", "waiting")
        assert len(set(receiver.ids())) == 1
    finally:
        assert child.stop(), "it does not stop while Kafka is unreachable"


def test_without_its_outbox_it_delivers_open_findings_under_the_same_ids(
    pipeline: Pipeline, receiver: Receiver
) -> None:
    known = {request.headers["webhook-id"] for request in receiver.requests}
    receiver.requests.clear()
    for path in (pipeline.data_dir / "alerts").glob("outbox.sqlite3*"):
        path.unlink()
    pipeline.start("alert")
    ended = {"b", "c", "past"}
    wait_for(
        lambda: {key for _, key in receiver.findings()} >= {"last", "waiting", "load-23"}, "open findings are delivered"
    )
    wait_read(pipeline)
    assert ended.isdisjoint({key for _, key in receiver.findings()})
    assert known <= set(receiver.ids())


def append(pipeline: Pipeline, value: bytes | None) -> None:
    """Write a record to the sealed topic, as only the sealer should."""
    producer = Producer(pipeline.options)
    producer.produce(pipeline.cluster.physical(sealed(FINDINGS_TOPIC)), value)
    assert producer.flush(30) == 0


def test_a_forged_batch_is_skipped_and_a_discontinuity_is_alerted_before_the_process_stops(
    pipeline: Pipeline, receiver: Receiver, alertmanager: Alertmanager
) -> None:
    wait_read(pipeline)
    append(pipeline, batches.encode(FindingsLog().batch(event("opened", "forged", at=soon(0)))))
    publish(pipeline, event("opened", "genuine", at=soon(0)))
    wait_for(lambda: "genuine" in {key for _, key in receiver.findings()}, "reading continues after the forged record")

    def rules() -> list[str]:
        return [request.json["data"]["rule"] for request in receiver.requests]

    wait_for(lambda: "sealed_record_invalid" in rules(), "the forged record is a finding")
    assert "forged" not in {key for _, key in receiver.findings()}

    receiver.answer(503, 503, 200)
    append(pipeline, next(read_whole(pipeline.cluster, sealed(FINDINGS_TOPIC), 0)).value())
    alert = pipeline.children["alert"]
    wait_for(lambda: not alert.alive(), "the process stops")
    assert alert.exit_code == 3 and "does not continue the log" in pipeline.log("alert")
    assert rules()[-3:] == ["sealed_log_discontinuous"] * 3, "it stops only after the alert is delivered"
    assert {"sealed_log_discontinuous"} <= {one["labels"]["rule"] for one in alertmanager.alerts()}
