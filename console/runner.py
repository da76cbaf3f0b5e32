"""Run a limited number of queries in threads, and stream their answers through pipes.

A pipe bounds memory for every format: the engine waits while the client reads. Closing the reading end makes the
engine's next write fail, which ends the query.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from .engine import cancel_queries
from .errors import ErrorCode, SqlError
from .execution import Execution, Query
from .roles import Role
from .sql_gate import SqlGate

_SECONDS_IN_QUEUE: Final = 60
_LONGEST_QUEUE: Final = 100
# The engine may not have registered the query yet when it is first cancelled.
_CANCEL_AGAIN_SECONDS: Final = 0.2
# Most errors occur before this much of the answer, and can then be reported properly.
_DELAYED_BYTES: Final = 64 << 10
_PIECE_BYTES: Final = 256 << 10


class QueryRunner:
    """Runs the queries of one role, as many at a time as it has places, each in a thread. Others wait in a queue."""

    def __init__(self, path: Path, gate: SqlGate, role: Role) -> None:
        self._path, self._gate, self._role = path, gate, role
        self._free = asyncio.Semaphore(role.places)
        self._waiting = 0
        self._threads = ThreadPoolExecutor(role.places, f"sql-{role.user}")
        self._tag = f"grantledger-sql-{secrets.token_hex(8)}-"

    @asynccontextmanager
    async def run(self, query: Query) -> AsyncIterator[tuple[Execution, AsyncIterator[bytes]]]:
        """Wait for a free place and start a query; yield its answer in one or more pieces.

        Leaving the context cancels the query. The iterator raises QueryRefusedError and EngineError.

        Raises:
            SqlError: the queue is full, or no place became free in time (code 202).
        """
        await self._take_place()
        loop = asyncio.get_running_loop()
        tag = self._tag + secrets.token_hex(8)
        execution = Execution(self._path, self._gate, self._role.limits, query, tag)
        try:
            reading, writing = os.pipe()
            pipe = asyncio.StreamReader(_PIECE_BYTES)
            transport, _ = await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(pipe), os.fdopen(reading, "rb", 0)
            )
            job = loop.run_in_executor(self._threads, execution.run, writing)
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

    async def _take_place(self) -> None:
        if self._waiting >= _LONGEST_QUEUE:
            raise _too_many(f"{_LONGEST_QUEUE} are waiting")
        self._waiting += 1
        try:
            await asyncio.wait_for(self._free.acquire(), _SECONDS_IN_QUEUE)
        except TimeoutError:
            raise _too_many(f"no place became free within {_SECONDS_IN_QUEUE} s") from None
        finally:
            self._waiting -= 1


def _too_many(reason: str) -> SqlError:
    return SqlError(ErrorCode.TOO_MANY_SIMULTANEOUS_QUERIES, f"Too many simultaneous queries: {reason}. Try again.")


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
