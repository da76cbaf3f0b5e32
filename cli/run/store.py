"""``grantledger run store``."""

from __future__ import annotations

from contextlib import ExitStack

from ...runtime.process import on_stop_signal, serving
from ...runtime.sealed_logs import sealed_logs
from ...runtime.settings import Settings
from ...runtime.sql_endpoint import published_endpoint
from ...runtime.store_access import store_address
from ...sinks.clickhouse import StoreLock, private_temp
from ...sinks.store import Store


def command(settings: Settings) -> None:
    """Write every sealed batch to ClickHouse, exactly once.

    With the embedded engine, this process owns the store. It serves the queries of other processes on loopback,
    read-only, with the credential in run/sql.json in the data folder.

    Exit codes: 0 stopped on request; 1 lost Kafka or ClickHouse: restart it; 2 a setting is wrong; 3 Kafka and
    ClickHouse contradict each other: a person must investigate.
    """
    address = store_address(settings)
    with ExitStack() as stack:
        if address.embedded:
            stack.callback(StoreLock(address.path).release)
            private_temp(address.path)
        stack.enter_context(serving("store", settings))

        def open_endpoint() -> None:
            if address.embedded:
                stack.enter_context(published_endpoint(settings))

        store = Store(sealed_logs(settings), address, on_ready=open_endpoint)
        on_stop_signal(store.stop)
        store.run()
