"""The pipeline under measurement: its real processes over topics that are already filled."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from grantledger.kafka.cluster import Cluster
from grantledger.kafka.topics import create_topics
from grantledger.ledger.source_keys import SourceKeys
from grantledger.runtime.children import Child, ChildSpec
from grantledger.runtime.keys import create_key
from grantledger.runtime.process import status_path
from grantledger.runtime.settings import Settings
from grantledger.runtime.source_keys import register_own_sources
from grantledger.schemas.event import FINDINGS_TOPIC
from grantledger.schemas.topics import ANCHORS_TOPIC, RECEIPTS_TOPIC, SEALED_TOPICS, topic_specs

from .memory import anonymous_mib

TICKS = os.sysconf("SC_CLK_TCK")
PARTITIONS = 4


@dataclass(frozen=True)
class Measured:
    """From the first stored entry to the last: events, wall seconds, CPU seconds by process.

    Memory is the largest resident set by process in MiB, anonymous the largest part of it without files.
    """

    events: int
    seconds: float
    cpu: dict[str, float]
    memory: dict[str, float]
    anonymous: dict[str, float]


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process with all its threads, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mib(pid: int) -> float:
    """Return the resident set of a process in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def fresh_topics(servers: str) -> None:
    """Create the topics, and empty those that an earlier run has written."""
    cluster = Cluster({"bootstrap.servers": servers})
    written = [FINDINGS_TOPIC, *SEALED_TOPICS, ANCHORS_TOPIC, RECEIPTS_TOPIC]
    present = cluster.admin.list_topics(timeout=30).topics
    for future in cluster.admin.delete_topics([name for name in written if name in present] or ["none"]).values():
        try:
            future.result(30)
        except Exception as error:
            if "UNKNOWN_TOPIC" not in str(error):
                raise
    while any(name in cluster.admin.list_topics(timeout=30).topics for name in written):
        time.sleep(0.1)
    create_topics(cluster, topic_specs(PARTITIONS, 0))


def init(settings: Settings) -> None:
    """Create the keys and register the pipeline's own sources, as ``grantledger init`` does."""
    create_key(settings)
    register_own_sources(settings, SourceKeys(settings.deployment), "benchmark")


def run(servers: str, folder: Path, deployment: str, events: int, broker_pid: int, *, store: bool) -> Measured:
    """Seal everything in the input topics once, with ``store`` also store it, and measure."""
    fresh_topics(servers)
    init(Settings(data_dir=folder, deployment=deployment, kafka_bootstrap_servers=servers))
    environment = {
        **os.environ,
        "GRANTLEDGER_DATA_DIR": str(folder),
        "GRANTLEDGER_DEPLOYMENT": deployment,
        "GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS": servers,
    }
    names = ("store", "seal") if store else ("seal",)
    children = {name: Child(ChildSpec(name, ("run", name)), folder, environment) for name in names}
    metric = "grantledger_stored_log_size_entries" if store else "grantledger_log_size_entries"
    try:
        if store:
            children["store"].start()
            _await((folder / "run" / "sql.json").exists)
        children["seal"].start()
        _await(lambda: status_path(folder, "seal").exists())
        memory, anonymous = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)

        def done() -> int:
            for name, child in children.items():
                if child.pid is None:
                    raise RuntimeError(f"{name} ended: {child.last_error()}")
                memory[name] = max(memory[name], resident_mib(child.pid))
                anonymous[name] = max(anonymous[name], anonymous_mib(child.pid))
            metrics = children[names[0]].metrics()
            return int(sum(v for (n, label), v in metrics.items() if n == metric and "access.activity" in label))

        _await(done)  # start the clock when events flow, as for the copy, not when processes start
        first = done()
        started = time.monotonic()
        before = {name: cpu_seconds(child.pid or 0) for name, child in children.items()}
        broker_before = cpu_seconds(broker_pid)
        while done() < events:
            time.sleep(0.1)
        seconds = time.monotonic() - started
        cpu = {name: cpu_seconds(child.pid or 0) - before[name] for name, child in children.items()}
        cpu["broker"] = cpu_seconds(broker_pid) - broker_before
    finally:
        for name in reversed(names):
            children[name].stop()
    return Measured(events - first, seconds, cpu, memory, anonymous)


def _await(condition, limit: float = 60.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("a process did not start in a minute")
        time.sleep(0.02)
