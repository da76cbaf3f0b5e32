"""Answer the requests of the SQL endpoint: who asks, what may run, and the rows piece by piece.

Nothing of a query, a value or a secret is logged here, and no exception leaves that could carry one into a log.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from . import formats, protocol
from .access import Credential
from .errors import QUERY_IS_TOO_LARGE, UNKNOWN_EXCEPTION, QueryRefusedError, SqlError
from .execution import Execution, Query, QueryLimits
from .gate import MAX_QUERY_BYTES, Gate
from .slots import ClientGoneError, Slot, Slots

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_QUERY_ID = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
# A client that sends more than this is cut off; up to this it is read to the end, so that it can hear the refusal.
_MAX_DRAINED_BYTES: Final = 16 << 20
_OK: Final = "Ok.\n"


@dataclass(frozen=True)
class EndpointLimits:
    """`concurrent_queries` run at once; one more waits `wait_seconds` for its turn. `query` bounds each of them.

    A form body (parameters too long for the address) may have `max_form_bytes`, a query text `max_query_bytes`.
    """

    concurrent_queries: int = 4
    wait_seconds: float = 10
    max_query_bytes: int = MAX_QUERY_BYTES
    max_form_bytes: int = 4 << 20
    query: QueryLimits = field(default_factory=QueryLimits)


async def ping(request: Request) -> Response:
    """Answer that the endpoint is up; asks for no password, as ClickHouse does not."""
    return PlainTextResponse(_OK)


class QueryService:
    """The ASGI application behind `/`. Every exception ends here: none may carry a query text into a log."""

    def __init__(
        self, path: Path, gate: Gate, credential: Credential, limits: EndpointLimits, slots: Slots, *, version: str
    ) -> None:
        """`version` is the engine's, which error texts name."""
        self._path = path
        self._gate = gate
        self._credential = credential
        self._limits = limits
        self._slots = slots
        self._version = version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, to the end or to an error in ClickHouse's words."""
        request = Request(scope, receive)
        answer = _Answer(send, request.query_params.get("query_id"))
        try:
            await self._serve(request, answer)
        except SqlError as error:
            logger.info("query %s: code %d %s", answer.query_id, error.code, error.name)
            await answer.fail(error, self._version)
        except ClientGoneError:
            logger.info("query %s: the client left, cancelled", answer.query_id)
        except Exception as error:
            # The message may quote the query, so only the kind and the lines of code it came through are logged.
            lines = "".join(traceback.format_tb(error.__traceback__))
            logger.error("query %s: %s\n%s", answer.query_id, type(error).__name__, lines)
            await answer.fail(SqlError(UNKNOWN_EXCEPTION, "Internal error of the SQL endpoint."), self._version)

    async def _serve(self, request: Request, answer: _Answer) -> None:
        parameters = dict(request.query_params)
        if request.method not in {"GET", "POST"}:
            await answer.respond(405, _OK, {"allow": "GET, POST"})
            return
        # Nothing is parsed, and no body read into memory, for someone who has not shown the password.
        right = protocol.authenticate(request.headers, parameters, self._credential)
        if not right:
            await _drain(request)
            error = protocol.authentication_error(present=right is not None)
            await answer.fail(error, self._version, status=403 if right is False else 401)
            return
        body = await self._body(request)
        query = protocol.read_query(
            request.headers, request.query_params.items(), body, self._gate.policy, self._limits.query
        )
        if query is None:
            await answer.respond(200, _OK, {})
            return
        slot = await self._slots.take(self._limits.wait_seconds)
        try:
            await self._run(slot, query, answer, request.receive)
        finally:
            self._slots.give_back(slot)

    async def _body(self, request: Request) -> bytes:
        form = request.headers.get("content-type", "").lower().startswith("multipart/form-data")
        limit = self._limits.max_form_bytes if form else self._limits.max_query_bytes
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size <= limit:
                parts.append(part)
            elif size > _MAX_DRAINED_BYTES:
                break
        if size > limit:
            raise QueryRefusedError(QUERY_IS_TOO_LARGE, f"Query of more than {limit} bytes.")
        return b"".join(parts)

    async def _run(self, slot: Slot, query: Query, answer: _Answer, receive: Receive) -> None:
        started = time.monotonic()
        gone = asyncio.create_task(_disconnected(receive))
        execution = Execution(self._path, self._gate, self._limits.query, query, slot.tag + secrets.token_hex(4))
        try:
            await self._slots.call(slot, execution.open, gone)
            # The first piece comes before the status: until then an error can still be said properly.
            piece = await self._slots.call(slot, execution.piece, gone)
            await answer.begin(execution.format)
            while piece is not None:
                await answer.send_piece(piece)
                piece = await self._slots.call(slot, execution.piece, gone)
            await answer.end()
        finally:
            gone.cancel()
            # Not awaited, for this may run while the task is being cancelled; the thread does it before all else.
            slot.executor.submit(_close, execution)
        logger.info(
            "query %s: %s in %s, %d bytes, %.0f ms",
            answer.query_id,
            execution.kind,
            execution.format,
            answer.sent,
            1e3 * (time.monotonic() - started),
        )


class _Answer:
    """The response of one request, in ClickHouse's manner, sent piece by piece."""

    def __init__(self, send: Send, query_id: str | None) -> None:
        self._send = send
        self._tag: str | None = None
        self.query_id = query_id if query_id and _QUERY_ID.fullmatch(query_id) else str(uuid.uuid4())
        self.sent = 0

    async def begin(self, output_format: str) -> None:
        """Send the head of a good answer."""
        self._tag = secrets.token_hex(8)
        await self._head(
            200,
            {
                "content-type": formats.content_type(output_format),
                "x-clickhouse-format": output_format,
                "x-clickhouse-exception-tag": self._tag,
            },
        )

    async def send_piece(self, data: bytes) -> None:
        """Send a part of the body."""
        if data:
            self.sent += len(data)
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """End the body: the answer is complete."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def respond(self, status: int, text: str, headers: dict[str, str]) -> None:
        """Send a short answer in one piece."""
        data = text.encode("utf-8", "replace")
        await self._head(
            status, {"content-type": "text/plain; charset=UTF-8", "content-length": str(len(data))} | headers
        )
        await self._send({"type": "http.response.body", "body": data})

    async def fail(self, error: SqlError, version: str, status: int | None = None) -> None:
        """Say that the query failed; in the middle of a body, as ClickHouse does there, and leave it incomplete."""
        text = error.text(version)
        with suppress(OSError):
            if self._tag is None:
                headers = {"x-clickhouse-exception-code": str(error.code)}
                if status == 401:
                    headers["www-authenticate"] = 'Basic realm="grantledger"'
                await self.respond(status or error.status, text, headers)
                return
            # ClickHouse's block for an exception after the head; that the body has no end tells every other client.
            data = text.encode("utf-8", "replace")
            tag = self._tag.encode()
            block = b"\r\n__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n" % (tag, data, len(data), tag)
            await self._send({"type": "http.response.body", "body": block, "more_body": True})

    async def _head(self, status: int, headers: dict[str, str]) -> None:
        headers |= {"x-clickhouse-query-id": self.query_id, "cache-control": "no-store"}
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _drain(request: Request) -> None:
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > _MAX_DRAINED_BYTES:
            return


def _close(execution: Execution) -> None:
    try:
        execution.close()
    except Exception as error:
        logger.error("closing a query's handle failed: %s", type(error).__name__)
