"""The local Kafka: a real single-node Apache Kafka (KRaft) as a child process on the loopback interface.

For development, tests and a first look on one machine. Acknowledged records survive ``kill -9`` of the process, because
the operating system still has them. There is no second copy, so it is not for production.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from ..base.errors import DependencyError, UsageError
from ..base.retry import retry
from ..kafka.client_log import CLIENT_LOG
from .broker_files import jvm_flags, log4j_properties, server_properties
from .jars import Progress, default_cache, ensure_jars
from .java import find_java
from .loopback_ports import HOST, free_port, is_free
from .tied_process import start_tied, stop_tied

_SHOWN_LOG_LINES = 15
_LOCK_SECONDS = 5.0
"""How long to wait for the broker of a killed parent: the kernel needs a moment to end it."""
_STOP_SECONDS = 20.0
_RECORDING_SECONDS = 60.0
"""Additional time for the first clean stop, which saves the class archive."""
_AOT_MAJOR = 25
"""The first Java that records a class archive with a single flag (JEP 514)."""


class BrokerError(DependencyError):
    """The local Kafka cannot be started; the message contains the cause."""


class LocalBroker:
    """A Kafka in a data folder, as a context manager. It ends with the process that started it, even by ``kill -9``.

    The folder has the data, the ports, the generated configuration and ``logs/kafka.log``.

    Args:
        port: for clients. None: the port that this folder had before, else ``preferred_port``, else any free one.
        cache: folder for the jars and the class archive; by default the user's.
        properties: properties of Kafka that override ours.
        start_seconds: limit of a start.
        report: receives one line for people before each slow step.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        *,
        preferred_port: int | None = None,
        cache: Path | None = None,
        properties: Mapping[str, str] | None = None,
        start_seconds: float = 90.0,
        report: Progress = lambda line: None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self._wanted_port, self._preferred_port = port, preferred_port
        self._cache, self._properties = cache or default_cache(), dict(properties or {})
        self._start_seconds, self._report = start_seconds, report
        self._process: subprocess.Popen[bytes] | None = None
        self._new_archive: Path | None = None
        self.bootstrap_servers = ""
        """``127.0.0.1:port`` for clients; empty before the first start."""

    @property
    def pid(self) -> int | None:
        """The process id of Kafka; None while it does not run."""
        return self._process.pid if self._process is not None and self.alive() else None

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start Kafka and return when it answers clients. On first use, fetch the jars and format the folder."""
        if self.alive():
            raise BrokerError(f"the local Kafka in {self.data_dir} is already running (pid {self.pid})")
        if "," in str(self.data_dir):
            raise UsageError(f"Kafka does not support the comma in the name of the data folder {self.data_dir}")
        java = find_java()
        jars = ensure_jars(self._cache, self._report)
        self._wait_until_unlocked()
        # Kafka unpacks native libraries there and leaves them behind when it is killed.
        temporary = self.data_dir / "tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in (temporary, self.data_dir / "logs"):
            folder.mkdir(parents=True, exist_ok=True)
        data = self.data_dir / "data"
        port, controller_port = self._choose_ports()
        (self.data_dir / "log4j2.properties").write_text(
            log4j_properties(self.data_dir / "logs" / "kafka.log"), encoding="ascii"
        )
        # A class archive halves the time of a start. Java ignores one that does not fit.
        archive = jars[0].parent / f"classes-java-{java.version}.aot"
        command = [str(java.path), *jvm_flags(self.data_dir, java.major), "-cp", os.pathsep.join(map(str, jars))]
        command += [f"-XX:AOTCache={archive}"] if archive.exists() else []
        if not data.exists():
            self._format(command, port, controller_port, data)
        record = java.major >= _AOT_MAJOR and not archive.exists() and os.access(archive.parent, os.W_OK)
        self._new_archive = archive if record else None
        if self._new_archive is not None:
            # Java would also save call adapters, under hashes that collide, and log a warning at each start.
            command += [f"-XX:AOTCacheOutput={temporary / 'classes.aot'}", "-XX:+IgnoreUnrecognizedVMOptions"]
            command += ["-XX:+UnlockDiagnosticVMOptions", "-XX:-AOTAdapterCaching"]
        properties = self.data_dir / "server.properties"
        properties.write_text(server_properties(port, controller_port, data, self._properties), encoding="ascii")
        self.bootstrap_servers = f"{HOST}:{port}"
        self._process = start_tied(
            [*command, "kafka.Kafka", str(properties)],
            cwd=self.data_dir,
            output=self.data_dir / "logs" / "console.log",
        )
        try:
            self._wait_until_it_answers(self._process)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop Kafka: SIGTERM, then SIGKILL after 20 s. Does nothing if it does not run."""
        if self._process is not None and self.alive():
            seconds = _STOP_SECONDS
            if self._new_archive is not None:
                self._report("stopping Kafka and saving its class archive, so that it starts faster (once)")
                seconds += _RECORDING_SECONDS
            recorded = self.data_dir / "tmp" / "classes.aot"
            if stop_tied(self._process, seconds) and self._new_archive is not None and recorded.is_file():
                draft = self._new_archive.with_suffix(f".{uuid.uuid4().hex}")
                shutil.move(recorded, draft)
                draft.replace(self._new_archive)
        self._process = None

    def kill(self) -> None:
        """End Kafka with SIGKILL, as a crash would. Acknowledged records are there after the next start."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _wait_until_unlocked(self) -> None:
        """Wait until no Kafka has the folder. Java locks with fcntl, so we do too."""
        lock = self.data_dir / "data" / ".lock"
        if not lock.exists():
            return
        with lock.open("r+") as file:
            try:
                retry(
                    lambda: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB),
                    retryable=lambda error: isinstance(error, BlockingIOError),
                    timeout=_LOCK_SECONDS,
                )
            except BlockingIOError:
                raise BrokerError(
                    f"{self.data_dir} is in use by another Kafka: stop it, or use another folder"
                ) from None

    def _choose_ports(self) -> tuple[int, int]:
        """Return the ports for clients and for the controller, and remember them."""
        file = self.data_dir / "ports.json"
        try:
            client, controller = map(int, json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            client, controller = None, None
        if self._wanted_port is not None and not is_free(self._wanted_port):
            raise BrokerError(
                f"port {self._wanted_port} on {HOST} is taken: choose another kafka_port, or none for any"
            )
        port = free_port(self._wanted_port, client, self._preferred_port)
        controller_port = free_port(controller, taken=port)
        file.write_text(json.dumps([port, controller_port]), encoding="utf-8")
        return port, controller_port

    def _format(self, java: list[str], port: int, controller_port: int, data: Path) -> None:
        """Format a draft and move it into place, so that Kafka never starts on half of it."""
        self._report("formatting the storage of the local Kafka (once)")
        draft, properties = self.data_dir / "formatting", self.data_dir / "server.properties"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        properties.write_text(server_properties(port, controller_port, draft, self._properties), encoding="ascii")
        # The tool would take a leading "-" for an option.
        cluster_id = "g" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
        command = [*java, "kafka.tools.StorageTool", "format", "--standalone", "-t", cluster_id, "-c", str(properties)]
        output = self.data_dir / "logs" / "format.log"
        process = start_tied(command, cwd=self.data_dir, output=output)
        try:
            process.wait()
        except BaseException:  # interrupted: the next start formats again
            process.kill()
            process.wait()
            raise
        if process.returncode != 0:
            raise BrokerError(f"Kafka could not format {draft}:\n{output.read_text('utf-8', 'replace')[-2000:]}")
        draft.rename(data)

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        client = AdminClient(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "reconnect.backoff.ms": 20,
                "reconnect.backoff.max.ms": 100,
            },
            logger=CLIENT_LOG,
        )
        deadline = time.monotonic() + self._start_seconds
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise BrokerError(
                    f"the local Kafka ended with status {process.returncode} while starting.\n{self._last_log_lines()}"
                )
            try:
                if client.list_topics(timeout=0.5).brokers:  # a broker is listed once it may serve
                    return
            except KafkaException:
                continue  # it does not listen yet; list_topics has waited
            time.sleep(0.02)
        raise BrokerError(
            f"the local Kafka did not answer on {self.bootstrap_servers} within {self._start_seconds:g} s.\n"
            + self._last_log_lines()
        )

    def _last_log_lines(self) -> str:
        shown: list[str] = []
        for path in (self.data_dir / "logs" / "kafka.log", self.data_dir / "logs" / "console.log"):
            lines = path.read_text("utf-8", "replace").splitlines()[-_SHOWN_LOG_LINES:] if path.exists() else []
            shown += [f"The end of {path}:", *(f"  {line}" for line in lines)] if lines else []
        return "\n".join(shown) or f"It logged nothing; see {self.data_dir / 'logs'}."
