"""The file with the address and passwords of the SQL endpoint. It is in the data folder, readable by its owner only.

One process owns the embedded engine. While its endpoint is up, that process holds a lock on `<data>/run/sql.json`, so
that `grantledger query`, `verify` and others find it without configuration. The kernel releases the lock when the
process ends, so a file that a crash left behind is ignored.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from ..base.errors import UsageError

CredentialName = Literal["reader", "analyst", "auditor"]
"""Whose credential of the SQL endpoint to use."""


class AddressFileError(UsageError):
    """The address file must not be used: others can read it, or it is damaged."""


@dataclass(frozen=True)
class EndpointCredential:
    """A user of the endpoint. `repr` omits the password."""

    user: str
    password: str = field(repr=False)

    @classmethod
    def generate(cls, user: str) -> EndpointCredential:
        """Return a new credential with a random 256-bit password."""
        return cls(user, secrets.token_urlsafe(32))

    def matches(self, other: EndpointCredential) -> bool:
        """Compare in the same time for every wrong password of the right length."""
        same_password = secrets.compare_digest(other.password.encode(), self.password.encode())
        return same_password and other.user == self.user


@dataclass(frozen=True)
class EndpointAddress:
    """How to reach the endpoint.

    Attributes:
        analyst: for people and their tools: reads views.
        auditor: for auditors: also reads the query log.
        reader: for our own commands: reads all tables, and has places of its own.
    """

    host: str
    port: int
    analyst: EndpointCredential
    auditor: EndpointCredential
    reader: EndpointCredential

    def credential(self, name: CredentialName) -> EndpointCredential:
        """Return one of the credentials."""
        return {"analyst": self.analyst, "auditor": self.auditor, "reader": self.reader}[name]

    @property
    def url(self) -> str:
        """The address for HTTP clients."""
        return f"http://{self.host}:{self.port}"


_JSON = TypeAdapter(EndpointAddress)


def address_file(data_dir: Path) -> Path:
    """Return the path of the address file of a data folder."""
    return data_dir / "run" / "sql.json"


@contextmanager
def published(data_dir: Path, address: EndpointAddress) -> Iterator[None]:
    """Provide the address file, readable only by its owner, until the context ends. Raises OSError."""
    path = address_file(data_dir)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    # Write-only: the sandbox of the owner lets it write this folder, but not read it.
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(_JSON.dump_json(address))
            file.flush()
            draft.replace(path)
        except BaseException:
            draft.unlink()
            raise
        try:
            yield
        finally:
            # Keep a file with which another process has replaced it.
            with suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(descriptor)):
                    path.unlink()


def read_address(data_dir: Path) -> EndpointAddress | None:
    """Return the address of a data folder's endpoint; None if no live process serves it.

    Raises:
        AddressFileError: others can read or change the file, another user owns it, or it is damaged.
    """
    path = address_file(data_dir)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AddressFileError(f"{path}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        # Check the open file: its name may refer to another file by now.
        info = os.fstat(descriptor)
        if info.st_uid not in {os.geteuid(), 0}:
            raise AddressFileError(f"{path} belongs to user id {info.st_uid}, not to you: it is not trusted")
        if info.st_mode & 0o077:
            raise AddressFileError(
                f"{path} contains a password and has mode {stat.S_IMODE(info.st_mode):04o}, open to others: the "
                "password may be known. Stop the owner of the data folder, remove the file and start it again"
            )
        try:
            return _JSON.validate_json(file.read())
        except ValidationError:
            # Omit the cause, which would quote the content.
            raise AddressFileError(f"{path} is damaged; remove it and restart the owner of the data folder") from None
