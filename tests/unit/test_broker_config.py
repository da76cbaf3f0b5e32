"""What the local Kafka is told, and how it refuses, without starting one."""

import shutil
import socket
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from grantledger.runtime.broker import BrokerConfig, BrokerError, LocalBroker
from grantledger.runtime.broker_config import (
    Ports,
    choose_ports,
    jvm_flags,
    log4j_properties,
    read_cluster_id,
    server_properties,
)
from grantledger.runtime.java import Java


class TestConfiguration:
    def properties(self, **further: str) -> dict[str, str]:
        text = server_properties(Ports(10001, 10002), Path("/var/lib/x"), further)
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

    def test_odd_paths_are_escaped_or_refused(self) -> None:
        assert "log.dirs=/d\\u00e9j\\u00e0\\\\vu\n" in server_properties(Ports(1, 2), Path("/déjà\\vu"))
        with pytest.raises(ValueError, match="comma"):
            server_properties(Ports(1, 2), Path("/a,b"))

    def test_the_log_rolls_and_the_console_stays_empty(self) -> None:
        text = log4j_properties(Path("/x/kafka.log"))
        assert "appender.file.type=RollingFile" in text
        assert "appender.file.fileName=/x/kafka.log\n" in text
        assert "Console" not in text

    def test_a_config_that_cannot_work_is_refused(self) -> None:
        with pytest.raises(ValueError, match="heap_min 600"):
            BrokerConfig(heap_min=600)
        with pytest.raises(ValueError, match="positive"):
            BrokerConfig(start_timeout=0)
        with pytest.raises(FrozenInstanceError):
            BrokerConfig().heap_max = 1  # type: ignore[misc]

    def test_java_is_told_where_to_write_and_not_to_warn(self) -> None:
        old, new = (jvm_flags(BrokerConfig(heap_min=100, heap_max=200), Path("/x"), major) for major in (17, 25))
        assert {"-Xms100m", "-Xmx200m", "-Djava.io.tmpdir=/x/tmp"} <= set(old)
        assert set(new) - set(old) == {"--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"}

    def test_the_cluster_id_is_read_as_java_wrote_it(self, tmp_path: Path) -> None:
        meta = tmp_path / "meta.properties"
        meta.write_text("#\n#Mon Nov 23 05:00:00 UTC 2026\nversion=1\ncluster.id=gAb\\=\nnode.id=1\n")
        assert read_cluster_id(tmp_path) == "gAb="
        meta.write_text("version=1\n")
        with pytest.raises(BrokerError, match="names no cluster"):
            read_cluster_id(tmp_path)


class TestPorts:
    def test_remembered_ports_are_kept_while_free(self) -> None:
        first = choose_ports(None, None)
        assert choose_ports(first, None) == first

    def test_a_taken_remembered_port_is_replaced(self) -> None:
        first = choose_ports(None, None)
        with socket.socket() as other:
            other.bind(("127.0.0.1", first.client))
            other.listen()
            second = choose_ports(first, None)
        assert second.client != first.client
        assert second.controller == first.controller

    def test_a_taken_wanted_port_is_an_error(self) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            with pytest.raises(BrokerError, match="is taken"):
                choose_ports(None, other.getsockname()[1])

    def test_the_wanted_port_is_not_given_to_the_controller(self) -> None:
        first = choose_ports(None, None)
        again = choose_ports(Ports(first.controller, first.client), first.client)
        assert again.client == first.client
        assert again.controller != first.client


def test_a_broker_that_was_never_started(tmp_path: Path) -> None:
    broker = LocalBroker(tmp_path / "kafka")
    assert not broker.alive()
    assert broker.pid is None
    broker.stop()
    with pytest.raises(BrokerError, match="not started yet"):
        _ = broker.bootstrap_servers
    assert not (tmp_path / "kafka").exists()


def test_a_folder_name_kafka_cannot_take_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grantledger.runtime.broker.find_java", lambda home: Java(Path(shutil.which("true") or ""), 25))
    monkeypatch.setattr("grantledger.runtime.broker.ensure_jars", lambda cache, report: [])
    broker = LocalBroker(tmp_path / "a,b")
    with pytest.raises(ValueError, match="comma"):
        broker.start()
    assert not broker.alive()
