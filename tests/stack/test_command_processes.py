"""Every command once as its users run it: a process of its own. Other tests run most commands in their own process.

``up`` and ``demo`` are in fault/test_up.py, ``follow`` is in fault/test_follow_kills.py. All stack tests start the
processes of ``run``.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import pytest

from grantledger.cli.tree import COMMANDS, Group
from grantledger.processors.notices import SEALING, finding_opened
from grantledger.producers.gateway.credentials import TOKEN_PREFIX
from support.alerting import webhook_toml
from support.pipeline import Pipeline
from support.receiver import SECRET
from support.shared_broker import RunningBroker
from support.waiting import wait_for


class Ledger:
    """A ledger made with ``grantledger init``, its processes, and one grant and one finding in it."""

    def __init__(self, bootstrap_servers: str, folder: Path) -> None:
        (folder / "secret").write_text(SECRET)
        (folder / "secret").chmod(0o600)
        self.alerts = str(folder / "alerts.toml")
        (folder / "alerts.toml").write_text(webhook_toml("pager", "http://127.0.0.1:1/", str(folder / "secret")))
        gateway = folder / "gateway.toml"
        gateway.write_text('[[source]]\nname = "bot"\nsystem = "deploy-bot"\ninstance = "eu-1"\n')
        gateway.chmod(0o600)
        self.pipeline = Pipeline(
            bootstrap_servers,
            folder / "data",
            {"GRANTLEDGER_ALERT_CONFIG": self.alerts, "GRANTLEDGER_GATEWAY_CONFIG": str(gateway)},
            deployment="commands.example",
            topic_prefix="commands-",
        )
        self.created = self.run("init")
        self.pipeline.start("seal", "store", "alert")
        self.sent = self.run(
            "emit", "grant.activated", "--subject", "alice", "--resource-kind", "database", "--resource", "orders",
            "--entitlement", "rw", "--expires-in", "1h", "--grant-id", "g-1",
        )  # fmt: skip
        # So that the first event in the findings is the sealer's registration of the schema.
        self.pipeline.wait_stored(1)
        event = finding_opened(
            "commands.example", SEALING, rule="head_mismatch", key="access.activity/0", evidence={},
            at=datetime.now(UTC), identity="1",
        )  # fmt: skip
        self.pipeline.publish(event)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.pipeline.run_process(*arguments)

    @cached_property
    def finding(self) -> str:
        def listed() -> str:
            return self.pipeline.run("findings", "-q").stdout.strip()

        return wait_for(listed, "the finding is stored")

    def source(self, key: str = "") -> tuple[str, ...]:
        """Name a source, and a new file for its key; it is registered except for the first key."""
        if key != "first.pem":
            wait_for(lambda: "vault-1" in self.pipeline.run("sources", "keys").stdout, "the registration is sealed")
        return "vault", "--instance", "vault-1", *(("--key", str(self.pipeline.data_dir / key)) if key else ())

    @cached_property
    def policy(self) -> str:
        path = self.pipeline.data_dir / "policy.toml"
        path.write_text(self.pipeline.run("demo", "--policy").stdout)
        return str(path)

    @cached_property
    def event(self) -> str:
        path = self.pipeline.data_dir / "event.json"
        path.write_text('{"event_type":"session.started","subject":"alice"}', "utf-8")
        return str(path)

    @cached_property
    def vault_log(self) -> str:
        path = self.pipeline.data_dir / "vault.log"
        written = self.pipeline.run("demo", "--tool", "vault", "--lives", "2", "--write", str(path))
        assert written.returncode == 0, written.stderr
        return str(path)


@pytest.fixture(scope="module")
def ledger(broker: RunningBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    made = Ledger(broker.bootstrap_servers, tmp_path_factory.mktemp("commands"))
    yield made
    made.pipeline.stop()


SUDO = str(Path(__file__).resolve().parents[2] / "producers" / "adapters" / "mapping" / "shipped" / "sudo.toml")
Arguments = Callable[[Ledger], tuple[str, ...]]


def fixed(*arguments: str) -> Arguments:
    return lambda _: arguments


CASES: dict[str, tuple[Arguments, str]] = {
    "topics create": (fixed(), "all topics match"),
    "topics check": (fixed(), "all topics match"),
    "keys show": (fixed(), "commands.example/access.lifecycle/0/0+"),
    "settings": (fixed(), "commands.example"),
    "adapters": (fixed(), "cloudtrail (built in"),
    "check-mapping": (fixed(SUDO), "valid: sudo"),
    "check-redaction": (fixed(), "private_key"),
    "gateway token": (fixed("bot"), TOKEN_PREFIX),
    "check-event": (lambda ledger: (ledger.event,), "right. The pipeline will understand"),
    "import": (lambda ledger: ("vault", ledger.vault_log), "records and events"),
    "status": (fixed("-o", "json"), '"stored"'),
    "query": (fixed("SELECT grant_id FROM active_grants"), "g-1"),
    "grants list": (fixed(), "g-1"),
    "grants show": (fixed("g-1"), "grant.activated"),
    "grants revoke": (fixed("g-1", "--reason", "stolen", "--as", "carol"), "as carol"),
    "findings list": (fixed(), "head_mismatch"),
    "findings show": (lambda ledger: (ledger.finding,), "head_mismatch"),
    "findings ack": (lambda ledger: (ledger.finding, "--as", "carol"), "as carol"),
    "findings close": (lambda ledger: (ledger.finding, "--reason", "restored", "--as", "carol"), "as carol"),
    "channels list": (fixed(), "pager"),
    "channels check": (lambda ledger: (ledger.alerts,), "pager"),
    "channels enable": (fixed("pager"), "pager was not disabled"),
    "breaker show": (fixed(), "all are closed"),
    "breaker close": (fixed("--reason", "none"), "no such breaker is open"),
    "sources list": (fixed(), "source"),
    "sources keys": (fixed(), "grantledger-store"),
    "sources add": (lambda ledger: (*ledger.source("first.pem"), "--reason", "new"), "registered vault/vault-1"),
    "sources rotate": (lambda ledger: (*ledger.source("next.pem"), "--reason", "yearly"), "of vault/vault-1 is valid"),
    "sources remove": (lambda ledger: (*ledger.source(), "--reason", "gone"), "removed vault/vault-1"),
    "policy check": (lambda ledger: (ledger.policy,), "everything (default)"),
    "epoch show": (fixed(), "o log is stopped"),
    "erase": (
        fixed("commands.example/access.lifecycle/0/0:0", "--legal-basis", "a request", "--as", "carol", "--yes"),
        "on record as carol",
    ),
    "verify": (fixed(), "SOUND"),
}
"""By command: its arguments and a part of its output. In this order: later ones change what earlier ones show."""
QUICK = ("topics check", "import", "status", "query", "grants show", "findings list", "sources keys", "verify")
"""These load everything that others load. A process of its own takes a second of CPU, so the others are slow tests."""


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_a_command_as_a_process(ledger: Ledger, name: str) -> None:
    arguments, expected = CASES[name]
    done = ledger.run(*name.split(), *arguments(ledger))
    assert done.returncode == (4 if name == "verify" else 0), done.stderr  # there are no anchors to compare
    assert expected in done.stdout and "Traceback" not in done.stderr


def test_init_and_emit(ledger: Ledger) -> None:
    assert ledger.created.returncode == 0 and "commands.example/" in ledger.created.stdout, ledger.created.stderr
    assert ledger.sent.returncode == 0 and "sent 1 (unsigned), refused 0" in ledger.sent.stdout, ledger.sent.stderr


def test_no_command_is_left_out() -> None:
    names: set[str] = set()
    for name, entry in COMMANDS.items():
        names |= {f"{name} {each}" for each in entry.commands} if isinstance(entry, Group) else {name}
    elsewhere = {
        "init",
        "emit",
        "up",
        "demo",
        "doctor",  # stack/test_doctor.py
        "follow",
        "gateway token",
        "epoch open",
        "keys rotate",
        "recompute",
        *(f"run {name}" for name in COMMANDS["run"].commands),
    }  # type: ignore[union-attr]
    assert names == {*CASES, *elsewhere}, json.dumps(sorted(names))


def test_recompute_needs_a_store_that_no_process_has_open(ledger: Ledger) -> None:
    refused = ledger.run("recompute")
    assert refused.returncode == 2 and "in use by another process" in refused.stderr
    ledger.pipeline.kill("store")
    done = ledger.run("recompute")
    assert done.returncode == 0 and "the states are those of" in done.stdout, done.stderr
