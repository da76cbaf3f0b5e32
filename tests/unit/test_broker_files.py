"""The local Kafka's configuration files, ports and refusals, without starting one."""

import socket
from pathlib import Path

import pytest

from grantledger.base.errors import UsageError
from grantledger.runtime.broker import LocalBroker
from grantledger.runtime.broker_files import jvm_flags, log4j_properties, server_properties
from grantledger.runtime.loopback_ports import free_port, is_free


class TestConfiguration:
    def properties(self, **further: str) -> dict[str, str]:
        text = server_properties(10001, 10002, Path("/var/lib/x"), further)
        return dict(line.split("=", 1) for line in text.splitlines())

    def test_only_loopback_and_one_node(self) -> None:
        found = self.properties()
        assert found["listeners"] == "PLAINTEXT://127.0.0.1:10001,CONTROLLER://127.0.0.1:10002"
        assert found["advertised.listeners"] == "PLAINTEXT://127.0.0.1:10001"
        assert found["controller.quorum.bootstrap.servers"] == "127.0.0.1:10002"
        for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
            assert found[f"{topic}.replication.factor"] == found[f"{topic}.num.partitions"] == "1"
        assert found["transaction.state.log.min.isr"] == found["share.coordinator.state.topic.min.isr"] == "1"
        assert "offsets.topic.min.isr" not in found
        assert found["auto.create.topics.enable"] == "false"
        assert found["group.initial.rebalance.delay.ms"] == "0"
        assert found["transaction.abort.timed.out.transaction.cleanup.interval.ms"] == "1000"

    def test_further_properties_win(self) -> None:
        assert self.properties(**{"auto.create.topics.enable": "true"})["auto.create.topics.enable"] == "true"

    def test_odd_paths_are_escaped(self) -> None:
        assert "log.dirs=/d\\u00e9j\\u00e0\\\\vu\n" in server_properties(1, 2, Path("/déjà\\vu"), {})

    def test_the_log_rolls_and_the_console_stays_empty(self) -> None:
        text = log4j_properties(Path("/x/kafka.log"))
        assert "appender.file.type=RollingFile" in text
        assert "appender.file.fileName=/x/kafka.log\n" in text
        assert "Console" not in text

    def test_java_writes_to_the_folder_and_does_not_warn(self) -> None:
        old, new = (jvm_flags(Path("/x"), major) for major in (17, 25))
        assert {"-Xms256m", "-Xmx512m", "-Djava.io.tmpdir=/x/tmp"} <= set(old)
        assert set(new) - set(old) == {"--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"}


def test_a_preferred_port_is_taken_while_free() -> None:
    first = free_port()
    assert free_port(None, first) == first
    assert free_port(first, taken=first) != first
    with socket.socket() as other:
        other.bind(("127.0.0.1", first))
        other.listen()
        assert not is_free(first)
        assert free_port(first) != first


def test_a_broker_that_was_never_started(tmp_path: Path) -> None:
    broker = LocalBroker(tmp_path / "kafka")
    assert not broker.alive()
    assert broker.pid is None
    broker.stop()
    assert not (tmp_path / "kafka").exists()


def test_a_folder_name_kafka_cannot_take_leaves_no_process(tmp_path: Path) -> None:
    broker = LocalBroker(tmp_path / "a,b")
    with pytest.raises(UsageError, match="comma"):
        broker.start()
    assert not broker.alive()
