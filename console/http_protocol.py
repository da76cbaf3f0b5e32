"""The HTTP connections of the endpoint: strict framing, deadlines, and room for everyone.

Connections without a password can hold nothing for long: a request must arrive within seconds, and when there are too
many connections, the oldest idle one makes room for the next.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# From the connection, or from the end of the last answer, to the end of the next header, without a password.
SECONDS_TO_SEND_A_HEADER: Final = 10
# The same once a request had the right password: pools of database drivers keep connections.
SECONDS_TO_STAY_IDLE: Final = 60
# The process needs file descriptors for the store.
MOST_CONNECTIONS: Final = 200

_END_OF_HEADER = re.compile(rb"\r?\n\r?\n")
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_FOLDED = re.compile(rb"\n[ \t]")
# h11 makes one of several equal lengths.
_LENGTHS = re.compile(rb"\ncontent-length:[^\r]*,|\ncontent-length:.*\ncontent-length:", re.IGNORECASE | re.DOTALL)


class StrictConnection(h11.Connection):
    """The parser of a server's connection, without the forms that two parsers may read differently."""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """As in h11. Also rejects bare line feeds, folded headers, and two ways to state the length of a body."""
        if self.their_state is h11.IDLE:
            _check_header(self.trailing_data[0])
        event = super().next_event()
        if isinstance(event, h11.Request):
            names = [name for name, _ in event.headers]
            if names.count(b"content-length") + names.count(b"transfer-encoding") > 1:
                raise h11.RemoteProtocolError("Content-Length and Transfer-Encoding", error_status_hint=400)
            if names.count(b"host") != 1 or (event.http_version == b"1.0" and b"transfer-encoding" in names):
                raise h11.RemoteProtocolError("one Host, and no Transfer-Encoding in HTTP/1.0", error_status_hint=400)
        return event


class Connections:
    """The open connections, oldest first."""

    def __init__(self, most: int = MOST_CONNECTIONS) -> None:
        self._most = most
        self._open: dict[Any, LimitedProtocol] = {}

    def protocol(self, *arguments: Any, **options: Any) -> LimitedProtocol:
        """Return the protocol of a new connection, as uvicorn makes one."""
        return LimitedProtocol(self, *arguments, **options)

    def add(self, protocol: LimitedProtocol) -> None:
        """Register a connection; at the limit, close the oldest idle one, first of those without a password."""
        if len(self._open) >= self._most:
            idle = [one for one in self._open.values() if not one.is_busy]
            (min(idle, key=lambda one: one.is_authenticated) if idle else protocol).end()
        self._open[protocol.client] = protocol

    def remove(self, protocol: LimitedProtocol) -> None:
        """Forget a closed connection."""
        if self._open.get(protocol.client) is protocol:
            del self._open[protocol.client]

    def authenticated(self, client: Any) -> None:
        """Record that a request of this client (of its ASGI scope) had the right password."""
        if protocol := self._open.get(tuple(client)):
            protocol.is_authenticated = True


class LimitedProtocol(H11Protocol):
    """One connection with deadlines."""

    def __init__(self, registry: Connections, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = StrictConnection(h11.SERVER, self.config.h11_max_incomplete_event_size or 0)
        self.is_authenticated = False
        self._registry = registry
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As in uvicorn. Starts the first deadline."""
        super().connection_made(transport)
        self._registry.add(self)
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """As in uvicorn."""
        self._registry.remove(self)
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """As in uvicorn. Starts the deadline of the next request."""
        self._wait_for_request()
        super().on_response_complete()

    def end(self) -> None:
        """Close the connection now, without sending the rest of an answer."""
        self.transport.abort()

    def _wait_for_request(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        seconds = SECONDS_TO_STAY_IDLE if self.is_authenticated else SECONDS_TO_SEND_A_HEADER
        self._deadline = self.loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        # Queries have time limits of their own. Other answers are short: a client that does not read them is gone.
        if not (self.is_busy and self.is_authenticated):
            self.end()


def _check_header(data: bytes) -> None:
    end = _END_OF_HEADER.search(data)
    if end is None:
        return
    header = data[: end.end()]
    if any(form.search(header) for form in (_BARE_LINE_FEED, _FOLDED, _LENGTHS)):
        raise h11.RemoteProtocolError("a bare line feed, a folded header or two lengths", error_status_hint=400)
