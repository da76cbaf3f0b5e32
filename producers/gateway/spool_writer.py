"""Writes to the spool in a thread of its own: one commit for all requests that wait for one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from ..kafka_record import KafkaRecord
from . import metrics
from .spool import SpoolConnection, SpoolError

_AGAIN_SECONDS = 1.0
"""Until removals that could not be written are tried again."""

log = structlog.get_logger("grantledger.gateway")
Numbered = Sequence[tuple[int, KafkaRecord]]


class SpoolWriter:
    """Writes and removes records, within a limit.

    Args:
        database: is closed with the writer.
        records, size: what is on the spool.
        most_bytes: the limit of ``size``.
        on_removed: is called with the numbers of records that are no longer on disk.
    """

    def __init__(
        self,
        database: SpoolConnection,
        records: int,
        size: int,
        most_bytes: int,
        on_removed: Callable[[Sequence[int]], None],
    ) -> None:
        self._database, self._most_bytes, self._on_removed = database, most_bytes, on_removed
        self._records, self._bytes = records, size
        self._changed = threading.Condition()
        self._writes: list[tuple[Numbered, asyncio.Future[None]]] = []
        self._removals: list[int] = []
        self._problem = ""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="gateway-spool", daemon=True)
        self._measure()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    async def write(self, numbered: Numbered) -> None:
        """Return when the records are on disk. Raises SpoolError if there is no room, or the disk fails."""
        size = sum(record.size for _, record in numbered)
        written = asyncio.get_running_loop().create_future()
        with self._changed:
            if self._bytes + size > self._most_bytes:
                raise SpoolError(
                    f"the spool is full: {self._records} events ({self._bytes} bytes) wait for Kafka (spool_mebibytes)"
                )
            self._records, self._bytes = self._records + len(numbered), self._bytes + size
            self._writes.append((numbered, written))
            self._changed.notify()
        try:
            await written
        except BaseException:
            with self._changed:
                self._records, self._bytes = self._records - len(numbered), self._bytes - size
            raise

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove records soon."""
        if numbers:
            with self._changed:
                self._removals += numbers
                self._changed.notify()

    def content(self) -> tuple[int, int]:
        """Return the number of records on the spool, and their bytes."""
        with self._changed:
            return self._records, self._bytes

    def problem(self) -> str:
        """Return why nothing can be written; empty if something can."""
        with self._changed:
            if self._bytes >= self._most_bytes:
                return f"the spool is full: {self._records} events ({self._bytes} bytes) wait for Kafka"
            return self._problem

    def close(self) -> None:
        """Finish what was asked for, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()
        self._database.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._writes or self._removals or self._stopping)
                writes, self._writes = self._writes, []
                removals, self._removals = self._removals, []
                stopping = self._stopping
            if not writes and not removals and stopping:
                return
            try:
                rows = (row for numbered, _ in writes for row in numbered)
                count, size = self._database.change(rows, removals)
            except SpoolError as error:
                self._fail(error, writes, removals, stopping)
                continue
            with self._changed:
                self._records, self._bytes = self._records - count, self._bytes - size
                self._problem = ""
                self._measure()
            self._on_removed(removals)
            set_results([written for _, written in writes])

    def _fail(
        self,
        error: SpoolError,
        writes: list[tuple[Numbered, asyncio.Future[None]]],
        removals: list[int],
        stopping: bool,
    ) -> None:
        log.error("spool_failed", reason=str(error))
        with self._changed:
            self._problem = str(error)
            # What is not removed now is sent again after a restart, with the same event ids.
            self._removals = [] if stopping else removals + self._removals
        set_results([written for _, written in writes], error)
        with self._changed:
            self._changed.wait_for(lambda: self._writes or self._stopping, _AGAIN_SECONDS)

    def _measure(self) -> None:
        metrics.SPOOL_EVENTS.set(self._records)
        metrics.SPOOL_BYTES.set(self._bytes)


def set_results(futures: Sequence[asyncio.Future[None]], error: Exception | None = None) -> None:
    """Complete futures from another thread, with one wake-up of their event loop."""
    if futures:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            futures[0].get_loop().call_soon_threadsafe(_complete, futures, error)


def _complete(futures: Sequence[asyncio.Future[None]], error: Exception | None) -> None:
    for one in futures:
        if one.done():
            continue
        if error is None:
            one.set_result(None)
        else:
            one.set_exception(error)
