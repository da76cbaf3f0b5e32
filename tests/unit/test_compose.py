"""docker-compose.yml against the code: settings, commands, topics' server versions, ports, keys and passwords."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr
from typer.main import get_command

from grantledger.base.toml import load_toml
from grantledger.cli.app import app
from grantledger.enforcers.enforcement_policy import EnforcementPolicy
from grantledger.processors.watch_policy import load_policy
from grantledger.runtime.jars import KAFKA_VERSION
from grantledger.runtime.settings import Settings
from grantledger.schemas.own_sources import OWN_SOURCES
from grantledger.sinks.alerts.config import AlertConfig

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text("utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
FOLDER = ROOT / "deploy" / "compose"
PROMETHEUS = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text("utf-8"))
SOURCES = yaml.safe_load((ROOT / "monitoring/grafana/provisioning/datasources/grantledger.yml").read_text("utf-8"))
IMAGE = "grantledger:local"
OURS = {name: service for name, service in SERVICES.items() if service["image"] == IMAGE}
RUN = {name: service["command"][1] for name, service in OURS.items() if service.get("command", [""])[0] == "run"}
"""The long-running processes, by service."""
PROCESSES = set(get_command(app).commands["run"].commands)  # type: ignore[attr-defined]
METRICS_PORT = "9464"
LOG_KEY = {"seal", "anchor"}
"""The processes that sign for the logs."""
MAKERS = {"secrets", "init"}
"""The services that see the volumes of others."""


def environment(service: str) -> dict[str, str]:
    return dict(SERVICES[service].get("environment", {}))


def mounts(service: str) -> dict[str, str]:
    """Return what is mounted, by the path inside: the name of a volume, or a path of the repository."""
    found = (one.split(":") for one in SERVICES[service].get("volumes", []))
    return {target: source for source, target, *_ in found}


def words(service: str) -> str:
    """Return what a service runs, as text."""
    parts = [SERVICES[service].get(key, []) for key in ("entrypoint", "command")]
    return "\n".join(" ".join(part) if isinstance(part, list) else part for part in parts)


def test_every_process_is_a_service() -> None:
    assert {name: name for name in PROCESSES} == RUN


@pytest.mark.parametrize("service", OURS)
def test_every_command_exists(service: str) -> None:
    text = words(service).replace("\\\n", " ")
    if service == "init":
        text += (FOLDER / "init.sh").read_text("utf-8")
    if not SERVICES[service].get("entrypoint"):
        text = f"grantledger {text.strip()}"
    called = re.findall(r"(?:^|[\s;])grantledger ((?:[a-z-]+ ?)*)", text)
    assert called or service in ("secrets", "verify", "cli")
    for names in called:
        command: Any = get_command(app)
        for name in names.split():
            if not hasattr(command, "commands"):
                break
            command = command.commands[name]
        assert not hasattr(command, "commands") or service == "cli", f"{names!r} is no command"


def test_every_variable_is_a_setting_and_none_is_a_secret() -> None:
    used = {name for service in OURS for name in environment(service)} | set(re.findall(r"\$\{(GRANTLEDGER_\w+)", TEXT))
    for name in used:
        field = Settings.model_fields[name.removeprefix("GRANTLEDGER_").lower()]
        assert SecretStr not in getattr(field.annotation, "__args__", (field.annotation,)), name


def test_no_password_is_in_the_file() -> None:
    for service in SERVICES:
        for name, value in environment(service).items():
            if re.search(r"PASSWORD|SECRET|TOKEN|CREDENTIAL|_KEY$", name):
                assert name.endswith("_FILE") and value.startswith("/run/secrets/"), f"{service}: {name}"
    assert not re.search(r"://[^/\s]*:[^/\s]*@", TEXT)


def test_the_servers_have_the_versions_that_are_tested() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    engine = ".".join(importlib.metadata.version("chdb-core").split(".")[:2])
    assert SERVICES["clickhouse"]["image"] == f"clickhouse/clickhouse-server:{engine}"


def test_every_image_is_pinned() -> None:
    for name, service in SERVICES.items():
        version = service["image"].rpartition(":")[2]
        assert service["image"] == IMAGE or re.fullmatch(r"v?\d+\.\d+(\.\d+)?", version), name


def test_prometheus_scrapes_every_process_and_nothing_else() -> None:
    targets = {
        target for job in PROMETHEUS["scrape_configs"] for one in job["static_configs"] for target in one["targets"]
    }
    assert targets == {f"{name}:{METRICS_PORT}" for name in RUN} | {"node-exporter:9100"}
    for name in RUN:
        assert environment(name)["GRANTLEDGER_METRICS_PORT"] == METRICS_PORT
        assert environment(name)["GRANTLEDGER_METRICS_HOST"] == "0.0.0.0"
        assert "monitoring" in SERVICES[name]["networks"]
    assert PROMETHEUS["rule_files"] == ["prometheus-rules.yml"]
    for name in ("prometheus", "alertmanager"):
        [config] = [part for part in SERVICES[name]["command"] if part.startswith("--config.file=/monitoring/")]
        assert (ROOT / config.removeprefix("--config.file=/")).is_file()
        assert mounts(name)["/monitoring"] == "./monitoring"


def test_the_doctor_asks_every_process() -> None:
    addresses = json.loads(environment("cli")["GRANTLEDGER_PROCESS_ADDRESSES"])
    assert sorted(addresses) == sorted(f"{name}:{METRICS_PORT}" for name in RUN if name != "enforce")
    assert "monitoring" in SERVICES["cli"]["networks"]


def test_the_alerts_reach_alertmanager() -> None:
    config = load_toml(FOLDER / "alerts.toml", AlertConfig)
    [target] = [one["targets"] for one in PROMETHEUS["alerting"]["alertmanagers"][0]["static_configs"]]
    assert [channel.url for channel in config.channels.values()] == [f"http://{one}" for one in target]
    assert set(SERVICES["alert"]["networks"]) & set(SERVICES["alertmanager"]["networks"])


def test_only_the_gateway_and_grafana_are_published_and_only_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"gateway": ["127.0.0.1:8480:8480"], "grafana": ["127.0.0.1:3000:3000"]}
    inner = {name for name, network in COMPOSE["networks"].items() if network and network.get("internal")}
    assert inner == {"kafka", "clickhouse", "monitoring"}


@pytest.mark.parametrize("service", OURS)
def test_a_container_of_ours_can_do_little(service: str) -> None:
    found = SERVICES[service]
    assert found["read_only"] is True and found["tmpfs"] == ["/tmp"]
    assert found["cap_drop"] == ["ALL"] and found["security_opt"] == ["no-new-privileges:true"]
    if service == "secrets":  # root, to give the volumes to others: so without a network
        assert found["network_mode"] == "none"
    else:
        assert "user" not in found and "cap_add" not in found


@pytest.mark.parametrize("service", SERVICES)
def test_no_container_is_privileged(service: str) -> None:
    assert "no-new-privileges:true" in SERVICES[service]["security_opt"]
    assert not {"privileged", "pid", "ipc", "devices"} & SERVICES[service].keys()
    assert not any("docker.sock" in source for source in mounts(service).values())


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_mounted_exists(service: str) -> None:
    for source in mounts(service).values():
        if source.startswith("./"):
            assert (ROOT / source).exists(), source
        else:
            assert source in COMPOSE["volumes"]


def test_each_process_has_a_folder_of_its_own() -> None:
    for name in RUN:
        assert mounts(name)["/data"] == name
    folders = [mounts(name).get("/data") for name in OURS if name not in MAKERS and "/data" in mounts(name)]
    assert len(folders) == len(set(folders))


def test_only_the_makers_see_all_keys_and_passwords() -> None:
    for volume in ("secrets", "ledger"):
        assert {name for name in SERVICES if volume in mounts(name).values()} <= MAKERS
    assert set(mounts("clickhouse").values()) == {"clickhouse", "clickhouse-users"}
    assert "grafana-secrets" in mounts("grafana").values()


def test_everything_starts_after_what_it_needs() -> None:
    for name in {*RUN, "verify"}:
        needed = SERVICES[name]["depends_on"]
        assert needed["init"]["condition"] == "service_completed_successfully"
        assert needed["kafka"]["condition"] == "service_healthy"
        uses_the_store = "GRANTLEDGER_CLICKHOUSE_URL" in environment(name)
        assert ("clickhouse" in needed) == uses_the_store == ("clickhouse" in SERVICES[name]["networks"])
        assert uses_the_store == (environment(name).get("GRANTLEDGER_CONFIG") == "/data/settings.toml")
    assert SERVICES["init"]["depends_on"]["secrets"]["condition"] == "service_completed_successfully"
    for name in ("watch", "sweep"):
        assert SERVICES[name]["depends_on"]["demo-policy"]["required"] is False
        assert environment(name)["GRANTLEDGER_WATCH_POLICY"].startswith("/policy/")


def test_the_health_of_a_process_is_that_of_the_image() -> None:
    for name in OURS:
        if name in RUN:
            assert "healthcheck" not in SERVICES[name]
        else:
            assert SERVICES[name]["healthcheck"] == {"disable": True}


def test_nothing_is_killed_while_it_stops() -> None:
    """As long as with systemd: TimeoutStopSec."""
    common = (ROOT / "deploy/systemd/grantledger-.service.d/common.conf").read_text("utf-8")
    [seconds] = re.findall(r"^TimeoutStopSec=(\d+)$", common, re.MULTILINE)
    assert {SERVICES[name]["stop_grace_period"] for name in RUN} == {f"{seconds}s"}


def test_kafka_keeps_its_topics_in_the_volume() -> None:
    assert mounts("kafka") == {environment("kafka")["KAFKA_LOG_DIRS"]: "kafka"}
    assert environment("kafka")["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    servers = {environment(name).get("GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS") for name in {*RUN, "init", "demo", "cli"}}
    assert {f"CLIENT://{server}" for server in servers} == {environment("kafka")["KAFKA_ADVERTISED_LISTENERS"]}


def test_grafana_reads_what_the_file_says() -> None:
    by_uid = {one["uid"]: one for one in SOURCES["datasources"]}
    clickhouse = by_uid["grantledger-clickhouse"]
    plugin, _, version = environment("grafana")["GF_PLUGINS_PREINSTALL_SYNC"].partition("@")
    assert plugin == clickhouse["type"] and re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert clickhouse["jsonData"]["host"] in SERVICES and clickhouse["jsonData"]["username"] == "analyst"
    assert clickhouse["secureJsonData"] == {"password": "$__file{/run/secrets/grafana/clickhouse-password}"}
    assert mounts("grafana")["/run/secrets/grafana"] == "grafana-secrets"
    assert by_uid["grantledger-prometheus"]["url"] == "http://prometheus:9090"
    assert by_uid["grantledger-alertmanager"]["url"] == "http://alertmanager:9093"


def test_the_files_for_the_processes_are_valid() -> None:
    load_policy(FOLDER / "policy.toml")
    load_toml(FOLDER / "enforce.toml", EnforcementPolicy)
    for name in RUN:
        for value in environment(name).values():
            if value.startswith("/compose/"):
                assert (FOLDER / Path(value).name).exists() and mounts(name)["/compose"] == "./deploy/compose"


def test_each_process_gets_only_the_keys_that_it_needs(tmp_path: Path) -> None:
    done = initialise(tmp_path)
    assert done.returncode == 0, done.stderr
    given = {
        folder.name: {path.name.removesuffix(".pem") for path in folder.rglob("*.pem")}
        for folder in (tmp_path / "volumes").iterdir()
    }
    own = {name: {name.replace("enforce", "enforcer")} for name in PROCESSES - {"gateway"}} | {"operator": {"operator"}}
    expected = {name: {f"grantledger-{one}" for one in {*names, "reader"}} for name, names in own.items()}
    for name in LOG_KEY:
        expected[name].add("log")
    assert given == expected | {"verify": set(), "policy": set()}
    assert {name for names in given.values() for name in names} == {*OWN_SOURCES, "log"}
    for folder in {*expected, "verify"}:
        assert (tmp_path / "volumes" / folder / "keys" / "log.pub").exists()
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "volumes").rglob("*.pem")} == {0}
    assert set(mounts("init")) >= {f"/volumes/{name}" for name in given}


def test_a_second_start_makes_no_second_ledger(tmp_path: Path) -> None:
    initialise(tmp_path)
    key = tmp_path / "volumes" / "seal" / "keys" / "log.pem"
    kept = key.read_text()
    assert initialise(tmp_path).returncode == 0
    assert key.read_text() == kept
    assert (tmp_path / "called").read_text().split("\n")[:-1] == [
        f"policy check {tmp_path}/compose/policy.toml", "init", "init --clickhouse-roles --quiet",
        f"policy check {tmp_path}/compose/policy.toml", "topics create", "init --clickhouse-roles --quiet",
    ]  # fmt: skip


def initialise(root: Path) -> subprocess.CompletedProcess[str]:
    """Run init.sh below another root, with a program that only makes the keys."""
    keys = " ".join(f"sources/{name}.pem" for name in OWN_SOURCES)
    program = root / "bin" / "grantledger"
    program.parent.mkdir(exist_ok=True)
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {root}/called\n[ "$*" = init ] || exit 0\ncd {root}/data/keys\n'
        f'for one in log.pem log.pub {keys}; do echo "$one $$" > "$one"; done\n'
    )
    program.chmod(0o755)
    for folder in ("data/keys/sources", "volumes/policy", "compose"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    shutil.copy(FOLDER / "policy.toml", root / "compose")
    command = ["/bin/sh", FOLDER / "init.sh", root]
    path = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    return subprocess.run(command, env=path, capture_output=True, text=True, check=False)


def test_docker_accepts_the_file() -> None:
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    known = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if known.returncode != 0:
        pytest.skip("docker has no compose")
    files = ("docker-compose.yml", "tests/support/compose/stand-ins.yml")
    for given in (files[:1], files):
        command = [
            "docker",
            "compose",
            *(part for one in given for part in ("-f", one)),
            "--profile",
            "*",
            "config",
            "-q",
        ]
        environ = {**os.environ, "PROGRAMS": "/programs"}
        done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
