"""A real OpenTelemetry Collector sends the lines of a file to the gateway, with the configuration of the page."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from support.gateway import imported_ids, teleport_log
from support.real_programs import child, needed
from support.served_gateway import TOKEN, ServedGateway, served
from support.waiting import wait_for

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "gateway.md").read_text("utf-8")
SMALL = """
  telemetry:
    metrics:
      level: none
"""


@pytest.fixture(scope="module")
def program() -> str:
    return needed("otelcol-contrib")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[ServedGateway]:
    with served(tmp_path, "teleport") as running:
        yield running


@contextmanager
def collector(program: str, folder: Path, gateway: ServedGateway) -> Iterator[None]:
    """Run a collector that follows ``audit.log``."""
    [text] = re.findall(r"```yaml\n(extensions:.*?)```", PAGE, re.DOTALL)
    (folder / "storage").mkdir(exist_ok=True)
    text = text.replace("/var/lib/otelcol", f"{folder}/storage").replace("/var/log/vault", str(folder))
    file, log = folder / "otelcol.yaml", folder / "otelcol.log"
    file.write_text(text.replace("https://gateway.example.com:8443", gateway.url) + SMALL)
    with (
        mock.patch.dict(os.environ, {"GRANTLEDGER_TOKEN": TOKEN}),
        child([program, "--config", file], log, lambda: b"Everything is ready" in log.read_bytes()),
    ):
        yield


def test_lines_have_the_ids_of_import_also_after_a_restart(
    program: str, gateway: ServedGateway, tmp_path: Path, samples: Path
) -> None:
    lines = (samples / "teleport" / "audit_fixtures.jsonl").read_bytes()
    at = lines.index(b"\n", len(lines) // 2) + 1
    file, expected = tmp_path / "audit.log", imported_ids("teleport", lines)
    file.write_bytes(lines[:at])
    with collector(program, tmp_path, gateway):
        gateway.wait_for_events(len(imported_ids("teleport", lines[:at])))
    with file.open("ab") as grows:
        grows.write(lines[at:])
    with collector(program, tmp_path, gateway):
        stored = gateway.wait_for_events(len(expected))
    assert [event["event_id"] for event in stored] == expected


def test_after_503_it_sends_again(program: str, gateway: ServedGateway, tmp_path: Path, samples: Path) -> None:
    expected = teleport_log(tmp_path, samples)
    gateway.kafka.refuses_next.append("Broker: Not enough in-sync replicas")
    with collector(program, tmp_path, gateway):
        wait_for(lambda: {one["event_id"] for one in gateway.kafka.events} == set(expected), "all events are in Kafka")
    assert gateway.kafka.refusals == 1
