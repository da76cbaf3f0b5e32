"""Where the SQL endpoint is and what its password is: a file in the data folder, for its owner's eyes only.

The embedded engine belongs to one process. That process writes `<data>/run/sql.json` when its endpoint is up, so that
`grantledger sql`, `verify` and the like find it without being configured, and removes it when it stops.
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

_MAX_BYTES = 16 * 1024


class AccessFileError(Exception):
    """The access file is there and must not be used: others can read it, or it is not what we wrote."""


@dataclass(frozen=True)
class Credential:
    """The one user of the endpoint. The password is not shown by `repr`."""

    user: str
    password: str = field(repr=False)

    @classmethod
    def generate(cls) -> Credential:
        """A new credential with a random password of 256 bits."""
        return cls("analyst", secrets.token_urlsafe(32))


@dataclass(frozen=True)
class Access:
    """How to reach the endpoint: its URL, the credential, and the process that owns the data folder.

    `started` is the start time of that process in ticks since boot where the system tells it (Linux), so that another
    process with a reused id is not taken for the owner.
    """

    url: str
    credential: Credential
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


def access_file(data_dir: Path) -> Path:
    """The path of the access file of a data folder."""
    return data_dir / "run" / "sql.json"


def publish_access(data_dir: Path, url: str, credential: Credential) -> Access:
    """Write the access file for this process, readable by its user only, in one step; replaces one left behind.

    Raises OSError when the folder cannot be written.
    """
    path = access_file(data_dir)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    access = Access(url, credential, os.getpid(), _start_time(os.getpid()))
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(access), file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return access


def read_access(data_dir: Path) -> Access | None:
    """Return how to reach the endpoint of a data folder; None when no live process serves it.

    Raises AccessFileError when the file may be read or changed by others, belongs to someone else, or is damaged.
    """
    path = access_file(data_dir)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AccessFileError(f"{path}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        # Look at the file that is open, not at the name, which could mean another by then.
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise AccessFileError(f"{path} is not a regular file; remove it and restart the owner of the data folder")
        if info.st_uid not in {os.geteuid(), 0}:
            raise AccessFileError(f"{path} belongs to user id {info.st_uid}, not to you; its content is not trusted")
        if info.st_mode & 0o077:
            raise AccessFileError(
                f"{path} holds a password and has mode {stat.S_IMODE(info.st_mode):04o}, open to others. The password "
                "must be taken as known: stop the owner of the data folder, remove the file and start it again"
            )
        raw = file.read(_MAX_BYTES)
    access = _parse(path, raw)
    return access if _alive(access) else None


def withdraw_access(data_dir: Path, access: Access) -> None:
    """Remove the access file if it is still the one of `access`; a file that another process wrote stays."""
    path = access_file(data_dir)
    with contextlib.suppress(FileNotFoundError):
        if _parse(path, path.read_bytes()[:_MAX_BYTES]) == access:
            path.unlink()


def _parse(path: Path, raw: bytes) -> Access:
    try:
        fields = json.loads(raw)
        credential = Credential(str(fields["credential"]["user"]), str(fields["credential"]["password"]))
        started = fields["started"]
        access = Access(str(fields["url"]), credential, int(fields["pid"]), None if started is None else int(started))
        if access.pid <= 0 or not access.host or not access.port:
            raise ValueError("pid or url out of range")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AccessFileError(f"{path} is damaged; remove it and restart the owner of the data folder") from error
    return access


def _alive(access: Access) -> bool:
    try:
        os.kill(access.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # It runs under another user: alive, as far as can be told.
        pass
    started = _start_time(access.pid)
    return started is None or access.started is None or started == access.started


def _start_time(pid: int) -> int | None:
    try:
        # proc(5): field 22, counted behind the command name, which may hold spaces and brackets.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
