"""``python -m benchmarks.sizing``: what a million events and a million grants need: bytes, CPU seconds, memory.

A real broker, sealer, store and watch. First activations of grants that last for days, then session commands, all
different from one another. Rates depend on what else the machine does; these figures hardly do.
Options: ``--grants N``, ``--events N``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from grantledger.kafka.cluster import Cluster
from grantledger.kafka.topics import create_topics
from grantledger.runtime.broker import LocalBroker
from grantledger.runtime.children import Child, ChildSpec
from grantledger.runtime.settings import Settings
from grantledger.schemas.event import ACTIVITY_TOPIC, LIFECYCLE_TOPIC
from grantledger.schemas.topics import SEALED_SUFFIX, topic_specs
from grantledger.sinks.clickhouse import StoreAddress, connect

from .load import encoded_events
from .pipeline import cpu_seconds, init, resident_mib
from .results import save
from .watch import many

NAMES = ("seal", "store", "watch")
MILLION = 1_000_000
SIZES = """
SELECT sum(bytes_on_disk) FROM system.parts
WHERE database = currentDatabase() AND active AND match(`table`, {name:String})
"""


class Sizing:
    """One broker, and one process each to seal, store and watch."""

    def __init__(self, folder: Path, broker: LocalBroker) -> None:
        self.folder, self.broker = folder, broker
        self.options = {"bootstrap.servers": broker.bootstrap_servers}
        environment = {
            **os.environ,
            "GRANTLEDGER_DATA_DIR": str(folder),
            "GRANTLEDGER_DEPLOYMENT": "bench",
            "GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        }
        self.children = {name: Child(ChildSpec(name, ("run", name)), folder, environment) for name in NAMES}
        self.memory = dict.fromkeys(NAMES, 0.0)
        self.sent = {LIFECYCLE_TOPIC: 0, ACTIVITY_TOPIC: 0}

    def start(self) -> None:
        """Create the topics and the keys, start the processes, and wait until they have done some work."""
        create_topics(Cluster(self.options), topic_specs(4, 0))
        init(Settings(data_dir=self.folder, deployment="bench", kafka_bootstrap_servers=self.broker.bootstrap_servers))
        for child in self.children.values():
            child.start()
        self.send(ACTIVITY_TOPIC, encoded_events(1000))
        self.settle(ACTIVITY_TOPIC)

    def stop(self) -> None:
        """Stop the processes."""
        for child in reversed(self.children.values()):
            child.stop()

    def send(self, topic: str, records: Iterable[tuple[bytes, bytes]]) -> int:
        """Write records to a topic; return their number."""
        producer = Producer(self.options | {"acks": "all", "linger.ms": 20, "queue.buffering.max.messages": 500_000})
        count = 0
        for key, value in records:
            while True:
                try:
                    producer.produce(topic, value, key)
                    break
                except BufferError:
                    producer.poll(0.1)
            count += 1
        if left := producer.flush(120):
            raise RuntimeError(f"{left} events were not acknowledged")
        self.sent[topic] += count
        return count

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds of each process so far."""
        pids = {name: child.pid or 0 for name, child in self.children.items()} | {"broker": self.broker.pid or 0}
        return {name: cpu_seconds(pid) for name, pid in pids.items()}

    def settle(self, topic: str) -> None:
        """Wait until a topic is stored, its states are computed, and the watch has judged all of it."""
        stored = 0.0
        while stored < self.sent[topic]:
            stored = self.metric("store", "grantledger_stored_log_size_entries", topic)
        since = time.time()
        while self.metric("store", "grantledger_states_refreshed_timestamp_seconds") < since:
            pass
        while self.metric("watch", "grantledger_watch_judged_until_seconds") < since:
            pass

    def metric(self, name: str, metric: str, label: str = "") -> float:
        """Return the sum of a metric over its labels, or those with one value."""
        time.sleep(0.5)
        child = self.children[name]
        for each, one in self.children.items():
            if not one.alive():
                raise RuntimeError(f"{each} ended: {one.last_error()}")
            self.memory[each] = max(self.memory[each], resident_mib(one.pid or 0))
        return sum(v for (found, labels), v in child.metrics().items() if found == metric and label in labels)

    def kafka_bytes(self, topic: str) -> float:
        """Return the size of the log segments of an input topic or its sealed one, per event."""
        size = sum(path.stat().st_size for path in self.folder.glob(f"kafka/**/{topic}-[0-9]/*.log"))
        return size / self.sent[topic.removesuffix(SEALED_SUFFIX)]


def measure(grants: int, events: int, folder: Path, console: Console) -> dict[str, dict[str, float]]:
    """Return figures per million of grants (activations) and of events (session commands)."""
    found: dict[str, dict[str, float]] = {}
    with LocalBroker(folder / "kafka") as broker:
        sizing = Sizing(folder, broker)
        sizing.start()
        try:
            for what, topic, records in _loads(grants, events):
                before = sizing.cpu()
                count = sizing.send(topic, records)
                sizing.settle(topic)
                cpu = {
                    f"CPU s, {name}": (value - before[name]) * MILLION / count for name, value in sizing.cpu().items()
                }
                kafka = {
                    "MB in Kafka, input": sizing.kafka_bytes(topic),
                    "MB in Kafka, sealed": sizing.kafka_bytes(topic + SEALED_SUFFIX),
                }
                memory = {f"MiB at most, {name}": value for name, value in sizing.memory.items()}
                found[what] = {"measured with": count, **kafka, **cpu, **memory}
                console.print(f"{count:,} {what} are done")
        finally:
            sizing.stop()
    _add_store(found, folder)
    return found


def _loads(grants: int, events: int) -> Iterator[tuple[str, str, Iterable[tuple[bytes, bytes]]]]:
    yield "grants", LIFECYCLE_TOPIC, many(grants)
    yield "events", ACTIVITY_TOPIC, encoded_events(events)


def _add_store(found: dict[str, dict[str, float]], folder: Path) -> None:
    """Add the sizes in ClickHouse, after a merge: of entries, and of the states of grants."""
    with connect(StoreAddress(folder / "clickhouse")) as client:
        for what, topic in (("grants", LIFECYCLE_TOPIC), ("events", ACTIVITY_TOPIC)):
            client.command(f"CREATE TABLE only_{what} AS entries")
            client.command(f"INSERT INTO only_{what} SELECT * FROM entries WHERE origin LIKE '%/{topic}/%'")
            client.command(f"OPTIMIZE TABLE only_{what} FINAL")
            [(size,)] = client.query(SIZES, {"name": f"^only_{what}$"}).result_rows
            averages = f"SELECT count(), avg(length(value) + length(key)) FROM only_{what}"
            [(count, payload)] = client.query(averages).result_rows
            found[what] |= {"MB in ClickHouse, entries": size / count, "bytes of a record": payload}
        [(states,)] = client.query(SIZES, {"name": "^(stored_|live_|access_|key_)"}).result_rows
        found["grants"]["MB in ClickHouse, states"] = states / found["grants"]["measured with"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grants", type=int, default=200_000)
    parser.add_argument("--events", type=int, default=200_000)
    options = parser.parse_args()
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="grantledger-bench-", ignore_cleanup_errors=True) as scratch:
        found = measure(options.grants, options.events, Path(scratch), console)
    table = Table("per million", *found)
    for name in sorted({name for figures in found.values() for name in figures}):
        table.add_row(name, *(f"{figures[name]:,.1f}" if name in figures else "" for figures in found.values()))
    console.print(table)
    save(found, "bench-sizing.json", console)


if __name__ == "__main__":
    main()
