"""The port and the passwords of the SQL endpoint across restarts, so that saved connections continue to work."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ..console.address import EndpointAddress, EndpointCredential

DEFAULT_PORT = 18123
REMEMBERED_FILE = Path("run") / "sql_endpoint.json"
"""Port and people's credentials of the last endpoint. Without the file, the next start makes new passwords."""


@dataclass(frozen=True)
class RememberedEndpoint:
    """The part of an address that stays the same across restarts. Our own readers get a new password at each start."""

    port: int
    analyst: EndpointCredential
    auditor: EndpointCredential

    def as_json(self) -> str:
        """Return it as JSON, with the password."""
        return _JSON.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> RememberedEndpoint:
        """Read the output of `as_json`."""
        return _JSON.validate_json(text)


_JSON = TypeAdapter(RememberedEndpoint)


def recall_endpoint(data_dir: Path) -> RememberedEndpoint | None:
    """Return the last endpoint; None if there is none, or if others could have read its password."""
    try:
        with (data_dir / REMEMBERED_FILE).open("rb") as file:
            info = os.fstat(file.fileno())
            if info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o077:
                return None
            return _JSON.validate_json(file.read())
    except (OSError, ValidationError):
        return None


def remember_endpoint(data_dir: Path, address: EndpointAddress) -> None:
    """Remember an endpoint for the next start."""
    path = data_dir / REMEMBERED_FILE
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags | os.O_EXCL, 0o600)) as file:
        file.write(_JSON.dump_json(RememberedEndpoint(address.port, address.analyst, address.auditor)))
