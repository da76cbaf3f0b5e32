"""The webhook plug-in over TLS and IPv6."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from grantledger.enforcers.contract import Result
from grantledger.enforcers.policy import WebhookTarget
from grantledger.enforcers.webhook import WebhookPlugin
from support.receiver import Receiver

from .test_enforce_core import target


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_SECRET", "whsec_" + base64.b64encode(bytes(32)).decode())


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1, signed by itself, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver of a test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "receiver.pem"
    plain = serialization.NoEncryption()
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return path


@pytest.fixture
def receiver(certificate: Path) -> Iterator[Receiver]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    receiver = Receiver(tls=context)
    yield receiver
    receiver.stop()


def plugin(url: str, timeout_seconds: float = 30.0) -> WebhookPlugin:
    given = {"plugin": "webhook", "url": url, "secret": {"env": "ORDERS_SECRET"}, "timeout_seconds": timeout_seconds}
    return WebhookPlugin(WebhookTarget.model_validate(given), "test.example")


def test_a_certificate_of_a_known_authority_is_taken(
    receiver: Receiver, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    attempt = plugin(receiver.url).revoke(target())
    assert attempt.result is Result.accepted, attempt
    assert len(receiver.got) == 1 and receiver.got[0][1]["host"] == receiver.url.split("/")[2]


def test_an_unknown_certificate_gets_nothing(receiver: Receiver) -> None:
    attempt = plugin(receiver.url).revoke(target())
    assert attempt.result is Result.failed and "certificate" in attempt.detail
    assert receiver.got == []


def test_a_certificate_for_another_name_gets_nothing(
    receiver: Receiver, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    attempt = plugin(receiver.url.replace("127.0.0.1", "localhost")).revoke(target())
    assert attempt.result is Result.failed and "certificate" in attempt.detail
    assert receiver.got == []


def test_a_handshake_that_drips_ends_at_the_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        end = threading.Event()

        def drip() -> None:
            with server.accept()[0] as connection, suppress(OSError):
                connection.sendall(b"\x16\x03\x03\x40\x00")  # the head of a TLS record of 16 KiB
                while not end.wait(0.1):
                    connection.sendall(b".")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            began = time.monotonic()
            url = f"https://127.0.0.1:{server.getsockname()[1]}/"
            assert plugin(url, 1.5).revoke(target()).result is Result.again
            assert time.monotonic() - began < 15
        finally:
            end.set()
            thread.join()


def test_an_ipv6_address_is_reached_with_and_without_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        receiver = Receiver("::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    try:
        assert plugin(receiver.url).revoke(target()).result is Result.accepted
        asked: list[tuple[str, int]] = []
        real = socket.create_connection

        def connect(address: tuple[str, int], *rest: object, **named: object) -> socket.socket:
            asked.append(address)
            return real(("::1", receiver.server.server_port))

        monkeypatch.setattr(socket, "create_connection", connect)
        assert plugin("http://[::1]/revoke").revoke(target()).result is Result.accepted
        assert asked == [("::1", 80)] and receiver.got[1][1]["host"] == "[::1]"
    finally:
        receiver.stop()
