"""The configuration files and the JVM flags of the local Kafka."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .loopback_ports import HOST

_HEAP_MIB = (256, 512)


def server_properties(client_port: int, controller_port: int, log_dir: Path, further: Mapping[str, str]) -> str:
    """Return ``server.properties`` for one node that is both broker and controller.

    Args:
        log_dir: Kafka's data.
        further: properties that override ours.
    """
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": f"PLAINTEXT://{HOST}:{client_port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{client_port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.quorum.bootstrap.servers": f"{HOST}:{controller_port}",
        "log.dirs": str(log_dir),
        # A mistyped topic name must fail, and each of our topics has its own configuration.
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
        # Interval of the search for expired transactions: one of a killed process blocks read_committed consumers.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        # After kill -9 the controller rejects the restarted broker until its old session expires (default 9 s).
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # For a machine that also runs the rest of the pipeline; the cleaner's default buffer is 128 MiB of heap.
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
        "num.network.threads": "2",
        "num.io.threads": "4",
        "background.threads": "2",
        **further,
    }
    return "".join(f"{name}={_escape(value)}\n" for name, value in settings.items())


def _escape(value: str) -> str:
    """Escape a value for a Java properties file, which is Latin-1 with UTF-16 escapes."""
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    codes = (int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2))
    return "".join(chr(code) if 0x20 <= code < 0x7F else f"\\u{code:04x}" for code in codes)


def log4j_properties(log_file: Path) -> str:
    """Return ``log4j2.properties``: rolling files, at most 4 of 10 MB, and no console output."""
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


def jvm_flags(data_dir: Path, java_major: int) -> list[str]:
    """Return the flags of Kafka's JVM, without class path and class archive. It writes to ``data_dir`` only."""
    flags = [
        f"-Xms{_HEAP_MIB[0]}m",
        f"-Xmx{_HEAP_MIB[1]}m",
        # Measured with this heap on 2 cores: as fast as G1, with 130 MB less memory.
        "-XX:+UseSerialGC",
        # Measured likewise: a million records take the same CPU time without the optimizing compiler, and a start
        # takes a third less.
        "-XX:TieredStopAtLevel=1",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        f"-XX:ErrorFile={data_dir / 'logs' / 'hs_err_%p.log'}",
        "-Djava.awt.headless=true",
        f"-Djava.io.tmpdir={data_dir / 'tmp'}",
        f"-Dlog4j2.configurationFile={data_dir / 'log4j2.properties'}",
    ]
    if java_major >= 24:  # Kafka and its compression libraries use both; Java would log warnings
        flags += ["--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"]
    return flags
