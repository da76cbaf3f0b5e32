"""The query log: each statement of a person is on a durable spool before the first byte of its answer is sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from .errors import ErrorCode, QueryRefusedError, SqlError
from .metrics import SPOOL_REFUSALS, STATEMENTS
from .person_statement import MAX_ERROR_BYTES, Completion, PersonStatement, cut
from .query_spool import QuerySpool, QuerySpoolError
from .roles import Role


@dataclass
class AnswerProgress:
    """What the client has received of an answer. `rows` is set at its end."""

    rows: int | None = None
    bytes_sent: int = 0


class QueryLog:
    """Counts all statements, and records those of people on the spool, in a thread of its own."""

    def __init__(self, spool: QuerySpool) -> None:
        self._spool = spool
        self._thread = ThreadPoolExecutor(1, "query-log")

    @asynccontextmanager
    async def recorded(self, role: Role, statement: PersonStatement) -> AsyncIterator[AnswerProgress]:
        """Run a statement in this context: before it begins, the statement is on disk.

        Raises:
            SqlError: the spool is full or cannot be written (status 503).
        """
        begun = self._thread.submit(self._spool.begin, statement) if role.logged else None
        started, progress, problem = time.monotonic(), AnswerProgress(), None
        try:
            if begun is not None:
                await _on_disk(begun)
            yield progress
        except BaseException as error:
            problem = error
            raise
        finally:
            completion = completed(problem, progress, time.monotonic() - started)
            STATEMENTS.labels(role.user, completion.outcome).inc()
            if begun is not None:
                self._thread.submit(self._complete, begun, completion)

    def close(self) -> None:
        """Write the completions of all statements. No statement may run any more."""
        self._thread.shutdown()

    def _complete(self, begun: Future[int], completion: Completion) -> None:
        # The thread does one thing after the other: the beginning is done.
        if begun.exception() is None:
            self._spool.complete(begun.result(), completion)


def completed(error: BaseException | None, progress: AnswerProgress, seconds: float) -> Completion:
    """Return the completion of a statement that ended with this error; None for success."""
    match error:
        case None:
            outcome, reason = "success", ""
        case QueryRefusedError():
            outcome, reason = "denied", f"{error.name}: {error.message}"
        case SqlError():
            outcome, reason = "failure", f"{error.name}: {error.message}"
        case asyncio.CancelledError():
            outcome = "failure"
            reason = f"the client closed its connection after {progress.bytes_sent} bytes of the answer"
        case TimeoutError():
            outcome = "failure"
            reason = f"the client did not read the answer in time, but {progress.bytes_sent} bytes of it"
        case _:
            outcome, reason = "failure", type(error).__name__
    return Completion(outcome, progress.rows, round(seconds * 1000), cut(reason, MAX_ERROR_BYTES))


async def _on_disk(begun: Future[int]) -> None:
    """Wait until a beginning is on disk. If the waiting is cancelled, the beginning is completed nevertheless."""
    try:
        await asyncio.shield(asyncio.wrap_future(begun))
    except QuerySpoolError as error:
        SPOOL_REFUSALS.inc()
        raise SqlError(ErrorCode.LIMIT_EXCEEDED, f"Refused: {error}.") from error
