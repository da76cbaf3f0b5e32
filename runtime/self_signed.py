"""A certificate authority of one data folder, and the certificate of its servers.

For a first look and for a private network. Clients must be given ``ca.pem``: nobody else vouches for it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from ..base.files import write_whole
from .data_folder import make_folder

_CA_DAYS, _SERVER_DAYS, _RENEWED_BEFORE = timedelta(days=3650), timedelta(days=365), timedelta(days=180)
_CLOCKS = timedelta(hours=1)
"""How far the clock of a client may be behind."""
_Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


@dataclass(frozen=True)
class ServerCertificate:
    """PEM files: what clients trust, and what the server shows. Keys have mode 0600."""

    authority: Path
    certificate: Path
    key: Path


def ensure_certificate(folder: Path, names: Sequence[str], now: datetime | None = None) -> ServerCertificate:
    """Return the certificate in a folder; make it if there is none, it ends soon, or it has other names.

    Args:
        names: host names and IP addresses of the server.
    """
    make_folder(folder)
    now = now or datetime.now(UTC)
    authority = _read(folder, "ca")
    if authority is None or authority[0].not_valid_after_utc < now + _SERVER_DAYS:
        authority = _authority(now)
        _write(folder, "ca", authority)
    server = _read(folder, "server")
    if (
        server is None
        or server[0].issuer != authority[0].subject
        or server[0].not_valid_after_utc < now + _RENEWED_BEFORE
        or _names_of(server[0]) != set(names)
    ):
        _write(folder, "server", _server(authority, names, now))
    return ServerCertificate(folder / "ca.pem", folder / "server.pem", folder / "server.key")


def _authority(now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own: a client that trusts two such authorities must not take one for the other.
    name = _name(f"grantledger {x509.random_serial_number():x}"[:28])
    builder = _builder(name, name, key, now, _CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return builder.sign(key, hashes.SHA256()), key


def _server(authority: _Pair, names: Sequence[str], now: datetime) -> _Pair:
    certificate, ca_key = authority
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(names[0][:64]), certificate.subject, key, now, _SERVER_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([*map(_general_name, names)]), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return builder.add_extension(issuer, critical=False).sign(ca_key, hashes.SHA256()), key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, valid: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS)
        .not_valid_after(now + valid)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names_of(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in names}


def _read(folder: Path, name: str) -> _Pair | None:
    """Return a certificate and its key; None if one is missing or damaged, or they do not belong together."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / f"{name}.key").read_bytes(), None)
    except (OSError, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        return None
    return certificate, key


def _write(folder: Path, name: str, pair: _Pair) -> None:
    certificate, key = pair
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    content = {f"{name}.key": secret, f"{name}.pem": certificate.public_bytes(serialization.Encoding.PEM)}
    for file, text in content.items():
        write_whole(folder / file, folder / f".{file}.draft", text)
