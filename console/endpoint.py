"""The SQL endpoint: a ClickHouse-compatible HTTP face, read-only, over the embedded engine of this process.

Works with curl, clickhouse-connect and whatever speaks ClickHouse's HTTP interface without its own compression.
Answers come in blocks as the engine makes them, where the format allows it. Nothing of a query, a value or a secret
is logged.
"""

from __future__ import annotations

import ipaddress
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

from .access import Credential
from .engine import ControlConnection
from .gate import MAX_QUERY_BYTES, Gate
from .policy import (
    ENGINE_HIGHER_ORDER,
    ENGINE_REFUSALS,
    FUNCTIONS_REFUSED,
    HIGHER_ORDER,
    INFORMATION_SCHEMA,
    Policy,
)
from .runner import QueryRunner
from .service import EndpointLimits, QueryService, ping

logger = logging.getLogger(__name__)

# A query text within the limit may come in the address, where each byte takes up to three.
_MAX_HEADER_BYTES: Final = 4 * MAX_QUERY_BYTES


class SqlEndpoint:
    """Serves the data folder that this process has open in the embedded engine, from a thread of its own.

    `path` is the folder given to `clickhouse_connect.get_client(interface="chdb", path=…)`; the owner must hold it
    open. `port` 0 takes a free one. `start` and `stop` may each be called once, from any thread.
    """

    def __init__(
        self,
        path: Path,
        credential: Credential,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: EndpointLimits | None = None,
        policy: Policy | None = None,
        allow_remote: bool = False,
    ) -> None:
        """Raises ValueError for a `host` beyond loopback unless `allow_remote`: the password would cross the network
        in clear, so a proxy with TLS has to stand in front."""
        if not allow_remote and not _is_loopback(host):
            raise ValueError(f"{host} is not a loopback address: put a TLS proxy in front, or set allow_remote")
        self._path = path
        self.credential = credential
        self._host, self._port = host, port
        self._limits = limits or EndpointLimits()
        self._policy = policy or Policy()
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._control: ControlConnection | None = None
        self._runner: QueryRunner | None = None

    @property
    def url(self) -> str:
        """The address to give to clients, `http://host:port`; raises RuntimeError before `start`."""
        if self._socket is None:
            raise RuntimeError("the SQL endpoint has not been started")
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        """Bind, and answer from now on. Raises OSError when the address is taken, EngineError or ValueError when the
        engine or the database is not there."""
        if not self._path.is_dir():
            raise ValueError(f"{self._path} is no data folder")
        self._control = ControlConnection(self._path)
        try:
            databases = self._control.lines("SELECT name FROM system.databases")
            if missing := set(self._policy.databases) - set(databases):
                raise ValueError(f"no database {', '.join(sorted(missing))} in {self._path}")
            version = self._control.lines("SELECT version()")[0]
            refused = FUNCTIONS_REFUSED | self._policy.functions_refused | set(self._control.lines(ENGINE_REFUSALS))
            higher_order = HIGHER_ORDER | self._policy.higher_order | set(self._control.lines(ENGINE_HIGHER_ORDER))
            closed = {name.lower() for name in set(databases) - set(self._policy.databases)} - {INFORMATION_SCHEMA}
            policy = replace(
                self._policy,
                functions_refused=refused,
                higher_order=higher_order,
                closed_databases=self._policy.closed_databases | closed,
            )
            self._socket = _listen(self._host, self._port)
        except BaseException:
            self._control.close()
            raise
        gate = Gate(policy, self._limits.max_query_bytes)
        limits = self._limits
        self._runner = QueryRunner(self._path, gate, limits.query, limits.concurrent_queries, self._control)
        service = QueryService(gate, self.credential, limits, self._runner, version=version)
        config = uvicorn.Config(
            Starlette(routes=[Route("/ping", ping), Route("/", service)]),
            # Neither the access log nor uvicorn's own set-up of logging: addresses hold query texts and passwords.
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
        """Take no more requests, let running ones finish for `grace_seconds`, cancel the rest, end the thread."""
        if self._server is None or self._thread is None or self._runner is None or self._control is None:
            return
        self._server.should_exit = True
        self._thread.join(grace_seconds)
        deadline = time.monotonic() + grace_seconds
        while self._thread.is_alive():
            self._runner.cancel_all()
            # A client that no longer reads holds its answer up even when the query has ended.
            self._server.force_exit = time.monotonic() > deadline
            self._thread.join(0.2)
        self._runner.close()
        self._control.close()
        logger.info("SQL endpoint has stopped")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's delay (40 ms an answer) off only where the protocol number is given.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
