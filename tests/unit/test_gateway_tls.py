"""The gateway's server: TLS, client certificates, and Kafka away since the start."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
import structlog
from cryptography import x509
from prometheus_client import REGISTRY

from grantledger.base.toml import ConfigError
from grantledger.producers.gateway.config import GatewayConfig
from grantledger.producers.gateway.credentials import token_digest
from grantledger.runtime.gateway import GatewayServer
from grantledger.runtime.settings import Settings, SettingsError
from support.certificates import issue
from support.waiting import wait_for

EVENT = {"event_type": "session.started", "subject": "alice", "session_id": "s"}
EPOCH = "2024-05-01T10:00:00Z"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


def settings(folder: Path) -> Settings:
    with socket.socket() as unused:  # nobody listens there any more
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    return Settings(data_dir=folder, deployment="test.example", kafka_bootstrap_servers=f"127.0.0.1:{port}")


def config(folder: Path, **changed: object) -> GatewayConfig:
    source = {"name": "bot", "system": "deploy-bot", "instance": "eu-1"}
    given = {
        "listen": "127.0.0.1:0",
        "tls_certificate": folder / "server.pem",
        "tls_key": folder / "server.pem",
        "client_ca": folder / "ca.pem",
        "syslog": [{"protocol": "tls", "listen": "127.0.0.1:0"}],
        "source": [
            {"name": "teleport", "tool": "teleport", "instance": "i", "certificate_names": ["teleport.example"]},
            source,
            {**source, "name": "portal", "tenant": "portal", "certificate_names": ["portal.example"]},
        ],
        "token": [{"source": "bot", "sha256": token_digest("glt_bot")}],
    }
    return GatewayConfig.model_validate({**given, **changed})


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[GatewayServer]:
    ca = issue(folder, "ca")
    issue(folder, "server", ca, x509.IPAddress(ip_address("127.0.0.1")))
    issue(folder, "portal", ca, x509.DNSName("portal.example"))
    issue(folder, "teleport", ca, x509.DNSName("teleport.example"))
    issue(folder, "unknown", ca, x509.DNSName("unknown.example"))
    issue(folder, "stranger", issue(folder, "other-ca"), x509.DNSName("portal.example"))
    running = GatewayServer(settings(folder), lambda: config(folder))
    thread = threading.Thread(target=running.run)
    thread.start()
    yield running
    running.stop()
    thread.join()


def client(server: GatewayServer, folder: Path, certificate: str = "", **arguments: object) -> httpx.Client:
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    if certificate:
        context.load_cert_chain(folder / f"{certificate}.pem")
    return httpx.Client(base_url=server.url, verify=context, timeout=30, **arguments)  # type: ignore[arg-type]


def test_a_client_certificate_decides_source_and_tenant(server: GatewayServer, folder: Path) -> None:
    with client(server, folder, "portal") as portal:
        assert portal.post("/v1/events", json=EVENT).json()["stored"] == "spool"
        other = portal.post("/v1/events", json={**EVENT, "tenant": "default"})
        assert "this credential is for 'portal'" in other.json()["errors"][0]["problem"]


def test_a_token_is_enough_where_certificates_are_optional(server: GatewayServer, folder: Path) -> None:
    with client(server, folder, headers={"authorization": "Bearer glt_bot"}) as bot:
        assert bot.post("/v1/events", json=EVENT).status_code == 200


def test_a_certificate_without_a_source_is_no_credential(server: GatewayServer, folder: Path) -> None:
    with client(server, folder, "unknown") as unknown:
        assert unknown.post("/v1/events", json=EVENT).status_code == 401


def test_a_certificate_of_another_issuer_is_refused(server: GatewayServer, folder: Path) -> None:
    with client(server, folder, "stranger") as stranger, pytest.raises(httpx.TransportError):
        stranger.post("/v1/events", json=EVENT)


def send_syslog(server: GatewayServer, folder: Path, certificate: str) -> None:
    """Send one message over TLS, and wait until the gateway has closed the connection."""
    [(host, _, port)] = [one.removeprefix("tls ").rpartition(":") for one in server.syslog_addresses]
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    if certificate:
        context.load_cert_chain(folder / f"{certificate}.pem")
    record = {"event": "session.start", "code": "T2000I", "uid": "u", "sid": "s", "user": "a", "time": EPOCH}
    message = b"<134>1 - host teleport - - - " + json.dumps(record).encode()
    with (
        socket.create_connection((host, int(port)), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        secure.sendall(str(len(message)).encode() + b" " + message)
        secure.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while secure.recv(1):
                pass


def events_of(source: str) -> float:
    labels = {"source": source, "where": "spool"}
    return REGISTRY.get_sample_value("grantledger_gateway_events_total", labels) or 0


def test_syslog_over_tls_is_of_the_source_with_the_certificate(server: GatewayServer, folder: Path) -> None:
    before = events_of("teleport")
    send_syslog(server, folder, "teleport")
    wait_for(lambda: events_of("teleport") == before + 1, "the event is on the spool")


@pytest.mark.parametrize("certificate", ["", "stranger", "unknown"])
def test_syslog_without_the_certificate_of_a_source_is_refused(
    server: GatewayServer, folder: Path, certificate: str
) -> None:
    before = events_of("teleport"), events_of("portal")
    with suppress(OSError):
        send_syslog(server, folder, certificate)
    assert (events_of("teleport"), events_of("portal")) == before


def test_without_tls_nothing_is_answered(server: GatewayServer) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(server.url.replace("https", "http") + "/livez", timeout=30)


def test_readyz_says_that_kafka_is_away(server: GatewayServer, folder: Path) -> None:
    with client(server, folder) as anybody:
        text = anybody.get("/readyz").text
    assert text.startswith("ready: Kafka is away: ")


def test_a_wrong_file_is_not_used_and_the_old_sources_stay(
    server: GatewayServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong() -> GatewayConfig:
        raise ConfigError("gateway.toml:3: a fault")

    with monkeypatch.context() as changed, structlog.testing.capture_logs() as logs:
        changed.setattr(server, "_load", wrong)
        server.reload()
        wait_for(lambda: logs or None, "it has tried", pause=0.02)
    assert [(one["event"], one["reason"]) for one in logs] == [("not_reloaded", "gateway.toml:3: a fault")]
    with client(server, folder, headers={"authorization": "Bearer glt_bot"}) as bot:
        assert bot.post("/v1/events", json=EVENT).status_code == 200


def test_a_second_gateway_cannot_listen_or_use_the_spool(server: GatewayServer, folder: Path) -> None:
    port = server.url.rpartition(":")[2]
    with pytest.raises(SettingsError, match=r"cannot listen on .* \(listen\)"):
        GatewayServer(settings(folder), lambda: config(folder, listen=f"127.0.0.1:{port}"))
    with pytest.raises(Exception, match="another process uses the spool"):
        GatewayServer(settings(folder), lambda: config(folder))


@pytest.mark.parametrize("key", ["tls_certificate", "client_ca"])
def test_a_file_that_cannot_be_used_is_named(folder: Path, tmp_path: Path, key: str) -> None:
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(ConfigError, match=key):
        GatewayServer(settings(tmp_path), lambda: config(folder, **{key: tmp_path / "empty.pem"}))


def test_a_secret_of_a_webhook_is_checked(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("whsec_short")
    secret.chmod(0o600)
    source = {"name": "a", "system": "a", "instance": "a", "webhook_secret": {"file": secret}}
    with pytest.raises(ConfigError, match=r"source\.0\.webhook_secret: must be whsec_"):
        GatewayServer(settings(tmp_path), lambda: config(folder, source=[source], token=[]))
