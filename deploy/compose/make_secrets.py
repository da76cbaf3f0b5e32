"""What the containers of docker-compose.yml need before they start: passwords, a certificate, owners of volumes.

The service `secrets` runs it with the volumes below /volumes, as root. `make` makes what is missing and changes nothing
else, so it runs at every `docker compose up`. `show` prints the passwords.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import pwd
import re
import secrets
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from grantledger.sinks.server_roles import Role, ServerRoles

VOLUMES = Path("/volumes")
GRAFANA = 472
"""The user of Grafana's image."""
_ROLES = ServerRoles("audit")
CLICKHOUSE_USERS: dict[str, Role | None] = {
    "admin": None, "writer": _ROLES.writer, "analyst": _ROLES.analyst, "auditor": _ROLES.auditor,
}  # fmt: skip
"""The users of the server and their roles. The administrator makes the tables and the views."""
USER_OF = {"ledger": "admin", "store": "writer", "sweep": "auditor", "verify": "auditor", "operator": "auditor"}
"""The ClickHouse user of each volume whose process connects to it."""
PROCESSES = ("seal", "store", "anchor", "watch", "sweep", "alert", "enforce", "gateway", "verify", "operator")
CERTIFICATE_DAYS = 800
RENEW_DAYS = 60
_DEPLOYMENT = r"[a-z0-9.-]{1,150}"
_SETTING = re.compile(r"(\w+) = (\w+)(?: MIN (\d+))?(?: MAX (\d+))?( CONST)?")


def main() -> int:
    """Run the command in the arguments."""
    commands = {"make": make, "show": show}
    if sys.argv[1:] and sys.argv[1] in commands:
        return commands[sys.argv[1]]()
    print("usage: make_secrets.py make|show", file=sys.stderr)
    return 2


def make() -> int:
    """Make what is missing."""
    ours = pwd.getpwnam("grantledger").pw_uid
    for name in (*PROCESSES, "ledger", "policy", "anchors", "verification"):
        own(VOLUMES / name, ours, 0o755 if name == "verification" else 0o700)
    own(VOLUMES / "secrets", 0, 0o700)
    own(VOLUMES / "grafana-secrets", GRAFANA, 0o500)
    own(VOLUMES / "clickhouse-users", 0, 0o755)
    ledger = deployment()
    if ledger is None:
        return 2
    for process in (*PROCESSES, "ledger"):
        write(VOLUMES / process / "deployment", f"{ledger}\n", ours)
    for process, user in USER_OF.items():
        settings = f'clickhouse_user = "{user}"\nclickhouse_password = "{password(f"clickhouse-{user}")}"\n'
        write(VOLUMES / process / "settings.toml", settings, ours)
    write(VOLUMES / "clickhouse-users" / "grantledger.xml", clickhouse_users(), 0, 0o644)
    write(VOLUMES / "grafana-secrets" / "admin-password", password("grafana-admin"), GRAFANA)
    write(VOLUMES / "grafana-secrets" / "clickhouse-password", password("clickhouse-analyst"), GRAFANA)
    gateway(ours)
    print(f"deployment {ledger}; the passwords: docker compose run --rm secrets show", file=sys.stderr)
    return 0


def show() -> int:
    """Print the passwords that people need."""
    print(f"Grafana         http://127.0.0.1:3000   admin {password('grafana-admin')}")
    print(f"gateway token   https://localhost:8480  first {password('gateway-first')}")
    for user in ("analyst", "auditor"):
        print(f"ClickHouse      user {user:7}            {password(f'clickhouse-{user}')}")
    return 0


def own(folder: Path, user: int, mode: int) -> None:
    """Give a volume to a user."""
    os.chown(folder, user, user)
    folder.chmod(mode)


def write(path: Path, content: str, user: int, mode: int = 0o600) -> None:
    """Write a file as a whole, for one user."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
        os.fchown(file.fileno(), user, user)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def password(name: str) -> str:
    """Return a password; make it the first time. It has only letters, digits, - and _."""
    path = VOLUMES / "secrets" / name
    if not path.exists():
        write(path, secrets.token_urlsafe(32), 0)
    return path.read_text("utf-8")


def deployment() -> str | None:
    """Return the name of the deployment: as given at the first start, or else a new one. None: it is not valid."""
    given, path = os.environ.get("GRANTLEDGER_DEPLOYMENT", ""), VOLUMES / "secrets" / "deployment"
    known = path.read_text("utf-8") if path.exists() else ""
    if given and not re.fullmatch(_DEPLOYMENT, given):
        print(f"GRANTLEDGER_DEPLOYMENT: {given!r} has other characters than a-z, 0-9, '.' and '-'", file=sys.stderr)
        return None
    if known and given not in ("", known):
        print(
            f"GRANTLEDGER_DEPLOYMENT is {given}, but the ledger in these volumes is that of {known}, whose name cannot "
            "change: unset it, or begin another project with --project-name",
            file=sys.stderr,
        )
        return None
    if not known:
        known = given or f"compose-{secrets.token_hex(4)}"
        write(path, known, 0)
    return known


def clickhouse_users() -> str:
    """Return the users of the server, by the SHA-256 of their passwords; the user `default` is removed."""
    users, profiles = ['<default remove="remove"/>'], []
    for user, role in CLICKHOUSE_USERS.items():
        digest = hashlib.sha256(password(f"clickhouse-{user}").encode()).hexdigest()
        rights = "<access_management>1</access_management>"
        if role is not None:
            rights = "<grants>" + "".join(f"<query>GRANT {right}</query>" for right in role.rights) + "</grants>"
        profiles.append(f"<{user}>{limits(role.settings if role else '')}</{user}>")
        users.append(
            f"<{user}><password_sha256_hex>{digest}</password_sha256_hex><profile>{user}</profile>"
            f"<quota>default</quota><networks><ip>::/0</ip></networks>{rights}</{user}>"
        )
    parts = (("profiles", profiles), ("users", users))
    inner = "".join(f"<{name}>\n" + "\n".join(lines) + f"\n</{name}>\n" for name, lines in parts)
    return f"<clickhouse>\n{inner}</clickhouse>\n"


def limits(settings: str) -> str:
    """Return the settings of a role as those of a profile in a file."""
    values, bounds = "", ""
    for name, value, low, high, const in _SETTING.findall(settings):
        values += f"<{name}>{value}</{name}>"
        bound = (f"<min>{low}</min>" if low else "") + (f"<max>{high}</max>" if high else "")
        bounds += f"<{name}>{bound}{'<const/>' if const else ''}</{name}>" if bound or const else ""
    return f"{values}<constraints>{bounds}</constraints>"


def gateway(user: int) -> None:
    """Make the gateway's certificate, unless one lasts for a while, and its file with one source and its token."""
    folder = VOLUMES / "gateway"
    file, key = folder / "tls.pem", folder / "tls.key"
    if not (file.exists() and key.exists()) or expires(file) < datetime.now(UTC) + timedelta(days=RENEW_DAYS):
        authority, chain, private = certificate()
        write(folder / "ca.pem", authority, user, 0o644)
        write(key, private, user)
        write(file, chain, user, 0o644)
    digest = hashlib.sha256(password("gateway-first").encode()).hexdigest()
    if not (folder / "gateway.toml").exists():
        write(
            folder / "gateway.toml",
            'listen = "0.0.0.0:8480"\ntls_certificate = "/data/tls.pem"\ntls_key = "/data/tls.key"\n\n'
            '# Sends our own events. More sources: docs/compose.md, "Connect a tool".\n'
            '[[source]]\nname = "first"\nsystem = "first"\ninstance = "compose"\n\n'
            f'[[token]]\nsource = "first"\nsha256 = {json.dumps(digest)}\n',
            user,
        )


def expires(file: Path) -> datetime:
    """Return the end of the first certificate of a file."""
    return x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc


def certificate() -> tuple[str, str, str]:
    """Return an authority, a certificate that it has issued for the gateway, and the key of the latter, as PEM.

    The key of the authority is not kept: it has issued this certificate and will never issue another.
    """
    start = datetime.now(UTC) - timedelta(minutes=5)
    end = start + timedelta(days=CERTIFICATE_DAYS)
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"grantledger gateway {secrets.token_hex(4)}")])
    usage = {
        "content_commitment": False, "key_encipherment": False, "data_encipherment": False, "key_agreement": False,
        "encipher_only": False, "decipher_only": False,
    }  # fmt: skip
    authority = (
        x509.CertificateBuilder(issuer, issuer, authority_key.public_key(), x509.random_serial_number(), start, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=False, key_cert_sign=True, crl_sign=True, **usage), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.DNSName("gateway"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    issued = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(), start, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=False, crl_sign=False, **usage), critical=True
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    pem = serialization.Encoding.PEM
    return authority.public_bytes(pem).decode(), issued.public_bytes(pem).decode(), private


if __name__ == "__main__":
    sys.exit(main())
