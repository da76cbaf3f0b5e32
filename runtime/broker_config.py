"""What the local Kafka is told: its settings, its ports and the configuration files made of them."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..base.errors import DependencyError

HOST = "127.0.0.1"


class BrokerError(DependencyError):
    """The local Kafka did not do what was asked; the text says what to do."""


class BrokerInUseError(BrokerError):
    """Another live process owns the data folder."""


class BrokerStartError(BrokerError):
    """Kafka ended or did not answer in time; the text ends with the last lines of its log."""


@dataclass(frozen=True)
class BrokerConfig:
    """How the local Kafka runs. Sizes are MiB, times are seconds."""

    heap_min: int = 256
    heap_max: int = 512
    start_timeout: float = 90.0
    stop_timeout: float = 20.0  # then SIGKILL
    java_home: Path | None = None  # see `find_java`
    cache: Path | None = None  # see `ensure_jars`
    # Where no class archive is in the cache yet, the first clean stop saves one: 3 to 6 s once, and every start on this
    # machine takes half as long from then on. One that is there is always used.
    record_class_archive: bool = True
    properties: Mapping[str, str] = field(default_factory=dict)  # further server.properties; they win over ours

    def __post_init__(self) -> None:
        if not 0 < self.heap_min <= self.heap_max:
            raise ValueError(
                f"heap_min {self.heap_min} and heap_max {self.heap_max}: need 0 < heap_min <= heap_max (MiB)"
            )
        if self.start_timeout <= 0 or self.stop_timeout <= 0:
            raise ValueError("start_timeout and stop_timeout must be positive seconds")


@dataclass(frozen=True)
class Ports:
    """The two loopback ports: `client` for producers and consumers, `controller` for Kafka itself."""

    client: int
    controller: int


def server_properties(ports: Ports, log_dir: Path, further: Mapping[str, str] | None = None) -> str:
    """Build the text of ``server.properties`` for one node that is broker and controller, with its data in `log_dir`.

    `further` wins over what stands here. Raises `ValueError` for a path with a comma, which Kafka reads as two folders.
    """
    if "," in str(log_dir):
        raise ValueError(f"the data folder {log_dir} has a comma in its name, which Kafka cannot take")
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": f"PLAINTEXT://{HOST}:{ports.client},CONTROLLER://{HOST}:{ports.controller}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{ports.client}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.quorum.bootstrap.servers": f"{HOST}:{ports.controller}",
        "log.dirs": str(log_dir),
        # A mistyped topic name must fail, and each of our topics has settings of its own.
        "auto.create.topics.enable": "false",
        "default.replication.factor": "1",
        "min.insync.replicas": "1",
        **{
            f"{topic}.{name}": "1"
            for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
            for name in ("replication.factor", "num.partitions", "min.isr")
            if (topic, name) != ("offsets.topic", "min.isr")
        },
        "group.initial.rebalance.delay.ms": "0",
        # Ten years: a pipeline that was off for a long time resumes where it stopped.
        "offsets.retention.minutes": "5256000",
        # How often timed-out transactions are looked for: one left by a killed process blocks read_committed readers.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        # After kill -9 the controller refuses the restarted broker until the dead one's session is over (default 9 s).
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # Sized for one machine shared with the rest of the pipeline; the cleaner's default buffer is 128 MiB of heap.
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
        "num.network.threads": "2",
        "num.io.threads": "4",
        "background.threads": "2",
        **(further or {}),
    }
    return "".join(f"{name}={_escape(value)}\n" for name, value in settings.items())


def _escape(value: str) -> str:
    """Escape for a Java properties file, which is Latin-1 with UTF-16 escapes."""
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    codes = (int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2))
    return "".join(chr(code) if 0x20 <= code < 0x7F else f"\\u{code:04x}" for code in codes)


def log4j_properties(log_file: Path) -> str:
    """Build the text of ``log4j2.properties``: one rolling file (4 of 10 MB at most), nothing on the console."""
    return f"""status=ERROR
appender.file.type=RollingFile
appender.file.name=file
appender.file.fileName={_escape(str(log_file))}
appender.file.filePattern={_escape(str(log_file))}.%i
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d{{yyyy-MM-dd'T'HH:mm:ss.SSSXXX}} %p %m (%c{{1}})%n
appender.file.policies.type=Policies
appender.file.policies.size.type=SizeBasedTriggeringPolicy
appender.file.policies.size.size=10MB
appender.file.strategy.type=DefaultRolloverStrategy
appender.file.strategy.max=3
rootLogger.level=WARN
rootLogger.appenderRef.file.ref=file
logger.server.name=kafka.server
logger.server.level=INFO
logger.kafka.name=org.apache.kafka.server
logger.kafka.level=INFO
logger.config.name=org.apache.kafka.common.config
logger.config.level=WARN
"""


def jvm_flags(config: BrokerConfig, data_dir: Path, java_major: int) -> list[str]:
    """Build the flags of Kafka's JVM, class path and class archive apart. What it writes stays in `data_dir`."""
    flags = [
        f"-Xms{config.heap_min}m",
        f"-Xmx{config.heap_max}m",
        # Measured with heaps of this size on 2 cores: as fast as G1, with 130 MB less memory.
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        f"-XX:ErrorFile={data_dir / 'logs' / 'hs_err_%p.log'}",
        "-Djava.awt.headless=true",
        f"-Djava.io.tmpdir={data_dir / 'tmp'}",
        f"-Dlog4j2.configurationFile={data_dir / 'log4j2.properties'}",
    ]
    if java_major >= 24:  # Kafka and its compression libraries do both, and Java warns of it
        flags += ["--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"]
    return flags


def read_cluster_id(log_dir: Path) -> str:
    """Read the cluster id that formatting wrote to ``meta.properties``. Raises `BrokerError` when there is none."""
    for line in (log_dir / "meta.properties").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition("=")
        if name == "cluster.id":
            return value.replace("\\", "")  # Java escapes a few characters it need not
    raise BrokerError(f"{log_dir / 'meta.properties'} names no cluster.id; the folder is not one of Kafka's")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As Java does: a port whose old connections are in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _ephemeral_start() -> int:
    """The lowest port the kernel gives to outgoing connections."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return 32768


def choose_ports(remembered: Ports | None, wanted: int | None, preferred: int | None = None) -> Ports:
    """Choose two free loopback ports: `wanted` for clients if given, else the remembered one, else `preferred`.

    New ones lie below the range of outgoing connections: a client that retries while Kafka is down could otherwise be
    given Kafka's own port as its source and connect to itself. Raises `BrokerError` when `wanted` is taken.
    """
    if wanted is not None and not _is_free(wanted):
        raise BrokerError(f"port {wanted} on {HOST} is taken; give another one, or none to have one chosen")
    taken: set[int] = set()

    def choose(*preferred: int | None) -> int:
        top = max(_ephemeral_start(), 12000)
        drawn = (random.randrange(10000, top) for _ in range(1000))  # noqa: S311 - no secret
        for port in (*(port for port in preferred if port is not None), *drawn):
            if port not in taken and _is_free(port):
                taken.add(port)
                return port
        raise BrokerError(f"no free port on {HOST} between 10000 and {top}")

    client = choose(wanted, remembered.client if remembered else None, preferred)
    return Ports(client, choose(remembered.controller if remembered else None))
