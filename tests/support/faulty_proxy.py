"""A proxy in front of a ClickHouse server after which the client cannot know whether its insert succeeded."""

from __future__ import annotations

import http.client
import random
import threading
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class FaultyProxy:
    """Forwards requests. It loses some inserts before, and some after the server has processed them.

    The server gets a third of the lost inserts late: after the next insert.

    ``broken`` answers everything with 503, as a load balancer without a server does.
    """

    def __init__(self, server: str, seed: int, *, lose: float) -> None:
        self.broken = False
        self.lost = self.late = 0
        target, draw, lock = urlsplit(server), random.Random(seed), threading.Lock()
        proxy = self
        late: list[Callable[[], object]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._forward()

            def do_POST(self) -> None:
                self._forward()

            def _forward(self) -> None:
                body = self._body()
                if proxy.broken:
                    self.send_error(503)
                    return
                insert = b"INSERT" in body[:200] or "INSERT" in self.path
                with lock:
                    fate = draw.random() if insert else 1.0
                if fate < 2 * lose / 3:
                    if fate < lose / 3:
                        with lock:
                            late.append(partial(self._send, body))
                            proxy.late += 1
                    self._lose()
                    return
                answer, content = self._send(body)
                if insert:
                    with lock:
                        for send in late:
                            send()
                        late.clear()
                if fate < lose:
                    self._lose()
                    return
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _send(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
                upstream = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
                headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
                upstream.request(self.command, self.path, body, headers | {"Content-Length": str(len(body))})
                answer = upstream.getresponse()
                content = answer.read()
                upstream.close()
                return answer, content

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def _lose(self) -> None:
                proxy.lost += 1
                self.close_connection = True
                self.connection.close()

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
