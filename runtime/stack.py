"""The local stack: Kafka and one of each process of the pipeline, in one data folder."""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

from ..base.files import lock_file
from ..base.user import user_name
from ..console.address import read_address
from ..kafka.cluster import Cluster
from ..kafka.sealed_log import SealedLogStoppedError
from .broker import BrokerError, LocalBroker
from .children import LONGEST_PAUSE, SHORTEST_PAUSE, Child, ChildSpec
from .data_folder import close_to_others, make_folder
from .initialise import ensure_topics, initialise
from .keys import load_signer
from .lifecycle_shards import check_on_record
from .loopback_ports import HOST, is_free
from .open_findings import OpenFindings
from .publishing import Published, publish, write_sql_credentials
from .settings import Settings, SettingsError
from .source_keys import register_own_sources, registered_sources
from .stack_file import DEPLOYMENT_FILE, FROM_STACK, STACK_FILE, read_stack, write_stack
from .status import SUPERVISOR_FILE, ProcessStatus, Status, ends_in_kafka, read_status, total, write_processes
from .watches import watch_children, watch_names

DEFAULT_KAFKA_PORT = 19092
_DRAIN = {"store": 40.0}
_START_ORDER = ("seal", "store", "anchor", "watch", "sweep")
_BEFORE_WATCH, _AFTER_WATCH = ("gateway", "sweep", "alert"), ("seal", "anchor")
"""In this order they are stopped, before and after the watches. The store is stopped last."""


class Stack:
    """Starts, supervises and stops the stack.

    Args:
        report: receives one line per step.
        more: processes that send events: started last, stopped first.
        interrupting: context of the long start of Kafka, which may be abandoned at any point.
    """

    def __init__(
        self,
        settings: Settings,
        report: Callable[[str], None],
        more: Sequence[ChildSpec] = (),
        *,
        interrupting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._given, self._report, self._more = settings, report, tuple(more)
        self._interrupting = interrupting
        self._broker: LocalBroker | None = None
        self._broker_not_before, self._broker_pause = 0.0, SHORTEST_PAUSE
        self._children: list[Child] = []
        self._cluster: Cluster | None = None
        self._lock: BinaryIO | None = None
        self._findings: OpenFindings | None = None
        self._written: list[ProcessStatus] = []
        self._unwritable = ""
        """What other commands read of the processes."""
        self.settings = settings
        self.published: Published | None = None
        """What other machines can reach, once it is started."""

    def start(self) -> None:
        """Start Kafka, unless the settings name brokers, and all processes."""
        data = self._given.data_dir
        self._lock = _lock_folder(data)
        if not self._given.clickhouse_url and (port := self._given.sql_port) and not is_free(port):
            raise SettingsError(f"port {port} on {HOST} is taken: choose another sql_port, or none for any")
        _check_files(self._given)
        deployment = self._deployment(data)
        servers = self._given.kafka_bootstrap_servers or self._start_broker(data)
        self.settings = self._given.model_copy(update={"deployment": deployment, "kafka_bootstrap_servers": servers})
        self._cluster = self.settings.cluster()
        # On another cluster only `grantledger init` creates a ledger.
        if self._broker is not None:
            create = ensure_topics if self.settings.private_key_path.exists() else initialise
            if created := create(self.settings):
                self._report(f"created {created} topics")
        load_signer(self.settings)
        self._check_record()
        self.published = publish(self.settings)
        stack = {name: getattr(self.settings, name) for name in FROM_STACK}
        write_stack(data, stack)
        # With one metrics port for all, the second process would not start.
        given = {**stack, "data_dir": data.resolve(), "metrics_port": 0}
        given |= {name: path for name in ("config", "watch_policy") if (path := getattr(self.settings, name))}
        given |= self.published.settings if self.published is not None else {}
        environment = os.environ | {f"GRANTLEDGER_{name.upper()}": str(value) for name, value in given.items()}
        names = [*_START_ORDER, *(["alert"] if self.settings.alert_config is not None else [])]
        names += ["gateway"] if given.get("gateway_config", self.settings.gateway_config) is not None else []
        children: list[ChildSpec] = []
        for name in names:
            if name == "watch":
                children += watch_children(self.settings.lifecycle_shards)
            else:
                children.append(ChildSpec(name, ("run", name), _DRAIN.get(name, 20.0)))
        for spec in (*children, *self._more):
            child = Child(spec, data, environment)
            child.start()
            self._children.append(child)
        write_processes(data, self._processes())
        self._findings = OpenFindings(self.settings)
        self._report(f"started {', '.join(child.spec.name for child in self._children)}")

    def _check_record(self) -> None:
        """Check the settings against the record, and register the sources of the pipeline that this version adds."""
        try:
            known = registered_sources(self.settings)
            check_on_record(self.settings, known)
            # On another cluster only `grantledger init` registers sources.
            if self._broker is not None and (count := register_own_sources(self.settings, known, user_name())):
                self._report(f"registered {count} of the pipeline's own sources")
        except SealedLogStoppedError as error:
            self._report(f"the pipeline's own sources cannot be checked: {error}")

    def _deployment(self, data: Path) -> str:
        path = data / DEPLOYMENT_FILE
        name = self._given.deployment or f"local-{secrets.token_hex(4)}"
        if not path.exists():
            path.write_text(name + "\n")
        known = path.read_text("utf-8").strip()
        if self._given.deployment and known != self._given.deployment:
            raise SettingsError(
                f"{data} belongs to the deployment {known}, but GRANTLEDGER_DEPLOYMENT is {self._given.deployment}: "
                "change it, or give another folder with --data"
            )
        return known

    def _start_broker(self, data: Path) -> str:
        self._report("starting Kafka")
        port = self._given.kafka_port
        preferred = DEFAULT_KAFKA_PORT if port is None else None
        self._broker = LocalBroker(data / "kafka", port or None, preferred_port=preferred, report=self._report)
        with self._interrupting():
            self._broker.start()
        servers = self._broker.bootstrap_servers
        other = preferred is not None and not servers.endswith(f":{preferred}")
        self._report(f"Kafka answers on {servers}{f', not on the usual port {preferred}' if other else ''}")
        return servers

    def restart_failed(self) -> None:
        """Restart failed processes. Call it every second. A full disk is reported, and ends nothing."""
        try:
            self._restart_failed()
            self._unwritable = ""
        except OSError as error:
            advice = "the disk is full: make room" if error.errno == errno.ENOSPC else error.strerror or str(error)
            reason = f"{error.filename or self._given.data_dir} cannot be written: {advice}"
            if reason != self._unwritable:
                self._report(reason)
            self._unwritable = reason

    def _restart_failed(self) -> None:
        self._restart_broker()
        for child in self._children:
            child.restart_if_failed()
        if (now := self._processes()) != self._written:  # a trouble also ends as time passes
            write_processes(self._given.data_dir, now)
            self._written = now

    def _restart_broker(self) -> None:
        """Start a failed Kafka again. If it fails while it starts, try again after a growing pause."""
        if self._broker is None or self._broker.alive() or time.monotonic() < self._broker_not_before:
            return
        self._report("Kafka has failed: restarting it")
        try:
            self._broker.start()
            self._broker_pause = SHORTEST_PAUSE
        except BrokerError as error:
            reason = str(error).split("\n", 1)[0]
            self._report(f"Kafka could not be restarted, next attempt in {self._broker_pause:g} s: {reason}")
            self._broker_not_before = time.monotonic() + self._broker_pause
            self._broker_pause = min(LONGEST_PAUSE, 2 * self._broker_pause)

    def ready(self) -> bool:
        """Whether the store answers queries."""
        return bool(self.settings.clickhouse_url) or read_address(self.settings.data_dir) is not None

    def write_credentials(self) -> None:
        """Write the credentials of SQL to where clients of other machines get them; call it once the store answers."""
        if self.published is not None and (address := read_address(self.settings.data_dir)) is not None:
            write_sql_credentials(self.published, address)

    def status(self) -> Status:
        """Return the status of the pipeline."""
        count = self._findings.count if self._findings is not None else None
        return read_status(self.settings, self._cluster, self._processes(), count)

    def _processes(self) -> list[ProcessStatus]:
        return [ProcessStatus(each.spec.name, each.pid, each.restarts, each.trouble) for each in self._children]

    def stop(self) -> None:
        """Stop the senders, then each process after its backlog has drained, in the order of the stream.

        Does nothing if ``start`` failed because another stack runs.
        """
        if self._lock is None:
            return
        if self._findings is not None:
            self._findings.stop()
        by_name = {child.spec.name: child for child in self._children}
        sealed = 0
        order = (*_BEFORE_WATCH, *watch_names(self.settings.lifecycle_shards), *_AFTER_WATCH)
        for name in (*(spec.name for spec in self._more), *order):
            if (child := by_name.get(name)) is not None:
                if name == "seal":
                    sealed = self._let_seal_drain(child)
                self._stop_child(child)
        if (store := by_name.get("store")) is not None:
            _let_store_drain(store, sealed)
            self._stop_child(store)
        if self._broker is not None and self._broker.alive():
            self._broker.stop()
            self._report("Kafka stopped")
        for file in (STACK_FILE, SUPERVISOR_FILE):
            (self._given.data_dir / file).unlink(missing_ok=True)
        self._lock.close()
        self._lock = None

    def _stop_child(self, child: Child) -> None:
        if not child.stop():
            self._report(f"{child.spec.name} did not drain in {child.spec.drain:.0f} s: it replays the rest later")

    def _let_seal_drain(self, seal: Child, limit: float = 20.0) -> int:
        """Wait until all events are sealed, at most ``limit`` seconds. Returns the number of sealed entries."""
        end = sum(ends_in_kafka(self._cluster).values()) if self._cluster is not None else 0
        deadline = time.monotonic() + limit
        while True:
            samples = seal.metrics()
            stopped = any(value for (name, _), value in samples.items() if name == "grantledger_seal_stopped")
            done = total(samples, "grantledger_seal_position_offset") >= end
            if done or stopped or not seal.alive() or time.monotonic() > deadline:
                return total(samples, "grantledger_log_size_entries")
            time.sleep(0.2)


def _let_store_drain(store: Child, sealed: int, limit: float = 30.0) -> None:
    """Wait until all sealed entries are stored, at most ``limit`` seconds; the rest stays in Kafka."""
    deadline = time.monotonic() + limit
    before = -1
    while store.alive() and time.monotonic() < deadline:
        now = total(store.metrics(), "grantledger_stored_log_size_entries")
        if now >= sealed and now == before:  # the sealer may have added a last batch in between
            return
        before = now
        time.sleep(1.0)


def _check_files(settings: Settings) -> None:
    """Report every error in the files that the processes read, before anything starts."""
    if settings.watch_policy is not None:
        from ..processors.watch_policy import load_policy

        load_policy(settings.watch_policy)
    if settings.alert_config is not None:
        from ..base.toml import load_toml
        from ..sinks.alerts.config import AlertConfig

        load_toml(settings.alert_config, AlertConfig)
    if settings.gateway_config is not None:
        from ..producers.gateway.config import load_gateway_config

        load_gateway_config(settings.gateway_config)


def _lock_folder(data: Path) -> BinaryIO:
    make_folder(data)
    close_to_others(data)
    make_folder(data / "run")
    try:
        return lock_file(data / "run" / "up.lock")
    except BlockingIOError:
        pid = read_stack(data).get("pid")
        raise SettingsError(
            f"a stack is already running in {data}{f' (pid {pid})' if pid else ''}: `grantledger status` shows it; "
            "--data names another folder"
        ) from None
