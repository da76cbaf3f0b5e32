"""Run queries in threads, a fixed number at once, and stream their answers through a pipe.

The pipe keeps memory bounded whatever the format: the engine waits while the client reads. When the reading end is
closed, the engine's next write fails, and the query ends.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import asynccontextmanager
from pathlib import Path

from .engine import ControlConnection
from .errors import ErrorCode, SqlError
from .execution import Execution, Query, QueryLimits
from .sql_gate import SqlGate

# The engine may not have registered a query yet when the first request to cancel it comes.
_CANCEL_AGAIN_SECONDS = 0.2
# Most errors come before this much of an answer; the client then gets a proper error instead of a broken answer.
_HELD_BACK_BYTES = 64 << 10
_PIECE_BYTES = 256 << 10


class RunningQuery:
    """A query that runs in a thread, and the reading end of the pipe for its answer."""

    def __init__(self, execution: Execution, job: asyncio.Future[None], pipe: asyncio.StreamReader) -> None:
        self.execution = execution
        self._job = job
        self._pipe = pipe

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the answer as the engine writes it, at least one piece. Raises QueryRefusedError and EngineError."""
        start = bytearray()
        while len(start) < _HELD_BACK_BYTES and (piece := await self._pipe.read(_PIECE_BYTES)):
            start += piece
        if len(start) < _HELD_BACK_BYTES:
            await asyncio.shield(self._job)
        yield bytes(start)
        while piece := await self._pipe.read(_PIECE_BYTES):
            yield piece
        await asyncio.shield(self._job)


class QueryRunner:
    """Runs at most `concurrent` queries at once, each in its own thread. Used from one event loop."""

    def __init__(
        self, path: Path, gate: SqlGate, limits: QueryLimits, concurrent: int, control: ControlConnection
    ) -> None:
        self._path, self._gate, self._limits, self._control = path, gate, limits, control
        self._concurrent = concurrent
        self._free = asyncio.Semaphore(concurrent)
        self._threads = ThreadPoolExecutor(concurrent, thread_name_prefix="sql")
        self._jobs: set[Future[None]] = set()
        self._tag = f"grantledger-sql-{secrets.token_hex(8)}-"

    @asynccontextmanager
    async def run(self, query: Query, wait_seconds: float) -> AsyncIterator[RunningQuery]:
        """Start a query, after waiting at most `wait_seconds` for a thread. Leaving the context cancels it.

        Raises:
            SqlError: all threads stayed busy (code 202).
        """
        try:
            await asyncio.wait_for(self._free.acquire(), wait_seconds)
        except TimeoutError:
            message = f"Too many simultaneous queries: {self._concurrent} have been running for {wait_seconds:g} s."
            raise SqlError(ErrorCode.TOO_MANY_SIMULTANEOUS_QUERIES, message) from None
        try:
            async with self._started(query) as running:
                yield running
        finally:
            self._free.release()

    def cancel_all(self) -> None:
        """Ask the engine to cancel every query; from any thread."""
        self._control.cancel(self._tag)

    def close(self) -> None:
        """Cancel every query and end the threads; call it after the event loop has ended."""
        while wait(tuple(self._jobs), timeout=_CANCEL_AGAIN_SECONDS).not_done:
            self.cancel_all()
        self._threads.shutdown()

    @asynccontextmanager
    async def _started(self, query: Query) -> AsyncIterator[RunningQuery]:
        loop = asyncio.get_running_loop()
        tag = self._tag + secrets.token_hex(8)
        execution = Execution(self._path, self._gate, self._limits, query, tag)
        reading, writing = os.pipe()
        pipe = asyncio.StreamReader(_PIECE_BYTES)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(pipe), os.fdopen(reading, "rb", 0)
        )
        submitted = self._threads.submit(execution.run, writing)
        self._jobs.add(submitted)
        submitted.add_done_callback(self._jobs.discard)
        job = asyncio.wrap_future(submitted)
        try:
            yield RunningQuery(execution, job, pipe)
        finally:
            transport.close()
            while not job.done():
                await loop.run_in_executor(None, self._control.cancel, tag)
                await asyncio.wait({job}, timeout=_CANCEL_AGAIN_SECONDS)
            # The exception of a query that nobody waits for any longer is of no interest.
            job.exception()
