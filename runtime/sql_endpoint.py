"""The SQL endpoint of the process that owns the embedded store. Its address and password are in the data folder."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from ..console.address import EndpointAddress, EndpointCredential, published
from ..console.endpoint import OutsideListener, SqlEndpoint
from ..console.query_spool import QuerySpool
from .loopback_ports import is_free
from .remembered_endpoint import DEFAULT_PORT, RememberedEndpoint, remember_endpoint
from .settings import Settings, SettingsError
from .tcp_listener import server_tls, tcp_listener


def query_spool(settings: Settings) -> QuerySpool:
    """Return the spool of the statements that people send. The owner of the store may use it."""
    return QuerySpool(settings.query_spool_path, settings.query_spool_statements, settings.query_spool_mebibytes << 20)


def outside_listener(settings: Settings, texts: Mapping[str, str]) -> OutsideListener | None:
    """Listen on `sql_listen`; None if it is not set.

    Args:
        texts: the content of the files `sql_tls_certificate` and `sql_tls_key`.

    Raises:
        SettingsError: the address or the certificate cannot be used.
    """
    if not settings.sql_listen:
        return None
    host, _, port = settings.sql_listen.rpartition(":")
    # In the private temporary folder of the process: `ssl` reads only files.
    with tempfile.TemporaryDirectory() as folder:
        names = ("sql_tls_certificate", "sql_tls_key")
        for name in names:
            (Path(folder) / name).touch(0o600)
            (Path(folder) / name).write_text(texts[name])
        try:
            context = server_tls(*(Path(folder) / name for name in names))
        except ssl.SSLError as error:
            raise SettingsError(f"the certificate cannot be used: {error} ({', '.join(names)})") from None
    try:
        return OutsideListener(tcp_listener((host.strip("[]"), int(port))), context)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"SQL cannot be served on {settings.sql_listen}: {reason} (sql_listen)") from error


@contextmanager
def published_endpoint(
    settings: Settings, last: RememberedEndpoint | None, spool: QuerySpool, outside: OutsideListener | None = None
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
    with _published(settings, ports, spool, people, outside) as address:
        remember_endpoint(settings.data_dir, address)
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
    settings: Settings,
    ports: Sequence[int],
    spool: QuerySpool,
    people: Sequence[EndpointCredential],
    outside: OutsideListener | None = None,
) -> Iterator[EndpointAddress]:
    endpoint = _listen(settings, ports, spool, people, outside)
    try:
        with published(settings.data_dir, endpoint.address):
            yield endpoint.address
    finally:
        endpoint.stop()


def _listen(
    settings: Settings,
    ports: Sequence[int],
    spool: QuerySpool,
    people: Sequence[EndpointCredential],
    outside: OutsideListener | None,
) -> SqlEndpoint:
    """Listen on the first free port, or else on the last one."""
    path, database = settings.store_path, settings.clickhouse_database
    for port in [*filter(is_free, ports[:-1]), ports[-1]]:
        try:
            return SqlEndpoint(path, spool, database, port, credentials=people, outside=outside)
        except OSError as error:
            problem = error  # another process was faster
    raise SettingsError(f"the SQL endpoint cannot be opened: {problem.strerror or problem} (sql_port)") from problem
