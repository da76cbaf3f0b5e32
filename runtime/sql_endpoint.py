"""The SQL endpoint of the process that owns the embedded store. Its address and password are in the data folder."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ..console.address import EndpointAddress, published
from ..console.endpoint import SqlEndpoint
from .settings import Settings, SettingsError

DEFAULT_PORT = 18123


@contextmanager
def published_endpoint(settings: Settings) -> Iterator[EndpointAddress]:
    """Serve queries, and publish the address of the endpoint in the data folder, until the context ends."""
    endpoint = _listen(settings)
    try:
        with published(settings.data_dir, endpoint.address):
            yield endpoint.address
    finally:
        endpoint.stop()


def _listen(settings: Settings) -> SqlEndpoint:
    port = settings.sql_port
    try:
        return SqlEndpoint(settings.store_path, settings.clickhouse_database, DEFAULT_PORT if port is None else port)
    except OSError as error:
        if port is not None or error.errno != errno.EADDRINUSE:
            raise SettingsError(f"the SQL endpoint cannot be opened: {error.strerror or error} (sql_port)") from error
        return SqlEndpoint(settings.store_path, settings.clickhouse_database)
