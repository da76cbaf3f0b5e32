"""Places for queries: how many run at once, each on a thread of its own, and how one is cut short."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

from .errors import TOO_MANY_SIMULTANEOUS_QUERIES, SqlError
from .execution import Canceller

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")
# A query may not be known to the engine yet when it is first told to stop.
_CANCEL_AGAIN_SECONDS = 0.2


class ClientGoneError(Exception):
    """The client closed its connection before the answer was complete."""


class Slot:
    """One place: a thread that does what the query does, in order, and the tag its queries run under."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="sql")


class Slots:
    """A fixed number of places, taken and given back on one event loop."""

    def __init__(self, size: int, canceller: Canceller) -> None:
        self._canceller = canceller
        self.prefix = f"grantledger-sql-{secrets.token_hex(8)}-"
        self._all = [Slot(f"{self.prefix}{index}-") for index in range(size)]
        self._free = list(self._all)
        self._returned = asyncio.Semaphore(size)

    async def take(self, wait_seconds: float) -> Slot:
        """Take a place, waiting at most `wait_seconds` for one; raises SqlError (202) when none came free."""
        try:
            await asyncio.wait_for(self._returned.acquire(), wait_seconds)
        except TimeoutError:
            message = f"Too many simultaneous queries: all {len(self._all)} places were taken for {wait_seconds:g} s."
            raise SqlError(TOO_MANY_SIMULTANEOUS_QUERIES, message) from None
        return self._free.pop()

    def give_back(self, slot: Slot) -> None:
        """Give a place back; what was handed to its thread still comes before the next query's work."""
        self._free.append(slot)
        self._returned.release()

    async def call(self, slot: Slot, work: Callable[[], _Result], gone: asyncio.Task[None]) -> _Result:
        """Do `work` on the slot's thread. When `gone` completes first, cancel the query and raise ClientGoneError."""
        job = asyncio.get_running_loop().run_in_executor(slot.executor, work)
        waited: set[asyncio.Future[Any]] = {job, gone}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not gone.done():
            return await job
        while not job.done():
            await asyncio.get_running_loop().run_in_executor(None, self._canceller.cancel, slot.tag)
            await asyncio.wait({job}, timeout=_CANCEL_AGAIN_SECONDS)
        if error := job.exception():
            logger.debug("query of a client that left ended with %s", type(error).__name__)
        raise ClientGoneError

    def close(self) -> None:
        """Cancel what the threads still do and end them; for after the event loop has ended."""
        waiting = {slot.executor.submit(_nothing) for slot in self._all}
        while waiting := wait(waiting, timeout=_CANCEL_AGAIN_SECONDS).not_done:
            self._canceller.cancel(self.prefix)
        for slot in self._all:
            slot.executor.shutdown()


def _nothing() -> None:
    """What stands behind the last work of a thread, to tell when that is done."""
