"""``grantledger doctor``: every check is seen to find what it looks for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from grantledger.base.health import Health
from grantledger.kafka.topics import TopicState
from grantledger.ledger.keys import LocalSigner, public_pem
from grantledger.runtime.doctor import brokers, clocks, keys, logs, machine, processes, spools, store, topics
from grantledger.runtime.doctor.brokers import Brokers, Rule
from grantledger.runtime.doctor.clocks import Clock, Written
from grantledger.runtime.doctor.diagnosis import Diagnosis, State, Subject, exit_code
from grantledger.runtime.doctor.processes import Process
from grantledger.runtime.doctor.store import Store
from grantledger.runtime.loopback_ports import free_port
from grantledger.runtime.process_endpoint import process_endpoint
from grantledger.runtime.process_health import ProcessHealth
from grantledger.runtime.settings import Settings
from grantledger.schemas.topics import INPUT_TOPICS, SEALED_TOPICS, topic_specs
from grantledger.sinks.migrate import available
from support.command import run_command

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SPECS = topic_specs(4, 0)
GIB = machine.GIB


def states(found: Sequence[Diagnosis]) -> list[State]:
    return [one.state for one in found]


def only(found: Sequence[Diagnosis], state: State, *words: str) -> None:
    """Check that there is one line, which has this state and these words and, unless it is ok, says what to do."""
    assert states(found) == [state], found
    assert all(word in f"{found[0].text} → {found[0].action}" for word in words), found
    assert bool(found[0].action) == (state in (State.warning, State.problem)) or state is State.unchecked


# Topics


def as_required(**config: str) -> dict[str, TopicState | None]:
    copies = {"min.insync.replicas": "2", "unclean.leader.election.enable": "false"}
    return {f"p-{one.name}": TopicState(one.partitions, 3, 3, 0, one.config | copies | config) for one in SPECS}


def changed(topic: str, **change: object) -> dict[str, TopicState | None]:
    found = as_required()
    state = found[f"p-{topic}"]
    assert state is not None
    config = {**state.config, **change.pop("config", {})}  # type: ignore[dict-item]
    return found | {f"p-{topic}": replace(state, config=config, **change)}  # type: ignore[arg-type]


def check_topics(found: Mapping[str, TopicState | None], *, local: bool = False) -> list[Diagnosis]:
    return topics.check(SPECS, found, "p-", 3, local=local)


def test_topics_as_required_are_one_line() -> None:
    only(check_topics(as_required()), State.ok, f"{len(SPECS)} topics")


@pytest.mark.parametrize(
    ("topic", "setting", "value", "state"),
    [
        ("access.lifecycle", "message.timestamp.type", "CreateTime", State.problem),
        ("access.activity", "cleanup.policy", "compact", State.problem),
        ("access.activity", "compression.type", "lz4", State.problem),
        ("access.lifecycle", "max.message.bytes", "1048588", State.problem),
        ("access.lifecycle.sealed", "max.message.bytes", "1048588", State.problem),
        ("access.lifecycle.sealed", "retention.ms", "604800000", State.problem),
        ("access.findings.sealed", "retention.ms", "604800000", State.problem),
        ("access.lifecycle", "retention.ms", "3600000", State.problem),
        ("access.lifecycle", "retention.ms", "-1", State.warning),
        ("access.watch", "cleanup.policy", "delete", State.problem),
        ("access.watch", "segment.ms", "1", State.warning),
        ("access.anchors", "retention.bytes", "1000", State.warning),
        ("access.commands", "unclean.leader.election.enable", "true", State.problem),
        ("access.commands", "min.insync.replicas", "1", State.warning),
    ],
)
def test_each_wrong_setting_of_a_topic_is_a_line(topic: str, setting: str, value: str, state: State) -> None:
    found = check_topics(changed(topic, config={setting: value}))
    only(found, state, f"p-{topic}", "kafka-configs.sh", f"{setting}=")


@pytest.mark.parametrize(
    ("change", "state", "word"),
    [
        ({"partitions": 2}, State.problem, "has 2 partitions"),
        ({"without_leader": 1}, State.problem, "without a leader"),
        ({"in_sync": 2}, State.warning, "2 of 3 copies in sync"),
        ({"replicas": 1, "in_sync": 1}, State.warning, "topics have too few copies, down to 1 copy; they need 3"),
    ],
)
def test_each_wrong_number_of_a_topic_is_a_line(change: dict[str, object], state: State, word: str) -> None:
    only(check_topics(changed("access.lifecycle", **change)), state, word)


def test_a_topic_that_is_missing_names_the_command() -> None:
    only(check_topics(as_required() | {"p-access.watch": None}), State.problem, "topics create")


def test_a_local_stack_has_one_copy() -> None:
    local = {name: replace(one, replicas=1, in_sync=1) for name, one in as_required().items() if one is not None}
    only(check_topics(local, local=True), State.ok, "local stack")
    only(check_topics(local), State.warning, f"{len(SPECS)} of {len(SPECS)} topics")


# Brokers and access


def test_fewer_than_three_brokers_are_a_warning() -> None:
    three = Brokers("a:1", ["a:1", "b:1", "c:1"])
    only(brokers.check_brokers(three, local=False), State.ok, "3 brokers")
    only(brokers.check_brokers(replace(three, nodes=["a:1"]), local=False), State.warning, "1 broker only")
    only(brokers.check_brokers(replace(three, nodes=["a:1"]), local=True), State.ok)


AUTHORIZER = {"authorizer.class.name": "StandardAuthorizer"}
GIVEN = (
    Rule("User:sender", "p-access.lifecycle"),
    Rule("User:sender", "p-access.activity"),
    Rule("User:pipeline", "p-access.findings"),
    *(Rule("User:pipeline", f"p-{name}") for name in SEALED_TOPICS),
)


def check_access(*rules: Rule, config: Mapping[str, str] = AUTHORIZER, local: bool = False) -> list[Diagnosis]:
    return brokers.check_access(Brokers("a:1", ["a:1"], config, [*GIVEN, *rules]), "p-", local=local)


def test_who_may_write_is_named() -> None:
    only(check_access(), State.ok, "User:pipeline may write p-access.findings")


@pytest.mark.parametrize(
    ("rule", "state", "words"),
    [
        (Rule("User:*", "*"), State.problem, "everybody may write p-access.findings"),
        (Rule("User:*", "p-access.findings"), State.problem, "everybody may write p-access.findings"),
        (Rule("User:*", "p-acc", is_prefix=True), State.problem, "everybody may write p-access.lifecycle.sealed"),
        (Rule("User:sender", "p-access.findings"), State.warning, "User:sender may write p-access.findings"),
        (Rule("User:sender", "p-access.", is_prefix=True), State.warning, "may write p-access.findings.sealed"),
    ],
)
def test_who_must_not_write_is_named(rule: Rule, state: State, words: str) -> None:
    found = check_access(rule)
    assert any(words in one.text and one.state is state and one.action for one in found), found
    denied = check_access(rule, replace(rule, denies=True))
    assert states(denied) == [State.ok], "a denial wins"


def test_topics_without_a_rule_are_open_if_the_brokers_say_so() -> None:
    found = check_access(config=AUTHORIZER | {"allow.everyone.if.no.acl.found": "true"})
    only(found, State.problem, "p-access.anchors", "allow.everyone.if.no.acl.found")


def test_a_cluster_without_an_authorizer_is_said_plainly() -> None:
    only(check_access(config={"authorizer.class.name": ""}), State.warning, "no authorizer", "every topic")
    only(check_access(config={"authorizer.class.name": ""}, local=True), State.ok, "local stack")


def test_rules_that_may_not_be_read_are_not_called_right() -> None:
    found = brokers.check_access(Brokers("a:1", ["a:1"], {}, None, "Cluster authorization failed"), "", local=False)
    only(found, State.unchecked, "Cluster authorization failed")


# The machine


def test_a_folder_and_its_disk() -> None:
    fine = machine.Folder(Path("/data"), 0o700, free=100 * GIB, total=200 * GIB)
    only(machine.check_folder(fine), State.ok, "100.0 GiB of 200.0 GiB")
    only(machine.check_folder(replace(fine, mode=0o755)), State.warning, "chmod 700 /data")
    only(machine.check_folder(replace(fine, free=10 * GIB)), State.warning, "make room")
    only(machine.check_folder(replace(fine, free=GIB // 4)), State.problem, "make room")
    only(machine.check_folder(replace(fine, reachable=False)), State.problem, "cannot be read")
    only(machine.check_folder(replace(fine, mode=None)), State.problem, "does not exist")


def test_the_sandbox() -> None:
    only(machine.check_sandbox(7, embedded=True, serves_here=True), State.ok, "version 7")
    only(machine.check_sandbox(0, embedded=True, serves_here=True), State.warning, "no Landlock", "Linux 5.19")
    only(machine.check_sandbox(0, embedded=False, serves_here=True), State.ok)
    only(machine.check_sandbox(0, embedded=True, serves_here=False), State.ok)


# Processes

READY = Process("seal", 7, runs=True, version="1", health=ProcessHealth("1"))


@pytest.mark.parametrize(
    ("process", "state", "words"),
    [
        (READY, State.ok, "seal (pid 7) is ready"),
        (replace(READY, health=ProcessHealth("1", notes=("stands by",))), State.ok, "is ready; stands by"),
        (replace(READY, health=ProcessHealth("1", ("waits for Kafka",))), State.problem, "not ready: waits for Kafka"),
        (replace(READY, health=ProcessHealth("1", hanging=("the main loop",))), State.problem, "hangs: the main loop"),
        (replace(READY, health=None), State.problem, "does not answer"),
        (replace(READY, runs=False), State.problem, "ended without a clean stop"),
        (replace(READY, runs=False, trouble="seal has stopped: no key"), State.problem, "seal has stopped: no key"),
        (replace(READY, trouble="seal was restarted once: lost"), State.problem, "restarted once"),
    ],
)
def test_what_each_process_says(process: Process, state: State, words: str) -> None:
    only(processes.check([process], Path("/data")), state, words)


def test_without_processes_nothing_is_called_ok() -> None:
    only(processes.check([], Path("/data")), State.unchecked, "none runs for /data")


def test_a_process_elsewhere_is_asked() -> None:
    """By the real endpoint of a process; nobody answers at the other address."""
    health = Health()
    health.begin()
    health.waits("kafka", "waits for Kafka at kafka:9092: away")
    health.settle("start")
    with process_endpoint("seal", "127.0.0.1", 0, CollectorRegistry(), health) as port:
        addresses = (f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}")
        found = processes.check(processes.read_processes(Settings(process_addresses=addresses)), Path("/data"))
    assert states(found) == [State.problem] * 2
    assert found[0].text == f"seal at {addresses[0]} is not ready: waits for Kafka at kafka:9092: away"
    assert found[1].text == f"the process at {addresses[1]} does not answer /readyz"


def test_mixed_versions_are_a_warning() -> None:
    store_process = replace(READY, name="store", version="2")
    only(processes.check_versions([READY, store_process], "1"), State.warning, "store 2")
    only(processes.check_versions([READY], "1"), State.ok)
    only(processes.check_versions([replace(store_process, runs=False)], "1"), State.ok)


def test_a_kind_of_process_that_is_nowhere_is_a_problem() -> None:
    only(processes.check_groups({"seal": 2, "store": 1, "watch": 1}, "d"), State.ok, "2 seal")
    only(processes.check_groups({"seal": 0, "store": 1}, "d"), State.problem, "nothing is sealed", "run seal")
    only(processes.check_groups({"watch-0": 1, "watch-1": 0}, "d"), State.problem, "GRANTLEDGER_WATCH_SHARD=1")


def test_status_files_of_killed_processes_are_found(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name, content in (
        ("seal", '{"pid": 2147483646, "metrics": "http://127.0.0.1:1/metrics", "version": "9"}'),
        ("gateway", '{"pid": 2147483646, "metrics": "http://127.0.0.1:1/metrics"}'),
        ("stack", '{"pid": 2147483646}'),
        ("broken", "{"),
    ):
        (tmp_path / "run" / f"{name}.json").write_text(content)
    found = processes.read_processes(Settings(data_dir=tmp_path))
    assert {(one.name, one.runs, one.version) for one in found} == {("seal", False, "9"), ("gateway", False, "")}


# Keys


@pytest.fixture
def key_settings(tmp_path: Path) -> Settings:
    signer = LocalSigner.generate()
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "log.pem").write_bytes(signer.to_pem(None))
    (tmp_path / "keys" / "log.pem").chmod(0o600)
    (tmp_path / "keys" / "log.pub").write_bytes(public_pem(signer.public_key))
    return Settings(data_dir=tmp_path)


def test_keys(key_settings: Settings) -> None:
    def found(*, signs: bool = True) -> list[Diagnosis]:
        return keys.check(keys.read_keys(key_settings), needs_private=signs)

    only(found(), State.ok, "is for its owner only")
    key_settings.private_key_path.chmod(0o644)
    only(found(), State.problem, "chmod 600")
    key_settings.private_key_path.chmod(0o600)
    key_settings.public_key_path.write_bytes(public_pem(LocalSigner.generate().public_key))
    only(found(), State.problem, "is not the public half")
    key_settings.public_key_path.write_text("no key")
    only(found(), State.problem, "log.pub")
    key_settings.public_key_path.unlink()
    only(found(), State.problem, "public_key_file")


def test_a_machine_without_the_private_key(key_settings: Settings) -> None:
    key_settings.private_key_path.unlink()
    only(keys.check(keys.read_keys(key_settings), needs_private=False), State.ok, "does not sign")
    only(keys.check(keys.read_keys(key_settings), needs_private=True), State.problem, "restore it")


def test_a_key_that_did_not_sign_this_ledger() -> None:
    path = Path("log.pub")
    only(keys.check_signature(None, has_batches=True, public_path=path), State.ok)
    only(keys.check_signature(None, has_batches=False, public_path=path), State.unchecked, "nothing is sealed yet")
    only(keys.check_signature("no record verifies", has_batches=False, public_path=path), State.problem, "did not sign")


# Logs and anchors


def test_stopped_logs_name_their_runbook() -> None:
    only(logs.check_stops({}, 7), State.ok, "none of the 7 logs")
    found = logs.check_stops({"access.lifecycle/0": ("head_mismatch", "no valid note")}, 7)
    only(found, State.problem, "access.lifecycle/0", "docs/runbooks/head_mismatch.md")


def test_anchors() -> None:
    fine = logs.AnchorState((9, NOW - timedelta(seconds=30)), 9, "anchors.jsonl")

    def found(**change: object) -> list[Diagnosis]:
        return logs.check_anchors(replace(fine, **change), NOW, 60.0)  # type: ignore[arg-type]

    only(found(), State.ok, "the last anchor, 9, is 30 s old; anchors.jsonl has it")
    only(found(file=8), State.ok)
    only(found(last=None), State.warning, "run anchor")
    only(found(last=(9, NOW - timedelta(minutes=10))), State.problem, "10 minutes old")
    only(found(file=3), State.problem, "ends at anchor 3, and Kafka has 9")
    only(found(file=None), State.unchecked, "no anchor on this machine")
    only(found(file_problem="anchors.jsonl cannot be read"), State.problem, "cannot be read")
    only(found(refused={"file": "no room"}), State.problem, "did not take anchor 9: no room")


# ClickHouse

DEFINITION = "CREATE TABLE entries (…) ENGINE = MergeTree SETTINGS non_replicated_deduplication_window = 10000, a = 1"
STORE = Store("https://ch:8443", "26.9.2.1", table=("MergeTree", DEFINITION), disks=[("default", 50 * GIB, 100 * GIB)])


def test_clickhouse() -> None:
    assert states(store.check(STORE)) == [State.ok] * 3


@pytest.mark.parametrize(
    ("change", "state", "words"),
    [
        ({"version": "24.8.1.1"}, State.problem, "upgrade it to 26.2"),
        ({"version": "26.3.1"}, State.warning, "tested with 26.9"),
        ({"missing": available()[-2:]}, State.problem, "2 migrations not applied"),
        ({"unknown": "migration 1 was applied with other text"}, State.problem, "other text"),
        ({"table": ("", "")}, State.problem, "no table entries"),
        ({"table": ("MergeTree", "… non_replicated_deduplication_window = 0")}, State.problem, "= 0"),
        ({"table": ("ReplicatedMergeTree", DEFINITION)}, State.problem, " replicated_deduplication_window = no value"),
        ({"disks": [("cold", 5 * GIB, 100 * GIB)]}, State.warning, "disk cold"),
        ({"disks": [("cold", GIB // 4, 100 * GIB)]}, State.problem, "disk cold"),
    ],
)
def test_each_fault_of_clickhouse_is_a_line(change: dict[str, object], state: State, words: str) -> None:
    found = [one for one in store.check(replace(STORE, **change)) if one.state is not State.ok]  # type: ignore[arg-type]
    only(found, state, words)


def test_the_store_of_an_earlier_version_lacks_all_migrations() -> None:
    def ask(sql: str, **_: object) -> list[dict[str, object]]:
        if "FROM migrations" in sql:
            from grantledger.sinks.clickhouse import StoreUnavailableError

            raise StoreUnavailableError("an earlier version made this store; start `grantledger up`")
        return [{"version": "26.9.1.1", "now": NOW.replace(tzinfo=None)}] if "version()" in sql else []

    found, _ = store.read_store(ask, "folder", embedded=True)
    assert len(found.missing) == len(available())
    assert State.problem in states(store.check(found))


# Clocks


@pytest.mark.parametrize(
    ("told", "state", "words"),
    [
        (100.5, State.ok, "within 2 s"),
        (102.9, State.ok, "within 2 s"),
        (110.0, State.warning, "9.0 s ahead of this machine"),
        (90.0, State.warning, "10.0 s behind this machine"),
        (500.0, State.problem, "399.0 s ahead"),
    ],
)
def test_a_clock_that_was_asked(told: float, state: State, words: str) -> None:
    only(clocks.check_clock(Clock("ClickHouse at x", 100.0, 101.0, told)), state, words)


@pytest.mark.parametrize(
    ("appended", "now", "state", "words"),
    [
        ((100.2, 130.0), 200.0, State.ok, "within 2 s"),
        ((95.0, 130.0), 200.0, State.warning, "the brokers are 5.0 s behind the sealers"),
        ((130.0, 130.0), 200.0, State.warning, "the brokers are 30.0 s ahead of the sealers"),
        ((0.0, 130.0), 200.0, State.problem, "100.0 s behind the sealers"),
        ((), 200.0, State.unchecked, "nothing is sealed"),
    ],
)
def test_the_clock_of_the_brokers(appended: tuple[float, ...], now: float, state: State, words: str) -> None:
    only(clocks.check_written([Written("access.findings", 100.0, one) for one in appended], now), state, words)


def test_a_record_of_the_future_shows_that_this_machine_is_behind() -> None:
    found = clocks.check_written([Written("access.findings", 100.0, 100.1)], 90.0)
    assert states(found) == [State.ok, State.warning] and "10.1 s ahead of this machine" in found[1].text


# Spools


@pytest.mark.parametrize(
    ("samples", "state", "words"),
    [
        ({("grantledger_query_spool_statements", ""): 3.0}, State.warning, "3 statements"),
        ({("grantledger_gateway_spool_bytes", ""): float(1 << 20)}, State.warning, "1.0 MiB"),
        (
            {
                ("grantledger_alert_pending", "channel=a"): 2.0,
                ("grantledger_alert_oldest_pending_seconds", "channel=a"): 600.0,
            },
            State.problem,
            "2 alerts not delivered",
        ),
        ({("grantledger_follow_lag_seconds", "tool=vault"): 900.0}, State.problem, "15 minutes"),
        ({("grantledger_gateway_spool_bytes", ""): 0.0}, State.ok, "nothing waits"),
        ({}, State.ok, "no process here has one"),
    ],
)
def test_what_waits(samples: dict[tuple[str, str], float], state: State, words: str) -> None:
    only(spools.check({"process": samples}), state, words)


# The command


def test_exit_codes() -> None:
    about = Subject("s")
    ok, warning, problem, unchecked = (
        about.ok("a"),
        about.warning("b", "c"),
        about.problem("d", "e"),
        about.unchecked("f"),
    )
    assert exit_code([ok, ok]) == 0
    assert exit_code([ok, warning, problem, unchecked]) == 1
    assert exit_code([ok, warning]) == exit_code([ok, unchecked]) == 4


def test_nothing_that_could_not_be_checked_is_called_ok(tmp_path: Path, key_settings: Settings) -> None:
    """Kafka and the store are away: the checks that need them say so."""
    environment = {
        "GRANTLEDGER_DATA_DIR": str(key_settings.data_dir),
        "GRANTLEDGER_DEPLOYMENT": "away.example",
        "GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "GRANTLEDGER_CLICKHOUSE_URL": "http://127.0.0.1:1",
    }
    answer = run_command("doctor", "-o", "json", "--seconds", "0.3", environment=environment)
    assert answer.returncode == 1, answer.stderr
    found = {(one["subject"], one["state"]) for one in json.loads(answer.stdout)}
    needing = ("topics", "access control", "deployment", "key", "logs", "ClickHouse", "clocks")
    assert found >= {
        ("brokers", "problem"),
        ("ClickHouse", "problem"),
        ("key", "ok"),
        *((name, "not checked") for name in needing),
    }
    assert not {(name, "ok") for name in needing if name != "key"} & found
    shown = run_command("doctor", "--problems", "--seconds", "0.3", environment=environment)
    assert "not checked  Kafka is away" in shown.stdout and "\n  ok  " not in shown.stdout
    assert "2 problems, 0 warnings, 9 not checked" in shown.stdout, shown.stdout
    quiet = run_command("doctor", "-q", "--seconds", "0.3", environment=environment)
    problems = quiet.stdout.splitlines()
    assert len(problems) == 2 and problems[0].startswith("no broker answers at 127.0.0.1:1")
    assert problems[1] == "ClickHouse at http://127.0.0.1:1 (clickhouse_url) cannot be reached: Connection refused"


def test_a_wrong_setting_is_not_a_problem_of_the_ledger() -> None:
    answer = run_command("doctor", environment={"GRANTLEDGER_METRICS_PORT": "many"})
    assert answer.returncode == 2 and "METRICS_PORT" in answer.stderr and not answer.stdout


def test_the_required_topics_are_those_that_senders_and_the_pipeline_write() -> None:
    named = {*brokers.SENDERS, *brokers.PIPELINE}
    assert named == {one.name for one in SPECS} and set(INPUT_TOPICS) < named
