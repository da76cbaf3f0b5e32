"""Run a limited number of queries in threads, and stream their answers through pipes.

A pipe bounds memory for every format: the engine waits while the client reads. Closing the reading end makes the
engine's next write fail, which ends the query.
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

# Fewer than the threads of an event loop (at least five): one must stay free for cancelling.
_CONCURRENT_QUERIES: Final = 4
_SECONDS_TO_WAIT_FOR_A_THREAD: Final = 10
# The engine may not have registered the query yet when it is first cancelled.
_CANCEL_AGAIN_SECONDS: Final = 0.2
# Most errors occur before this much of the answer, and can then be reported properly.
_DELAYED_BYTES: Final = 64 << 10
_PIECE_BYTES: Final = 256 << 10


class QueryRunner:
    """Runs a few queries at a time, each in a thread of the event loop that uses it."""

    def __init__(self, path: Path, gate: SqlGate, limits: Mapping[str, str]) -> None:
        self._path, self._gate, self._limits = path, gate, limits
        self._free = asyncio.Semaphore(_CONCURRENT_QUERIES)
        self._tag = f"grantledger-sql-{secrets.token_hex(8)}-"

    @asynccontextmanager
    async def run(self, query: Query) -> AsyncIterator[tuple[Execution, AsyncIterator[bytes]]]:
        """Wait for a free thread and start a query; yield its answer in one or more pieces.

        Leaving the context cancels the query. The iterator raises QueryRefusedError and EngineError.

        Raises:
            SqlError: all threads stayed busy (code 202).
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
        """Ask the engine to cancel every query. Safe in any thread."""
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
