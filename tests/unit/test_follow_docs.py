"""The page about ``follow`` and the examples in ``deploy/``: what people copy must work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from grantledger.base.toml import load_toml
from grantledger.producers.follow import metrics, sender
from grantledger.producers.follow.config import load_follow_config
from grantledger.runtime.settings import Settings
from support.command import invoke

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "follow.md").read_text("utf-8")
UNIT = (ROOT / "deploy" / "systemd" / "grantledger-follow.service").read_text("utf-8")
SIDECAR = (ROOT / "deploy" / "kubernetes" / "follow-sidecar.yaml").read_text("utf-8")


def reached_kafka(arguments: list[str], folder: Path) -> bool:
    """Return whether everything in a command is right but the missing broker."""
    local = [one.replace("/etc/grantledger", str(folder)).replace("/var/lib", str(folder)) for one in arguments]
    done = invoke(*local, "--once")
    return done.exit_code == 2 and "no Kafka broker" in done.stderr


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    """A folder with the two files of the page, without brokers."""
    tools, settings = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "follow.toml").write_text(tools)
    (tmp_path / "settings.toml").write_text(settings)
    assert load_toml(tmp_path / "settings.toml", Settings).metrics_port == 9464
    assert [one.name for one in load_follow_config(tmp_path / "follow.toml").follow] == [
        "vault/vault-eu-1",
        "teleport/tenant=payments",
    ]
    (tmp_path / "settings.toml").write_text(re.sub("kafka_bootstrap_servers.*", "", settings))
    (tmp_path / "follow.toml").write_text(re.sub("source_key.*", "", tools))
    return tmp_path


def test_the_command_of_the_unit_is_right(configured: Path) -> None:
    [command] = re.findall(r"^ExecStart=\S+/grantledger (.*?[^\\])$", UNIT, re.DOTALL | re.MULTILINE)
    credentials = dict(re.findall(r"^LoadCredential=(\S+):(\S+)$", UNIT, re.MULTILINE))
    for name, path in credentials.items():
        command = command.replace(
            f"%d/{name}", path.replace("/etc/grantledger/settings/follow", "/etc/grantledger/settings")
        )
    assert reached_kafka(command.replace("\\\n", " ").split(), configured)


def test_the_sidecar_is_right(configured: Path) -> None:
    pod: dict[str, Any] = yaml.safe_load(SIDECAR)
    [follow] = pod["spec"]["initContainers"]
    [vault] = pod["spec"]["containers"]
    assert reached_kafka(follow["args"], configured)
    assert follow["restartPolicy"] == "Always"
    volumes = {one["name"] for one in pod["spec"]["volumes"]}
    for container in (follow, vault):
        assert {one["name"] for one in container["volumeMounts"]} <= volumes
    mounts = {one["mountPath"] for one in follow["volumeMounts"]}
    paths = [Path(one.partition("=")[2] or one) for one in follow["args"] if "/" in one]
    assert all(str(path) in mounts or str(path.parent) in mounts for path in paths)


def test_the_page_names_every_metric_and_limit() -> None:
    assert metrics.LINES
    own = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in REGISTRY.collect()
        if family.name.startswith("grantledger_follow_")
    }
    assert own == set(re.findall(r"`(grantledger_follow_\w+)`", PAGE))
    assert f"{sender.MOST_EVENTS:,} events or {sender.MOST_BYTES >> 20} MiB" in PAGE
    assert f"waits up to {sender.STOP_SECONDS:g} s for Kafka" in PAGE
