"""How other machines reach the gateway and SQL of a local stack: `up` makes a certificate and credentials."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.files import write_whole
from ..console.address import EndpointAddress
from ..producers.adapters import ADAPTERS
from ..producers.gateway.config import load_gateway_config
from ..producers.gateway.credentials import new_token, token_digest
from .data_folder import make_folder
from .self_signed import ServerCertificate, ensure_certificate
from .settings import Settings, SettingsError

GATEWAY_PORT, SQL_PORT = 8480, 8443
FOLDER, TLS_FOLDER, GATEWAY_FILE = "published", "tls", "gateway.toml"
AUTHORITY = "ca.pem"
EVENTS = "events"
"""The source that sends our own events."""
_BY_RECORD = "cloudtrail"
"""Its records name the account, which is its instance."""


@dataclass(frozen=True)
class Published:
    """What other machines can reach.

    Attributes:
        folder: holds what clients need: ``ca.pem``, and for each credential a file for ``curl --config``.
        settings: further settings of the processes.
        gateway_port: None if the gateway has a configuration of the user.
        sql_port: None if ClickHouse is a server.
    """

    folder: Path
    settings: dict[str, Any]
    gateway_port: int | None
    sql_port: int | None


def publish(settings: Settings) -> Published | None:
    """Make what is missing; None if `publish_host` is not set. Raises SettingsError."""
    if not settings.publish_host:
        return None
    try:
        host = ipaddress.ip_address(settings.publish_host)
    except ValueError as error:
        raise SettingsError(f"publish_host: {error}") from None
    shown = f"[{host}]" if host.version == 6 else str(host)
    data = settings.data_dir.resolve()
    certificate = ensure_certificate(data / TLS_FOLDER, _names(settings))
    folder = data / FOLDER
    make_folder(folder)
    _write(folder / AUTHORITY, certificate.authority.read_text("ascii"))
    further: dict[str, Any] = {}
    if settings.gateway_config is None:
        path = data / GATEWAY_FILE
        if not path.exists():
            _write(path, _gateway_file(f"{shown}:{GATEWAY_PORT}", certificate, folder))
        load_gateway_config(path)
        further["gateway_config"] = path
    if not settings.clickhouse_url and not settings.sql_listen:
        further["sql_listen"] = f"{shown}:{SQL_PORT}"
        further |= {"sql_tls_certificate": certificate.certificate, "sql_tls_key": certificate.key}
    return Published(
        folder,
        further,
        GATEWAY_PORT if "gateway_config" in further else None,
        SQL_PORT if "sql_listen" in further else None,
    )


def write_sql_credentials(published: Published, address: EndpointAddress) -> None:
    """Write the credentials of people, which the owner of the store has made."""
    for one in (address.analyst, address.auditor):
        _write(published.folder / f"{one.user}.curl", _curl_file(one.user, one.password))


def _names(settings: Settings) -> list[str]:
    host = socket.gethostname()
    own = [host] if host.isascii() and len(host) <= 253 else []
    return list(dict.fromkeys(["localhost", "127.0.0.1", "::1", *own, *settings.publish_names]))


def _gateway_file(listen: str, certificate: ServerCertificate, folder: Path) -> str:
    """Return the gateway's configuration, and write the token of each source to the folder."""
    parts = [
        "# Made by `grantledger up`, once: from now on, this file is yours. docs/gateway.md has every key.\n"
        f'listen = "{listen}"\ntls_certificate = "{certificate.certificate}"\ntls_key = "{certificate.key}"\n'
    ]
    for name in (EVENTS, *sorted(ADAPTERS)):
        token = new_token()
        sends = f'system = "{name}"' if name == EVENTS else f'tool = "{name}"'
        instance = "instance_from_records = true" if name == _BY_RECORD else f'instance = "{name}-1"'
        parts.append(f'[[source]]\nname = "{name}"\n{sends}\n{instance}\n')
        parts.append(f'[[token]]\nsource = "{name}"\nsha256 = "{token_digest(token)}"\n')
        _write(folder / f"{name}.curl", _curl_file(name, token))
    return "\n".join(parts)


def _curl_file(user: str, password: str) -> str:
    return f'user = "{user}:{password}"\n'


def _write(path: Path, text: str) -> None:
    write_whole(path, path.with_name(f".{path.name}.draft"), text.encode())
