"""Address and password of the SQL endpoint, in a file of the data folder that only its owner can read.

The embedded engine belongs to one process. That process writes `<data>/run/sql.json` when its endpoint is up, so that
`grantledger query`, `verify` and others find it without configuration, and removes the file when it stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ..base.errors import UsageError

_MAX_BYTES = 16 * 1024


class AddressFileError(UsageError):
    """The address file exists but must not be used: others can read it, or it is damaged."""


@dataclass(frozen=True)
class EndpointCredential:
    """The one user of the endpoint. The password is not shown by `repr`."""

    user: str
    password: str = field(repr=False)

    @classmethod
    def generate(cls) -> EndpointCredential:
        """A new credential with a random password of 256 bits."""
        return cls("analyst", secrets.token_urlsafe(32))


@dataclass(frozen=True)
class EndpointAddress:
    """How to reach the endpoint: its URL, the credential, and the process that owns the data folder.

    `started` is the start time of that process in ticks since boot, on Linux, so that another process with a reused id
    is not mistaken for the owner.
    """

    url: str
    credential: EndpointCredential
    pid: int
    started: int | None

    @property
    def host(self) -> str:
        """The host name or address in the URL."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The TCP port in the URL."""
        return urlsplit(self.url).port or 0


def address_file(data_dir: Path) -> Path:
    """Return the path of the address file of a data folder."""
    return data_dir / "run" / "sql.json"


def publish_address(data_dir: Path, url: str, credential: EndpointCredential) -> EndpointAddress:
    """Write the address file of this process atomically, readable by its user only. Raises OSError."""
    path = address_file(data_dir)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    address = EndpointAddress(url, credential, os.getpid(), _start_time(os.getpid()))
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(address), file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return address


def read_address(data_dir: Path) -> EndpointAddress | None:
    """Return how to reach the endpoint of a data folder; None when no live process serves it.

    Raises AddressFileError when the file may be read or changed by others, belongs to someone else, or is damaged.
    """
    path = address_file(data_dir)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AddressFileError(f"{path}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        # Check the open file, not its name, which may belong to another file by now.
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise AddressFileError(f"{path} is not a regular file; remove it and restart the owner of the data folder")
        if info.st_uid not in {os.geteuid(), 0}:
            raise AddressFileError(f"{path} belongs to user id {info.st_uid}, not to you: it is not trusted")
        if info.st_mode & 0o077:
            raise AddressFileError(
                f"{path} holds a password and has mode {stat.S_IMODE(info.st_mode):04o}, open to others: the "
                "password may be known. Stop the owner of the data folder, remove the file and start it again"
            )
        raw = file.read(_MAX_BYTES)
    address = _parse(path, raw)
    return address if _alive(address) else None


def withdraw_address(data_dir: Path, address: EndpointAddress) -> None:
    """Remove the address file if it still contains `address`; a file of another process stays."""
    path = address_file(data_dir)
    with contextlib.suppress(FileNotFoundError):
        if _parse(path, path.read_bytes()[:_MAX_BYTES]) == address:
            path.unlink()


def _parse(path: Path, raw: bytes) -> EndpointAddress:
    try:
        fields = json.loads(raw)
        credential = EndpointCredential(str(fields["credential"]["user"]), str(fields["credential"]["password"]))
        started = fields["started"]
        address = EndpointAddress(
            str(fields["url"]), credential, int(fields["pid"]), None if started is None else int(started)
        )
        if address.pid <= 0 or not address.host or not address.port:
            raise ValueError("pid or url out of range")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AddressFileError(f"{path} is damaged; remove it and restart the owner of the data folder") from error
    return address


def _alive(address: EndpointAddress) -> bool:
    try:
        os.kill(address.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # It runs as another user.
        pass
    started = _start_time(address.pid)
    return started is None or address.started is None or started == address.started


def _start_time(pid: int) -> int | None:
    try:
        # proc(5): field 22, counted behind the command name, which may hold spaces and brackets.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
