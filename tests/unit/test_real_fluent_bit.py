"""A real Fluent Bit sends the lines of a file to the gateway, with the configuration of the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509

from support.certificates import issue
from support.gateway import teleport_log
from support.real_programs import child, needed
from support.served_gateway import TOKEN, ServedGateway, served

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "gateway.md").read_text("utf-8")
OPENTELEMETRY = """
[OUTPUT]
    Name         opentelemetry
    Match        vault.*
    Host         gateway.example.com
    Port         8443
    Logs_uri     /v1/logs
    Header       Authorization Bearer ${GRANTLEDGER_TOKEN}
    compress     gzip
    tls          On
"""
PARSER = "[PARSER]\n    Name    json\n    Format  json\n"


@pytest.fixture(scope="module")
def program() -> str:
    return needed("fluent-bit")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[ServedGateway]:
    ca = issue(tmp_path, "ca")
    issue(tmp_path, "server", ca, x509.DNSName("gateway.example.com"))
    keys = {"tls_certificate": tmp_path / "server.pem", "tls_key": tmp_path / "server.pem"}
    with served(tmp_path, "teleport", more=keys) as running:
        yield running


@contextmanager
def fluent_bit(program: str, folder: Path, gateway: ServedGateway, output: str, parser: str = "") -> Iterator[Path]:
    """Run Fluent Bit over the file ``audit.log``. The result is its own log."""
    (folder / "parsers.conf").write_text(PARSER)
    service = {
        "Flush": "0.2",
        "Grace": "5",
        "Parsers_File": "parsers.conf",
        "scheduler.base": "1",
        "scheduler.cap": "2",
    }
    tail = {"Name": "tail", "Path": f"{folder}/audit.log", "Tag": "vault.audit", "Read_from_Head": "On"}
    tail |= {"Refresh_Interval": "1", **({"Parser": parser} if parser else {})}
    output = output.replace("/ingest/vault", "/ingest/teleport").replace("vault-eu", "teleport")
    output = output.replace("gateway.example.com", "127.0.0.1").replace("8443", str(gateway.port))
    output = output.replace("${GRANTLEDGER_TOKEN}", TOKEN).rstrip()
    output += f"\n    tls.vhost    gateway.example.com\n    tls.ca_file  {folder}/ca.pem\n"
    sections = [
        f"[{name}]\n" + "".join(f"    {key} {value}\n" for key, value in members.items())
        for name, members in (("SERVICE", service), ("INPUT", tail))
    ]
    file, log = folder / "fluent-bit.conf", folder / "fluent-bit.log"
    file.write_text("\n".join([*sections, output]))
    with child(
        [program, "-c", file], log, lambda: b"[sp]" in log.read_bytes() or b"fluent bit" in log.read_bytes().lower()
    ):
        yield log


def http() -> str:
    [output] = re.findall(r"```\n(\[OUTPUT\].*?)```", PAGE, re.DOTALL)
    return output


@pytest.mark.parametrize(
    ("output", "parser"),
    [(http(), ""), (http(), "json"), (OPENTELEMETRY, "")],
    ids=["http", "http, parsed", "opentelemetry"],
)
def test_lines_have_the_ids_of_import(
    program: str, gateway: ServedGateway, tmp_path: Path, samples: Path, output: str, parser: str
) -> None:
    expected = teleport_log(tmp_path, samples)
    with fluent_bit(program, tmp_path, gateway, output, parser):
        stored = gateway.wait_for_events(len(expected))
    assert [event["event_id"] for event in stored] == expected


def test_after_503_it_sends_again(program: str, gateway: ServedGateway, tmp_path: Path, samples: Path) -> None:
    expected = teleport_log(tmp_path, samples)
    gateway.kafka.refuses_next.extend(["", "Broker: Not enough in-sync replicas"])
    with fluent_bit(program, tmp_path, gateway, http()):
        stored = gateway.wait_for_events(2 * len(expected) - 1)
    assert {event["event_id"] for event in stored} == set(expected) and len(stored) == 2 * len(expected) - 1
