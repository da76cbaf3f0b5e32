"""The SQL endpoint: ClickHouse's HTTP interface, read-only, over the embedded engine of this process.

It works with curl, clickhouse-connect, JDBC drivers, and other clients of ClickHouse's HTTP interface. The engine
writes answers while it runs. No query, value or secret is logged.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from ..base.errors import UsageError
from .address import EndpointCredential
from .engine import ControlConnection
from .policy import ENGINE_HIGHER_ORDER, ENGINE_REFUSALS, INFORMATION_SCHEMA, SqlPolicy
from .runner import QueryRunner
from .service import EndpointLimits, QueryService, ping
from .sql_gate import MAX_QUERY_BYTES, SqlGate

logger = logging.getLogger(__name__)

# A query may come in the URL, where each of its bytes takes up to three.
_MAX_HEADER_BYTES: Final = 4 * MAX_QUERY_BYTES


class SqlEndpoint:
    """Serves the embedded engine of this process on loopback, from its own thread.

    `path` is the folder given to `clickhouse_connect.get_client(interface="chdb", path=…)`; the owner must hold it
    open. `port` 0 takes any free port. Call `start` and `stop` once each, from any thread.
    """

    def __init__(
        self,
        path: Path,
        credential: EndpointCredential,
        *,
        port: int = 0,
        limits: EndpointLimits | None = None,
        policy: SqlPolicy | None = None,
    ) -> None:
        self._path = path
        self.credential = credential
        self._port = port
        self._limits = limits or EndpointLimits()
        self._policy = policy or SqlPolicy()
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._control: ControlConnection | None = None
        self._runner: QueryRunner | None = None

    @property
    def url(self) -> str:
        """The address for clients, `http://127.0.0.1:port`. Raises RuntimeError before `start`."""
        if self._socket is None:
            raise RuntimeError("the SQL endpoint has not been started")
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def start(self) -> None:
        """Bind and serve.

        Raises:
            OSError: the port is taken.
            EngineError: the engine cannot be opened.
            UsageError: the folder or a database does not exist.
        """
        if not self._path.is_dir():
            raise UsageError(f"{self._path} is not a data folder")
        control = self._control = ControlConnection(self._path)
        try:
            policy = self._complete_policy(control)
            version = control.lines("SELECT version()")[0]
            self._socket = _listen(self._port)
        except BaseException:
            control.close()
            raise
        limits = self._limits
        gate = SqlGate(policy, limits.max_query_bytes)
        self._runner = QueryRunner(self._path, gate, limits.query, limits.concurrent_queries, control)
        service = QueryService(gate, self.credential, limits, self._runner, version=version)
        config = uvicorn.Config(
            Starlette(routes=[Route("/ping", ping), Route("/", service)]),
            # No access log and no logging set-up of uvicorn: URLs contain query texts and passwords.
            log_config=None,
            access_log=False,
            lifespan="off",
            http="h11",
            ws="none",
            h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
            limit_concurrency=64,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="sql-endpoint", daemon=True
        )
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the SQL endpoint's server ended while it started; see the log")
            time.sleep(0.01)
        logger.info("SQL endpoint answers at %s", self.url)

    def stop(self, grace_seconds: float = 5) -> None:
        """Refuse new requests, let running ones finish for `grace_seconds`, cancel the rest, end the thread."""
        if self._server is None or self._thread is None or self._runner is None or self._control is None:
            return
        self._server.should_exit = True
        self._thread.join(grace_seconds)
        deadline = time.monotonic() + grace_seconds
        while self._thread.is_alive():
            self._runner.cancel_all()
            # A client that does not read its answer would block the server although the query has ended.
            self._server.force_exit = time.monotonic() > deadline
            self._thread.join(0.2)
        self._runner.close()
        self._control.close()
        logger.info("SQL endpoint has stopped")

    def _complete_policy(self, control: ControlConnection) -> SqlPolicy:
        """Return the policy with the names that only the running engine knows."""
        policy = self._policy
        databases = set(control.lines("SELECT name FROM system.databases"))
        if missing := set(policy.databases) - databases:
            raise UsageError(f"no database {', '.join(sorted(missing))} in {self._path}")
        closed = {name.lower() for name in databases - set(policy.databases)} - {INFORMATION_SCHEMA}
        return replace(
            policy,
            functions_refused=policy.functions_refused | set(control.lines(ENGINE_REFUSALS)),
            higher_order=policy.higher_order | set(control.lines(ENGINE_HIGHER_ORDER)),
            closed_databases=policy.closed_databases | closed,
        )


def _listen(port: int) -> socket.socket:
    # asyncio turns Nagle's delay (40 ms per answer) off only when the protocol number is given.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Loopback only: the password crosses the connection unencrypted.
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener
