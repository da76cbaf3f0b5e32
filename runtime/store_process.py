"""The process that owns the embedded store and serves SQL, in the sandbox that `store_start` has closed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace

import structlog
from prometheus_client import Gauge

from ..base.errors import GrantledgerError
from ..kafka.source_signer import source_signer
from ..ledger.key_list import read_key_list
from ..schemas.own_sources import READER, STORE
from ..sinks.clickhouse import load_engine, lock_store, private_temp
from ..sinks.memory_plan import MemoryPlan
from ..sinks.store import Store
from .memory import return_freed_memory
from .process import configure_logs, on_stop_signal, serving
from .query_publisher import published_statements
from .remembered_endpoint import RememberedEndpoint
from .sealed_logs import sealed_logs
from .settings import Settings
from .sql_endpoint import outside_listener, published_endpoint, query_spool
from .status import NO_SANDBOX
from .store_access import store_address

log = structlog.get_logger("grantledger.store")

SANDBOX = Gauge("grantledger_store_sandbox", "Version of the Landlock sandbox around the store; 0: no sandbox.")

_LARGE, _KEPT = 16 << 20, 16 << 20
"""A sealed batch of some MiB is copied several times. Fetching the memory anew each time cost 7 % of the CPU."""


def serve(settings: Settings, keys: Mapping[str, str], remembered: RememberedEndpoint | None, version: int) -> None:
    """Store and serve SQL until a stop signal."""
    plan = MemoryPlan.of(settings.store_memory_mb)
    address = replace(store_address(settings), engine_options=plan.engine_options())
    with ExitStack() as stack:
        stack.enter_context(lock_store(address.path))
        private_temp(address.path)
        load_engine()
        return_freed_memory(large=_LARGE, kept=_KEPT)
        stack.enter_context(serving("store", settings))
        SANDBOX.set(version)
        if not version:
            log.warning("no_sandbox", reason=NO_SANDBOX)

        deployment = settings.require_deployment()
        signers = {name: source_signer(deployment, keys[name].encode()) for name in (READER, STORE)}
        outside = outside_listener(settings, keys)
        spool = stack.enter_context(closing(query_spool(settings)))
        stack.enter_context(published_statements(spool, settings.cluster(), deployment, signers[STORE]))

        def open_endpoint() -> None:
            stack.enter_context(published_endpoint(settings, remembered, spool, outside))

        logs = sealed_logs(settings, STORE, read_key_list(keys["log"].encode()), signers)
        store = Store(logs, address, plan, on_ready=open_endpoint)
        on_stop_signal(store.stop)
        store.run()


def main() -> None:
    """Run in the sandbox. The argument is the descriptor of the settings."""
    with os.fdopen(int(sys.argv[1]), encoding="utf-8") as file:
        content = json.load(file)
    settings = Settings(**content["settings"])
    remembered = RememberedEndpoint.from_json(content["remembered"]) if content["remembered"] else None
    configure_logs(settings)
    try:
        serve(settings, content["keys"], remembered, content["version"])
    except GrantledgerError as error:
        print(f"grantledger: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
