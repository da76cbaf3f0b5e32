"""The sandbox of the process that serves SQL, with the SQL gate off: a hole in the gate reaches nothing."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grantledger.console.address import read_address
from grantledger.runtime import landlock
from grantledger.runtime.keys import create_key
from grantledger.runtime.settings import Settings, load_settings
from grantledger.runtime.store_start import OLDEST_VERSION
from support import confined_engine
from support.fork_server import REPLACED
from support.pipeline import Pipeline
from support.shared_broker import RunningBroker
from support.waiting import wait_for

pytestmark = pytest.mark.skipif(
    landlock.abi() < OLDEST_VERSION, reason=f"this kernel has no Landlock (version {landlock.abi()})"
)
SECRET = "a-password-in-the-environment"


def thread_statuses(pid: int) -> list[str]:
    """Return the status of each thread of a process; a thread may end while they are read."""
    statuses = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            statuses.append((thread / "status").read_text())
    return statuses


class Confined:
    """An engine in the sandbox, without a gate."""

    def __init__(self, data_dir: Path, broker_port: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, confined_engine.__file__, str(data_dir), str(broker_port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "GRANTLEDGER_KAFKA_SASL_PASSWORD": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET},
        )

    def run(self, statement: str) -> tuple[bool, str]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(statement) + "\n")
        self.process.stdin.flush()
        ran, text = json.loads(self.process.stdout.readline())
        return ran, text


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    create_key(Settings(data_dir=data))
    for folder in ("clickhouse", "clickhouse.tmp", "run"):
        (data / folder).mkdir()
    (data / "run" / "sql.json").write_text(SECRET)
    (data / "deployment").write_text(SECRET)
    return data


@pytest.fixture(scope="module")
def broker_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def engine(data_dir: Path, broker_port: int) -> Iterator[Confined]:
    engine = Confined(data_dir, broker_port)
    yield engine
    assert engine.process.stdin
    engine.process.stdin.close()
    engine.process.wait(30)


def test_the_engine_works_in_the_sandbox(engine: Confined, data_dir: Path) -> None:
    for statement in (
        "CREATE TABLE audit.t (x UInt64, s String) ENGINE = MergeTree ORDER BY x PARTITION BY x % 3",
        "INSERT INTO audit.t SELECT number, toString(number) FROM numbers(100000)",
        "ALTER TABLE audit.t UPDATE s = '' WHERE x = 3 SETTINGS mutations_sync = 2",
        "OPTIMIZE TABLE audit.t FINAL",
        "CREATE VIEW audit.v AS SELECT * FROM audit.t",
        "ALTER TABLE audit.t DETACH PARTITION 1",
        "ALTER TABLE audit.t ATTACH PARTITION 1",
        "CREATE TABLE audit.u AS audit.t",
        "DROP TABLE audit.u SYNC",
    ):
        assert engine.run(statement)[0], engine.run(statement)
    assert engine.run("SELECT count(), max(x) FROM audit.v") == (True, "100000\t99999\n")
    ran, text = engine.run("SELECT toTimeZone(toDateTime('2026-07-01 00:00:00', 'UTC'), 'Europe/Berlin')")
    assert (ran, text) == (True, "2026-07-01 02:00:00\n")


def test_files_of_others_cannot_be_read(engine: Confined, data_dir: Path) -> None:
    for path in (
        data_dir / "keys" / "log.pem",
        data_dir / "keys" / "log.pub",
        data_dir / "run" / "sql.json",
        data_dir / "deployment",
        "/etc/passwd",
        "/etc/shadow",
        "/proc/self/environ",
        "/proc/thread-self/environ",
        f"/proc/{os.getpid()}/environ",
        f"/proc/{os.getpid()}/cmdline",
        f"/proc/{engine.process.pid}/environ",
        f"/proc/{engine.process.pid}/mem",
        "/proc/1/environ",
        Path(__file__).parents[2] / ".git" / "config",
    ):
        for statement in (
            f"SELECT file('{path}')",
            f"SELECT * FROM file('{path}', 'LineAsString')",
            f"python:open({str(path)!r}, 'rb').read(1)",
        ):
            ran, text = engine.run(statement)
            assert not ran, (statement, text)
            assert SECRET not in text
            assert "PRIVATE KEY" not in text


def test_the_environment_holds_no_secret(engine: Confined) -> None:
    assert SECRET not in Path(f"/proc/{engine.process.pid}/environ").read_bytes().decode()
    assert engine.run("python:import os; assert not [name for name in os.environ if 'GRANTLEDGER' in name]")[0]


def test_nothing_is_written_outside_the_store(engine: Confined, data_dir: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "x", data_dir / "x", data_dir / "keys" / "x", Path(__file__).with_name("x")):
        for statement in (
            f"SELECT 1 INTO OUTFILE '{path}' FORMAT CSV",
            f"INSERT INTO FUNCTION file('{path}', CSV, 'a UInt8') SELECT 1",
            f"python:open({str(path)!r}, 'w')",
            f"python:import os; os.symlink('/etc/passwd', {str(path)!r})",
        ):
            assert not engine.run(statement)[0], statement
        assert not path.exists()
    key, copy = data_dir / "keys" / "log.pem", data_dir / "clickhouse" / "k"
    for function in ("link", "rename"):
        assert not engine.run(f"python:import os; os.{function}({str(key)!r}, {str(copy)!r})")[0]
    assert key.exists()
    # A link from the store leads nowhere.
    engine.run(f"python:import os; os.symlink({str(key)!r}, {str(data_dir / 'clickhouse' / 'link')!r})")
    assert not engine.run(f"SELECT file('{data_dir / 'clickhouse' / 'link'}')")[0]


@pytest.mark.skipif(landlock.abi() < 4, reason=f"Landlock {landlock.abi()} restricts no ports")
def test_only_the_ports_of_the_brokers_can_be_reached(engine: Confined, broker_port: int) -> None:
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(3)

        def accept() -> None:
            try:
                received.append(server.accept()[0].recv(100))
            except TimeoutError:
                return

        thread = threading.Thread(target=accept)
        thread.start()
        port = server.getsockname()[1]
        assert not engine.run(
            f"SELECT * FROM url('http://127.0.0.1:{port}/', CSV, 'a String') SETTINGS http_max_tries = 1"
        )[0]
        assert not engine.run(
            f"SELECT * FROM remote('127.0.0.1:{port}', system.one) SETTINGS connections_with_failover_max_tries = 1"
        )[0]
        thread.join()
    assert received == []
    connect = "python:import socket; socket.create_connection(('127.0.0.1', {}), 3)"
    assert engine.run(connect.format(broker_port)) == (True, "")
    ran, text = engine.run(connect.format(port))
    assert not ran and "PermissionError" in text


@pytest.mark.skipif(landlock.abi() < 6, reason=f"Landlock {landlock.abi()} restricts no signals")
def test_other_processes_cannot_be_signalled(engine: Confined) -> None:
    ran, text = engine.run(f"python:import os; os.kill({os.getpid()}, 0)")
    assert not ran and "PermissionError" in text


def test_the_auxiliary_vector_can_be_read(engine: Confined) -> None:
    """The engine reads it while it loads; without it, it may crash."""
    assert engine.run("python:open('/proc/self/auxv', 'rb').read()") == (True, "")


def test_every_thread_is_restricted(engine: Confined) -> None:
    engine.run("SELECT count() FROM numbers_mt(10000000)")
    statuses = thread_statuses(engine.process.pid)
    assert len(statuses) > 3
    assert all("NoNewPrivs:\t1" in status for status in statuses)


@pytest.fixture(scope="module")
def running(broker: RunningBroker, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    running = make_pipeline(broker.bootstrap_servers, {"GRANTLEDGER_KEY_PASSPHRASE": SECRET, REPLACED: "1"})
    running.start()
    return running


def test_the_store_of_the_pipeline_runs_in_the_sandbox(running: Pipeline) -> None:
    sent = running.run(
        "emit", "grant.activated", "--subject", "alice", "--resource-kind", "database", "--resource", "x",
        "--entitlement", "rw", "--expires-in", "1h", "--grant-id", "g1",
    )  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    running.wait_stored(1)
    pid = running.children["store"].pid
    environment = Path(f"/proc/{pid}/environ").read_bytes().decode()
    assert "GRANTLEDGER_" not in environment
    assert SECRET not in environment
    statuses = thread_statuses(pid)
    assert statuses
    assert all("NoNewPrivs:\t1" in status for status in statuses)
    assert running.metric("store", "grantledger_store_sandbox") == landlock.abi()
    assert running.query("SELECT count() AS c FROM entries")
    # It can be restarted, and finds its address and its data again.
    running.kill("store")
    running.start("store")
    running.wait_stored(1)
    assert running.run("query", "SELECT grant_id FROM active_grants").returncode == 0
    assert running.verify()[1]["sound"]


def restart(pipeline: Pipeline) -> None:
    """Start the store, and wait until it serves SQL: until then, commands would open the store themselves."""
    pipeline.start("store")
    pipeline.wait_stored(1)


def query_log(pipeline: Pipeline, marker: str) -> list[tuple[str, str, int | None, str]]:
    """Return user, text, rows and outcome of the recorded statements with a marker, as an auditor reads them."""
    sql = f"SELECT asked_by, statement, rows, outcome FROM query_log WHERE statement LIKE '{marker}%' ORDER BY number"
    answer = pipeline.run("query", "--auditor", sql, "--format", "JSONCompactEachRow")
    assert answer.returncode == 0, answer.stderr
    return [tuple(json.loads(line)) for line in answer.stdout.splitlines()]


def test_what_people_ask_is_sealed_once_and_only_auditors_read_it(running: Pipeline, tmp_path: Path) -> None:
    asked = "SELECT 'first', grant_id FROM active_grants"
    assert running.run("query", asked).returncode == 0
    running.query("SELECT 'ours' FROM entries")
    wait_for(lambda: query_log(running, "SELECT ''first"), "the statement is stored")
    assert query_log(running, "SELECT ''first") == [("analyst", f"{asked}\n FORMAT PrettyCompact", 1, "success")]
    assert query_log(running, "SELECT ''ours") == []
    refused = running.run("query", "SELECT * FROM query_log")
    assert refused.returncode == 1 and "table query_log cannot be read" in refused.stderr
    sealed = "SELECT signature, source_system, origin FROM entries WHERE startsWith(query, 'SELECT \\'first')"
    origin = running.origin("access.queries")
    assert running.query(sealed) == [{"signature": "valid", "source_system": "grantledger-store", "origin": origin}]

    # The store is killed while a statement runs; another one is on the spool, and Kafka has not received it.
    access = read_address(running.data_dir)
    assert access is not None
    client = http.client.HTTPConnection(access.host, access.port, timeout=60)
    address = f"/?user={access.analyst.user}&password={access.analyst.password}"
    client.request("POST", address, "SELECT 'killed', number FROM numbers(1e12)")
    assert client.getresponse().read(1) == b"k"
    running.kill("store")
    client.close()
    assert running.run("query", "SELECT 'second'").returncode == 0
    spool = load_settings(running.data_dir).query_spool_path
    shutil.copytree(spool, tmp_path / "spool")
    restart(running)
    wait_for(lambda: query_log(running, "SELECT ''second"), "the statement on the spool is stored")
    # Now the store is killed after Kafka has acknowledged these statements, before they are removed from the spool.
    running.kill("store")
    shutil.rmtree(spool)
    shutil.copytree(tmp_path / "spool", spool)
    restart(running)
    twice = "SELECT count() AS c FROM entries WHERE query LIKE 'SELECT \\'second%' OR query LIKE 'SELECT \\'killed%'"
    wait_for(lambda: running.query(twice) == [{"c": 4}], "both statements are published again")
    assert query_log(running, "SELECT ''second") == [
        ("analyst", "SELECT 'second'\n FORMAT PrettyCompact", 1, "success")
    ]
    assert [row[2:] for row in query_log(running, "SELECT ''killed")] == [(None, "unknown")]
    assert running.verify()[1]["sound"]
    wait_for(lambda: running.metric("store", "grantledger_query_spool_statements") <= 3, "the spool is empty")
