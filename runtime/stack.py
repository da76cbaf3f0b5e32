"""The local stack: a Kafka, a sealer, a store with its embedded engine, an anchor, in one data folder."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from ..console.access import read_access
from ..kafka.cluster import Cluster
from ..kafka.errors import KafkaUnavailableError
from ..kafka.offsets import end_offsets
from ..kafka.topics import create_topics
from ..schemas.event import ACTIVITY_TOPIC, LIFECYCLE_TOPIC
from ..schemas.topics import topic_specs
from ..simulator.policy import POLICY as SAMPLE_POLICY
from .broker import LocalBroker
from .children import Child, ChildSpec, environment_for
from .open_findings import Count, OpenFindings
from .settings import DEPLOYMENT_FILE, STACK_FILE, Settings, SettingsError
from .wiring import prepare_signer

SEAL = ChildSpec("seal", ("seal",))
STORE = ChildSpec("store", ("store",), drain=40.0)
ANCHOR = ChildSpec("anchor", ("anchor",))
WATCH = ChildSpec("watch", ("watch",))
SWEEP = ChildSpec("sweep", ("sweep",))
ALERT = ChildSpec("alert", ("alert",))


@dataclass(frozen=True, slots=True)
class Status:
    """Where the stack stands. Counts since the ledger began; times by the processes' clocks; findings, if known."""

    events: int
    sealed: int
    stored: int
    last_checkpoint: datetime | None
    last_anchor: datetime | None
    findings: Count | None
    troubles: tuple[str, ...]

    @property
    def lag(self) -> int:
        """Events in Kafka that cannot be queried yet."""
        return max(0, self.events - self.stored)


class Stack:
    """Starts and stops everything in order. ``say`` receives one sentence a step."""

    def __init__(self, settings: Settings, say: Callable[[str], None], sample_rate: float | None = None) -> None:
        self._given, self._say, self._sample_rate = settings, say, sample_rate
        self._broker: LocalBroker | None = None
        self._children: list[Child] = []
        self._cluster: Cluster | None = None
        self._lock: IO[str] | None = None
        self._findings: OpenFindings | None = None
        self.settings = settings

    def start(self) -> None:
        """Start everything that is not there already.

        Raises:
            SettingsError: the data folder is in use by another stack.
            BrokerError, PrerequisiteError: Kafka cannot be had.
            KeyUnavailableError: the key is missing over an existing ledger.
        """
        data = self._given.data_dir
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        (data / "run").mkdir(exist_ok=True, mode=0o700)
        lock = (data / "run" / "up.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise SettingsError(f"a stack is running in {data} already (--data)") from None
        self._lock = lock
        deployment = self._deployment(data)
        servers = self._given.kafka_bootstrap_servers or self._start_broker(data)
        self.settings = self._given.model_copy(update={"deployment": deployment, "kafka_bootstrap_servers": servers})
        self._cluster = self.settings.cluster()
        specs = topic_specs(self.settings.activity_partitions, self.settings.payload_retention_days)
        if made := create_topics(self._cluster, specs, self.settings.kafka_replication):
            self._say(f"{len(made)} topics made")
        prepare_signer(self.settings, self._cluster)
        stack = {"pid": os.getpid(), "deployment": deployment, "kafka_bootstrap_servers": servers}
        if self.settings.topic_prefix:
            stack["topic_prefix"] = self.settings.topic_prefix
        (data / STACK_FILE).write_text(json.dumps(stack))
        if self._sample_rate and self.settings.watch_policy is None:
            # The policy of the made-up company: under another one its lives would be full of findings.
            policy = data.resolve() / "sample-policy.toml"
            policy.write_text(SAMPLE_POLICY)
            self.settings = self.settings.model_copy(update={"watch_policy": policy})
        # Each process has a metrics endpoint of its own: one port for all would be taken from the second one on.
        environment = environment_for(
            {
                "data_dir": str(data.resolve()),
                "deployment": deployment,
                "kafka_bootstrap_servers": servers,
                "topic_prefix": self.settings.topic_prefix,
                "metrics_port": "0",
                **({"watch_policy": str(self.settings.watch_policy)} if self.settings.watch_policy else {}),
            }
        )
        specs_of_children = [SEAL, STORE, ANCHOR, WATCH, SWEEP]
        if self.settings.alert_config is not None:
            specs_of_children.append(ALERT)
        if self._sample_rate:
            specs_of_children.append(ChildSpec("sample", ("sample", "--forever", "--rate", str(self._sample_rate))))
        for spec in specs_of_children:
            child = Child(spec, data, environment)
            child.start()
            self._children.append(child)
        self._findings = OpenFindings(self.settings)
        self._findings.start()
        self._say(f"started {', '.join(spec.name for spec in specs_of_children)}")

    def _deployment(self, data: Path) -> str:
        path = data / DEPLOYMENT_FILE
        name = self._given.deployment or f"local-{secrets.token_hex(4)}"
        if not path.exists():
            path.write_text(name + "\n")
        known = path.read_text("utf-8").strip()
        if self._given.deployment and known != self._given.deployment:
            raise SettingsError(
                f"{data} belongs to deployment {known}, GRANTLEDGER_DEPLOYMENT says {self._given.deployment}"
            )
        return known

    def _start_broker(self, data: Path) -> str:
        self._broker = LocalBroker(data / "kafka", on_progress=self._say)
        self._broker.start()
        self._say(f"Kafka answers on {self._broker.bootstrap_servers}")
        return self._broker.bootstrap_servers

    def watch(self) -> None:
        """Start again what has died."""
        if self._broker is not None and not self._broker.alive():
            self._say("Kafka died and is started again")
            self._broker.start()
        for child in self._children:
            child.watch()

    def ready(self) -> bool:
        """Whether the store answers queries."""
        return bool(self.settings.clickhouse_url) or read_access(self.settings.data_dir) is not None

    def status(self) -> Status:
        """Ask the brokers and the processes where they stand."""
        samples: dict[tuple[str, str], float] = {}
        for child in self._children:
            for key, value in child.metrics().items():
                samples[key] = max(value, samples.get(key, 0.0))
        troubles = [f"{child.spec.name}: {child.gave_up}" for child in self._children if child.gave_up]
        down = [child for child in self._children if not child.alive() and not child.gave_up]
        troubles += [f"{child.spec.name} is down: {child.last_words()}" for child in down]
        stopped = [labels for (name, labels), value in samples.items() if name == "grantledger_seal_stopped" and value]
        troubles += [f"sealing is stopped on {labels}" for labels in stopped]
        return Status(
            events=self._events(),
            sealed=_total(samples, "grantledger_log_size_entries"),
            stored=_total(samples, "grantledger_stored_log_size_entries"),
            last_checkpoint=_time(samples, "grantledger_last_checkpoint_timestamp_seconds"),
            last_anchor=_time(samples, "grantledger_last_anchor_timestamp_seconds"),
            findings=self._findings.count if self._findings is not None else None,
            troubles=tuple(troubles),
        )

    def _events(self) -> int:
        """Events of access systems in Kafka; the pipeline's own findings are not counted here."""
        if self._cluster is None:
            return 0
        partitions = [(LIFECYCLE_TOPIC, 0), *((ACTIVITY_TOPIC, p) for p in range(self.settings.activity_partitions))]
        try:
            ends = end_offsets(self._cluster, partitions)
        except KafkaUnavailableError:
            return 0
        return sum(ends.values())

    def stop(self) -> None:
        """Stop intake, let everything drain, then stop the rest, in the order of the stream.

        Does nothing where ``start`` was refused because another stack runs: what is there belongs to that one.
        """
        if self._lock is None:
            return
        if self._findings is not None:
            self._findings.stop()
        by_name = {child.spec.name: child for child in self._children}
        sealed = 0
        for name in ("sample", "sweep", "alert", "watch", "seal", "anchor"):
            if (child := by_name.get(name)) is not None:
                if name == "seal":
                    sealed = self._let_seal_drain(child)
                self._stop_child(child)
        if (store := by_name.get("store")) is not None:
            self._let_store_drain(store, sealed)
            self._stop_child(store)
        if self._broker is not None:
            self._broker.stop()
            self._say("Kafka stopped")
        (self._given.data_dir / STACK_FILE).unlink(missing_ok=True)
        self._lock.close()
        self._lock = None

    def _stop_child(self, child: Child) -> None:
        if not child.stop():
            self._say(f"{child.spec.name} did not drain in {child.spec.drain:.0f} s; what it had in hand is read again")

    def _let_seal_drain(self, seal: Child, limit: float = 20.0) -> int:
        """Wait until all events in Kafka are sealed; those that are not wait there. Returns the entries sealed."""
        events, deadline = self._events(), time.monotonic() + limit
        while True:
            samples = seal.metrics()
            stopped = any(value for (name, _), value in samples.items() if name == "grantledger_seal_stopped")
            done = _total(samples, "grantledger_seal_position_offset") >= events
            if done or stopped or not seal.alive() or time.monotonic() > deadline:
                return _total(samples, "grantledger_log_size_entries")
            time.sleep(0.2)

    def _let_store_drain(self, store: Child, sealed: int, limit: float = 30.0) -> None:
        """Wait until everything sealed is stored; what is not, Kafka keeps for the next start."""
        deadline = time.monotonic() + limit
        before = -1
        while store.alive() and time.monotonic() < deadline:
            now = _total(store.metrics(), "grantledger_stored_log_size_entries")
            if now >= sealed and now == before:  # the sealer's last batch came after it was asked
                return
            before = now
            time.sleep(1.0)


def _total(samples: dict[tuple[str, str], float], name: str) -> int:
    own = "topic=access.findings"
    return int(sum(value for (metric, labels), value in samples.items() if metric == name and own not in labels))


def _time(samples: dict[tuple[str, str], float], name: str) -> datetime | None:
    seconds = samples.get((name, ""), 0.0)
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
