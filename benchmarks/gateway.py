"""The gateway under load: requests per second, latency and CPU time, and an outage of Kafka.

    python -m benchmarks.gateway [--seconds N] [--connections N] [--events N] [--rate N] [--outage SECONDS]

In one run, in turn, with the same requests and the same load generator:

- ``http``: the same server, which reads the body and answers at once. The baseline: ratios to it hold on any machine.
- ``gateway``: our own events, unsigned.
- ``signed``: the same, signed by a registered source.
- ``at rate``: unsigned again, at ``--rate`` requests per second, whether they are answered or not, up to 400 open
  requests: the latency.

With ``--outage``, Kafka is killed in the middle of a load of that many seconds and started again. Then every
acknowledged id must be in Kafka once. Prints a table and writes build/bench-gateway.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from confluent_kafka import Consumer, TopicPartition
from rich.console import Console
from rich.table import Table
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from grantledger.console.http_protocol import Connections
from grantledger.ledger.keys import LocalSigner
from grantledger.producers.gateway.credentials import new_token, token_digest
from grantledger.runtime.broker import LocalBroker
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import decode

from .pipeline import cpu_seconds, fresh_topics, resident_mib
from .results import save

ROOT = Path(__file__).resolve().parents[1]
DEPLOYMENT = "bench.local"
MOST_OPEN = 400  # connections: each is a file of the load generator, and many systems allow 1,024


@dataclass
class Load:
    """What one load measured."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    acknowledged: list[str] = field(default_factory=list)
    cpu: float = 0.0
    memory: float = 0.0

    def result(self) -> dict[str, Any]:
        """Return the figures."""
        found = sorted(self.latencies) or [0.0]
        return {
            "requests_per_second": len(self.latencies) / self.seconds,
            "p50_ms": 1e3 * statistics.median(found),
            "p99_ms": 1e3 * found[min(len(found) - 1, int(0.99 * len(found)))],
            "cpu_ms_per_request": 1e3 * self.cpu / max(1, len(self.latencies)),
            "memory_mib": self.memory,
            "statuses": dict(self.statuses),
        }


def body(prefix: str, events: int) -> bytes:
    """Return a request body: session commands, each with an id of its own."""
    return json.dumps(
        [
            {
                "event_type": "session.command",
                "subject": {"id": "alice@example.com", "kind": "human"},
                "resource": {"kind": "host", "id": "db-1", "environment": "production"},
                "session_id": f"s-{number % 7}",
                "occurred_at": "2026-11-29T12:00:00Z",
                "action": {"command": "psql", "args": ["-c", f"select {number}"], "exit_code": 0},
                "source": {"native_id": f"{prefix}-{number}"},
            }
            for number in range(events)
        ]
    ).encode()


class Sender:
    """Sends requests over keep-alive connections, with as little CPU time as possible."""

    def __init__(self, port: int, token: str, events: int, load: Load, keep_ids: bool) -> None:
        self._port, self._events, self._load, self._keep_ids = port, events, load, keep_ids
        self._head = f"POST /v1/events HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n"
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self, prefix: str) -> None:
        """Send one request, and note its answer."""
        content = body(prefix, self._events)
        began = time.perf_counter()
        try:
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
            head = f"{self._head}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
            writer.write(head.encode() + content)
            header = await reader.readuntil(b"\r\n\r\n")
            length = int(header.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            answer = await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            self._load.statuses[0] += 1
            return
        status = int(header[9:12])
        self._load.statuses[status] += 1
        if status == 200:
            self._load.latencies.append(time.perf_counter() - began)
            if self._keep_ids:
                self._load.acknowledged += json.loads(answer)["event_ids"]
        self._idle.append((reader, writer))


async def closed_loop(sender: Sender, seconds: float, connections: int) -> None:
    """Send as fast as answers come."""
    end = time.monotonic() + seconds

    async def work(number: int) -> None:
        turn = 0
        while time.monotonic() < end:
            await sender.send(f"{uuid.uuid4().hex}-{number}-{turn}")
            turn += 1

    await asyncio.gather(*map(work, range(connections)))


async def open_loop(sender: Sender, seconds: float, rate: float) -> None:
    """Send at a rate, whether answers come or not, but with at most MOST_OPEN requests open."""
    began, tasks, free = time.monotonic(), set(), asyncio.Semaphore(MOST_OPEN)

    def done(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        free.release()

    for number in range(int(seconds * rate)):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        await free.acquire()
        if time.monotonic() > began + seconds:
            break
        task = asyncio.create_task(sender.send(uuid.uuid4().hex))
        tasks.add(task)
        task.add_done_callback(done)
    await asyncio.gather(*tasks)


class Server:
    """A process that serves HTTP."""

    def __init__(self, arguments: list[str], port: int, environment: dict[str, str], log: Path) -> None:
        self.port = port
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *arguments], cwd=ROOT, env=environment, stdout=output, stderr=output
            )
        wait_for(lambda: answers(port), f"{arguments[0]} answers, see {log}")

    def measure(
        self,
        drive: Callable[[Sender], Any],
        token: str,
        events: int,
        keep_ids: bool = False,
    ) -> Load:
        """Return what a load measured."""
        load = Load()
        before, began = cpu_seconds(self.process.pid), time.monotonic()
        asyncio.run(drive(Sender(self.port, token, events, load, keep_ids)))
        load.seconds = time.monotonic() - began
        load.cpu = cpu_seconds(self.process.pid) - before
        load.memory = resident_mib(self.process.pid)
        return load

    def stop(self) -> None:
        """End the process."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def answers(port: int) -> bool:
    """Return whether somebody listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool], what: str, limit: float = 120.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"after {limit:g} s still not: {what}")
        time.sleep(0.05)


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve_baseline(port: int) -> None:
    """Read each body, and answer at once, with the server of the gateway."""

    async def take(request: Request) -> Response:
        return JSONResponse({"accepted": len(await request.body())})

    connections = Connections(1_000)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        connections.authenticated(scope["client"])
        await routes(scope, receive, send)

    routes = Starlette(routes=[Route("/v1/events", take, methods=["POST"])])
    protocol: Any = connections.protocol
    uvicorn.run(app, port=port, http=protocol, log_config=None, access_log=False, lifespan="off", ws="none")


def start_gateway(servers: str, folder: Path, token: str, key: Path | None) -> Server:
    """Start a gateway with one source."""
    folder.mkdir()
    port, config = free_port(), folder / "gateway.toml"
    signed = f'source_key = "{key}"\n' if key else ""
    config.write_text(
        f'listen = "127.0.0.1:{port}"\n[[source]]\nname = "bench"\nsystem = "bench"\ninstance = "i"\n{signed}'
        f'requests_per_second = 1000000\n[[token]]\nsource = "bench"\nsha256 = "{token_digest(token)}"\n'
    )
    config.chmod(0o600)
    environment = {
        **os.environ,
        "GRANTLEDGER_DATA_DIR": str(folder),
        "GRANTLEDGER_DEPLOYMENT": DEPLOYMENT,
        "GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS": servers,
        "GRANTLEDGER_GATEWAY_CONFIG": str(config),
    }
    server = Server(["grantledger.cli", "run", "gateway"], port, environment, folder / "log")
    wait_for(lambda: "Kafka answers" in ready(port), "Kafka answers")
    return server


def ready(port: int) -> str:
    """Return what /readyz says."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
        parts = []
        while part := connection.recv(4096):
            parts.append(part)
    return b"".join(parts).decode()


def outage(broker: LocalBroker, server: Server, token: str, options: argparse.Namespace) -> dict[str, Any]:
    """Load the gateway while Kafka is killed and started again; count the ids in Kafka."""
    third = options.outage / 3
    memory: list[float] = []

    async def drive(sender: Sender) -> None:
        load = asyncio.create_task(open_loop(sender, options.outage, options.rate))
        loop = asyncio.get_running_loop()
        await asyncio.sleep(third)
        await loop.run_in_executor(None, broker.kill)
        await asyncio.sleep(third)
        memory.append(resident_mib(server.process.pid))
        await loop.run_in_executor(None, broker.start)
        await load

    load = server.measure(drive, token, options.events, keep_ids=True)
    wait_for(lambda: "the spool is empty" in ready(server.port), "the spool is empty", limit=600)
    found = ids_in_kafka(broker.bootstrap_servers)
    missing = [one for one in load.acknowledged if not found[one]]
    return {
        **load.result(),
        "acknowledged_events": len(load.acknowledged),
        "missing": len(missing),
        "twice": sum(1 for one in load.acknowledged if found[one] > 1),
        "memory_while_away_mib": memory[0],
    }


def ids_in_kafka(servers: str) -> Counter[str]:
    """Return how often each event id is in Kafka."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "bench", "enable.auto.commit": False})
    partitions = consumer.list_topics(timeout=30).topics["access.activity"].partitions
    catalog, found = SchemaCatalog((event_schema(),)), Counter()
    for number in partitions:
        _, end = consumer.get_watermark_offsets(TopicPartition("access.activity", number), timeout=30)
        consumer.assign([TopicPartition("access.activity", number, 0)])
        position = 0
        while position < end:
            for message in consumer.consume(1000, 1.0):
                found[decode(message.value(), catalog, 0)["event_id"]] += 1
                position = message.offset() + 1
    consumer.close()
    return found


def measure(options: argparse.Namespace, scratch: Path, console: Console) -> dict[str, Any]:
    """Run every load."""
    token, results = new_token(), {}
    key = scratch / "bench.pem"
    key.write_bytes(LocalSigner.generate().to_pem(None))
    key.chmod(0o600)

    def drive(sender: Sender) -> Any:
        return closed_loop(sender, options.seconds, options.connections)

    with LocalBroker(scratch / "kafka") as broker:
        servers = broker.bootstrap_servers
        fresh_topics(servers)
        port = free_port()
        arguments = ["benchmarks.gateway", "--serve", str(port)]
        server = Server(arguments, port, dict(os.environ), scratch / "http.log")
        results["http"] = server.measure(drive, token, options.events).result()
        server.stop()
        for name, given in (("gateway", None), ("signed", key)):
            console.print(name)
            server = start_gateway(servers, scratch / name, token, given)
            results[name] = server.measure(drive, token, options.events).result()
            if given is None:
                console.print("at rate")
                at_rate = server.measure(
                    lambda sender: open_loop(sender, options.seconds, options.rate), token, options.events
                )
                results["at rate"] = at_rate.result()
            server.stop()
        if options.outage:
            console.print("outage")
            server = start_gateway(servers, scratch / "outage", token, None)
            results["outage"] = outage(broker, server, token, options)
            server.stop()
    return {"options": vars(options), "results": results}


def report(result: dict[str, Any], console: Console) -> None:
    """Print a table."""
    table = Table("load", "requests/s", "to http", "events/s", "p50 ms", "p99 ms", "CPU ms/request", "MiB", "answers")
    base = result["results"]["http"]["requests_per_second"]
    for name, one in result["results"].items():
        rate = one["requests_per_second"]
        table.add_row(
            name,
            f"{rate:,.0f}",
            f"{rate / base:.2f}",
            f"{rate * result['options']['events']:,.0f}",
            f"{one['p50_ms']:.1f}",
            f"{one['p99_ms']:.1f}",
            f"{one['cpu_ms_per_request']:.2f}",
            f"{one['memory_mib']:.0f}",
            ", ".join(f"{count:,} × {status}" for status, count in sorted(one["statuses"].items())),
        )
    console.print(table)
    if found := result["results"].get("outage"):
        console.print(
            f"outage: {found['acknowledged_events']:,} events acknowledged, {found['missing']} missing in Kafka, "
            f"{found['twice']} there more than once; {found['memory_while_away_mib']:.0f} MiB while Kafka was away"
        )


def main() -> None:
    """Run everything and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--events", type=int, default=10, help="per request")
    parser.add_argument("--rate", type=float, default=2000, help="requests per second")
    parser.add_argument("--outage", type=float, default=0, help="seconds")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_baseline(options.serve)
        return
    console = Console(highlight=False, width=160)
    with tempfile.TemporaryDirectory(prefix="grantledger-bench-", ignore_cleanup_errors=True) as scratch:
        result = measure(options, Path(scratch), console)
    report(result, console)
    save(result, "bench-gateway.json", console)


if __name__ == "__main__":
    main()
