"""``grantledger store``: run the sink."""

from __future__ import annotations

import typer

from ..runtime.process import on_stop_signal, serving
from ..runtime.sql_endpoint import PublishedEndpoint
from ..runtime.wiring import store_address
from ..sinks.clickhouse import StoreLock, private_temp
from ..sinks.store import Store
from .running import settings_of, told


def command(context: typer.Context) -> None:
    """Run the sink until SIGTERM or Ctrl-C: every sealed batch goes into ClickHouse, once.

    With the embedded engine this process owns the store and answers queries of others on loopback, read-only, with the
    credential it writes into the data folder.

    Exit codes: 0 stopped when asked, 1 lost Kafka or ClickHouse (start it again), 2 a setting is wrong, 3 Kafka and
    ClickHouse contradict each other and a person must look.
    """
    settings = settings_of(context)
    with told():
        address = store_address(settings)
        cluster, deployment = settings.cluster(), settings.require_deployment()
        lock = StoreLock(address.path) if address.embedded else None
        if lock is not None:
            private_temp(address.path)
        endpoint = PublishedEndpoint(settings) if address.embedded else None

        def open_endpoint() -> None:
            if endpoint is not None:
                endpoint.start()

        with serving("store", settings):
            store = Store(cluster, deployment, address, on_ready=open_endpoint)
            on_stop_signal(store.stop)
            try:
                store.run()
            finally:
                if endpoint is not None:
                    endpoint.stop()
                if lock is not None:
                    lock.release()
