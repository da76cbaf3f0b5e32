"""Handle the requests of the SQL endpoint.

Neither log messages nor exceptions that leave this module contain a query, a value or a secret.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from .address import EndpointCredential
from .errors import ErrorCode, QueryRefusedError, SqlError
from .execution import Query
from .form import MOST_FIELDS
from .http_protocol import Connections
from .metrics import UNAUTHENTICATED
from .person_statement import PersonStatement
from .query_log import AnswerProgress, QueryLog
from .request import presented_credential, read_query, read_statement
from .response import QueryResponse
from .roles import Role
from .runner import QueryRunner
from .sql_gate import MAX_QUERY_BYTES

logger = logging.getLogger(__name__)

# For parameters that are too long for the URL.
_MAX_FORM_BYTES: Final = 4 << 20
# The engine enforces its time limit first, unless it waits for a client that does not read.
_TIME_TO_FAIL_SECONDS: Final = 2
_SECONDS_TO_SEND_A_BODY: Final = 30
_OK: Final = "Ok.\n"


async def ping(request: Request) -> Response:
    """Report that the endpoint is up. As with ClickHouse, this needs no password."""
    return PlainTextResponse(_OK)


@dataclass(frozen=True)
class AllowedPage:
    """The ASGI application at `/allowed`: the names that queries may use. They are no secret."""

    text: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the text."""
        await PlainTextResponse(self.text)(scope, receive, send)


@dataclass(frozen=True)
class Account:
    """A user of the endpoint: who may log in, and how the queries run."""

    credential: EndpointCredential
    role: Role
    runner: QueryRunner


@dataclass(frozen=True)
class QueryService:
    """The ASGI application at `/`.

    `database` is the database that queries read, and `version` is that of the engine, for error texts.
    """

    accounts: Sequence[Account]
    connections: Connections
    log: QueryLog
    database: str
    version: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. All exceptions end here, because they may quote the query."""
        if scope["query_string"].count(b"&") >= MOST_FIELDS:
            error = QueryRefusedError(ErrorCode.BAD_ARGUMENTS, f"The URL has more than {MOST_FIELDS} parameters.")
            await QueryResponse(send, None, self.version).fail(error)
            return
        request = Request(scope, receive)
        response = QueryResponse(send, request.query_params.get("query_id"), self.version)
        try:
            await self._serve(request, response)
        except SqlError as error:
            logger.info("query %s: code %d %s", response.query_id, error.code, error.name)
            await response.fail(error)
        except ClientDisconnect:
            logger.info("query %s: the client closed its connection before the end of the request", response.query_id)
        except Exception as error:
            # The message may quote the query: log only the type and the lines of code.
            lines = "".join(traceback.format_tb(error.__traceback__))
            logger.error("query %s: %s\n%s", response.query_id, type(error).__name__, lines)
            await response.fail(
                SqlError(ErrorCode.UNKNOWN_EXCEPTION, "Internal error of the SQL endpoint; see its log.")
            )

    async def _serve(self, request: Request, response: QueryResponse) -> None:
        # Before authentication, parse nothing and keep no body in memory.
        presented = presented_credential(request.headers, request.query_params)
        account = next((one for one in self.accounts if presented and one.credential.matches(presented)), None)
        if account is None:
            UNAUTHENTICATED.inc()
            reason = "user and password are required" if presented is None else "wrong user or password"
            error = QueryRefusedError(ErrorCode.AUTHENTICATION_FAILED, f"Authentication failed: {reason}.")
            await response.fail(error, status=401 if presented is None else 403)
            return
        self.connections.authenticated(request.scope["client"])
        body = await _body(request)
        # In a thread: a large body must not delay the answers to others.
        sent = await asyncio.to_thread(read_statement, request.headers, request.query_params.items(), body)
        if not sent.text:
            await response.plain(200, _OK)
            return
        statement = PersonStatement.shortened(
            datetime.now(UTC), account.role.user, sent.text, sent.parameters, request.scope["client"][0]
        )
        watcher = asyncio.create_task(_cancel_when_gone(request.receive, asyncio.current_task()))
        try:
            async with self.log.recorded(account.role, statement) as progress:
                query = read_query(sent, request.headers, database=self.database, role=account.role)
                await self._answer(account, query, response, progress)
        except asyncio.CancelledError:
            if not watcher.done():
                raise
            logger.info("query %s: cancelled, the client closed its connection", response.query_id)
        except TimeoutError:
            raise SqlError(
                ErrorCode.TIMEOUT_EXCEEDED, "Timeout exceeded: the client did not read the answer in time."
            ) from None
        finally:
            watcher.cancel()

    async def _answer(self, account: Account, query: Query, response: QueryResponse, progress: AnswerProgress) -> None:
        started = time.monotonic()
        seconds = float(query.settings.get("max_execution_time", account.role.limits["max_execution_time"]))
        timeout = asyncio.timeout(seconds + _TIME_TO_FAIL_SECONDS)
        async with account.runner.run(query) as (execution, pieces), timeout:
            first = await anext(pieces)
            await response.begin(execution.format, execution.rows, query.encoding)
            await response.write(first)
            progress.bytes_sent = response.bytes_sent
            async for piece in pieces:
                await response.write(piece)
                progress.bytes_sent = response.bytes_sent
            await response.end()
            progress.rows = execution.rows
        logger.info(
            "query %s: %s, %s in %s, %d bytes, %.0f ms",
            response.query_id,
            account.role.user,
            execution.kind,
            execution.format,
            response.bytes_sent,
            1e3 * (time.monotonic() - started),
        )


async def _body(request: Request) -> bytes:
    form = request.headers.get("content-type", "").lower().startswith("multipart/form-data")
    limit = _MAX_FORM_BYTES if form else MAX_QUERY_BYTES
    body = bytearray()
    try:
        async with asyncio.timeout(_SECONDS_TO_SEND_A_BODY):
            async for part in request.stream():
                body += part
                if len(body) > limit:
                    # The server discards the rest of the body, so that the client receives the error.
                    raise QueryRefusedError(ErrorCode.QUERY_IS_TOO_LARGE, f"Query exceeds the limit of {limit} bytes.")
    except TimeoutError:
        message = f"Timeout exceeded: the request took more than {_SECONDS_TO_SEND_A_BODY} s."
        raise SqlError(ErrorCode.TIMEOUT_EXCEEDED, message) from None
    return bytes(body)


async def _cancel_when_gone(receive: Receive, task: asyncio.Task[Any] | None) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    if task is not None:
        task.cancel()
