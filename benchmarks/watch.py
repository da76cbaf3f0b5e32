"""``python -m benchmarks.watch``: is overdue access found on time with a million active grants?

Real broker, real sealer, real watch. For few grants, the baseline, and for many: how long a watch takes from the
start of its process until it has judged everything, first and after a kill; its memory; what it costs while nothing
falls due; how late findings are, from deadline plus grace until the brokers have them.
Options: ``--grants N``, ``--seconds N``.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from grantledger.kafka.cluster import Cluster
from grantledger.kafka.offsets import end_offset
from grantledger.kafka.records import read_range
from grantledger.kafka.topics import create_topics
from grantledger.runtime.broker import LocalBroker
from grantledger.runtime.children import Child, ChildSpec
from grantledger.runtime.settings import Settings
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import EventEncoder, decode
from grantledger.schemas.event import FINDINGS_TOPIC, LIFECYCLE_TOPIC, Actor, Event, EventSource, Resource, Subject
from grantledger.schemas.topics import topic_specs

from .pipeline import cpu_seconds, init, resident_mib
from .results import save

GRACE = 1.0
RATE = 50
"""Grants per second while lateness is measured; each falls due five seconds later."""
PLACE = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True)
class Measured:
    """Seconds, MiB, share of one core, and seconds."""

    grants: int
    first_start: float
    restart: float
    memory: float
    idle_share: float
    late_p50: float
    late_p99: float
    late_max: float
    findings: int


def activation(name: str, user: str, resource: str, ends: datetime) -> Event:
    """Return an activation, about 400 bytes long."""
    return Event(
        event_type="grant.activated",
        occurred_at=datetime.now(UTC),
        source=EventSource("bench", "prod.example.com", name, "grant"),
        subject=Subject(user, "human"),
        actor=Actor("bot@example.com", "service"),
        resource=Resource("database", resource, "production"),
        entitlement="readwrite",
        grant_id=name,
        grant_id_kind="native",
        request_id=name,
        expires_at=ends,
        expiry_source="native",
        reason="INC-4711: stuck migration",
        event_id=name,
    )


def many(count: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield (key, value) of activations that last for days: for speed, one encoding with names replaced."""
    whole = EventEncoder().encode(activation(PLACE, "userUUUUUU", "db-RRRR", datetime.now(UTC) + timedelta(days=3)))
    for number in range(count):
        name = str(uuid.UUID(int=number + 1)).encode()
        value = whole.replace(PLACE.encode(), name).replace(b"UUUUUU", b"%06d" % (number % 4000))
        yield name, value.replace(b"RRRR", b"%04d" % (number % 977))


class Bench:
    """One broker, one sealer, one watch and many grants."""

    def __init__(self, folder: Path, servers: str, console: Console) -> None:
        self.folder, self.servers, self.console = folder, servers, console
        self.cluster = Cluster({"bootstrap.servers": servers})
        policy = folder / "policy.toml"
        policy.write_text(f"[default]\ngrace_seconds = {GRACE}\n")
        environment = {
            **os.environ,
            "GRANTLEDGER_DATA_DIR": str(folder),
            "GRANTLEDGER_DEPLOYMENT": "bench",
            "GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS": servers,
            "GRANTLEDGER_WATCH_POLICY": str(policy),
        }
        self.seal, self.watch = (
            Child(ChildSpec(name, ("run", name)), folder, environment) for name in ("seal", "watch")
        )
        self.peak = 0.0

    def metric(self, child: Child, name: str) -> float:
        """Return the sum of a metric over its labels."""
        if not child.alive():
            raise RuntimeError(f"{child.spec.name} ended: {child.last_error()}")
        return sum(value for (found, _), value in child.metrics().items() if found == name)

    def run(self, grants: int, seconds: int) -> Measured:
        """Measure everything."""
        create_topics(self.cluster, topic_specs(4, 0))
        init(Settings(data_dir=self.folder, deployment="bench", kafka_bootstrap_servers=self.servers))
        self.seal.start()
        producer = Producer(
            self.cluster.options | {"acks": "all", "linger.ms": 20, "queue.buffering.max.messages": 500_000}
        )
        for key, value in many(grants):
            while True:
                try:
                    producer.produce(LIFECYCLE_TOPIC, value, key)
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.flush(120)
        while self.metric(self.seal, "grantledger_seal_position_offset") < grants:
            time.sleep(0.2)
        self.console.print(f"{grants:,} grants are active and sealed")
        first = self.started()
        os.kill(self.watch.pid or 0, signal.SIGKILL)
        while self.watch.alive():
            time.sleep(0.01)
        again = self.started()
        self.console.print(f"started in {first:.1f} s, after kill -9 in {again:.1f} s")
        before, begin = cpu_seconds(self.watch.pid or 0), time.monotonic()
        time.sleep(15)
        share = (cpu_seconds(self.watch.pid or 0) - before) / (time.monotonic() - begin)
        late = sorted(self.lateness(producer, seconds))
        self.peak = max(self.peak, resident_mib(self.watch.pid or 0))
        return Measured(
            grants, first, again, self.peak, share, statistics.median(late), late[int(len(late) * 0.99)], late[-1],
            len(late),
        )  # fmt: skip

    def started(self) -> float:
        """Start the watch; return the seconds until it has judged the time of its start."""
        begin, wall = time.monotonic(), time.time()
        self.watch.start()
        while self.metric(self.watch, "grantledger_watch_judged_until_seconds") < wall:
            time.sleep(0.05)
            self.peak = max(self.peak, resident_mib(self.watch.pid or 0))
        return time.monotonic() - begin

    def lateness(self, producer: Producer, seconds: int) -> list[float]:
        """Activate grants at a steady rate; return the lateness of each finding."""
        encoder, begin = EventEncoder(), time.time()
        for number in range(RATE * seconds):
            time.sleep(max(0.0, begin + number / RATE - time.time()))
            name = str(uuid.uuid4())
            ends = datetime.now(UTC) + timedelta(seconds=5)
            producer.produce(LIFECYCLE_TOPIC, encoder.encode(activation(name, "eve", name, ends)), name)
            producer.poll(0)
        producer.flush(30)
        until = time.time() + 5 + GRACE + 2
        while self.metric(self.watch, "grantledger_watch_judged_until_seconds") < until:
            time.sleep(0.2)
        catalog, late = SchemaCatalog((event_schema(),)), []
        for message in read_range(self.cluster, FINDINGS_TOPIC, 0, 0, end_offset(self.cluster, FINDINGS_TOPIC, 0)):
            datum = decode(message.value() or b"", catalog, message.timestamp()[1])
            if datum["event_type"] == "finding.opened" and datum["finding"]["rule"] == "overdue":
                due = datum["finding"]["deadline"].timestamp() + GRACE
                late.append(message.timestamp()[1] / 1000 - due)
        if len(late) != RATE * seconds:
            raise RuntimeError(f"{len(late)} findings for {RATE * seconds} grants")
        return late

    def stop(self) -> None:
        """Stop both processes."""
        self.watch.stop()
        self.seal.stop()


def main() -> None:
    """Measure with few and with many grants, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grants", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    console = Console(highlight=False)
    found = []
    for grants in (1_000, options.grants):
        with (
            tempfile.TemporaryDirectory(prefix="grantledger-bench-", ignore_cleanup_errors=True) as scratch,
            LocalBroker(Path(scratch) / "kafka") as broker,
        ):
            bench = Bench(Path(scratch), broker.bootstrap_servers, console)
            try:
                found.append(bench.run(grants, options.seconds))
            finally:
                bench.stop()
    report(found, console)
    save([asdict(one) for one in found], "bench-watch.json", console)


def report(found: list[Measured], console: Console) -> None:
    """Print the table."""
    few, lots = found
    table = Table("", f"{few.grants:,} grants", f"{lots.grants:,} grants", "ratio")
    rows = [
        ("start until everything is judged", few.first_start, lots.first_start, "s"),
        ("the same after kill -9", few.restart, lots.restart, "s"),
        ("largest resident set", few.memory, lots.memory, "MiB"),
        ("CPU while nothing falls due, of one core", few.idle_share * 100, lots.idle_share * 100, "%"),
        ("finding after deadline + grace, p50", few.late_p50, lots.late_p50, "s"),
        ("finding after deadline + grace, p99", few.late_p99, lots.late_p99, "s"),
        ("finding after deadline + grace, worst", few.late_max, lots.late_max, "s"),
    ]
    for name, one, other, unit in rows:
        table.add_row(name, f"{one:,.2f} {unit}", f"{other:,.2f} {unit}", f"{other / one:.1f}" if one else "")
    console.print(table)


if __name__ == "__main__":
    main()
