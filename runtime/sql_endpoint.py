"""The SQL endpoint of the process that owns the embedded store; its address and password are in the data folder."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ..console.address import EndpointAddress, published
from ..console.endpoint import SqlEndpoint
from .settings import Settings

DEFAULT_PORT = 18123


@contextmanager
def published_endpoint(settings: Settings) -> Iterator[EndpointAddress]:
    """Serve queries, and let other processes find the endpoint through the data folder, until the context ends.

    Raises:
        OSError: the port in the settings is taken.
    """
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
            raise
        return SqlEndpoint(settings.store_path, settings.clickhouse_database)
