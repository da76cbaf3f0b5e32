"""The SQL endpoint of the process that owns the embedded store. Its address and password are in the data folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from ..console.address import EndpointAddress, EndpointCredential, published
from ..console.endpoint import SqlEndpoint
from ..console.query_spool import QuerySpool
from .loopback_ports import is_free
from .remembered_endpoint import DEFAULT_PORT, RememberedEndpoint, remember_endpoint
from .settings import Settings, SettingsError


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
