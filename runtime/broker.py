"""The local Kafka: a real single-node Apache Kafka (KRaft) as a child process on the loopback interface.

It is for a first look, for development and for tests on one machine. It keeps its promises across ``kill -9`` of the
process, since the operating system still holds what was written; it has no second copy, so it is not for production.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from .broker_config import (
    HOST,
    BrokerConfig,
    BrokerError,
    BrokerInUseError,
    BrokerStartError,
    Ports,
    choose_ports,
    jvm_flags,
    log4j_properties,
    read_cluster_id,
    server_properties,
)
from .jars import Progress, ensure_jars
from .java import ClassArchive, Java, PrerequisiteError, TiedProcess, find_java

__all__ = [
    "BrokerConfig",
    "BrokerError",
    "BrokerInUseError",
    "BrokerStartError",
    "LocalBroker",
    "PrerequisiteError",
]

_SHOWN_LOG_LINES = 15
_LOCK_PATIENCE_SECONDS = 5.0  # the kernel needs a moment to bury the broker of a parent that was just killed
_FORMAT_SECONDS = 60.0
_RECORDING_SECONDS = 60.0  # what saving the class archive may add to the first clean stop
_KILL_SECONDS = 10.0


class LocalBroker:
    """One Kafka in one data folder. A context manager: started on entry, stopped on exit.

    The folder keeps everything: data, chosen ports, generated configuration, ``logs/kafka.log``. The broker dies with
    the process that started it (on Linux), also by ``kill -9``. Methods are for one thread; `alive` and `pid` for any.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        *,
        preferred_port: int | None = None,
        config: BrokerConfig | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        """Name the folder; nothing is done to it before `start`.

        `port` is for clients on 127.0.0.1. None takes the port this folder had before, else `preferred_port`, else any
        free one. `on_progress` gets a line for people before each slow step (download of the jars, formatting).
        """
        self.data_dir = data_dir.absolute()
        self.config = config or BrokerConfig()
        self._wanted_port, self._preferred_port = port, preferred_port
        self._report: Progress = on_progress or (lambda line: None)
        self._process: TiedProcess | None = None
        self._ports: Ports | None = None
        self._lock: IO[str] | None = None
        self._recording: ClassArchive | None = None

    @property
    def log_file(self) -> Path:
        """Kafka's own log."""
        return self.data_dir / "logs" / "kafka.log"

    @property
    def bootstrap_servers(self) -> str:
        """``127.0.0.1:port`` for clients. Raises `BrokerError` before the first start."""
        if self._ports is None:
            raise BrokerError("the local Kafka was not started yet: its port is not known")
        return f"{HOST}:{self._ports.client}"

    @property
    def pid(self) -> int | None:
        """The process id of Kafka, None when it does not run."""
        return self._process.pid if self._process is not None and self.alive() else None

    def alive(self) -> bool:
        """Whether the process runs. It answers when `start` has returned."""
        return self._process is not None and self._process.returncode is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start Kafka and return when it answers clients.

        On first use the jars are fetched and the folder is formatted. Raises `BrokerInUseError` when another live
        process has the folder, `BrokerStartError` with the end of the log, `BrokerError` when it runs already or the
        port is taken, `PrerequisiteError` when there is no Java or no way to the jars. After an error nothing runs.
        """
        if self.alive():
            raise BrokerError(f"the local Kafka in {self.data_dir} runs already (pid {self.pid})")
        self.kill()  # what is left of one that ended by itself
        java = find_java(self.config.java_home)
        jars = ensure_jars(self.config.cache, self._report)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self._lock = self._acquire()
        try:
            self._launch(java, jars)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End Kafka: SIGTERM, then SIGKILL after `stop_timeout` seconds. Does nothing when it does not run."""
        process, recording = self._process, self._recording
        if process is not None and process.returncode is None:
            if recording is not None:
                self._report("stopping Kafka and saving its class archive, so that it starts faster (once)")
            process.send_signal(signal.SIGTERM)
            if recording is None:
                process.wait(self.config.stop_timeout)
            elif process.wait(self.config.stop_timeout + _RECORDING_SECONDS):
                recording.keep()
        self.kill()

    def kill(self) -> None:
        """End Kafka by SIGKILL, as a crash would; what was acknowledged is there after the next `start`."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(_KILL_SECONDS)
        self._process = None
        if self._recording is not None:
            self._recording.draft.unlink(missing_ok=True)
            self._recording = None
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_UN)  # closing would not do if this process was forked meanwhile
            self._lock.close()
            self._lock = None

    def restart(self) -> None:
        """`stop`, then `start` on the same address."""
        self.stop()
        self.start()

    def _acquire(self) -> IO[str]:
        """Take the folder for this object, and wait until no Kafka holds it."""
        lock = (self.data_dir / "owner.lock").open("a+")
        owner = ""
        try:
            lock.seek(0)
            owner = lock.read().strip()
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.truncate(0)
            lock.write(f"process {os.getpid()}\n")
            lock.flush()
            self._wait_for_kafkas_lock()
        except BlockingIOError as error:
            lock.close()
            raise BrokerInUseError(
                f"{self.data_dir} is in use by another live Kafka{f', started by {owner}' if owner else ''}. "
                "Stop that one, or give this one another folder."
            ) from error
        return lock

    def _wait_for_kafkas_lock(self) -> None:
        """Raise `BlockingIOError` if a Kafka still holds the data after a moment. Java locks with fcntl, so do we."""
        kafkas_lock = self.data_dir / "data" / ".lock"
        deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
        while kafkas_lock.exists():
            with kafkas_lock.open("r+") as file:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise
            time.sleep(0.05)

    def _launch(self, java: Java, jars: list[Path]) -> None:
        ports = choose_ports(self._remembered_ports(), self._wanted_port, self._preferred_port)
        (self.data_dir / "ports.json").write_text(
            json.dumps({"client": ports.client, "controller": ports.controller}) + "\n", encoding="utf-8"
        )
        data = self.data_dir / "data"
        further = self.config.properties
        (self.data_dir / "server.properties").write_text(server_properties(ports, data, further), encoding="ascii")
        (self.data_dir / "log4j2.properties").write_text(log4j_properties(self.log_file), encoding="ascii")
        # Kafka unpacks native libraries there and leaves them when it is killed.
        temporary = self.data_dir / "tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        flags = jvm_flags(self.config, self.data_dir, java.major)
        archive = ClassArchive.of(java, jars, jars[0].parent.parent)
        classpath = ["-cp", os.pathsep.join(map(str, jars))]
        use = archive.use_flags()
        if not (data / "meta.properties").exists():
            self._format([str(java.path), *flags, *use, *classpath], ports, data)
        self._recording = archive if self.config.record_class_archive and not use else None
        record = archive.record_flags() if self._recording is not None else []
        self._process = TiedProcess(
            [str(java.path), *flags, *use, *record, *classpath, "kafka.Kafka", f"{self.data_dir}/server.properties"],
            cwd=self.data_dir,
            output=self.data_dir / "logs" / "console.log",
        )
        self._ports = ports
        self._wait_until_it_answers(self._process, read_cluster_id(data))

    def _remembered_ports(self) -> Ports | None:
        try:
            remembered = json.loads((self.data_dir / "ports.json").read_text(encoding="utf-8"))
            return Ports(int(remembered["client"]), int(remembered["controller"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _format(self, java: list[str], ports: Ports, data: Path) -> None:
        """Make the storage in a folder beside and move it into place, so that a half-made one is never started."""
        self._report("formatting the storage of the local Kafka (once)")
        draft = self.data_dir / "formatting"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        properties = self.data_dir / "format.properties"
        properties.write_text(server_properties(ports, draft, self.config.properties), encoding="ascii")
        # No leading "-", which the tool would read as an option.
        cluster_id = "g" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
        command = [*java, "kafka.tools.StorageTool", "format", "--standalone", "-t", cluster_id, "-c", str(properties)]
        try:
            result = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_FORMAT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise BrokerStartError(f"Kafka did not format {draft} within {_FORMAT_SECONDS:g} s") from error
        if result.returncode != 0:
            raise BrokerStartError(f"Kafka could not format {draft}:\n{(result.stdout + result.stderr)[-2000:]}")
        draft.rename(data)
        properties.unlink()

    def _wait_until_it_answers(self, process: TiedProcess, cluster_id: str) -> None:
        client = AdminClient(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "reconnect.backoff.ms": 20,
                "reconnect.backoff.max.ms": 100,
                "log_level": 0,  # librdkafka would report each refused connection
            }
        )
        deadline = time.monotonic() + self.config.start_timeout
        while time.monotonic() < deadline:
            if process.returncode is not None:
                raise BrokerStartError(
                    f"the local Kafka ended with status {process.returncode} while starting.\n{self._last_log_lines()}"
                )
            try:
                metadata = client.list_topics(timeout=0.5)
            except KafkaException:
                continue  # not up yet; list_topics waited
            # No broker is listed before it may serve; and another Kafka may have taken the port.
            answering = cast("str | None", metadata.cluster_id)
            if metadata.brokers and answering == cluster_id:
                return
            time.sleep(0.02)
        raise BrokerStartError(
            f"the local Kafka did not answer on {self.bootstrap_servers} within {self.config.start_timeout:g} s.\n"
            + self._last_log_lines()
        )

    def _last_log_lines(self) -> str:
        shown: list[str] = []
        for path in (self.log_file, self.data_dir / "logs" / "console.log"):
            try:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN_LOG_LINES:]
            except OSError:
                continue
            shown += [f"The end of {path}:", *(f"  {line}" for line in lines)] if lines else []
        return "\n".join(shown) or f"It logged nothing; see {self.data_dir / 'logs'}."
