"""An HTTP server on loopback that receives webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]
PATH = "/hook?team=access"
KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
"""The secret of ``KEY``, as configurations contain it."""


@dataclass(frozen=True)
class Request:
    """One request. Header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def assert_signed(self) -> None:
        """Check the signature by ``KEY`` (Standard Webhooks 1.0)."""
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256)).decode()
        assert self.headers["webhook-signature"] == f"v1,{expected}"


class Receiver:
    """Records requests and answers 204, unless ``respond`` is replaced. With ``tls``, over TLS."""

    def __init__(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.respond: Answer = lambda request: status(request, 204)
        self.failures: list[str] = []
        """Errors of ``respond``. ``stop`` raises them."""
        self.end = Event()
        """Set when the receiver stops, so that no answer waits longer."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.requests.append(Request(self.path, headers, body, time.time()))
                with suppress(OSError):
                    receiver.respond(self)

            def do_GET(self) -> None:
                receiver.requests.append(Request(self.path, {}, b"GET", time.time()))
                status(self, 200)

            def log_message(self, *_: Any) -> None: ...

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                error = sys.exception()
                if not isinstance(error, OSError):  # a client may reject our certificate or hang up
                    receiver.failures.append(repr(error))

        self.server = Server((host, 0), Handler)
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()
        shown = f"[{host}]" if ":" in host else host
        self.base = f"http{'s' if tls else ''}://{shown}:{self.server.server_port}"
        self.url = self.base + PATH

    def answer(self, *replies: int | tuple[int, Mapping[str, str]]) -> None:
        """Answer with each status (and headers) once, and with the last one from then on; 0 gives no answer."""
        left = [reply if isinstance(reply, tuple) else (reply, {}) for reply in replies]

        def respond(request: BaseHTTPRequestHandler) -> None:
            code, headers = left.pop(0) if len(left) > 1 else left[0]
            if code:
                status(request, code, **headers)
            else:
                self.end.wait(30)
                request.close_connection = True

        self.respond = respond

    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.requests]

    def findings(self) -> list[tuple[str, str]]:
        """Return type and key of each finding that was delivered, retries included."""
        return [(request.json["type"], request.json["data"]["key"]) for request in self.requests]

    def stop(self) -> None:
        self.end.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
        assert not self.failures, self.failures


def status(request: BaseHTTPRequestHandler, code: int, body: bytes = b"", **headers: str) -> None:
    request.send_response(code)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.send_header("content-length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver for the length of a ``with`` block."""
    receiver = Receiver()
    try:
        yield receiver
    finally:
        receiver.stop()
