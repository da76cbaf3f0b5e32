"""The webhook sender over TLS and IPv6, as alerts and as enforcers use it."""

from __future__ import annotations

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

from support.callers import CALLERS, DELIVERED, RETRY, Caller, Sent
from support.receiver import Receiver


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key in the same file."""
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


@pytest.fixture(params=list(CALLERS))
def send(request: pytest.FixtureRequest, tmp_path: Path) -> Caller:
    def call(url: str, **keys: object) -> Sent:
        return CALLERS[request.param](tmp_path, url, **keys)

    return call


def test_a_certificate_of_the_given_authority_is_accepted(receiver: Receiver, certificate: Path, send: Caller) -> None:
    sent = send(receiver.url, ca_file=str(certificate))
    assert sent.status == DELIVERED, sent
    assert len(receiver.requests) == 1 and receiver.requests[0].headers["host"] == receiver.url.split("/")[2]


def test_a_certificate_of_a_system_authority_is_accepted(
    receiver: Receiver, certificate: Path, send: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert send(receiver.url).status == DELIVERED


def test_an_unknown_certificate_gets_nothing(receiver: Receiver, send: Caller) -> None:
    sent = send(receiver.url)
    assert sent.status == RETRY and "the certificate is not trusted: " in sent.detail
    assert receiver.requests == []


def test_a_certificate_for_another_name_gets_nothing(receiver: Receiver, certificate: Path, send: Caller) -> None:
    sent = send(receiver.url.replace("127.0.0.1", "localhost"), ca_file=str(certificate))
    assert sent.status == RETRY and "certificate" in sent.detail
    assert receiver.requests == []


def test_a_client_certificate_is_shown_to_a_receiver_that_asks(certificate: Path, send: Caller) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    receiver = Receiver(tls=context)
    try:
        assert send(receiver.url, ca_file=str(certificate)).status == RETRY
        assert receiver.requests == []
        sent = send(receiver.url, ca_file=str(certificate), cert_file=str(certificate))
        assert sent.status == DELIVERED, sent
    finally:
        receiver.stop()


def test_a_handshake_that_drips_ends_at_the_limit(send: Caller) -> None:
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
            assert send(f"https://127.0.0.1:{server.getsockname()[1]}/", timeout_seconds=1.5).status == RETRY
            assert time.monotonic() - began < 10
        finally:
            end.set()
            thread.join()


def test_an_ipv6_address_is_reached(send: Caller) -> None:
    try:
        receiver = Receiver("::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    try:
        assert send(receiver.url).status == DELIVERED
        assert receiver.requests[0].headers["host"] == receiver.url.split("/")[2]
    finally:
        receiver.stop()
