"""Takes syslog messages that carry the records of a tool, over UDP, TCP and TLS.

Syslog has no answers: a sender does not learn what is stored. Over TCP and TLS nothing is read while nothing can be
stored, so that the sender waits. UDP messages that cannot be stored are lost, and counted.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import structlog

from ..importer import MAX_RECORD_BYTES
from . import metrics
from .answers import Outcome
from .config import GatewaySyslog
from .problems import ProblemError
from .syslog_frames import FrameError, SyslogFrames

MOST_CONNECTIONS = 500
MOST_DATAGRAMS = 10_000
"""UDP messages that wait to be stored."""
BATCH = 200
"""Messages that are stored at once."""
AGAIN_SECONDS = 1.0
_PIECE_BYTES = 64 * 1024
_UDP_BUFFER_BYTES = 8 * 1024 * 1024

log = structlog.get_logger("grantledger.gateway")


class MessageStore(Protocol):
    """What takes the messages."""

    async def map_messages(self, name: str, messages: Sequence[bytes]) -> Outcome:
        """Return what messages of a source become."""
        ...

    async def store_mapped(self, name: str, outcome: Outcome) -> None:
        """Store it. Raises ProblemError if that is not possible now."""
        ...


class SyslogListener:
    """One listener. ``start`` and ``stop`` are called in the event loop.

    Args:
        listener: the bound socket.
        store: takes the messages.
        source_of: returns the source with a client certificate, as ``ssl`` describes it.
        tls: for TLS.
    """

    def __init__(
        self,
        config: GatewaySyslog,
        listener: socket.socket,
        store: MessageStore,
        *,
        source_of: Callable[[Mapping[str, Any] | None], str | None],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._config, self._listener, self._store = config, listener, store
        self._source_of, self._tls = source_of, tls
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._datagrams: asyncio.Queue[bytes] = asyncio.Queue(MOST_DATAGRAMS)
        self._transport: asyncio.BaseTransport | None = None

    async def start(self) -> None:
        """Begin to listen."""
        if self._config.protocol == "udp":
            loop = asyncio.get_running_loop()
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UDP_BUFFER_BYTES)
            self._transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=self._listener)
            self._run(self._drain())
        else:
            self._server = await asyncio.start_server(self._connected, sock=self._listener, ssl=self._tls)

    async def stop(self) -> None:
        """Store what was read, and end."""
        self._stopping.set()
        if self._server is not None:
            self._server.close()
        if self._transport is not None:
            self._transport.close()
        for task in list(self._tasks):
            await asyncio.wait([task], timeout=5.0)

    def received(self, datagram: bytes) -> None:
        """Take a UDP message."""
        try:
            self._datagrams.put_nowait(datagram)
        except asyncio.QueueFull:
            metrics.SYSLOG_LOST.inc()

    def _run(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            source = self._config.source or self._source_of(writer.get_extra_info("peercert"))
            if source is None or len(self._tasks) > MOST_CONNECTIONS:
                reason = "no source has the client certificate" if source is None else "too many connections"
                log.warning("syslog_refused", listen=self._config.listen, reason=reason)
                return
            await self._read(reader, source)
        except FrameError as error:
            log.warning("syslog_refused", listen=self._config.listen, reason=str(error))
        except OSError:
            pass  # the sender has gone
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _read(self, reader: asyncio.StreamReader, source: str) -> None:
        frames = SyslogFrames(MAX_RECORD_BYTES)
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            while not stopped.done():
                reading = asyncio.ensure_future(reader.read(_PIECE_BYTES))
                await asyncio.wait([reading, stopped], return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    reading.cancel()
                    return
                piece = reading.result()
                await self._take(source, frames.feed(piece) if piece else frames.end())
                if not piece:
                    return
        finally:
            stopped.cancel()

    async def _drain(self) -> None:
        while not self._stopping.is_set() or not self._datagrams.empty():
            try:
                first = await asyncio.wait_for(self._datagrams.get(), 0.2)
            except TimeoutError:
                continue
            messages = [first]
            while len(messages) < BATCH and not self._datagrams.empty():
                messages.append(self._datagrams.get_nowait())
            await self._take(self._config.source or "", messages)

    async def _take(self, source: str, messages: list[bytes]) -> None:
        """Store messages; wait while that is not possible."""
        for at in range(0, len(messages), BATCH):
            try:
                outcome = await self._store.map_messages(source, messages[at : at + BATCH])
                while not await self._stored(source, outcome):
                    await asyncio.sleep(AGAIN_SECONDS)
            except ProblemError as error:  # the source was removed, or there are too many records in a message
                log.warning("syslog_refused", listen=self._config.listen, reason=error.detail)

    async def _stored(self, source: str, outcome: Outcome) -> bool:
        try:
            await self._store.store_mapped(source, outcome)
        except ProblemError as error:
            if error.status != 503 or self._stopping.is_set():
                raise
            log.warning("syslog_waits", source=source, reason=error.detail)
            return False
        return True


class _Datagrams(asyncio.DatagramProtocol):
    """Gives UDP messages to a listener."""

    def __init__(self, listener: SyslogListener) -> None:
        self._listener = listener

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Take a message."""
        self._listener.received(data)
