"""The HTTP endpoint of a process: ``/metrics``, and in words ``/livez`` and ``/readyz``."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any, ClassVar
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from .. import __version__
from ..base.health import Condition, Health
from ..base.text import printable

MOST_REQUESTS = 16
"""At the same time. Others are closed at once."""
REQUEST_SECONDS = 5.0
"""A client that sends or reads nothing for so long is closed."""
Answer = tuple[HTTPStatus, list[str], dict[str, Any]]
"""Status, lines for people, and the same for programs."""


def livez(health: Health) -> Answer:
    """Answer whether the process makes progress at all. A dependency that is away does not change that."""
    problems = health.hanging()
    status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
    return status, problems or ["alive"], {"alive": not problems, "problems": problems}


def readyz(health: Health) -> Answer:
    """Answer whether the process does its work, and if not, what it waits for."""
    conditions = health.conditions()
    waits, notes = [one for one in conditions if one.waits], [one for one in conditions if not one.waits]
    content = {"ready": not waits, "waits": [*map(_plain, waits)], "notes": [*map(_plain, notes)]}
    lines = [] if waits else ["ready"]
    lines += [one.text for one in (*waits, *notes)]
    return HTTPStatus.SERVICE_UNAVAILABLE if waits else HTTPStatus.OK, lines, content


def _plain(condition: Condition) -> dict[str, Any]:
    since = datetime.fromtimestamp(condition.since, UTC).isoformat() if condition.since is not None else None
    return {"name": condition.name, "text": condition.text, "since": since}


def process_app(name: str, registry: CollectorRegistry, health: Health) -> Callable[..., Iterable[bytes]]:
    """Return the WSGI application of a process. Paths other than the three have the metrics, as Prometheus' own do."""
    metrics: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)
    answers: dict[str, Callable[[Health], Answer]] = {"/livez": livez, "/readyz": readyz}

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        answer = answers.get(environ.get("PATH_INFO", ""))
        if answer is None or environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return metrics(environ, start_response)
        status, lines, content = answer(health)
        if "application/json" in environ.get("HTTP_ACCEPT", ""):
            kind, text = "application/json", json.dumps({"process": name, "version": __version__, **content})
        else:
            kind, text = "text/plain; charset=utf-8", "\n".join(map(printable, lines))
        body = text.encode() + b"\n"
        headers = [("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
        start_response(f"{status.value} {status.phrase}", headers)
        return [body] if environ["REQUEST_METHOD"] == "GET" else []

    return app


class _Handler(WSGIRequestHandler):
    timeout: ClassVar[float] = REQUEST_SECONDS

    def log_message(self, *_arguments: Any) -> None:
        """Log nothing: a client chose the text."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._places = threading.BoundedSemaphore(MOST_REQUESTS)
        super().__init__(*arguments, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a request in a thread if there is a place."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a request."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        """Print nothing: a client has gone away."""


@contextmanager
def process_endpoint(name: str, host: str, port: int, registry: CollectorRegistry, health: Health) -> Iterator[int]:
    """Serve the endpoint of a process, and yield its port. Raises OSError if it cannot listen."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, address = found[0][0], str(found[0][4][0])
    server_class: type[_Server] = type("Server", (_Server,), {"address_family": family})
    server: _Server = make_server(
        address, port, process_app(name, registry, health), server_class, handler_class=_Handler
    )
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
