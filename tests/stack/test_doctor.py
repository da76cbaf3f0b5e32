"""``grantledger doctor`` about a real deployment, in which one thing after the other is broken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from grantledger.ledger.keys import LocalSigner, public_pem
from grantledger.runtime.broker import LocalBroker
from grantledger.runtime.children import ChildSpec
from grantledger.sinks.clickhouse import StoreAddress, connect
from grantledger.sinks.migrate import available, migrate
from support.alerting import webhook_toml
from support.fork_server import ForkedChild
from support.pipeline import ANCHORED_OFTEN, WITHOUT_STATES, Pipeline
from support.receiver import SECRET
from support.waiting import wait_for

AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}
SERVER = Path(__file__).parents[1] / "support" / "clickhouse_server.py"
PROCESSES = ("seal", "store", "anchor", "watch")
Lines = list[tuple[str, str, str]]
"""Subject, state, and text with action."""


@pytest.fixture(scope="module")
def broker_with_rules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    with LocalBroker(tmp_path_factory.mktemp("broker-with-rules"), properties=AUTHORIZER) as running:
        yield running


@pytest.fixture(scope="module")
def pipeline(broker_with_rules: LocalBroker, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    running = make_pipeline(broker_with_rules.bootstrap_servers, WITHOUT_STATES | ANCHORED_OFTEN)
    running.start(*PROCESSES)
    running.wait_ready()
    wait_for((running.data_dir / "anchors.jsonl").exists, "there is an anchor")
    return running


def examine(pipeline: Pipeline, *, exit_code: int) -> Lines:
    """Return what ``doctor`` says, without what is ok."""
    answer = pipeline.run("doctor", "-o", "json", "--problems")
    assert answer.returncode == exit_code, (answer.stdout, answer.stderr)
    return [(one["subject"], one["state"], f"{one['text']} → {one['action']}") for one in json.loads(answer.stdout)]


def problems(pipeline: Pipeline) -> list[str]:
    """Return the texts of the problems; there is at least one."""
    return [text for _, state, text in examine(pipeline, exit_code=1) if state == "problem"]


@contextmanager
def altered(pipeline: Pipeline, topic: str, name: str, value: str) -> Iterator[None]:
    """Change a setting of a topic, as an operator can."""

    def alter(operation: AlterConfigOpType) -> None:
        entry = ConfigEntry(name, value, incremental_operation=operation)
        resource = ConfigResource(ResourceType.TOPIC, pipeline.cluster.physical(topic), incremental_configs=[entry])
        for future in pipeline.cluster.admin.incremental_alter_configs([resource]).values():
            future.result(10)

    before = pipeline.cluster.admin.describe_configs(
        [ConfigResource(ResourceType.TOPIC, pipeline.cluster.physical(topic))]
    )
    old = next(iter(before.values())).result(10)[name].value
    alter(AlterConfigOpType.SET)
    try:
        yield
    finally:
        value = old
        alter(AlterConfigOpType.SET)


def test_a_deployment_that_is_well_has_only_the_warnings_of_one_broker(pipeline: Pipeline) -> None:
    found = examine(pipeline, exit_code=4)
    assert {(subject, state) for subject, state, _ in found} == {("brokers", "warning"), ("topics", "warning")}, found
    shown = pipeline.run("doctor").stdout
    for text in (
        "seal (pid ",
        "it signed the last sealed batch",
        "none of the 7 logs is stopped",
        "anchors.jsonl has it, too",
        "all migrations of this version are applied",
        "ClickHouse at ",
        "the brokers and the sealers, by the newest sealed batches: within 2 s",
        "connected to Kafka, on any machine: 1 seal, 1 store, 1 watch",
        "besides super users, nobody may write",
    ):
        assert text in shown, (text, shown)
    assert "0 problems, " in shown.splitlines()[-1]


def test_the_other_processes_say_whether_they_are_ready(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    files = {
        "alert_config": webhook_toml("pager", "http://127.0.0.1:1/", str(tmp_path / "secret")),
        "gateway_config": '[[source]]\nname = "bot"\nsystem = "bot"\ninstance = "eu-1"\n',
        "enforce_config": "[targets.t]\nplugin = 'exec'\ncommand = ['/bin/true']\n[[routes]]\ntarget = 't'\n",
    }
    for name, text in files.items():
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        path.chmod(0o600)
        pipeline.environment[f"GRANTLEDGER_{name.upper()}"] = str(path)
    token = pipeline.run("gateway", "token", "bot")
    assert token.returncode == 0, token.stderr
    pipeline.start("alert", "gateway", "enforce")
    follow = ForkedChild(
        ChildSpec("follow", ("follow", "vault", str(tmp_path / "missing.log"))), pipeline.data_dir, pipeline.environment
    )
    pipeline.children["follow"] = follow
    follow.start()
    pipeline.wait_ready("alert", "gateway", "enforce")
    told = f"waits for files: {tmp_path}/missing.log: there is no such file yet"
    wait_for(lambda: pipeline.health("follow").waits == (told,), "follow names the file")
    (tmp_path / "missing.log").write_text("")
    pipeline.wait_ready("follow")
    assert pipeline.health("gateway").notes == ("Kafka answers; the spool is empty",)
    assert pipeline.health("enforce").notes[0].startswith("revokes nothing")
    shown = pipeline.run("doctor").stdout
    for name in ("alert", "gateway", "enforce", "follow"):
        assert f"{name} (pid {pipeline.children[name].pid}) is ready" in shown, shown
    pipeline.stop("alert", "gateway", "enforce", "follow")


@pytest.mark.parametrize(
    ("topic", "name", "value"),
    [
        ("access.lifecycle", "message.timestamp.type", "CreateTime"),
        ("access.findings.sealed", "retention.ms", "86400000"),
        ("access.commands", "unclean.leader.election.enable", "true"),
    ],
)
def test_a_changed_topic(pipeline: Pipeline, topic: str, name: str, value: str) -> None:
    with altered(pipeline, topic, name, value):
        [text] = problems(pipeline)
    assert f"{pipeline.cluster.physical(topic)} " in text and f"--add-config {name}=" in text


def test_who_may_write(pipeline: Pipeline) -> None:
    """The rules of a real authorizer."""
    admin, findings = pipeline.cluster.admin, pipeline.cluster.physical("access.findings")

    def rule(who: str, name: str) -> AclBinding:
        return AclBinding(
            ResourceType.TOPIC, name, ResourcePatternType.LITERAL, who, "*", AclOperation.WRITE, AclPermissionType.ALLOW
        )

    rules = [rule("User:*", findings), rule("User:sender", pipeline.cluster.physical("access.lifecycle"))]
    for future in admin.create_acls(rules).values():
        future.result(10)
    wait_for(lambda: f"everybody may write {findings}" in problems(pipeline)[0], "the rule is found", pause=1.0)


def test_a_process_that_was_killed_and_one_that_hangs(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grantledger.runtime.process_health.ANSWER_SECONDS", 2.5)
    monkeypatch.setattr("grantledger.runtime.doctor.examination.STORE_SECONDS", 1.0)
    pid = pipeline.children["anchor"].pid
    pipeline.kill("anchor")
    store = pipeline.children["store"].pid
    assert store is not None
    os.kill(store, signal.SIGSTOP)
    try:
        found = " ".join(problems(pipeline))
    finally:
        os.kill(store, signal.SIGCONT)
    assert f"anchor (pid {pid}) ended without a clean stop" in found
    assert f"store (pid {store}) does not answer /readyz" in found
    pipeline.start("anchor")
    pipeline.wait_ready("anchor", "store")


def test_another_version_of_a_process(pipeline: Pipeline) -> None:
    path = pipeline.data_dir / "run" / "seal.json"
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | {"version": "0.0.1"}))
    try:
        assert "seal 0.0.1" in " ".join(text for _, _, text in examine(pipeline, exit_code=1))
    finally:
        path.write_text(before)


def test_the_keys(pipeline: Pipeline) -> None:
    settings = pipeline.settings()
    private, public = settings.private_key_path, settings.public_key_path
    before = private.read_bytes(), public.read_bytes()
    try:
        private.chmod(0o644)
        assert "chmod 600" in " ".join(problems(pipeline))
        other = LocalSigner.generate()
        private.write_bytes(other.to_pem(None))
        private.chmod(0o600)
        public.write_bytes(public_pem(other.public_key))
        assert f"{public} did not sign this ledger" in " ".join(problems(pipeline))
    finally:
        private.write_bytes(before[0])
        public.write_bytes(before[1])


def test_a_target_of_anchors_that_is_behind(pipeline: Pipeline, tmp_path: Path) -> None:
    environment = pipeline.environment | {"GRANTLEDGER_ANCHOR_FILE": str(tmp_path / "not a folder" / "anchors.jsonl")}
    (tmp_path / "not a folder").write_text("")
    answer = pipeline.run("doctor", "--problems", environment=environment)
    assert "not a folder/anchors.jsonl cannot be read" in answer.stdout, answer.stdout


def test_a_data_folder_that_is_a_file(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    answer = pipeline.run("doctor", environment=pipeline.environment | {"GRANTLEDGER_DATA_DIR": str(tmp_path / "data")})
    assert answer.returncode in (1, 2) and "Traceback" not in answer.stderr
    assert str(tmp_path / "data") in answer.stdout + answer.stderr


def test_a_store_that_stopped(pipeline: Pipeline) -> None:
    pipeline.stop("store")
    assert any("no process has the store" in text for text in problems(pipeline))
    # Until its session in the group is over.
    told = f"no `run store` of {pipeline.deployment} is connected to Kafka (store): nothing is stored"
    wait_for(lambda: any(text.startswith(told) for text in problems(pipeline)), "the group has no member", pause=2.0)


def test_a_server_with_old_and_changed_migrations(pipeline: Pipeline, tmp_path: Path) -> None:
    command = [sys.executable, str(SERVER), str(tmp_path / "data"), "0", "ledger", "right"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        store = {"GRANTLEDGER_CLICKHOUSE_URL": url, "GRANTLEDGER_CLICKHOUSE_USER": "ledger"}
        environment = pipeline.environment | store | {"GRANTLEDGER_CLICKHOUSE_PASSWORD": "right"}
        last = available()[-1]
        with connect(StoreAddress(tmp_path, url, "ledger", "right")) as client:
            migrate(client, last.version - 1)
            old = pipeline.run("doctor", environment=environment).stdout
            client.command("ALTER TABLE migrations UPDATE sha256 = '' WHERE version = 1 SETTINGS mutations_sync = 2")
            changed = pipeline.run("doctor", "-q", environment=environment).stdout
        process.kill()
    assert f"1 migration not applied: {last.name} → start `run store`" in old, old
    assert "disk default: " in old and "not needed: the store is on a ClickHouse server" in old
    assert "0001_evidence.sql was applied with other text" in changed, changed
