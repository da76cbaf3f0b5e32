"""The SQL endpoint of the process that owns the embedded store; its address and password are in the data folder."""

from __future__ import annotations

import errno

from ..console.address import EndpointAddress, EndpointCredential, publish_address, withdraw_address
from ..console.endpoint import SqlEndpoint
from ..console.policy import SqlPolicy
from ..console.service import EndpointLimits
from .settings import Settings

DEFAULT_PORT = 18123


class PublishedEndpoint:
    """An endpoint that other processes find through the data folder. Call ``start`` and ``stop`` once each."""

    def __init__(self, settings: Settings, limits: EndpointLimits | None = None) -> None:
        self._settings, self._limits = settings, limits
        self._credential = EndpointCredential.generate()
        self._endpoint: SqlEndpoint | None = None
        self._address: EndpointAddress | None = None

    def start(self) -> EndpointAddress:
        """Serve queries and publish the address.

        Raises:
            OSError: the port in the settings is taken.
        """
        port = self._settings.sql_port
        try:
            self._endpoint = self._listen(DEFAULT_PORT if port is None else port)
        except OSError as error:
            if port is not None or error.errno != errno.EADDRINUSE:
                raise
            self._endpoint = self._listen(0)
        self._address = publish_address(self._settings.data_dir, self._endpoint.url, self._credential)
        return self._address

    def _listen(self, port: int) -> SqlEndpoint:
        policy = SqlPolicy(databases=(self._settings.clickhouse_database,))
        endpoint = SqlEndpoint(
            self._settings.store_path, self._credential, port=port, limits=self._limits, policy=policy
        )
        endpoint.start()
        return endpoint

    def stop(self) -> None:
        """Withdraw the address and stop serving."""
        if self._address is not None:
            withdraw_address(self._settings.data_dir, self._address)
            self._address = None
        if self._endpoint is not None:
            self._endpoint.stop()
            self._endpoint = None
