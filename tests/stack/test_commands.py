"""Commands on a running pipeline: query, keys, topics, settings, findings, erase, init; and logs and metrics."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from grantledger.ledger.note import open_checkpoint
from grantledger.processors.notices import SEALING, finding_opened
from grantledger.runtime.store_lag import NOTED_SECONDS, read_store_lag
from support.access_store import columns_with, opened_elsewhere
from support.command import run_command
from support.oracle import assert_sound, wait_until_stored
from support.pipeline import Pipeline
from support.shared_broker import RunningBroker
from support.waiting import wait_for

SECRET_WORDS = ("quartz-reason-4711", "UPDATE vault_of_zanzibar")


@pytest.fixture(scope="module")
def pipeline(broker: RunningBroker, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    running = make_pipeline(broker.bootstrap_servers, {"GRANTLEDGER_KEY_PASSPHRASE": "a passphrase of tests"})
    running.start()
    grant = running.run(
        "emit", "grant.activated", "--subject", "alice", "--resource-kind", "database", "--resource", "orders",
        "--entitlement", "rw", "--expires-in", "1h", "--grant-id", "g1", "--request-id", "r1",
        "--reason", SECRET_WORDS[0],
    )  # fmt: skip
    assert grant.returncode == 0, grant.stderr
    events = [
        {"event_type": "request.created", "subject": {"id": "alice"}, "request_id": "r1", "entitlement": "rw",
         "resource": {"kind": "database", "id": "orders"}},
        {"event_type": "session.started", "subject": {"id": "alice"}, "session_id": "s1", "grant_id": "g1",
         "grant_id_kind": "native"},
        {"event_type": "session.query", "subject": {"id": "alice"}, "session_id": "s1",
         "action": {"query": SECRET_WORDS[1]}},
        {"event_type": "grant.activated", "subject": {"id": "bob"}, "grant_id": "g2", "entitlement": "ro",
         "resource": {"kind": "database", "id": "orders"}, "expiry_source": "unknown"},
        {"event_type": "grant.revoked", "subject": {"id": "bob"}, "grant_id": "g2", "entitlement": "ro",
         "resource": {"kind": "database", "id": "orders"}, "removal_evidence": "confirmed"},
    ]  # fmt: skip
    sent = running.run("emit", "--stdin", stdin="\n".join(map(json.dumps, events)))
    assert sent.returncode == 0, sent.stderr
    running.wait_stored(6)
    running.wait_shown()
    return running


def test_active_grants_omits_revoked_grants(pipeline: Pipeline) -> None:
    rows = pipeline.query("SELECT grant_id, subject_id, past_deadline, reason FROM active_grants")
    assert rows == [{"grant_id": "g1", "subject_id": "alice", "past_deadline": False, "reason": SECRET_WORDS[0]}]


def test_a_grants_timeline_has_its_request_and_its_sessions(pipeline: Pipeline) -> None:
    rows = pipeline.query(
        "SELECT event_type, what FROM grant_timeline WHERE grant_id = 'g1' ORDER BY append_time, index"
    )
    assert {row["event_type"] for row in rows} == {
        "request.created",
        "grant.activated",
        "session.started",
        "session.query",
    }
    assert SECRET_WORDS[1] in {row["what"] for row in rows}
    assert len(rows) == 4


def test_every_column_of_every_view_is_explained(pipeline: Pipeline) -> None:
    views = pipeline.query("SELECT name FROM system.tables WHERE database = 'audit' AND engine = 'View'")
    assert {"events", "rejected_events", "checkpoints", "grant_timeline", "active_grants"} <= {v["name"] for v in views}
    bare = pipeline.query(
        "SELECT table, name FROM system.columns WHERE database = 'audit' AND comment = '' AND table NOT IN "
        "(SELECT name FROM system.tables WHERE engine = 'MaterializedView')"
    )
    assert bare == []


def test_query_answers_in_any_format_and_rejects_other_statements(pipeline: Pipeline) -> None:
    answer = pipeline.run("query", "SELECT subject_id FROM active_grants FORMAT CSVWithNames;")
    assert list(csv.reader(io.StringIO(answer.stdout))) == [["subject_id"], ["alice"]]
    for sql in ("INSERT INTO entries SELECT * FROM entries", "SELECT * FROM file('/etc/passwd')", "SELEKT 1"):
        refused = pipeline.run("query", sql)
        assert refused.returncode == 1 and "Traceback" not in refused.stderr and "Code:" in refused.stderr


def test_keys_verify_the_checkpoints_that_are_stored(pipeline: Pipeline) -> None:
    printed = json.loads(pipeline.run("keys", "-o", "json").stdout)
    keys = {row["origin"]: row["verifier_key"] for row in printed}
    for row in pipeline.query("SELECT origin, note FROM checkpoints"):
        name, _, encoded = keys[row["origin"]].split("+", 2)
        public_key = base64.b64decode(encoded)[1:]
        assert name == row["origin"] and row["note"].startswith(f"{name}\n")
        checkpoint = open_checkpoint(row["note"], public_key)
        assert checkpoint.origin == name


def test_the_private_key_is_encrypted_and_private(pipeline: Pipeline) -> None:
    path = pipeline.data_dir / "keys" / "log.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"ENCRYPTED PRIVATE KEY" in path.read_bytes()


def test_settings_never_show_a_secret(pipeline: Pipeline) -> None:
    answer = pipeline.run("settings")
    assert answer.returncode == 0 and "a passphrase of tests" not in answer.stdout


def test_logs_contain_no_payload_and_no_secret(pipeline: Pipeline) -> None:
    for name in ("seal", "store", "anchor"):
        text = pipeline.log(name)
        assert text
        for word in (*SECRET_WORDS, "a passphrase of tests"):
            assert word not in text


def test_metrics_count_the_events(pipeline: Pipeline) -> None:
    assert pipeline.metric("seal", "grantledger_sealed_entries_total") >= 6
    assert pipeline.metric("store", "grantledger_stored_entries_total") >= 6
    assert pipeline.metric("seal", "grantledger_last_checkpoint_timestamp_seconds") > 0
    wait_for(lambda: pipeline.metric("anchor", "grantledger_last_anchor_timestamp_seconds") > 0, "an anchor is made")


def test_topics_check_reports_differences(pipeline: Pipeline) -> None:
    assert pipeline.run("topics", "check").returncode == 0
    admin, topic = pipeline.cluster.admin, pipeline.cluster.physical("access.lifecycle.sealed")
    entry = ConfigEntry("retention.ms", "60000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)
    answer = pipeline.run("topics", "check")
    assert answer.returncode == 1 and "access.lifecycle.sealed has retention.ms=60000" in answer.stdout
    undo = ConfigEntry("retention.ms", "-1", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[undo])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)


def stored_finding(pipeline: Pipeline, key: str) -> str:
    """Publish a finding; return its id once it is the only open one in the store."""
    at = datetime.now(UTC)
    event = finding_opened(
        pipeline.deployment, SEALING, rule="head_mismatch", key=key, evidence={}, at=at, identity=key
    )
    pipeline.publish(event)

    def listed() -> list[str]:
        return pipeline.run("findings", "-q").stdout.split()

    [found] = wait_for(listed, "the finding is stored")
    return found


def test_a_person_acknowledges_and_closes_a_finding(pipeline: Pipeline) -> None:
    found = stored_finding(pipeline, "access.activity/0")
    for decision, arguments in (("ack", ()), ("close", ("--reason", "restored from a copy"))):
        answer = pipeline.run("findings", decision, found[:6], "--as", "carol", *arguments)
        assert answer.returncode == 0, answer.stderr

    def closed() -> bool:
        return pipeline.run("findings").stdout == "No open findings.\n"

    wait_for(closed, "the finding is closed")
    [shown] = [json.loads(pipeline.run("findings", "show", found, "-o", "json").stdout)]
    assert [each["event_type"] for each in shown["events"]] == [
        "finding.opened",
        "finding.acknowledged",
        "finding.closed",
    ]
    assert (shown["closed_by"], shown["closed_reason"]) == ("carol", "restored from a copy")
    kinds = pipeline.query("SELECT DISTINCT actor_kind FROM entries WHERE event_type = 'finding.closed'")
    assert kinds == [{"actor_kind": "human"}]
    again = pipeline.run("findings", "close", found, "--reason", "once more")
    assert again.returncode == 2 and "is not open" in again.stderr


def test_a_store_that_is_behind_is_noted_and_hides_no_decision(pipeline: Pipeline) -> None:
    found = stored_finding(pipeline, "access.activity/1")
    assert "The store" not in pipeline.run("findings").stderr
    pipeline.stop("store")
    with opened_elsewhere(pipeline.data_dir):  # and stored no more
        assert pipeline.run("findings", "ack", found, "--as", "carol").returncode == 0
        assert pipeline.run("findings", "close", found, "--as", "carol", "--reason", "restored").returncode == 0
        for decision in (("close", "--reason", "again"), ("ack",)):
            again = pipeline.run("findings", decision[0], found, *decision[1:])
            assert again.returncode == 2 and "is closed by carol; the store is behind" in again.stderr

        def lag() -> float:  # far cheaper than a command, which starts the engine
            return read_store_lag(pipeline.cluster, pipeline.deployment).seconds

        wait_for(lambda: lag() > NOTED_SECONDS, "the store is far behind")
        listed = pipeline.run("findings", "-o", "json")
        assert [row["id"] for row in json.loads(listed.stdout)] == [found]
        assert re.search(r"^The store does not contain \d+ sealed entr(y|ies) yet: this answer lacks ", listed.stderr)
        for command in (("grants",), ("grants", "show", "g1"), ("query", "SELECT 1")):
            answer = pipeline.run(*command)
            assert answer.returncode == 0 and len(re.findall("^The store does not ", answer.stderr, re.MULTILINE)) == 1
        assert "The store" not in pipeline.run("grants", "-q").stderr
        status = pipeline.run("status", "-o", "json")
        assert json.loads(status.stdout)["store_behind"]["seconds"] > 10
    pipeline.start("store")
    wait_until_stored(pipeline)  # a command would open the folder before the store does
    wait_for(lambda: pipeline.run("findings").stdout == "No open findings.\n", "the finding is closed")
    caught_up = wait_for(lambda: "every sealed entry" in pipeline.run("status").stdout, "the store has everything")
    assert caught_up


def test_erase_asks_first_and_then_removes_the_payload_from_every_table(pipeline: Pipeline) -> None:
    assert "entries.query" in columns_with(SECRET_WORDS[1], pipeline.query)
    [row] = pipeline.query("SELECT origin, index FROM entries WHERE event_type = 'session.query'")
    entry = f"{row['origin']}:{row['index']}"
    for arguments, code, text in (
        ((entry, "--legal-basis", " "), 2, "must not be empty"),
        ((f"{row['origin']}:999", "--legal-basis", "x", "--yes"), 2, "has no entry"),
        (("elsewhere/a/0/0:1", "--legal-basis", "x", "--yes"), 2, "the entry is not of this deployment"),
        ((entry, "--legal-basis", "x"), 1, ""),
    ):
        refused = pipeline.run("erase", *arguments)
        assert refused.returncode == code and text in refused.stderr, refused.stderr
    erased = pipeline.run("erase", entry, "--legal-basis", "GDPR art. 17, request 4711", "--as", "carol", "--yes")
    assert erased.returncode == 0, erased.stderr
    sql = "SELECT subject_id, actor_id, actor_kind, reason FROM entries WHERE event_type = 'payload.erased'"
    [event] = wait_for(lambda: pipeline.query(sql), "the erasure is sealed and stored")
    assert event == {
        "subject_id": entry.replace(":", "#"),
        "actor_id": "carol",
        "actor_kind": "human",
        "reason": "GDPR art. 17, request 4711",
    }
    wait_for(lambda: columns_with(SECRET_WORDS[1], pipeline.query) == [], "the payload is in no table")
    [left] = pipeline.query(
        "SELECT erased_at IS NOT NULL AND isNull(key) AND isNull(value) AS gone, startsWith(decode_error, 'erased:') "
        f"AS reason FROM entries WHERE origin = '{row['origin']}' AND index = {row['index']}"
    )
    assert {name: bool(value) for name, value in left.items()} == {"gone": True, "reason": True}
    wait_until_stored(pipeline)
    assert_sound(pipeline)  # from ClickHouse and from Kafka, whose retention removes its copy of the payload
    again = pipeline.run("erase", entry, "--legal-basis", "x", "--yes")
    assert again.returncode == 2 and "is erased already" in again.stderr


def test_init_refuses_an_existing_ledger(pipeline: Pipeline, tmp_path: Path) -> None:
    refused = pipeline.run("init")
    assert refused.returncode == 2 and "exists already" in refused.stderr
    elsewhere = pipeline.run("init", "--data", str(tmp_path))  # without the key, over the same ledger
    assert elsewhere.returncode == 2 and "the topics have a ledger already" in elsewhere.stderr
    assert not (tmp_path / "keys").exists()


def test_init_creates_topics_and_keys_on_an_empty_cluster(pipeline: Pipeline, tmp_path: Path) -> None:
    environment = {**pipeline.environment, "GRANTLEDGER_TOPIC_PREFIX": "new.", "GRANTLEDGER_DEPLOYMENT": "new.example"}
    environment["GRANTLEDGER_DATA_DIR"] = str(tmp_path)
    missing = run_command("run", "seal", environment=environment)
    assert missing.returncode == 2 and "create it with `grantledger init`" in missing.stderr
    created = run_command("init", "-o", "json", environment=environment)
    assert created.returncode == 0, created.stderr
    assert all(row["verifier_key"].startswith(row["origin"]) for row in json.loads(created.stdout))
    assert "back it up now" in created.stderr and (tmp_path / "keys" / "log.pem").exists()


def test_status_shows_processes_that_run_on_their_own(pipeline: Pipeline) -> None:
    status = json.loads(pipeline.run("status", "-o", "json").stdout)
    assert {each["name"] for each in status["processes"]} == {"seal", "store", "anchor"}
    assert status["stored"] >= 6 and status["troubles"] == []


def test_query_and_verify_work_when_nothing_runs(pipeline: Pipeline) -> None:
    pipeline.stop()
    assert pipeline.query("SELECT count() AS c FROM active_grants") == [{"c": 1}]
    assert pipeline.run("query", "SELECT * FROM file('/etc/passwd')").returncode == 1
    code, report = pipeline.verify()
    assert code == 0, report["problems"]
