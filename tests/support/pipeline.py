"""The pipeline as its users run it: one process each for seal, store, anchor and so on, over a real broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from grantledger.kafka.cluster import Cluster
from grantledger.kafka.publisher import Publisher
from grantledger.kafka.topics import TopicError, create_topics
from grantledger.ledger.entry import origin_of
from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.source_keys import SourceKeys
from grantledger.producers import Client
from grantledger.runtime.children import Child, ChildSpec
from grantledger.runtime.keys import create_key
from grantledger.runtime.process_health import ProcessHealth
from grantledger.runtime.settings import Settings, load_settings
from grantledger.runtime.source_keys import own_key_file, own_signer, register_own_sources
from grantledger.runtime.watches import watch_children
from grantledger.schemas.event import Event
from grantledger.schemas.own_sources import OWN_SOURCES
from grantledger.schemas.topics import topic_specs

from .command import run_command
from .fork_server import STATELESS, ForkedChild
from .reading import read_rows_with
from .waiting import wait_for

PROCESSES = ("seal", "store", "anchor")
ANCHORED_OFTEN = {"GRANTLEDGER_ANCHOR_INTERVAL_SECONDS": "1"}
"""For tests that wait for anchors. Each anchor costs the store 50 ms of CPU time."""
FEW_BATCHES = {"GRANTLEDGER_SEAL_LINGER_SECONDS": "1"}
"""The default, for tests under load. Each batch costs the store 50 ms of CPU time."""
WITHOUT_STATES = {STATELESS: "1"}
"""For tests that read entries, anchors and the like, but no states of requests, grants and findings."""
LONG_RUNNING = ("run", "up", "demo")
"""Commands that run until they are stopped; ``demo`` with ``--lives`` ends when its traffic has ended."""


def samples(child: Child, limit: float = 15.0) -> dict[tuple[str, str], float]:
    """Return the metrics of a process, none once it has ended. Waits for a running process to serve them."""
    deadline = time.monotonic() + limit
    while not (found := child.metrics()) and child.alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


class Pipeline:
    """Processes over one data folder and one broker, as one deployment."""

    def __init__(
        self,
        bootstrap_servers: str,
        data_dir: Path,
        environment: Mapping[str, str] | None = None,
        *,
        deployment: str = "test.example",
        topic_prefix: str = "",
    ) -> None:
        self.data_dir = data_dir
        self.bootstrap_servers = bootstrap_servers
        self.options = {"bootstrap.servers": bootstrap_servers}
        shards = int((environment or {}).get("GRANTLEDGER_LIFECYCLE_SHARDS", "1"))
        self.cluster = Cluster(self.options, topic_prefix, shards)
        self.environment = {
            **os.environ,
            "GRANTLEDGER_DATA_DIR": str(data_dir),
            "GRANTLEDGER_DEPLOYMENT": deployment,
            "GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "GRANTLEDGER_TOPIC_PREFIX": topic_prefix,
            "GRANTLEDGER_SEAL_LINGER_SECONDS": "0.2",
            "GRANTLEDGER_ANCHOR_INTERVAL_SECONDS": "5",
            **(environment or {}),
        }
        self.children: dict[str, Child] = {}

    @property
    def deployment(self) -> str:
        return self.environment["GRANTLEDGER_DEPLOYMENT"]

    def origin(self, topic: str, partition: int = 0) -> str:
        """Return the name of the log of a partition."""
        return origin_of(self.deployment, topic, partition)

    def client(self, **options: Any) -> Client:
        """Return a producer client for this pipeline's topics."""
        topics: dict[str, Any] = {
            "topic_prefix": self.cluster.topic_prefix, "lifecycle_shards": self.cluster.lifecycle_shards,
        }  # fmt: skip
        return Client(self.options, **topics, **options)

    def make_topics(self, activity_partitions: int = 4) -> None:
        """Create the topics and the keys, and register the pipeline's sources, as ``grantledger init`` does."""
        create_topics(self.cluster, topic_specs(activity_partitions, 0))
        self.make_key()
        register_own_sources(self.settings(), SourceKeys(self.deployment), "tests")

    def settings(self) -> Settings:
        """Return the settings of this pipeline's processes."""
        names = ("data_dir", "deployment", "kafka_bootstrap_servers", "topic_prefix", "key_passphrase", "key_file",
                 "source_key_folder", "lifecycle_shards")  # fmt: skip
        given = {name: self.environment.get(f"GRANTLEDGER_{name.upper()}") for name in names}
        return Settings(**{name: value for name, value in given.items() if value})

    def make_key(self) -> None:
        """Create the key pair of the ledger if there is none."""
        settings = self.settings()
        if not settings.private_key_path.exists():
            create_key(settings)
        for source in OWN_SOURCES:
            file = own_key_file(settings, source)
            if not file.path.exists():
                file.write(LocalSigner.generate())

    def remake_topics(self, *names: str) -> None:
        """Delete topics and create them again; all topics without names."""
        specs = [spec for spec in topic_specs(4, 0) if not names or spec.name in names]
        gone = {self.cluster.physical(spec.name) for spec in specs}
        for future in self.cluster.admin.delete_topics(list(gone)).values():
            future.result(30)

        def made() -> bool:
            try:
                return len(create_topics(self.cluster, specs)) == len(specs)
            except TopicError:
                return False

        wait_for(lambda: gone.isdisjoint(self.cluster.admin.list_topics(timeout=10).topics), "the topics are deleted")
        wait_for(made, "the topics exist again")

    def publish(self, *events: Event) -> None:
        """Publish events as the processes of this pipeline that they name do."""
        for given in events:
            event = replace(given, source=replace(given.source, instance=self.deployment))
            signer = own_signer(self.settings(), event.source.system)
            Publisher(self.cluster, signer).publish_events([event])

    def start(self, *names: str) -> None:
        """Start processes by name; without names, seal, store and anchor."""
        for name in names or PROCESSES:
            if name in ("seal", "anchor"):
                self.make_key()
            known = {spec.name: spec for spec in watch_children(self.cluster.lifecycle_shards)}
            spec = known.get(name, ChildSpec(name, ("run", name)))
            child = self.children.get(name) or ForkedChild(spec, self.data_dir, self.environment)
            self.children[name] = child
            child.start()

    def twin(self, name: str, *arguments: str, **environment: str) -> Child:
        """Start another process of the same deployment with the same key, in its own data folder."""
        data_dir = self.data_dir.parent / f"{self.data_dir.name}-{name}"
        key = load_settings(self.data_dir).private_key_path
        own = {
            "GRANTLEDGER_DATA_DIR": str(data_dir),
            "GRANTLEDGER_KEY_FILE": str(key),
            "GRANTLEDGER_SOURCE_KEY_FOLDER": str(key.parent / "sources"),
        }
        own |= {"GRANTLEDGER_SOURCE_KEY_FOLDER": str(self.settings().source_key_path)}
        child = ForkedChild(
            ChildSpec(arguments[0], ("run", *arguments)), data_dir, {**self.environment, **own, **environment}
        )
        self.children[name] = child
        child.start()
        return child

    def kill(self, name: str) -> None:
        """Kill a process with SIGKILL, and wait until it has ended."""
        child = self.children[name]
        if child.pid is not None:
            os.kill(child.pid, signal.SIGKILL)
        wait_for(lambda: not child.alive(), f"{name} is dead")

    def stop(self, *names: str) -> None:
        order = ("seal", "anchor", "store")
        for name in names or (*order, *(name for name in self.children if name not in order)):
            if name in self.children:
                self.children[name].stop()

    def restart_failed(self) -> None:
        """Restart processes that have ended, as the supervisor does."""
        for child in self.children.values():
            child.restart_if_failed()

    def health(self, name: str) -> ProcessHealth:
        """Return what a process says of itself, as soon as it answers."""
        return wait_for(self.children[name].health, f"{name} answers")

    def wait_ready(self, *names: str) -> None:
        """Wait until processes are ready; without names, all."""
        for name in names or self.children:
            told = list[ProcessHealth]()

            def ready(name: str = name, told: list[ProcessHealth] = told) -> bool:
                told[:] = [self.health(name)]
                return not told[0].waits

            try:
                wait_for(ready, f"{name} is ready")
            except AssertionError as error:
                error.add_note(str(told))
                raise

    def log(self, name: str) -> str:
        return self.children[name].log_path.read_text("utf-8", "replace")

    def metric(self, name: str, metric: str) -> float:
        """Return the sum of a metric over its labels."""
        return sum(value for (found, _), value in samples(self.children[name]).items() if found == metric)

    def run(
        self,
        *arguments: str,
        stdin: str | None = None,
        timeout: float = 180.0,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command. Commands that run until they are stopped get their own process.

        A process of ``run`` must end by an error; its whole output is returned as that on standard error.
        """
        if arguments[0] not in LONG_RUNNING or "--lives" in arguments:
            return run_command(*arguments, environment=environment or self.environment, stdin=stdin)
        if arguments[0] == "run":
            once = ForkedChild(
                ChildSpec(f"{arguments[1]}-once", arguments), self.data_dir, environment or self.environment
            )
            once.start()
            wait_for(lambda: not once.alive(), f"{' '.join(arguments)} ends", limit=timeout)
            output = once.log_path.read_text("utf-8", "replace")
            return subprocess.CompletedProcess(list(arguments), once.exit_code or 0, "", output)
        return self.run_process(*arguments, stdin=stdin, timeout=timeout, environment=environment)

    def run_process(
        self,
        *arguments: str,
        stdin: str | None = None,
        timeout: float = 180.0,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in its own process, for example concurrently with others."""
        return subprocess.run(
            [sys.executable, "-m", "grantledger.cli", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=environment or self.environment,
            timeout=timeout,
            check=False,
        )

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a query that reads any table."""
        return read_rows_with(self.environment, sql)

    def verify(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Return the exit code and report of ``grantledger verify``; states are compared if ``--states`` is given."""
        states = () if "--states" in arguments else ("--no-states",)
        answer = self.run("verify", "-o", "json", *states, *arguments)
        if not answer.stdout.strip():
            raise AssertionError(f"verify printed nothing, exit {answer.returncode}: {answer.stderr}")
        return answer.returncode, json.loads(answer.stdout)

    def wait_stored(self, entries: int, *, limit: float = 90.0) -> None:
        """Wait until so many entries are stored, without the pipeline's own."""

        def stored() -> bool:
            samples = self.children["store"].metrics().items()
            sizes = [
                value
                for (name, labels), value in samples
                if name == "grantledger_stored_log_size_entries"
                and not any(own in labels for own in ("access.findings", "access.queries"))
            ]
            return sum(sizes) >= entries

        wait_for(stored, f"{entries} entries are stored", limit=limit)

    def wait_shown(self) -> None:
        """Wait until the views of grants and findings contain everything that is stored."""
        now = time.time()
        wait_for(
            lambda: self.metric("store", "grantledger_states_refreshed_timestamp_seconds") > now,
            "the states of everything stored are shown",
        )
