"""The certificate that `up` makes for other machines."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from grantledger.runtime.self_signed import ServerCertificate, ensure_certificate
from grantledger.runtime.tcp_listener import server_tls

NAMES = ["localhost", "127.0.0.1", "::1", "ledger_1"]
START = datetime(2026, 11, 29, tzinfo=UTC)


def shake_hands(made: ServerCertificate, name: str) -> None:
    """Let a strict client and the server agree, in memory."""
    client_side = ssl.create_default_context(cafile=made.authority)
    client_side.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_tls(made.certificate, made.key).wrap_bio(to_server, to_client, server_side=True)
    client = client_side.wrap_bio(to_client, to_server, server_hostname=name)
    done = set()
    for _ in range(10):
        for side in (client, server):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
        if len(done) == 2:
            return
    raise AssertionError("no agreement")


def test_strict_clients_accept_every_name_and_no_other(tmp_path: Path) -> None:
    made = ensure_certificate(tmp_path / "tls", NAMES)
    for name in NAMES:
        shake_hands(made, name)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(made, "example.com")


def test_it_is_for_its_owner_only_and_stays(tmp_path: Path) -> None:
    made = ensure_certificate(tmp_path / "tls", NAMES, START)
    files = {path: path.read_bytes() for path in (tmp_path / "tls").iterdir()}
    assert {path.name for path in files} == {"ca.pem", "ca.key", "server.pem", "server.key"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    assert ensure_certificate(tmp_path / "tls", NAMES, START) == made
    assert {path: path.read_bytes() for path in files} == files


def test_another_name_or_a_near_end_makes_a_new_one_by_the_same_authority(tmp_path: Path) -> None:
    made = ensure_certificate(tmp_path, NAMES, START)
    authority, first = made.authority.read_bytes(), made.certificate.read_bytes()
    ensure_certificate(tmp_path, [*NAMES, "further"], START)
    second = made.certificate.read_bytes()
    assert second != first
    ensure_certificate(tmp_path, [*NAMES, "further"], START + timedelta(days=170))
    assert made.certificate.read_bytes() == second
    ensure_certificate(tmp_path, [*NAMES, "further"], START + timedelta(days=190))
    certificate = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    assert certificate.not_valid_after_utc == START + timedelta(days=555)
    assert made.authority.read_bytes() == authority


@pytest.mark.parametrize("name", ["ca.pem", "ca.key", "server.pem", "server.key"])
def test_a_missing_or_damaged_file_is_made_again(tmp_path: Path, name: str) -> None:
    made = ensure_certificate(tmp_path, NAMES)
    (tmp_path / name).write_text("damaged")
    ensure_certificate(tmp_path, NAMES)
    shake_hands(made, "localhost")
    (tmp_path / name).unlink()
    ensure_certificate(tmp_path, NAMES)
    shake_hands(made, "localhost")
