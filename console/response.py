"""Write a response of ClickHouse's HTTP interface: a streamed answer, or an error in ClickHouse's format."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import uuid
from contextlib import suppress

from starlette.types import Send

from . import formats
from .encoders import HTTP_ENCODINGS, encoder
from .errors import SqlError

_SECONDS_TO_READ_AN_ERROR = 5
_RETRY_AFTER_SECONDS = 10
_QUERY_ID = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


class QueryResponse:
    """The response to one request."""

    def __init__(self, send: Send, query_id: str | None, version: str) -> None:
        """`query_id` is the client's choice; `version` is that of the engine, for error texts."""
        self._send = send
        self._version = version
        self._exception_tag: str | None = None
        _, self._encode, self._end = encoder(None)
        self.query_id = query_id if query_id and _QUERY_ID.fullmatch(query_id) else str(uuid.uuid4())
        self.bytes_sent = 0

    async def begin(self, output_format: str, rows: int | None, encoding: str | None) -> None:
        """Send the headers of an answer, with the number of rows if it is already known."""
        self._exception_tag = secrets.token_hex(8)
        start, self._encode, self._end = encoder(encoding)
        headers = {
            "content-type": formats.CONTENT_TYPES[output_format],
            "x-clickhouse-format": output_format,
            "x-clickhouse-exception-tag": self._exception_tag,
        }
        if encoding in HTTP_ENCODINGS:
            headers["content-encoding"] = encoding
        if rows is not None:
            # JDBC drivers read the answers to some internal queries only if this contains a number of rows.
            headers["x-clickhouse-summary"] = json.dumps({"result_rows": str(rows)})
        await self._head(200, headers)
        await self._body(start)

    async def write(self, piece: bytes) -> None:
        """Send a piece of the body, and wait until the client has room for the next one."""
        await self._body(self._encode(piece))

    async def end(self) -> None:
        """End the body of a complete answer."""
        await self._body(self._end())
        await self._body(b"", more=False)

    async def plain(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        """Send a short text as the whole response."""
        data = text.encode("utf-8", "replace")
        fixed = {"content-type": "text/plain; charset=UTF-8", "content-length": str(len(data))}
        await self._head(status, fixed | (headers or {}))
        await self._body(data, more=False)

    async def fail(self, error: SqlError, status: int | None = None) -> None:
        """Report an error. After the headers, the body stays incomplete, which every client detects."""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_SECONDS_TO_READ_AN_ERROR):
                text = error.text(self._version)
                if self._exception_tag is None:
                    headers = {"x-clickhouse-exception-code": str(error.code)}
                    if status == 401:
                        headers["www-authenticate"] = 'Basic realm="grantledger"'
                    if error.status == 503:
                        headers["retry-after"] = str(_RETRY_AFTER_SECONDS)
                    await self.plain(status or error.status, text, headers)
                    return
                # ClickHouse's format for an exception inside a body.
                data, tag = text.encode("utf-8", "replace"), self._exception_tag.encode()
                block = b"\r\n__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n" % (tag, data, len(data), tag)
                await self.write(block)
                await self._body(self._end())

    async def _head(self, status: int, headers: dict[str, str]) -> None:
        headers |= {"x-clickhouse-query-id": self.query_id, "cache-control": "no-store"}
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def _body(self, data: bytes, *, more: bool = True) -> None:
        self.bytes_sent += len(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
