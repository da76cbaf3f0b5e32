"""Run queries in threads, a fixed number at once, and stream their answers through a pipe.

The pipe keeps memory bounded whatever the format: the engine waits while the client reads. When the reading end is
closed, the engine's next write fails, and the query ends.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from .engine import cancel_queries
from .errors import ErrorCode, SqlError
from .execution import Execution, Query
from .sql_gate import SqlGate

# Fewer than the threads of an event loop (at least five): one must be free to cancel.
_CONCURRENT_QUERIES: Final = 4
_SECONDS_TO_WAIT_FOR_A_THREAD: Final = 10
# The engine may not have registered a query yet when the first request to cancel it comes.
_CANCEL_AGAIN_SECONDS: Final = 0.2
# Most errors come before this much of an answer; the client then gets a proper error instead of a broken answer.
_DELAYED_BYTES: Final = 64 << 10
_PIECE_BYTES: Final = 256 << 10


class QueryRunner:
    """Runs a few queries at once, each in its own thread. Used from one event loop, which ends the threads."""

    def __init__(self, path: Path, gate: SqlGate, limits: Mapping[str, str]) -> None:
        self._path, self._gate, self._limits = path, gate, limits
        self._free = asyncio.Semaphore(_CONCURRENT_QUERIES)
        self._tag = f"grantledger-sql-{secrets.token_hex(8)}-"

    @asynccontextmanager
    async def run(self, query: Query) -> AsyncIterator[tuple[Execution, AsyncIterator[bytes]]]:
        """Start a query, waiting for a thread first, and give its answer as it is produced, at least one piece.

        Leaving the context cancels the query. Raises SqlError: all threads stayed busy (code 202); the iterator raises
        QueryRefusedError and EngineError.
        """
        try:
            await asyncio.wait_for(self._free.acquire(), _SECONDS_TO_WAIT_FOR_A_THREAD)
        except TimeoutError:
            message = (
                f"Too many simultaneous queries: {_CONCURRENT_QUERIES} have been running for "
                f"{_SECONDS_TO_WAIT_FOR_A_THREAD} s."
            )
            raise SqlError(ErrorCode.TOO_MANY_SIMULTANEOUS_QUERIES, message) from None
        loop = asyncio.get_running_loop()
        tag = self._tag + secrets.token_hex(8)
        execution = Execution(self._path, self._gate, self._limits, query, tag)
        try:
            reading, writing = os.pipe()
            pipe = asyncio.StreamReader(_PIECE_BYTES)
            transport, _ = await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(pipe), os.fdopen(reading, "rb", 0)
            )
            job = loop.run_in_executor(None, execution.run, writing)
            try:
                yield execution, _pieces(pipe, job)
            finally:
                transport.close()
                while not job.done():
                    await asyncio.to_thread(cancel_queries, self._path, tag)
                    await asyncio.wait({job}, timeout=_CANCEL_AGAIN_SECONDS)
                # Mark the exception of an abandoned query as retrieved.
                job.exception()
        finally:
            self._free.release()

    def cancel_all(self) -> None:
        """Ask the engine to cancel every query; from any thread."""
        cancel_queries(self._path, self._tag)


async def _pieces(pipe: asyncio.StreamReader, job: asyncio.Future[None]) -> AsyncIterator[bytes]:
    start = bytearray()
    while len(start) < _DELAYED_BYTES and (piece := await pipe.read(_PIECE_BYTES)):
        start += piece
    if len(start) < _DELAYED_BYTES:
        await asyncio.shield(job)
    yield bytes(start)
    while piece := await pipe.read(_PIECE_BYTES):
        yield piece
    await asyncio.shield(job)
