"""The local Kafka: it starts, keeps acknowledged records across ``kill -9``, has one owner and ends with its parent."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from grantledger.runtime import broker as module
from grantledger.runtime.broker import BrokerError, LocalBroker
from grantledger.runtime.jars import KAFKA_VERSION, default_cache, ensure_jars
from grantledger.runtime.loopback_ports import is_free
from support.shared_broker import RunningBroker
from support.waiting import wait_for

QUIET = {"log_level": 0}
VALUES = [b"%d:" % number + bytes(500) for number in range(5000)]


def create_topic(broker: RunningBroker, name: str, partitions: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, **QUIET})
    admin.create_topics([NewTopic(name, partitions, 1)])[name].result(timeout=20)


def produce(broker: RunningBroker, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "acks": "all", **QUIET})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(20) == 0


def consume(broker: RunningBroker, topic: str, count: int, seconds: float = 20) -> list[bytes]:
    """Read `count` committed values from the start, or as many as come within `seconds`."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": f"test-{topic}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            **QUIET,
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[bytes] = []
    deadline = time.monotonic() + seconds
    while len(values) < count and time.monotonic() < deadline:
        for message in consumer.consume(count, timeout=0.2):
            assert message.error() is None
            value = message.value()
            assert value is not None
            values.append(value)
    consumer.close()
    return values


def test_produced_records_are_consumed(broker: RunningBroker) -> None:
    create_topic(broker, "plain")
    values = [f"{number}".encode() for number in range(1000)]
    produce(broker, "plain", values)
    assert consume(broker, "plain", 1000) == values


def test_a_consumer_group_commits_and_resumes(broker: RunningBroker) -> None:
    create_topic(broker, "grouped")
    produce(broker, "grouped", [b"1", b"2", b"3"])
    config = {"bootstrap.servers": broker.bootstrap_servers, "group.id": "resumes", "auto.offset.reset": "earliest"}
    for expected, commit in ((b"1", 1), (b"2", 2)):
        consumer = Consumer({**config, "enable.auto.commit": False, **QUIET})
        consumer.subscribe(["grouped"])
        message = consumer.poll(60)
        assert message is not None
        assert message.value() == expected
        consumer.commit(offsets=[TopicPartition("grouped", 0, commit)], asynchronous=False)
        consumer.close()


def test_only_committed_transactions_are_read(broker: RunningBroker) -> None:
    create_topic(broker, "transactional")
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "transactional.id": "test", **QUIET})
    producer.init_transactions(20)
    for value, commit in ((b"committed", True), (b"aborted", False), (b"also committed", True)):
        producer.begin_transaction()
        producer.produce("transactional", value)
        producer.flush(20)
        if commit:
            producer.commit_transaction(20)
        else:
            producer.abort_transaction(20)
    assert consume(broker, "transactional", 2) == [b"committed", b"also committed"]


def test_an_orphaned_transaction_blocks_readers_only_briefly(broker: RunningBroker) -> None:
    create_topic(broker, "orphaned")
    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "transactional.id": "orphan",
            "transaction.timeout.ms": 1000,
            "message.timeout.ms": 1000,
            **QUIET,
        }
    )
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce("orphaned", b"never committed")
    producer.flush(20)
    produce(broker, "orphaned", [b"after"])
    assert consume(broker, "orphaned", 1, seconds=15) == [b"after"]


def test_a_mistyped_topic_is_not_created(broker: RunningBroker) -> None:
    client = AdminClient({"bootstrap.servers": broker.bootstrap_servers, **QUIET})
    assert client.list_topics("mistyped", timeout=10).topics["mistyped"].error is not None


def test_it_listens_on_loopback_only(broker: RunningBroker) -> None:
    listening = {
        line.split()[1].split(":")[0]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{broker.pid}/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and int(line.split()[1].split(":")[1], 16) == port_of(broker)
    }
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
    assert listening
    assert listening <= loopback


def port_of(broker: RunningBroker) -> int:
    return int(broker.bootstrap_servers.rpartition(":")[2])


def test_a_second_broker_on_the_same_folder_is_refused(broker: RunningBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOCK_SECONDS", 0.2)
    second = LocalBroker(broker.data_dir)
    with pytest.raises(BrokerError, match="is in use by another Kafka"):
        second.start()
    assert not second.alive()
    os.kill(broker.pid, 0)  # it still runs


def test_it_inherits_no_open_file_and_has_its_own_session(broker: RunningBroker) -> None:
    assert os.getsid(broker.pid) == broker.pid
    # These three only: others may be closed while they are read.
    files = {name: str(Path(f"/proc/{broker.pid}/fd/{name}").readlink()) for name in ("0", "1", "2")}
    assert files["0"] == "/dev/null"
    assert files["1"] == files["2"] == str(broker.data_dir / "logs" / "console.log")


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class FirstStart:
    """A folder in which a broker has run once, with 1,000 records in the topic ``kept``, and what was seen meanwhile.

    The formatting of the folder had been interrupted before. A thread started the broker, and ended.
    """

    folder: Path
    address: str
    formatting_left: bool
    alive: bool
    alive_after_stop: bool


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> FirstStart:
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "formatting" / "__cluster_metadata-0").mkdir(parents=True)
    broker = LocalBroker(folder)
    thread = threading.Thread(target=broker.start)
    thread.start()
    thread.join()
    try:
        create_topic(broker, "kept")
        produce(broker, "kept", VALUES[:1000])
        address, formatting_left, alive = broker.bootstrap_servers, (folder / "formatting").exists(), broker.alive()
    finally:
        broker.stop()
    return FirstStart(folder, address, formatting_left, alive, broker.alive())


@pytest.fixture
def folder(first: FirstStart) -> Path:
    return first.folder


def test_it_outlives_the_thread_that_started_it_and_repeats_an_interrupted_formatting(first: FirstStart) -> None:
    assert first.alive and not first.formatting_left
    assert not first.alive_after_stop


def test_neither_a_stop_nor_kill_9_loses_an_acknowledged_record(folder: Path, first: FirstStart) -> None:
    with LocalBroker(folder) as broker:
        first_pid, address = broker.pid, broker.bootstrap_servers
        assert first_pid is not None and address == first.address
        assert consume(broker, "kept", 1000) == VALUES[:1000]
        with pytest.raises(BrokerError, match="is already running"):
            broker.start()
        produce(broker, "kept", VALUES[1000:4000])
        os.kill(first_pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while broker.alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not broker.alive() and broker.pid is None
        broker.start()
        assert broker.bootstrap_servers == address and broker.pid != first_pid
        produce(broker, "kept", VALUES[4000:])
        assert consume(broker, "kept", 5000) == VALUES


def test_it_dies_with_a_killed_parent_and_frees_its_folder_whose_port_is_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from grantledger.runtime.broker import LocalBroker\n"
        "broker = LocalBroker(Path(sys.argv[1]))\n"
        "broker.start(); print(broker.pid, flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        with monkeypatch.context() as impatient, pytest.raises(BrokerError, match="is in use by another Kafka"):
            impatient.setattr(module, "_LOCK_SECONDS", 0.2)
            LocalBroker(folder).start()
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(child)
    port, _ = json.loads((folder / "ports.json").read_text())
    wait_for(lambda: is_free(port), "its last thread has ended")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(BrokerError, match=f"port {port} on 127.0.0.1 is taken"):
            LocalBroker(folder, port).start()  # it was requested
        with LocalBroker(folder) as broker:
            assert port_of(broker) != port
            assert consume(broker, "kept", 1000)[:1000] == VALUES[:1000]


def test_a_failed_start_shows_the_log_and_leaves_nothing_running(folder: Path) -> None:
    wrong = LocalBroker(folder, properties={"log.segment.bytes": "many"})
    with pytest.raises(BrokerError, match=r"ended with status 1(?s:.*)log\.segment\.bytes"):
        wrong.start()
    assert not wrong.alive()
    slow = LocalBroker(folder, start_seconds=0.2)
    with pytest.raises(BrokerError, match=r"did not answer on 127\.0\.0\.1:\d+ within 0\.2 s"):
        slow.start()
    assert not slow.alive()


@pytest.mark.slow
def test_the_first_clean_stop_saves_a_class_archive_that_the_next_start_uses(folder: Path, tmp_path: Path) -> None:
    """Slow, because Java takes ten seconds of CPU time for the archive."""
    lines: list[str] = []
    shutil.copytree(ensure_jars(default_cache(), lines.append)[0].parent, tmp_path / f"kafka-{KAFKA_VERSION}")
    for archive in tmp_path.glob("*/classes-*"):
        archive.unlink()
    broker = LocalBroker(folder, cache=tmp_path, report=lines.append)
    with broker:
        assert not list(tmp_path.glob("*/classes-*"))
    [archive] = tmp_path.glob("*/classes-*")
    with broker:
        command = Path(f"/proc/{broker.pid}/cmdline").read_text()
        assert f"-XX:AOTCache={archive}" in command
        assert str(archive) not in (folder / "logs" / "console.log").read_text()
    assert [line for line in lines if "archive" in line] == lines[-1:]


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("GRANTLEDGER_TEST_SLOW"), reason="fetches 43 MB; set GRANTLEDGER_TEST_SLOW=1")
def test_the_pinned_jars_are_fetched(tmp_path: Path) -> None:
    lines: list[str] = []
    jars = ensure_jars(tmp_path, lines.append)
    assert len(jars) == 46
    assert all(path.is_file() for path in jars)
    assert lines[-1].startswith(f"fetching Kafka {KAFKA_VERSION}: 46 of 46")
