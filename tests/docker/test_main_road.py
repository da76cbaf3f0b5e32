"""Kafka, ClickHouse and each process in its own container: send, seal, store, an overdue grant, a kill, verify."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.containers import kill, our_container, run_in, stop, text_of, wait_healthy
from support.waiting import wait_for

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.network import Network

pytestmark = pytest.mark.docker
PROCESSES = ("seal", "store", "anchor", "watch", "sweep")
PASSWORD = secrets.token_urlsafe(16)
POLICY = "[default]\ngrace_seconds = 2\n"
KAFKA = {
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_LISTENERS": "CLIENT://0.0.0.0:9092,CONTROLLER://localhost:9093",
    "KAFKA_ADVERTISED_LISTENERS": "CLIENT://kafka:9092",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "KAFKA_INTER_BROKER_LISTENER_NAME": "CLIENT",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    "KAFKA_LOG_DIRS": "/tmp/kafka",
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
}
SETTINGS = {
    "GRANTLEDGER_DEPLOYMENT": "containers.example",
    "GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
    "GRANTLEDGER_CLICKHOUSE_URL": "http://clickhouse:8123",
    "GRANTLEDGER_CLICKHOUSE_USER": "ledger",
    "GRANTLEDGER_CLICKHOUSE_PASSWORD": PASSWORD,
    "GRANTLEDGER_WATCH_POLICY": "/etc/grantledger/policy.toml",
    "GRANTLEDGER_ANCHOR_INTERVAL_SECONDS": "3",
    "GRANTLEDGER_SWEEP_INTERVAL_SECONDS": "10",
}
SENT = "SELECT count() AS c FROM events WHERE source_system = 'emit'"


@dataclass
class Deployment:
    """Containers by their process or server, in one network without a way out."""

    network: Network
    volume: str
    policy: Path
    containers: dict[str, DockerContainer]
    sent: int = 0

    def send(self, count: int, **options: str) -> None:
        """Send the activations of some grants."""
        for _ in range(count):
            given = {"subject": "alice@example.com", "resource-kind": "database", "resource": "orders"}
            given |= {"entitlement": "readwrite", "expires-in": "1h", **options}
            words = [word for name, value in given.items() for word in (f"--{name}", value)]
            run_in(self.containers["client"], "grantledger", "emit", "grant.activated", *words)
            self.sent += 1

    def query(self, sql: str) -> list[dict[str, Any]]:
        output = run_in(self.containers["client"], "grantledger", "query", sql, "--format", "JSONEachRow")
        return [json.loads(line) for line in output.splitlines()]

    def wait_stored(self) -> None:
        wait_for(lambda: int(self.query(SENT)[0]["c"]) == self.sent, f"{self.sent} events are stored", pause=1.0)

    def verify(self) -> dict[str, Any]:
        output = run_in(self.containers["client"], "grantledger", "verify", "-o", "json", codes=(0, 4))
        report: dict[str, Any] = json.loads(output)
        assert report["sound"], output
        return report


@pytest.fixture(scope="module")
def deployment(engine: Any, servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.network import Network

    with ExitStack() as stack:
        network = stack.enter_context(Network(docker_network_kw={"internal": True}))
        volume = engine.volumes.create()
        stack.callback(volume.remove, force=True)
        users = {"CLICKHOUSE_USER": "ledger", "CLICKHOUSE_PASSWORD": PASSWORD}
        containers = {
            "kafka": DockerContainer(servers["kafka"], env=KAFKA),
            "clickhouse": DockerContainer(servers["clickhouse"], env=users),
        }
        for name, container in containers.items():
            stack.enter_context(container.with_network(network).with_network_aliases(name))
        policy = tmp_path_factory.mktemp("settings") / "policy.toml"
        policy.write_text(POLICY)
        policy.chmod(0o644)
        made = Deployment(network, volume.name, policy, containers)
        with our(made, "init") as init:
            wait_for(lambda: tried(init), "the ledger is initialised", limit=180, pause=1.0)
        client = our(made, entrypoint=["sleep", "infinity"], healthcheck={"test": ["NONE"]})
        containers["client"] = stack.enter_context(client)
        for name in PROCESSES:
            restarted = {"restart_policy": {"Name": "on-failure"}}
            containers[name] = stack.enter_context(our(made, "run", name, **restarted))
        for name in PROCESSES:
            wait_healthy(containers[name])
        yield made


def our(deployment: Deployment, *command: str, **options: Any) -> DockerContainer:
    container = our_container(*command, data=deployment.volume, network=deployment.network, **options)
    return container.with_envs(**SETTINGS).with_volume_mapping(deployment.policy, SETTINGS["GRANTLEDGER_WATCH_POLICY"])


def tried(init: DockerContainer) -> bool:
    """Whether `init` has succeeded. It is tried again until Kafka answers."""
    code = init.wait()
    assert code in (0, 1), text_of(init)
    if code:
        init.get_wrapped_container().start()
    return code == 0


def test_an_event_is_sealed_stored_and_verified(deployment: Deployment) -> None:
    deployment.send(2)
    deployment.wait_stored()
    assert deployment.verify()["entries"] > 2


def test_a_grant_that_nobody_removes_is_found_overdue(deployment: Deployment) -> None:
    deployment.send(1, **{"expires-in": "3s", "subject": "mallory@example.com"})

    def found() -> bool:
        rows = deployment.query("SELECT rule, subject_id FROM finding_events WHERE event_type = 'finding.opened'")
        return {"rule": "overdue", "subject_id": "mallory@example.com"} in rows

    wait_for(found, "the grant is overdue", pause=1.0)
    assert "mallory@example.com" in run_in(deployment.containers["client"], "grantledger", "findings", "list")


@pytest.mark.parametrize("name", ["seal", "store", "watch", "kafka"])
def test_a_killed_container_loses_nothing_and_duplicates_nothing(deployment: Deployment, name: str) -> None:
    kill(deployment.containers[name])
    if name != "kafka":
        deployment.send(2)
    deployment.containers[name].get_wrapped_container().start()
    check = ["grantledger", "topics", "check"]
    wait_for(lambda: deployment.containers["client"].exec(check).exit_code == 0, "Kafka answers", pause=1.0)
    for process in PROCESSES:
        wait_healthy(deployment.containers[process])
    deployment.send(1)
    deployment.wait_stored()
    deployment.verify()


def test_every_process_drains_on_sigterm(deployment: Deployment) -> None:
    deployment.send(1)
    deployment.wait_stored()
    report = deployment.verify()
    assert {name: stop(deployment.containers[name]) for name in PROCESSES} == dict.fromkeys(PROCESSES, 0)
    assert report["entries"] >= deployment.sent
