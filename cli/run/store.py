"""``grantledger run store``."""

from __future__ import annotations

from importlib.util import find_spec

from ...runtime.settings import Settings
from ...schemas.own_sources import STORE
from ..errors import missing_packages


def command(settings: Settings) -> None:
    """Write every sealed batch to ClickHouse, exactly once.

    With the embedded engine, this process owns the store. It serves the queries of other processes on loopback,
    read-only, with the credentials in run/sql.json in the data folder. It runs in a Landlock sandbox: it can write its
    store, and read neither keys nor the files of other processes.

    Exit codes: 0 stopped on request; 1 lost Kafka or ClickHouse: restart it; 2 a setting is wrong; 3 Kafka and
    ClickHouse contradict each other: a person must investigate.
    """
    if not settings.clickhouse_url:
        with missing_packages("run store"):
            from ...runtime.store_start import start

            # Looked for, not imported: this process enters the sandbox before the engine starts threads.
            if find_spec("chdb") is None:
                raise ModuleNotFoundError(name="chdb")
        start(settings)
    from ...runtime.process import on_stop_signal, serving
    from ...runtime.sealed_logs import sealed_logs
    from ...runtime.store_access import store_address
    from ...sinks.memory_plan import MemoryPlan
    from ...sinks.store import Store

    with serving("store", settings):
        plan = MemoryPlan.of(settings.store_memory_mb)
        store = Store(sealed_logs(settings, STORE), store_address(settings), plan)
        on_stop_signal(store.stop)
        store.run()
