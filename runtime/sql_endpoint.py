"""The SQL endpoint of the process that owns the embedded store. Its address and password are in the data folder.

The port and the password stay the same across restarts, so that saved connections continue to work.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ..console.address import EndpointAddress, EndpointCredential, published
from ..console.endpoint import SqlEndpoint
from ..console.query_spool import QuerySpool
from .loopback_ports import is_free
from .settings import Settings, SettingsError

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


def query_spool(settings: Settings) -> QuerySpool:
    """Return the spool of the statements that people send. The owner of the store may use it."""
    return QuerySpool(settings.query_spool_path, settings.query_spool_statements, settings.query_spool_mebibytes << 20)


@contextmanager
def published_endpoint(
    settings: Settings, last: RememberedEndpoint | None, spool: QuerySpool
) -> Iterator[EndpointAddress]:
    """Serve queries, and publish the address of the endpoint in the data folder, until the context ends.

    Args:
        last: from `recall_endpoint`.
    """
    if settings.sql_port is not None:
        ports = [settings.sql_port]
    else:
        ports = [*([last.port] if last is not None else []), DEFAULT_PORT, 0]
    people = [last.analyst, last.auditor] if last is not None else []
    with _published(settings, ports, spool, people) as address:
        _remember(settings.data_dir, address)
        yield address


@contextmanager
def temporary_endpoint(settings: Settings) -> Iterator[EndpointAddress]:
    """Serve the queries of one command, on any free port: the usual port stays free for the owner of the store.

    Statements of people stay on the spool until the next owner of the store publishes them.
    """
    with closing(query_spool(settings)) as spool, _published(settings, [0], spool, []) as address:
        yield address


@contextmanager
def _published(
    settings: Settings, ports: Sequence[int], spool: QuerySpool, people: Sequence[EndpointCredential]
) -> Iterator[EndpointAddress]:
    endpoint = _listen(settings, ports, spool, people)
    try:
        with published(settings.data_dir, endpoint.address):
            yield endpoint.address
    finally:
        endpoint.stop()


def _listen(
    settings: Settings, ports: Sequence[int], spool: QuerySpool, people: Sequence[EndpointCredential]
) -> SqlEndpoint:
    """Listen on the first free port, or else on the last one."""
    path, database = settings.store_path, settings.clickhouse_database
    for port in [*filter(is_free, ports[:-1]), ports[-1]]:
        try:
            return SqlEndpoint(path, spool, database, port, credentials=people)
        except OSError as error:
            problem = error  # another process was faster
    raise SettingsError(f"the SQL endpoint cannot be opened: {problem.strerror or problem} (sql_port)") from problem


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


def _remember(data_dir: Path, address: EndpointAddress) -> None:
    path = data_dir / REMEMBERED_FILE
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags | os.O_EXCL, 0o600)) as file:
        file.write(_JSON.dump_json(RememberedEndpoint(address.port, address.analyst, address.auditor)))
