"""A real rsyslogd sends the lines of a file to the gateway, over TCP and TLS."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509

from support.certificates import issue
from support.gateway import imported_ids
from support.real_programs import needed, rsyslog
from support.served_gateway import ServedGateway, served

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "gateway.md").read_text("utf-8")
FILE = """
module(load="imfile")
input(type="imfile" File="{file}" Tag="teleport:")
"""
TCP = 'global(maxMessageSize="1m")\naction(type="omfwd" target="127.0.0.1" port="{port}" protocol="tcp" {options})'


@pytest.fixture(scope="module")
def lines(samples: Path) -> list[bytes]:
    """Records, one of which is longer than rsyslog's default limit of 8 KiB."""
    long = {"event": "session.start", "code": "T2000I", "uid": "long", "sid": "s", "user": "alice", "more": "é" * 9000}
    records = (samples / "teleport" / "audit_fixtures.jsonl").read_bytes().splitlines()
    return [*records, json.dumps({**long, "time": "2024-05-01T10:00:00Z"}, ensure_ascii=False).encode()]


def assert_sent(gateway: ServedGateway, folder: Path, lines: list[bytes], forward: str) -> None:
    expected = imported_ids("teleport", b"\n".join(lines))
    file = folder / "audit.log"
    file.write_bytes(b"\n".join(lines[:50]) + b"\n")
    with rsyslog(folder, FILE.format(file=file) + forward):
        gateway.wait_for_events(1)
        with file.open("ab") as grows:
            grows.write(b"\n".join(lines[50:]) + b"\n")
        stored = gateway.wait_for_events(len(expected))
    assert [event["event_id"] for event in stored] == expected


@pytest.mark.parametrize(
    "options",
    ["", 'TCP_Framing="octet-counted"', 'TCP_Framing="octet-counted" template="RSYSLOG_SyslogProtocol23Format"'],
    ids=["rfc 3164", "rfc 3164, counted", "rfc 5424, counted"],
)
def test_lines_over_tcp_have_the_ids_of_import(tmp_path: Path, lines: list[bytes], options: str) -> None:
    with served(tmp_path, "teleport", syslog=("tcp",)) as gateway:
        assert_sent(gateway, tmp_path, lines, TCP.format(port=gateway.ports["tcp"], options=options))


@contextmanager
def gateway_with_certificates(folder: Path) -> Iterator[ServedGateway]:
    ca = issue(folder, "ca")
    issue(folder, "server", ca, x509.DNSName("gateway.example.com"))
    issue(folder, "client", ca, x509.DNSName("teleport.example.com"))
    more = {
        "tls_certificate": folder / "server.pem",
        "tls_key": folder / "server.pem",
        "client_ca": folder / "ca.pem",
        "source": [
            {
                "name": "teleport",
                "tool": "teleport",
                "instance": "i-1",
                "certificate_names": ["teleport.example.com"],
            }
        ],
    }
    with served(folder, "teleport", syslog=("tls",), more=more) as gateway:
        yield gateway


def test_lines_over_tls_as_the_page_configures_it(tmp_path: Path, lines: list[bytes]) -> None:
    needed("rsyslogd", "rsyslog")
    if not any(Path("/usr/lib").glob("*/rsyslog/lmnsd_gtls.so")):
        pytest.skip("the module gtls of rsyslog is not installed (Debian: apt-get install rsyslog-gnutls)")
    [forward] = re.findall(r"```\n(global\(.*?)```", PAGE, re.DOTALL)
    for name, path in {"gateway-ca.crt": "ca", "client.crt": "client", "client.key": "client"}.items():
        forward = forward.replace(f"/etc/rsyslog/{name}", f"{tmp_path}/{path}.pem")
    with gateway_with_certificates(tmp_path) as gateway:
        forward = forward.replace('target="gateway.example.com"', 'target="127.0.0.1"')
        assert_sent(gateway, tmp_path, lines, forward.replace('"6514"', f'"{gateway.ports["tls"]}"'))
