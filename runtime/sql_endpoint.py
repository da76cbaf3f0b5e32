"""The SQL endpoint of whoever has the embedded store open, with its address and password in the data folder."""

from __future__ import annotations

from ..console.access import Access, Credential, publish_access, withdraw_access
from ..console.endpoint import SqlEndpoint
from ..console.policy import Policy
from ..console.service import EndpointLimits
from .settings import Settings


class PublishedEndpoint:
    """An endpoint that others find through the data folder. ``start`` and ``stop`` once each."""

    def __init__(self, settings: Settings, limits: EndpointLimits | None = None) -> None:
        self._data_dir = settings.data_dir
        self._credential = Credential.generate()
        self._endpoint = SqlEndpoint(
            settings.store_path,
            self._credential,
            port=settings.sql_port,
            limits=limits,
            policy=Policy(databases=(settings.clickhouse_database,)),
        )
        self._access: Access | None = None

    def start(self) -> Access:
        """Answer from now on, and say where; OSError when the port is taken."""
        self._endpoint.start()
        self._access = publish_access(self._data_dir, self._endpoint.url, self._credential)
        return self._access

    def stop(self) -> None:
        """Withdraw the address and stop answering."""
        if self._access is not None:
            withdraw_access(self._data_dir, self._access)
            self._access = None
            self._endpoint.stop()
