"""The SQL endpoint: ClickHouse's HTTP interface, read-only, over the embedded engine of this process.

It works with curl, clickhouse-connect, JDBC drivers, and other clients of ClickHouse's HTTP interface. Answers are
streamed while the query runs. No query, value or secret is logged.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from ..base.errors import UsageError
from .address import EndpointAddress, EndpointCredential
from .engine import EngineConnection
from .http_protocol import MOST_HEADER_BYTES, SECONDS_TO_STAY_IDLE, Connections, ServerLoop
from .query_log import QueryLog
from .query_spool import QuerySpool
from .roles import ANALYST, AUDITOR, READER, Role
from .runner import QueryRunner
from .service import Account, AllowedPage, QueryService, ping
from .sql_gate import SqlGate
from .sql_policy import SqlPolicy

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutsideListener:
    """Where other machines connect: a listening socket, and the certificate that it shows."""

    socket: socket.socket
    tls: ssl.SSLContext


class SqlEndpoint:
    """Serves the embedded engine of this process on loopback, in a thread of its own, and outside over TLS if wanted.

    `path` is the folder that was passed to `clickhouse_connect.get_client(interface="chdb", path=…)`; that client must
    stay open. Statements of people are recorded on the `spool`. `port` 0 selects a free port; `roles` are those of
    analysts, auditors and our own readers; users without one of the `credentials` get a new one. Call `stop` once, from
    any thread.

    Raises:
        OSError: the port is taken.
        EngineError: the engine cannot be opened.
        UsageError: the folder or the database does not exist.
    """

    def __init__(
        self,
        path: Path,
        spool: QuerySpool,
        database: str = "audit",
        port: int = 0,
        roles: tuple[Role, Role, Role] = (ANALYST, AUDITOR, READER),
        *,
        credentials: Iterable[EndpointCredential] = (),
        outside: OutsideListener | None = None,
    ) -> None:
        if not path.is_dir():
            raise UsageError(f"{path} is not a data folder")
        with closing(EngineConnection(path)) as connection:
            policy = SqlPolicy.of_engine(database, connection)
            version = connection.lines("SELECT version()")[0]
        listener = _listen(port)
        given = {credential.user: credential for credential in credentials}
        users = [given.get(role.user) or EndpointCredential.generate(role.user) for role in roles]
        self.address = EndpointAddress("127.0.0.1", listener.getsockname()[1], *users)
        self._accounts = [_account(path, policy, role, user) for role, user in zip(roles, users, strict=True)]
        self._log = QueryLog(spool)
        connections = Connections()
        service = QueryService(self._accounts, connections, self._log, database, version)
        routes = [
            Route("/ping", ping),
            Route("/allowed", AllowedPage(_readable(policy, roles[0]).describe())),
            Route("/", service, methods=["GET", "POST"]),
        ]
        app = Starlette(routes=routes)
        listeners: list[tuple[socket.socket, ssl.SSLContext | None]] = [(listener, None)]
        listeners += [(outside.socket, outside.tls)] if outside is not None else []
        self._servers = [uvicorn.Server(_configuration(app, connections, tls)) for _, tls in listeners]

        async def serve() -> None:  # in one loop, because they share the places of the queries
            pairs = zip(self._servers, listeners, strict=True)
            await asyncio.gather(*(server.serve(sockets=[socket_of]) for server, (socket_of, _) in pairs))

        def run() -> None:
            with asyncio.Runner(loop_factory=ServerLoop) as runner:
                runner.run(serve())

        self._thread = threading.Thread(target=run, name="sql-endpoint", daemon=True)
        self._thread.start()
        while not all(server.started for server in self._servers):
            if not self._thread.is_alive():
                raise RuntimeError("the SQL endpoint's server ended while it started; see the log")
            time.sleep(0.01)
        logger.info("SQL endpoint answers at %s", self.address.url)

    def stop(self, grace_seconds: float = 5) -> None:
        """Refuse new requests, give running ones `grace_seconds` to finish, cancel the rest, and end the thread."""
        for server in self._servers:
            server.should_exit = True
        self._thread.join(grace_seconds)
        deadline = time.monotonic() + grace_seconds
        while self._thread.is_alive():
            for account in self._accounts:
                account.runner.cancel_all()
            # A client that does not read its answer would block the server even after the query has ended.
            for server in self._servers:
                server.force_exit = time.monotonic() > deadline
            self._thread.join(0.2)
        self._log.close()
        logger.info("SQL endpoint has stopped")


def _configuration(app: Starlette, connections: Connections, tls: ssl.SSLContext | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        # No access log, and no logging setup by uvicorn: URLs contain queries and passwords.
        log_config=None,
        access_log=False,
        lifespan="off",
        http=cast("Any", connections.protocol),
        ws="none",
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
        timeout_keep_alive=SECONDS_TO_STAY_IDLE,
        server_header=False,
        proxy_headers=False,  # nobody else decides who the client is
        ssl_context_factory=(lambda _config, _default: tls) if tls is not None else None,
    )


def _account(path: Path, policy: SqlPolicy, role: Role, credential: EndpointCredential) -> Account:
    return Account(credential, role, QueryRunner(path, SqlGate(_readable(policy, role)), role))


def _readable(policy: SqlPolicy, role: Role) -> SqlPolicy:
    """Return the policy of a role, from that of all views."""
    views = policy.readable or frozenset()
    return replace(policy, readable=None if role.reads_tables else views - role.hidden_views)


def _listen(port: int) -> socket.socket:
    # Loopback only: the password crosses the connection unencrypted.
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    # Reopening the socket sets its protocol number, without which asyncio does not disable Nagle's algorithm (40 ms per
    # answer).
    return socket.socket(fileno=listener.detach())
