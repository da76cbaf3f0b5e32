"""A real Fluentd sends the lines of a file to the gateway, with the configuration of the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.gateway import teleport_log
from support.real_programs import child, needed
from support.served_gateway import TOKEN, ServedGateway, served
from support.waiting import wait_for

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "gateway.md").read_text("utf-8")
INPUT = """
<source>
  @type tail
  path {folder}/audit.log
  pos_file {folder}/position
  tag vault.audit
  read_from_head true
  refresh_interval 1
  <parse>
    {parser}
  </parse>
</source>
"""


@pytest.fixture(scope="module")
def program() -> str:
    return needed("fluentd")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[ServedGateway]:
    with served(tmp_path, "teleport") as running:
        yield running


@contextmanager
def fluentd(program: str, folder: Path, gateway: ServedGateway, parser: str = "@type none") -> Iterator[None]:
    """Run a Fluentd that follows ``audit.log``. It sends twice in a second, and not only once in a minute."""
    [output] = re.findall(r"```\n(<match vault.*?)```", PAGE, re.DOTALL)
    output = output.replace("https://gateway.example.com:8443/ingest/vault", f"{gateway.url}/ingest/teleport")
    output = output.replace("Bearer TOKEN", f"Bearer {TOKEN}").replace("/var/log/fluentd", str(folder))
    output = output.replace("retry_forever true", "retry_forever true\n    flush_interval 0.5s")
    file, log = folder / "fluentd.conf", folder / "fluentd.log"
    file.write_text(INPUT.format(folder=folder, parser=parser) + output)
    with child([program, "-c", file, "--no-supervisor"], log, lambda: b"worker is now running" in log.read_bytes()):
        yield


@pytest.mark.parametrize("parser", ["@type none", "@type json\n    keep_time_key true"], ids=["lines", "parsed"])
def test_lines_have_the_ids_of_import(
    program: str, gateway: ServedGateway, tmp_path: Path, samples: Path, parser: str
) -> None:
    expected = teleport_log(tmp_path, samples)
    with fluentd(program, tmp_path, gateway, parser):
        stored = gateway.wait_for_events(len(expected))
    assert [event["event_id"] for event in stored] == expected


def test_after_503_it_sends_again(program: str, gateway: ServedGateway, tmp_path: Path, samples: Path) -> None:
    expected = teleport_log(tmp_path, samples)
    gateway.kafka.refuses_next.append("Broker: Not enough in-sync replicas")
    with fluentd(program, tmp_path, gateway):
        wait_for(lambda: {one["event_id"] for one in gateway.kafka.events} == set(expected), "all events are in Kafka")
    assert gateway.kafka.refusals == 1
