"""What the tests of alerts share: findings, sealed batches that hold them, a receiver that answers as it is told."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from grantledger.ledger.batch import Head, SealedBatch, micros_of, seal
from grantledger.ledger.entry import Genesis, encode_headers
from grantledger.processors.notices import schema_key, schema_registered
from grantledger.producers import Actor, Event, Resource, Source, Subject
from grantledger.schemas.catalog import event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import Finding
from grantledger.sinks.alerts.finding import Change, FindingEvent, rfc3339

from .small_ledger import SIGNER, records_of

DEPLOYMENT = "test.example"
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ORIGIN = f"{DEPLOYMENT}/access.findings/0/0"
KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


def finding(
    change: Change, key: str = "g-1", *, at: float = 0.0, rule: str = "overdue", telling: int = 0
) -> FindingEvent:
    """Return a finding's event as the outbox stores it; ``at`` in seconds since 1970."""
    micros = int(at * 1_000_000)
    return FindingEvent(
        event_id=f"{rule}-{key}-{change}-{telling}",
        change=change,
        rule=rule,
        key=key,
        deadline=rfc3339(micros_of(NOON)),
        severity="critical",
        at=micros,
        appended=micros,
        facts={"deployment": DEPLOYMENT, "tenant": "default", "subject": "alice", "resource": "orders", "evidence": {}},
    )


def event(change: Change, key: str, *, rule: str = "overdue", at: datetime = NOON, **fields: Any) -> Event:
    """Return a finding as the watch puts it on record."""
    given: dict[str, Any] = {
        "event_type": f"finding.{change}",
        "occurred_at": at,
        "source": Source("grantledger-watch", DEPLOYMENT, f"{rule}:{key}", "finding"),
        "subject": Subject("alice@example.com", "human"),
        "actor": Actor("grantledger-watch", "system"),
        "resource": Resource("database", "orders", "production"),
        "entitlement": "readwrite",
        "grant_id": key,
        "grant_id_kind": "native",
        "finding": Finding(rule, key, "critical", NOON, json.dumps({"removal": "not reported"})),
    }
    return Event(**(given | fields))


@dataclass
class FindingsLog:
    """The sealed log of findings, made in memory batch by batch. It begins with the schema on record, as a real one."""

    head: Head = field(default_factory=lambda: Head.at_genesis(Genesis(ORIGIN, bytes(16), 0)))
    offset: int = 0
    registered: bool = True

    def batch(self, *values: Event | bytes | None, sealed_at: datetime = NOON, flags: int = 1) -> SealedBatch:
        """Seal events, or what stands in their place, as the next batch."""
        records: list[tuple[bytes | None, bytes | None]] = []
        encoder = EventEncoder()
        if self.offset == 0 and self.registered:
            schema = event_schema()
            registered = schema_registered(DEPLOYMENT, schema, True, NOON)
            records.append((schema_key(schema).encode(), encoder.encode(registered)))
        for value in values:
            if isinstance(value, Event):
                records.append((value.key.encode(), encoder.encode(value)))
            else:
                records.append((b"key", value))
        millis = micros_of(sealed_at) // 1000
        entries = [
            (flags, self.offset + number, millis, key, value, encode_headers([]))
            for number, (key, value) in enumerate(records)
        ]
        self.offset += len(entries)
        batch, self.head = seal(self.head, records_of(entries), self.offset, sealed_at, SIGNER)
        return batch


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Reply = tuple[int, Mapping[str, str]]


class Receiver:
    """An HTTP server on loopback. ``replies`` are given in order, the last one for ever; a function may decide."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.decide: Callable[[Request], Reply] = lambda request: (204, {})
        self.hang = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                request = Request(self.path, {k.lower(): v for k, v in self.headers.items()}, body, time.time())
                receiver.requests.append(request)
                status, headers = receiver.decide(request)
                if status == 0:  # say nothing
                    receiver.hang.wait(30)
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?team=access"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def answer(self, *replies: int | Reply) -> None:
        """Answer so from now on: each reply once, the last one for ever."""
        left: list[Reply] = [reply if isinstance(reply, tuple) else (reply, {}) for reply in replies]
        self.decide = lambda request: left.pop(0) if len(left) > 1 else left[0]

    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.requests]

    def told(self) -> list[tuple[str, str]]:
        """Return what it was told: type and key of each message, tries included."""
        return [(request.json["type"], request.json["data"]["key"]) for request in self.requests]

    def close(self) -> None:
        self.hang.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver for the length of a ``with`` block."""
    receiver = Receiver()
    try:
        yield receiver
    finally:
        receiver.close()


def soon(seconds: float) -> datetime:
    """Return a time so many seconds from now."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


def webhook_toml(name: str, url: str, secret_file: str, **more: object) -> str:
    """Return one webhook channel as the configuration has it."""
    lines = [f"[channels.{name}]", 'kind = "webhook"', f'url = "{url}"', f'secret = {{ file = "{secret_file}" }}']
    return "\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in more.items()), ""])


def alertmanager_toml(name: str, url: str, **more: object) -> str:
    """Return one Alertmanager channel as the configuration has it."""
    lines = [f"[channels.{name}]", 'kind = "alertmanager"', f'url = "{url}"']
    return "\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in more.items()), ""])
