"""The local Kafka for real: it starts, keeps what it acknowledged across kill -9, has one owner, dies with us."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from grantledger.runtime import broker as module
from grantledger.runtime.broker import BrokerError, LocalBroker
from grantledger.runtime.jars import KAFKA_VERSION, default_cache, ensure_jars

QUIET = {"log_level": 0}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    with LocalBroker(tmp_path_factory.mktemp("kafka")) as running:
        yield running


def create_topic(broker: LocalBroker, name: str, partitions: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, **QUIET})
    admin.create_topics([NewTopic(name, partitions, 1)])[name].result(timeout=20)


def produce(broker: LocalBroker, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "acks": "all", **QUIET})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(20) == 0


def consume(broker: LocalBroker, topic: str, count: int, seconds: float = 20) -> list[bytes]:
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


def test_what_is_produced_is_consumed(broker: LocalBroker) -> None:
    create_topic(broker, "plain")
    values = [f"{number}".encode() for number in range(1000)]
    produce(broker, "plain", values)
    assert consume(broker, "plain", 1000) == values


def test_a_consumer_group_commits_and_resumes(broker: LocalBroker) -> None:
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


def test_only_committed_transactions_are_read(broker: LocalBroker) -> None:
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


def test_an_orphaned_transaction_soon_blocks_nobody(broker: LocalBroker) -> None:
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


def test_topics_are_not_made_by_a_typing_mistake(broker: LocalBroker) -> None:
    client = AdminClient({"bootstrap.servers": broker.bootstrap_servers, **QUIET})
    assert client.list_topics("mistyped", timeout=10).topics["mistyped"].error is not None


def test_it_listens_on_loopback_only(broker: LocalBroker) -> None:
    assert broker.pid is not None
    listening = {
        line.split()[1].split(":")[0]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{broker.pid}/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and int(line.split()[1].split(":")[1], 16) == port_of(broker)
    }
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
    assert listening
    assert listening <= loopback


def port_of(broker: LocalBroker) -> int:
    return int(broker.bootstrap_servers.rpartition(":")[2])


def test_a_second_broker_on_the_same_folder_is_refused(broker: LocalBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOCK_SECONDS", 0.2)
    second = LocalBroker(broker.data_dir)
    with pytest.raises(BrokerError, match="is in use by another Kafka"):
        second.start()
    assert not second.alive()
    assert broker.alive()
    with pytest.raises(BrokerError, match="is already running"):
        broker.start()


def test_it_inherits_no_file_and_has_its_own_session(broker: LocalBroker) -> None:
    assert broker.pid is not None
    assert os.getsid(broker.pid) == broker.pid
    files = {entry.name: str(entry.readlink()) for entry in Path(f"/proc/{broker.pid}/fd").iterdir()}
    assert files["0"] == "/dev/null"
    assert files["1"] == files["2"] == str(broker.data_dir / "logs" / "console.log")


def test_it_survives_the_thread_that_started_it(tmp_path: Path) -> None:
    broker = LocalBroker(tmp_path)
    thread = threading.Thread(target=broker.start)
    thread.start()
    thread.join()
    try:
        time.sleep(0.5)
        assert broker.alive()
    finally:
        broker.stop()
    assert not broker.alive()


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    broker = LocalBroker(tmp_path)
    values = [os.urandom(500) for _ in range(5000)]
    with broker:
        first_pid, address = broker.pid, broker.bootstrap_servers
        create_topic(broker, "kept")
        produce(broker, "kept", values[:4000])
        broker.kill()
        assert not broker.alive()
        assert broker.pid is None
        broker.start()
        assert broker.bootstrap_servers == address
        assert broker.pid != first_pid
        produce(broker, "kept", values[4000:])
        assert consume(broker, "kept", 5000) == values
        broker.restart()
        assert broker.bootstrap_servers == address
        assert consume(broker, "kept", 5000) == values


def test_one_that_was_killed_from_outside_is_started_again(tmp_path: Path) -> None:
    with LocalBroker(tmp_path) as broker:
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while broker.alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert broker.pid is None
        broker.start()
        assert broker.alive()


def test_it_dies_with_a_killed_parent_and_its_folder_is_free_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from grantledger.runtime.broker import LocalBroker\n"
        "broker = LocalBroker(Path(sys.argv[1]))\n"
        "broker.start(); print(broker.pid, flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        with monkeypatch.context() as impatient, pytest.raises(BrokerError, match="is in use by another Kafka"):
            impatient.setattr(module, "_LOCK_SECONDS", 0.2)
            LocalBroker(tmp_path).start()
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(child)
    with LocalBroker(tmp_path) as broker:
        assert broker.alive()


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_taken_port_moves_unless_it_was_asked_for(tmp_path: Path) -> None:
    broker = LocalBroker(tmp_path)
    with broker:
        create_topic(broker, "moved")
        produce(broker, "moved", [b"x"])
        port = port_of(broker)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(BrokerError, match=f"port {port} on 127.0.0.1 is taken"):
            LocalBroker(tmp_path, port).start()
        with broker:
            assert port_of(broker) != port
            assert consume(broker, "moved", 1) == [b"x"]


def test_a_failed_start_shows_the_log_and_leaves_nothing(tmp_path: Path) -> None:
    with LocalBroker(tmp_path):
        pass
    wrong = LocalBroker(tmp_path, properties={"log.segment.bytes": "many"})
    with pytest.raises(BrokerError, match=r"ended with status 1(?s:.*)log\.segment\.bytes"):
        wrong.start()
    assert not wrong.alive()
    slow = LocalBroker(tmp_path, start_seconds=0.2)
    with pytest.raises(BrokerError, match=r"did not answer on 127\.0\.0\.1:\d+ within 0\.2 s"):
        slow.start()
    assert not slow.alive()
    with LocalBroker(tmp_path) as broker:
        assert broker.alive()


def test_formatting_that_was_interrupted_is_done_again(tmp_path: Path) -> None:
    (tmp_path / "formatting" / "__cluster_metadata-0").mkdir(parents=True)
    with LocalBroker(tmp_path) as broker:
        assert broker.alive()
    assert not (tmp_path / "formatting").exists()


def test_the_first_clean_stop_saves_a_class_archive_that_the_next_start_uses(tmp_path: Path) -> None:
    cache, lines = tmp_path / "cache", list[str]()
    shutil.copytree(ensure_jars(default_cache(), lines.append)[0].parent, cache / f"kafka-{KAFKA_VERSION}")
    for archive in cache.glob("*/classes-*"):
        archive.unlink()
    broker = LocalBroker(tmp_path / "kafka", cache=cache, report=lines.append)
    with broker:
        assert not list(cache.glob("*/classes-*"))
    [archive] = cache.glob("*/classes-*")
    with broker:
        command = Path(f"/proc/{broker.pid}/cmdline").read_text()
        assert f"-XX:AOTCache={archive}" in command
        assert str(archive) not in (tmp_path / "kafka" / "logs" / "console.log").read_text()
    assert [line for line in lines if "archive" in line] == lines[-1:]


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("GRANTLEDGER_TEST_SLOW"), reason="fetches 43 MB; set GRANTLEDGER_TEST_SLOW=1")
def test_the_pinned_jars_are_fetched(tmp_path: Path) -> None:
    lines: list[str] = []
    jars = ensure_jars(tmp_path, lines.append)
    assert len(jars) == 46
    assert all(path.is_file() for path in jars)
    assert lines[-1].startswith(f"fetching Kafka {KAFKA_VERSION}: 46 of 46")
