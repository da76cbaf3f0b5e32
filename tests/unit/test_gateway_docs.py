"""The page about the gateway and its unit: what people copy must work."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import REGISTRY

from grantledger.producers.gateway import answers, delivery, metrics, tool_records
from grantledger.producers.gateway.config import (
    GatewayConfig,
    GatewaySource,
    GatewaySyslog,
    GatewayToken,
    load_gateway_config,
)
from grantledger.producers.gateway.openapi import EVENTS, INGEST
from support.command import invoke

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "gateway.md").read_text("utf-8")
UNIT = (ROOT / "deploy" / "systemd" / "grantledger-gateway.service").read_text("utf-8")


def configurations(folder: Path) -> list[Path]:
    """Write the configurations of the page to files."""
    found = [one for one in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if one.startswith("listen")]
    paths = [folder / f"gateway-{number}.toml" for number in range(len(found))]
    for path, text in zip(paths, found, strict=True):
        path.write_text(text)
        path.chmod(0o600)
    return paths


def test_the_configurations_of_the_page_are_right(tmp_path: Path) -> None:
    first, second = map(load_gateway_config, configurations(tmp_path))
    assert [one.source_system for one in first.source] == ["deploy-bot", "vault"]
    assert not second.is_loopback and second.without_credential() == []


def test_the_syslog_tables_of_the_page_are_right(tmp_path: Path) -> None:
    [tables] = [one for one in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if one.startswith("[[syslog]]")]
    path = configurations(tmp_path)[1]
    vault = '[[source]]\nname = "vault-eu"\ntool = "vault"\ninstance = "vault-eu-1"\n'
    path.write_text(path.read_text() + vault + tables)
    assert [one.protocol for one in load_gateway_config(path).syslog] == ["tls", "tcp"]


def test_the_commands_of_the_page_make_it_complete(tmp_path: Path) -> None:
    [path, _] = configurations(tmp_path)
    environment = {"GRANTLEDGER_GATEWAY_CONFIG": str(path), "GRANTLEDGER_DATA_DIR": str(tmp_path)}
    for source in re.findall(r"^grantledger gateway token (\S+)", PAGE, re.MULTILINE):
        assert invoke("gateway", "token", source, env=environment).exit_code == 0
    assert load_gateway_config(path).without_credential() == []


def test_the_page_explains_every_key_limit_answer_and_metric() -> None:
    for model in (GatewayConfig, GatewaySource, GatewaySyslog, GatewayToken):
        for name, field in model.model_fields.items():
            assert f"`{name}`" in PAGE or f"`[[{name}]]`" in PAGE, name
            if isinstance(field.default, int | float) and field.default > 1:
                assert f" {field.default:g} |" in PAGE
    assert f"At most {delivery.MOST_EVENTS:,} events or {delivery.MOST_BYTES >> 20} MiB" in PAGE
    assert f"does not acknowledge within {delivery.SPOOL_AFTER_SECONDS:g} s" in PAGE
    assert f"up to {answers.MOST_SHOWN:,} records" in PAGE
    assert f"{tool_records.MOST_RECORDS:,} records" in PAGE
    for status in (*EVENTS["responses"], *INGEST["responses"]):
        assert re.search(rf"^\| [0-9, ]*\b{status}\b", PAGE, re.MULTILINE), status
    assert metrics.REQUESTS
    own = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in REGISTRY.collect()
        if family.name.startswith("grantledger_gateway_")
    }
    assert own == set(re.findall(r"`(grantledger_gateway_\w+)`", PAGE))


def test_the_command_of_the_unit_is_right(tmp_path: Path) -> None:
    [command] = re.findall(r"^ExecStart=\S+/grantledger (.*?[^\\])$", UNIT, re.DOTALL | re.MULTILINE)
    (tmp_path / "settings.toml").write_text('gateway_config = "/nowhere/gateway.toml"\n')
    local = command.replace("%d", str(tmp_path)).replace("/var/lib", str(tmp_path))
    done = invoke(*local.split())
    assert done.exit_code == 2 and "/nowhere/gateway.toml: cannot be read" in done.stderr
