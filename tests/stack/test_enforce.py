"""The enforcer on a real broker: it carries out commands, records results, and skips what it must; and the dry run."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer

from grantledger.enforcers.event_writer import TransactionalEventWriter, kafka_errors
from grantledger.enforcers.events import Recorder
from grantledger.kafka.errors import KafkaUnavailableError
from grantledger.kafka.offsets import committed_offset, end_offset
from grantledger.kafka.options import reader_options, transactional_options
from grantledger.kafka.transactional_writer import TransactionalWriter, TransactionHangsError
from grantledger.ledger.keys import LogKeys
from grantledger.runtime.operator_events import request_revocation
from grantledger.runtime.sealed_logs import sealed_logs
from grantledger.schemas.catalog import event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import (
    FINDINGS_TOPIC,
    LIFECYCLE_TOPIC,
    Event,
    EventSource,
    Finding,
    IssuingSource,
    Resource,
    Subject,
)
from grantledger.schemas.topics import COMMANDS_TOPIC
from support.enforcing import DEADLINE, Enforcement, activation, revocation
from support.events import event, produce, written
from support.oracle import wait_until_stored
from support.pipeline import Pipeline, samples
from support.receiver import KEY, SECRET, Receiver, status
from support.shared_broker import RunningBroker
from support.waiting import wait_for

NUMBERS = count()
NO_KEY = LogKeys.single(bytes(32))
CONFIRMED = [("revoke.attempted", "pending", 1), ("revoke.attempted", "success", 1), ("revoke.confirmed", "success", 1)]


@pytest.fixture(scope="module")
def pipeline(broker: RunningBroker, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    return make_pipeline(broker.bootstrap_servers)


@pytest.fixture
def deploy(pipeline: Pipeline, tmp_path: Path) -> Iterator[Callable[..., Enforcement]]:
    made: list[Enforcement] = []

    def make(**settings: str) -> Enforcement:
        number = next(NUMBERS)
        made.append(Enforcement(pipeline, f"enforce-{number}.example", tmp_path / str(number), **settings))
        return made[-1]

    yield make
    for one in made:
        one.stop()


Deploy = Callable[..., Enforcement]


def row_of(command: Event) -> dict[str, Any]:
    """Return the grant of a command as the view ``grants`` has it."""
    assert command.resource is not None and command.grant_source is not None and command.finding is not None
    return {
        "grant_id": command.grant_id, "grant_key": f"default/bot/eu-1/{command.grant_id}", "tenant": command.tenant,
        "subject_id": command.subject.id, "subject_kind": command.subject.kind, "request_key": "",
        "resource_kind": command.resource.kind, "resource_id": command.resource.id,
        "resource_environment": command.resource.environment, "entitlement": command.entitlement,
        "source_system": command.grant_source.system, "source_instance": command.grant_source.instance,
        "found_deadline": None, "deadline": command.finding.deadline,
    }  # fmt: skip


def test_a_command_through_a_program_to_a_confirmed_removal(deploy: Deploy) -> None:
    here = deploy()
    here.pipeline.start("seal", "store")
    wait_for(lambda: here.pipeline.metric("seal", "grantledger_sealed_entries_total"), "the schema is on record")
    here.grant("g1", "g2")
    # The third is already gone: nothing is done.
    here.send(revocation("g3"))
    child = here.acting()
    wait_for(lambda: here.lag() == 0, "all commands are done")
    assert here.present() == set() and here.requested() == ["g1", "g2"]
    assert here.history("g1") == here.history("g2") == CONFIRMED
    assert here.history("g3") == [("revoke.confirmed", "success", 0)]
    assert here.removals() == ["g1", "g2", "g3"]
    found = [datum for datum in here.findings() if datum["grant_id"] == "g1"]
    assert [datum["removal_evidence"] for datum in found] == [None, "api_accepted", "confirmed"]
    assert all(datum["finding"]["deadline"] == DEADLINE for datum in found)
    assert {datum["evidence"]["target"] for datum in found} == {"files"}
    assert (found[1]["evidence"]["answer"], found[2]["evidence"]["observed"]) == (
        "exit code 0: removed", "the read_back program exited with 3",
    )  # fmt: skip
    assert {(datum["subject"]["id"], datum["resource"]["id"], datum["entitlement"]) for datum in found} == {
        ("alice@example.com", "orders", "readwrite")
    }
    outcomes = {
        labels: value
        for (name, labels), value in samples(child).items()
        if name == "grantledger_enforce_outcomes_total"
    }
    assert outcomes == {"outcome=confirmed,target=files": 3.0}
    # A person requests the revocation of a grant that still runs.
    running = revocation("g4", datetime.now(UTC) + timedelta(hours=1))
    produce(here.cluster, LIFECYCLE_TOPIC, [{"value": EventEncoder().encode(activation(running)), "key": "g4"}])
    (here.folder / "access" / "g4").touch()
    request_revocation(here.pipeline.settings(), row_of(running), person="dana", reason="laptop stolen")
    wait_for(lambda: here.history("g4") == CONFIRMED, "the enforcer has revoked it")
    wait_for(lambda: here.removals()[-1] == "g4", "the removal is committed")
    assert here.present() == set() and here.requested() == ["g1", "g2", "g4"]
    assert here.recorded(LIFECYCLE_TOPIC)[-1]["reason"] == "requested by dana: laptop stolen"
    # The watch asks whether the access of historical grants exists: nothing is removed.
    (here.folder / "access" / "g6").touch()
    for name in ("g5", "g6"):
        finding = Finding("late_records", name, "warning", DEADLINE)
        here.send(revocation(name, event_type="lookup.requested", finding=finding))
    answers = [("g5", "grant.revoked"), ("g6", "grant.observed")]
    wait_for(
        lambda: [(one["grant_id"], one["event_type"]) for one in here.recorded(LIFECYCLE_TOPIC)[-2:]] == answers,
        "both lookups are answered",
    )
    assert here.present() == {"g6"} and here.requested() == ["g1", "g2", "g4"]
    here.end(child)

    # For the rest of the pipeline it is a removal like any other: sealed and stored.
    wait_until_stored(here.pipeline, shown=True)
    [row] = here.pipeline.query(
        "SELECT groupArray(event_type) AS kinds, (SELECT count() FROM active_grants) AS active FROM "
        "(SELECT event_type FROM entries WHERE grant_id = 'g1' AND decode_error = '' ORDER BY append_time)"
    )
    kinds = ["revoke.requested", *(kind for kind, _, _ in CONFIRMED)]
    assert sorted(row["kinds"]) == sorted(["grant.activated", *kinds, "grant.revoked"])
    assert row["active"] == 1, "g6 is no longer historical"
    here.pipeline.stop()


def test_a_command_through_a_webhook_to_a_confirmed_removal(deploy: Deploy) -> None:
    here, receiver = deploy(), Receiver()
    here.environment["BROKER_SECRET"] = SECRET
    present = {"asked": True, "blind": True}

    def answer(request: BaseHTTPRequestHandler) -> None:
        """Answer 503 first, then revoke."""
        grant = receiver.requests[-1].json["data"]["grant_id"]
        if request.path == "/look":
            status(request, 200, json.dumps({"present": present[grant]}).encode())
        elif len([one for one in receiver.requests if one.path == "/take"]) == 1:
            status(request, 503)
        else:
            present[grant] = False
            status(request, 202)

    receiver.respond = answer
    base = receiver.base
    hook = f"plugin = 'webhook'\nurl = '{base}/take'\nsecret = {{ env = 'BROKER_SECRET' }}\n"
    here.policy(
        f"[targets.blind]\n{hook}[targets.asked]\n{hook}read_back = '{base}/look'\n"
        "[[routes]]\ntarget = 'blind'\nentitlement = 'readonly'\nsources = ['bot/*']\n"
        "[[routes]]\ntarget = 'asked'\nsources = ['bot/eu-1']\n"
    )
    here.send(revocation("asked"), revocation("blind", entitlement="readonly"))
    try:
        child = here.acting()
        wait_for(lambda: here.lag() == 0, "both commands are done")
        here.end(child)
    finally:
        receiver.stop()
    assert here.history("asked") == [
        ("revoke.attempted", "pending", 1), ("revoke.attempted", "failure", 1),
        ("revoke.attempted", "pending", 2), ("revoke.attempted", "success", 2), ("revoke.confirmed", "success", 2),
    ]  # fmt: skip
    # Without a read-back, the accepted request is final, and no removal is confirmed.
    assert here.history("blind") == CONFIRMED[:2]
    assert here.removals() == ["asked"]
    takes = [one for one in receiver.requests if one.path == "/take"]
    assert len(takes) == 3 and len({one.headers["webhook-id"] for one in takes}) == 2
    for one in receiver.requests:
        one.assert_signed()
        assert one.json["source"] == f"grantledger/{here.deployment}"
    log = child.log_path.read_text()
    assert "whsec_" not in log and base64.b64encode(KEY).decode() not in log


def test_a_dry_run_does_nothing_and_the_enforcer_then_carries_out_everything(deploy: Deploy) -> None:
    here = deploy()
    here.grant("g1", "g2")
    here.send(revocation("g1"))
    dry = here.start()
    here.wait_log(dry, '"would_revoke"', times=2)
    wait_for(lambda: '"admission": "joined"' in dry.log_path.read_text(), "the duplicate is read", pause=0.05)
    counted = {
        labels: value for (name, labels), value in samples(dry).items() if name == "grantledger_enforce_dry_run_total"
    }
    assert counted == {"target=files": 2.0}
    here.end(dry)
    assert (here.requested(), here.present()) == ([], {"g1", "g2"})
    answers = [(datum["event_type"], datum["grant_id"]) for datum in here.findings()]
    assert sorted(answers) == [("revoke.dry_run", "g1"), ("revoke.dry_run", "g2")]
    assert (here.removals(), here.lag()) == ([], 3)

    acting = here.acting()
    wait_for(lambda: here.lag() == 0, "all commands are done")
    here.end(acting)
    assert here.requested() == ["g1", "g2"] and here.present() == set()
    # The offset, the findings and the removals are committed together, but each partition gets its marker on its own.
    wait_for(lambda: here.history("g1") == here.history("g2") == CONFIRMED, "the results are committed")
    wait_for(lambda: here.removals() == ["g1", "g2"], "the removals are committed")


def test_a_dry_run_with_the_documented_policy_logs_the_documented_lines(deploy: Deploy) -> None:
    here = deploy()
    page = (Path(__file__).resolve().parents[2] / "docs" / "enforcement.md").read_text("utf-8")
    policy = "\n".join(re.findall(r"```toml\n(.*?)```", page, re.DOTALL))
    policy = re.sub(r"^(backoff_seconds|history_after_seconds) = .*\n", "", policy, flags=re.MULTILINE)
    (here.folder / "password").write_text("not asked for")
    (here.folder / "password").chmod(0o600)
    policy = policy.replace("/run/secrets/orders-db", str(here.folder / "password"))
    here.policy(re.sub(r'"/usr/local/bin/[^"]+"', '"/bin/true"', policy))
    here.environment |= {
        "GRANTLEDGER_LOG_FORMAT": "text",
        "ACCESS_BROKER_SECRET": SECRET,
        "CLUSTER_TOKEN": "quartz-4711",
    }
    here.send(
        revocation("g-17"),
        revocation("g-18", resource=Resource("kubernetes", "eu-1")),
        revocation("g-19", resource=Resource("host", "bastion")),
    )
    dry = here.start()
    here.wait_log(dry, "would_revoke", times=3)
    here.end(dry)
    log = dry.log_path.read_text()
    shown = re.findall(r"^\[warning  \] would_revoke .*$", page, re.MULTILINE)
    assert len(shown) == 3 and all(f"{line} time=" in log for line in shown), log
    assert "quartz-4711" not in log and "whsec_" not in log and "not asked for" not in log


def test_duplicate_commands_are_carried_out_once(deploy: Deploy) -> None:
    here = deploy()
    here.grant("g1")
    here.send(revocation("g1"), revocation("g1"))
    child = here.acting()
    wait_for(lambda: here.lag() == 0, "the command and its duplicates are done")
    (here.folder / "access" / "g1").touch()  # granted again: an old command must not touch it
    here.send(revocation("g1"))
    wait_for(lambda: here.lag() == 0, "a late duplicate is done")
    here.end(child)
    here.send(revocation("g1"))
    child = here.acting()
    wait_for(lambda: here.lag() == 0, "so is one after a restart")
    assert here.requested() == ["g1"] and here.history("g1") == CONFIRMED and here.removals() == ["g1"]
    # Extended and overdue again: another deadline, another command.
    here.send(revocation("g1", DEADLINE + timedelta(hours=1)))
    wait_for(lambda: here.lag() == 0, "the new command is done")
    here.end(child)
    assert here.requested() == ["g1", "g1"] and here.removals() == ["g1", "g1"]


def test_access_that_was_granted_again_meanwhile_is_not_revoked(deploy: Deploy) -> None:
    here = deploy()

    def asked(grant: str) -> Event:
        # Subjects of their own: other tests have commands in the same topics.
        return revocation(grant, subject=Subject(f"{grant}@{here.deployment}", "human"))

    def given(grant: str, number: int, *, holder: str = "", kind: str = "grant.extended", **fields: Any) -> Event:
        """Return an event of the grant, or with ``holder`` of another grant of the same access."""
        command = asked(holder or grant)
        about = {"subject": command.subject, "resource": command.resource, "entitlement": command.entitlement}
        until = datetime.now(UTC) + timedelta(hours=1)
        given = {"tenant": command.tenant, "expires_at": until, "occurred_at": datetime.now(UTC)} | about | fields
        return event(kind, number, grant_id=grant, **given)

    def append(*events: Event) -> None:
        records = [{"value": EventEncoder().encode(one), "key": one.key} for one in events]
        produce(here.cluster, LIFECYCLE_TOPIC, [{"value": b"not an event", "key": "x"}, *records])

    # The commands arrived while no enforcer ran. Since then one grant was extended, and one access was granted again.
    for grant in ("extended", "shared", "over"):
        (here.folder / "access" / grant).touch()
    here.send(asked("extended"), asked("shared"), asked("over"))
    append(
        given("extended", 1),
        given("other", 2, holder="shared", kind="grant.activated"),
        given("past", 3, holder="over", expires_at=datetime.now(UTC) - timedelta(seconds=5)),
    )
    dry = here.start()
    here.wait_log(dry, '"would_postpone"', times=2)
    here.wait_log(dry, '"would_revoke"')
    here.end(dry)
    child = here.acting()
    here.wait_log(child, '"postponed"')
    wait_for(lambda: here.removals() == ["over"], "only the access without a grant is revoked")
    assert (here.requested(), here.present(), here.lag()) == (["over"], {"extended", "shared"}, 2)
    assert here.history("shared") == []
    told = [datum for datum in here.findings() if datum["grant_id"] == "extended"]
    spared = next(datum for datum in told if datum["event_type"] != "revoke.dry_run")
    assert (spared["event_type"], spared["evidence"]["superseded"]) == ("revoke.failed", True)
    here.end(child)
    # The other grant is revoked: now the next process carries out the command.
    append(given("other", 4, holder="shared", kind="grant.revoked"))
    child = here.acting()
    wait_for(lambda: here.lag() == 0, "all commands are done")
    here.end(child)
    assert (
        here.requested() == ["over", "shared"]
        and here.present() == {"extended"}
        and here.history("shared") == CONFIRMED
    )


def test_invalid_commands_are_skipped_and_recorded(deploy: Deploy) -> None:
    here, schema = deploy(), event_schema()
    datum = revocation("g9", source=EventSource("grantledger-watch", here.deployment, "g9", "command")).to_datum()

    def odd(**fields: Any) -> bytes:
        return written(datum | fields, schema.definition, schema.prefix)

    values = [
        None, b"not an event", schema.prefix + b"\x00", odd(event_type="revoke.attempted"), odd(resource=None),
        odd(subject=datum["subject"] | {"kind": "robot"}), odd(reason="x" * 70_000),
    ]  # fmt: skip
    # Foreign records in the findings do not stop it either, even if they claim to be its own.
    forged = [
        datum
        | {
            "event_type": "revoke.attempted",
            "source": datum["source"] | {"system": "grantledger-enforcer", "instance": here.deployment},
            "finding": datum["finding"] | {"rule": "forged", "evidence": evidence},
        }
        for evidence in ("[]", '{"attempt": 1e999}')
    ]
    findings = [None, b"not an event", *(written(one, schema.definition, schema.prefix) for one in forged)]
    enforcer = "grantledger-enforcer"
    produce(here.cluster, FINDINGS_TOPIC, [here.signed(FINDINGS_TOPIC, value, "g9", enforcer) for value in findings])
    produce(here.cluster, COMMANDS_TOPIC, [here.signed(COMMANDS_TOPIC, value, "g9") for value in values])
    here.grant("g1")
    child = here.acting()
    wait_for(lambda: here.lag() == 0, "all are read")
    counted = {
        labels: value
        for (name, labels), value in samples(child).items()
        if name == "grantledger_enforce_commands_total"
    }
    here.end(child)
    found = [datum for datum in here.findings() if datum["finding"]["rule"] == "enforcer_command_invalid"]
    assert {(d["event_type"], d["finding"]["severity"]) for d in found} == {("finding.opened", "critical")}
    # Once per source, and hour.
    watch = f"grantledger-watch/{here.deployment}"
    assert [d["finding"]["key"] for d in found] == [d["evidence"]["source"] for d in found] == ["unknown", watch]
    assert [d["evidence"]["offset"] for d in found] == [0, 3] and "event_type" in found[1]["evidence"]["reason"]
    assert counted == {"admission=invalid": float(len(values)), "admission=work": 1.0}
    assert here.history("g1") == CONFIRMED and here.requested() == ["g1"]


def test_commands_that_expired_unread_are_reported_once(deploy: Deploy) -> None:
    here = deploy()
    here.send(revocation("g1"))
    done = end_offset(here.cluster, COMMANDS_TOPIC, 0)
    consumer = Consumer(reader_options(here.cluster, f"{here.deployment}-enforce"))
    consumer.commit(offsets=[here.cluster.partition(COMMANDS_TOPIC, 0, done)], asynchronous=False)
    consumer.close()
    here.send(revocation("g2"), revocation("g3"))
    here.expire_commands()
    for _ in range(2):
        child = here.acting()
        here.end(child)
    [lost] = [datum for datum in here.findings() if datum["finding"]["rule"] == "enforcer_commands_lost"]
    assert "2 offsets" in lost["evidence"]["reason"] and lost["finding"]["severity"] == "critical"


def test_transaction_markers_among_the_commands_never_count_as_lost(deploy: Deploy) -> None:
    here = deploy()
    (here.folder / "access" / "g1").touch()
    watch = Producer(transactional_options(here.cluster, f"{here.deployment}-a-watch"))
    watch.init_transactions(30)

    def ask() -> None:
        watch.begin_transaction()
        [command] = here.request(revocation("g1"))
        record = here.signed(COMMANDS_TOPIC, *command)
        watch.produce(here.cluster.physical(COMMANDS_TOPIC), **record)
        watch.commit_transaction(30)

    ask()
    child = here.acting()
    wait_for(lambda: here.lag() == 0, "all are done, and the marker is passed")
    assert here.removals() == ["g1"]
    ask()
    wait_for(lambda: '"done"' in child.log_path.read_text(), "a duplicate is read", pause=0.02)
    here.end(child)  # perhaps before it knew the end of the topic
    assert here.lag() == 0
    here.expire_commands()
    child = here.acting()
    here.end(child)
    assert here.lag() == 0
    assert [datum for datum in here.findings() if datum["finding"]["rule"] == "enforcer_commands_lost"] == []


def test_a_committed_offset_that_expired_is_committed_again(deploy: Deploy) -> None:
    here = deploy()
    group = f"{here.deployment}-enforce"
    end = end_offset(here.cluster, COMMANDS_TOPIC, 0)
    consumer = Consumer(reader_options(here.cluster, group))
    writer = TransactionalEventWriter(sealed_logs(here.pipeline.settings(), "grantledger-enforcer", NO_KEY))
    writer.consumer = consumer
    for _ in range(2):
        writer.write([], end)
        assert committed_offset(here.cluster, group, COMMANDS_TOPIC, 0) == end
        for future in here.cluster.admin.delete_consumer_groups([group]).values():  # as after 7 idle days
            future.result(30)
        assert committed_offset(here.cluster, group, COMMANDS_TOPIC, 0) < 0
    consumer.close()
    child = here.acting()
    wait_for(lambda: committed_offset(here.cluster, group, COMMANDS_TOPIC, 0) == end, "it is committed at the start")
    here.end(child)


@pytest.mark.parametrize("committed", [True, False])
def test_what_a_lost_transaction_contained_is_written_once(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """After a restart of the brokers a call may never return, and nobody knows what it did."""
    here, commit = deploy(), TransactionalWriter.commit
    logs, recorder = (
        sealed_logs(here.pipeline.settings(), "grantledger-enforcer", NO_KEY),
        Recorder(here.deployment),
    )

    def event_of(number: int) -> Event:
        return recorder.commands_lost(number, datetime.now(UTC), "a test")

    def written_numbers() -> list[int]:
        return [one["evidence"]["offset"] for one in here.findings()]

    def lose(writer: TransactionalWriter) -> None:
        monkeypatch.setattr(TransactionalWriter, "commit", commit)
        if committed:
            commit(writer)
        raise TransactionHangsError("it hangs")

    writer = TransactionalEventWriter(logs)
    writer.write([event_of(1)], 0)
    monkeypatch.setattr(TransactionalWriter, "commit", lose)
    writer.write([event_of(2)], 0)
    writer.write([event_of(3)], 0)
    wait_for(lambda: written_numbers() == [1, 2, 3], "each is there, once")
    TransactionalEventWriter(logs).write([event_of(4)], 0)
    monkeypatch.setattr(TransactionalWriter, "commit", lose)
    with pytest.raises((KafkaUnavailableError, KafkaException)), kafka_errors("a test"):
        writer.write([event_of(5)], 0)
    # What the other one has done is not known here, so this one must not go on.
    wait_for(lambda: written_numbers() == [1, 2, 3, 4], "only the other enforcer's event is there")


def test_a_breaker_stays_open_until_a_person_closes_it_and_stops_no_other_source(deploy: Deploy) -> None:
    here = deploy(max_per_window="2")
    grants = [f"g{number}" for number in range(4)]
    here.grant(*grants)
    other = {"grant_source": IssuingSource("bot", "us-1"), "subject": Subject("carol@example.com", "human")}
    (here.folder / "access" / "other").touch()
    here.send(revocation("other", **other))
    child = here.acting()
    wait_for(lambda: len(here.removals()) == 3, "two of the source, and that of the other one, are carried out")
    here.wait_log(child, '"breaker_opened"')
    assert sorted(here.requested()) == [*grants[:2], "other"] and here.lag() == 3
    here.end(child)
    child = here.acting()
    [opened] = [datum for datum in here.findings() if datum["finding"]["rule"] == "enforcer_breaker"]
    assert (opened["event_type"], opened["finding"]["severity"]) == ("finding.opened", "critical")
    assert opened["finding"]["key"] == "bot/eu-1/files"
    assert (opened["evidence"]["source"], opened["evidence"]["target"]) == ("bot/eu-1", "files")

    # Without a reason it stays open.
    code, _, errors = here.run("breaker", "close", "--reason", "  ")
    assert code == 2 and "reason" in errors
    shown = json.loads(here.run("breaker", "-o", "json")[1])
    assert shown["state"] == "open" and [(one["source"], one["target"]) for one in shown["open"]] == [
        ("bot/eu-1", "files")
    ]
    assert "open for grants of bot/eu-1 at the target files since 20" in here.run("breaker")[1]
    # A person closes it from anywhere, without the policy and the secrets in it.
    policy = here.environment.pop("GRANTLEDGER_ENFORCE_CONFIG")
    here.environment["LOGNAME"] = "carol"
    reason = "clock of vault-2 was wrong, fixed"
    nothing = here.run("breaker", "close", "--reason", reason, "--source", "bot/us-1")
    assert nothing[:2] == (0, "no such breaker is open\n")
    closed = here.run("breaker", "close", "--reason", reason, "--source", "bot/eu-1", "--target", "files")
    assert closed[:2] == (0, "closed for grants of bot/eu-1 at the target files\n")
    resolved = here.findings()[-1]
    assert (resolved["event_type"], resolved["reason"]) == ("finding.closed", reason)
    assert resolved["actor"] == {"id": "carol", "kind": "human", "on_behalf_of": None}
    here.environment["GRANTLEDGER_ENFORCE_CONFIG"] = policy

    # The running enforcer continues once that is sealed.
    assert sorted(here.requested()) == [*grants[:2], "other"]
    here.seal()
    wait_for(lambda: here.lag() == 0, "the other commands are done")
    here.end(child)
    assert sorted(here.requested()) == sorted(here.removals()) == [*grants, "other"]
    assert len([d for d in here.findings() if d["finding"]["rule"] == "enforcer_breaker"]) == 2


def test_the_breaker_stays_open_after_retention_of_the_input(deploy: Deploy) -> None:
    here = deploy(max_per_window="1")
    here.grant("g0", "g1")
    child = here.acting()
    here.wait_log(child, '"breaker_opened"')
    here.end(child)
    here.seal()
    expired = here.cluster.partition(FINDINGS_TOPIC, 0, end_offset(here.cluster, FINDINGS_TOPIC, 0))
    for future in here.cluster.admin.delete_records([expired]).values():  # as retention does after a week
        future.result(30)
    child = here.acting()
    here.wait_log(child, '"breakers_open": ["bot/eu-1/files"]')
    here.end(child)
    assert here.requested() == ["g0"]
    assert here.run("breaker", "close", "--reason", "the clock is fixed")[1].startswith("closed for grants of bot/eu-1")


def test_forged_and_copied_commands_are_never_carried_out(deploy: Deploy) -> None:
    """Whoever may write commands has no key: unsigned, with another key, and copied from another place.

    And whoever has the key of the watch, but not that of the sealer.
    """
    here = deploy(max_per_window="1")
    command = revocation("g1", source=EventSource("grantledger-watch", here.deployment, "g1", "command"))
    for grant in ("g1", "g2"):
        (here.folder / "access" / grant).touch()
    value = EventEncoder().encode(command)
    [(requested, _)] = here.request(replace(command, entitlement="readonly"))  # the same grant and deadline
    forged = [
        {"value": value, "key": "g1"},
        here.signed(COMMANDS_TOPIC, value, "g1", "grantledger-enforcer"),
        here.signed(FINDINGS_TOPIC, value, "g1"),
        here.signed(COMMANDS_TOPIC, value, "g2") | {"key": "g1"},
        here.signed(COMMANDS_TOPIC, value, "g1"),
    ]
    produce(here.cluster, COMMANDS_TOPIC, forged)
    child = here.acting()

    def sealed_and_read() -> bool:
        here.seal()  # the finding about the first ones
        return here.lag() == 0

    wait_for(sealed_and_read, "all are read")
    assert here.requested() == []
    [found] = [one for one in here.findings() if one["finding"]["rule"] == "enforcer_command_invalid"]
    assert found["finding"]["key"] == f"grantledger-watch/{here.deployment}"
    counted = {
        labels: value
        for (name, labels), value in samples(child).items()
        if name == "grantledger_enforce_commands_total"
    }
    assert counted == {"admission=invalid": float(len(forged))}
    produce(here.cluster, COMMANDS_TOPIC, [here.signed(COMMANDS_TOPIC, requested, "g1")])
    wait_for(lambda: here.requested() == ["g1"], "the requested one is carried out, and no other counted")
    here.end(child)
