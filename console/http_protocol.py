"""The HTTP connections of the endpoint: strict framing, deadlines, and room for everyone.

Connections without a password can hold nothing for long: a request must arrive within seconds, and when there are too
many connections, the oldest idle one makes room for the next.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

import h11
from h11._receivebuffer import ReceiveBuffer
from uvicorn.protocols.http.h11_impl import H11Protocol

# From the connection, or from the end of the last answer, to the end of the next header, without a password.
SECONDS_TO_SEND_A_HEADER: Final = 10
# Before that, over TLS. A connection counts only after it.
SECONDS_TO_SHAKE_HANDS: Final = 5.0
# The same once a request had the right password: pools of database drivers keep connections.
SECONDS_TO_STAY_IDLE: Final = 60
# A client that is still sending when its request is rejected would lose the answer if the connection closed at once.
SECONDS_TO_READ_A_REJECTION: Final = 5
# The process needs file descriptors for the store.
MOST_CONNECTIONS: Final = 200
# Of a request line and its headers, and of trailers. Clients send queries in the body, and long parameters in a form.
MOST_HEADER_BYTES: Final = 32 << 10
MOST_HEADER_LINES: Final = 100
# Of any size; further ones must have 1 KiB on average, because each costs as much time.
MOST_SMALL_CHUNKS: Final = 256
_BYTES_OF_A_CHUNK: Final = 1 << 10
# h11 takes quadratic time for some chunk extensions, which no client uses.
_MOST_CHUNK_LINE_BYTES: Final = 32

_END_OF_HEADER = re.compile(rb"\r?\n\r?\n")
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_FOLDED = re.compile(rb"\n[ \t]")
# h11 makes one of several equal lengths.
_LENGTHS = re.compile(rb"\ncontent-length:[^\r]*,|\ncontent-length:.*\ncontent-length:", re.IGNORECASE | re.DOTALL)


class StrictBuffer(ReceiveBuffer):
    """The received bytes of a connection. Rejects headers and chunks that are too large or have two readings.

    Each byte is searched once, in however many packets it arrives.
    """

    def __init__(self) -> None:
        super().__init__()
        self._searched = 0
        self._chunks = self._body_bytes = 0

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """As in h11: the lines of a complete header, or of trailers; None if they are incomplete."""
        if self._data.startswith(b"\r\n"):
            return super().maybe_extract_lines()
        if self._data.startswith(b"\n"):
            raise _rejected("a bare line feed")
        end = _END_OF_HEADER.search(self._data, self._searched)
        size = end.end() if end else len(self._data)
        if size > MOST_HEADER_BYTES:
            raise _rejected(f"a header of more than {MOST_HEADER_BYTES} bytes", 431)
        # The end of a header may arrive in two packets.
        self._searched = 0 if end else max(0, size - 3)
        if end is None:
            return super().maybe_extract_lines()
        self._chunks = self._body_bytes = 0
        header = self._data[:size]
        if header.count(b"\n") > MOST_HEADER_LINES:
            raise _rejected(f"a header of more than {MOST_HEADER_LINES} lines", 431)
        if any(form.search(header) for form in (_BARE_LINE_FEED, _FOLDED, _LENGTHS)):
            raise _rejected("a bare line feed, a folded header or two lengths")
        return super().maybe_extract_lines()

    def maybe_extract_next_line(self) -> bytearray | None:
        """As in h11: the line before a chunk; None if it is incomplete."""
        line = super().maybe_extract_next_line()
        if len(self if line is None else line) > _MOST_CHUNK_LINE_BYTES:
            raise _rejected("a long chunk header")
        self._chunks += line is not None
        if self._chunks > MOST_SMALL_CHUNKS + self._body_bytes // _BYTES_OF_A_CHUNK:
            raise _rejected("a body in too many small chunks", 413)
        return line

    def maybe_extract_at_most(self, count: int) -> bytearray | None:
        """As in h11: the next bytes of a body; None if there are none."""
        data = super().maybe_extract_at_most(count)
        self._body_bytes += len(data or b"")
        return data


class StrictConnection(h11.Connection):
    """The parser of a server's connection, without the forms that two parsers may read differently."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MOST_HEADER_BYTES)
        self._receive_buffer = StrictBuffer()
        self.error: h11.RemoteProtocolError | None = None

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """As in h11. Also rejects two ways to state the length of a body, and keeps its `error`."""
        try:
            event = super().next_event()
            if isinstance(event, h11.Request):
                _check_framing(event)
        except h11.RemoteProtocolError as error:
            self.error = error
            raise
        return event


class ServerLoop(asyncio.SelectorEventLoop):
    """The event loop of a server. Over TLS, a client that only connects is closed soon, not after asyncio's 60 s."""

    def create_server(self, *arguments: Any, **options: Any) -> Any:
        """As in asyncio."""
        if options.get("ssl") is not None:
            options.setdefault("ssl_handshake_timeout", SECONDS_TO_SHAKE_HANDS)
        return super().create_server(*arguments, **options)


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
        self.conn = StrictConnection()
        self.is_authenticated = False
        self._is_rejected = False
        self._registry = registry
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete and not self._is_rejected

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

    def data_received(self, data: bytes) -> None:
        """As in uvicorn. Discards the rest of a rejected request."""
        if not self._is_rejected:
            super().data_received(data)

    def on_response_complete(self) -> None:
        """As in uvicorn. Starts the deadline of the next request."""
        self._wait_for_request()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Reject a malformed request with the status and reason of its error, and close the connection."""
        error = self.conn.error if isinstance(self.conn, StrictConnection) else None
        self._is_rejected = True
        if self.cycle is not None:
            # The application may be about to answer the start of this request.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            # Part of an answer was sent already.
            self.end()
            return
        status = error.error_status_hint if error else 400
        reason = f"{str(error or msg)[:200]}\n".encode("ascii", "replace")
        headers = [("content-type", "text/plain; charset=utf-8"), ("connection", "close")]
        events = (h11.Response(status_code=status, headers=headers), h11.Data(data=reason), h11.EndOfMessage())
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        if self.transport.can_write_eof():  # not over TLS
            self.transport.write_eof()
        self._set_deadline(SECONDS_TO_READ_A_REJECTION)

    def end(self) -> None:
        """Close the connection now, without sending the rest of an answer."""
        self.transport.abort()

    def _wait_for_request(self) -> None:
        self._set_deadline(SECONDS_TO_STAY_IDLE if self.is_authenticated else SECONDS_TO_SEND_A_HEADER)

    def _set_deadline(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        # Queries have time limits of their own. Other answers are short: a client that does not read them is gone.
        if not (self.is_busy and self.is_authenticated):
            self.end()


def _check_framing(request: h11.Request) -> None:
    names = [name for name, _ in request.headers]
    if names.count(b"content-length") + names.count(b"transfer-encoding") > 1:
        raise _rejected("Content-Length and Transfer-Encoding")
    if names.count(b"host") != 1 or (request.http_version == b"1.0" and b"transfer-encoding" in names):
        raise _rejected("one Host, and no Transfer-Encoding in HTTP/1.0")


def _rejected(reason: str, status: int = 400) -> h11.RemoteProtocolError:
    return h11.RemoteProtocolError(reason, error_status_hint=status)
