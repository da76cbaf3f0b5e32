"""ClickHouse fails, fills its disk, loses data, or does not answer: every entry is stored exactly once.

One store goes through all of it, so the verification in the last test is about all tests.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grantledger.runtime.loopback_ports import free_port
from support.faulty_proxy import FaultyProxy
from support.load import Load, Sent
from support.oracle import assert_exactly_once, wait_until_stored
from support.pipeline import FEW_BATCHES, WITHOUT_STATES, Pipeline
from support.shared_broker import RunningBroker
from support.waiting import wait_for

SERVER = Path(__file__).parents[1] / "support" / "clickhouse_server.py"


@pytest.fixture(scope="module")
def pipeline(broker: RunningBroker, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    running = make_pipeline(broker.bootstrap_servers, FEW_BATCHES | {"GRANTLEDGER_ANCHOR_INTERVAL_SECONDS": "3"})
    running.start()
    return running


@pytest.fixture(scope="module")
def sent() -> list[Sent]:
    """All records that were acknowledged in this module."""
    return []


def send(pipeline: Pipeline, sent: list[Sent], count: int, seed: int) -> None:
    sent += Load(pipeline.cluster, count, 2000, seed=seed).start().finish()


def test_a_store_restored_from_a_backup_catches_up(pipeline: Pipeline, sent: list[Sent]) -> None:
    send(pipeline, sent, 600, 11)
    wait_until_stored(pipeline)
    wait_for(lambda: pipeline.metric("store", "grantledger_stored_anchors_total") >= 2, "anchors are stored")
    pipeline.stop("store")
    folder = pipeline.data_dir / "clickhouse"
    shutil.copytree(folder, pipeline.data_dir / "copy", symlinks=True)
    pipeline.start("store")
    send(pipeline, sent, 600, 12)
    wait_until_stored(pipeline)
    count = int(pipeline.query("SELECT count() AS c FROM anchors")[0]["c"])
    wait_for(
        lambda: int(pipeline.query("SELECT count() AS c FROM anchors")[0]["c"]) > count, "one more anchor is stored"
    )
    pipeline.stop("seal")  # without new entries, the store must still notice that some are missing
    pipeline.stop("store")
    shutil.rmtree(folder)
    (pipeline.data_dir / "copy").rename(folder)
    pipeline.start("store")
    wait_until_stored(pipeline)
    assert "partition_rewound" in pipeline.log("store")
    pipeline.start("seal")
    assert_exactly_once(pipeline, sent, verified=False)
    anchors = pipeline.query("SELECT count() AS c, uniqExact(index) AS u FROM anchors")[0]
    assert anchors["c"] == anchors["u"]
    receipts = pipeline.query("SELECT count() AS c, uniqExact((origin, index, target, at)) AS u FROM receipts")[0]
    assert receipts["c"] == receipts["u"]


def test_an_unknown_schema_after_a_restart_blocks_nothing(pipeline: Pipeline, sent: list[Sent]) -> None:
    """The store must know that it has read the findings to the end, although it read them before the restart."""
    wait_until_stored(pipeline)
    pipeline.stop("store")
    pipeline.start("store")
    wait_for(lambda: pipeline.metric("store", "grantledger_stored_log_size_entries") > 0, "the store is back")
    sent += Load(pipeline.cluster, 200, 2000, seed=13).start().finish()
    wait_until_stored(pipeline)
    assert pipeline.query("SELECT count() > 0 AS c FROM entries WHERE decode_error LIKE 'schema_unknown%'") == [
        {"c": 1}
    ]
    assert pipeline.children["store"].alive()


@pytest.fixture
def small_disk(pipeline: Pipeline) -> Iterator[Path]:
    """A small disk mounted at the store's folder."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = pipeline.data_dir / "clickhouse"
    pipeline.stop("store")
    kept = pipeline.data_dir / "kept"
    folder.rename(kept)
    folder.mkdir()
    size = sum(-(-file.stat().st_size // 4096) * 4096 for file in kept.rglob("*") if file.is_file())
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={(size >> 20) + 40}m", "grantledger-test", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode != 0:
        folder.rmdir()
        kept.rename(folder)
        pipeline.start("store")
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    shutil.copytree(kept, folder, dirs_exist_ok=True, symlinks=True)
    shutil.rmtree(kept)
    try:
        yield folder
    finally:
        pipeline.stop("store")
        shutil.copytree(folder, pipeline.data_dir / "after", symlinks=True)
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()
        (pipeline.data_dir / "after").rename(folder)
        pipeline.start("store")


def fill(ballast: Path) -> None:
    """Fill the disk."""
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(64 << 10))


def test_a_full_disk_is_reported_and_loses_nothing(pipeline: Pipeline, sent: list[Sent], small_disk: Path) -> None:
    pipeline.start("store")
    wait_until_stored(pipeline)
    ballast = small_disk / "ballast"
    fill(ballast)
    send(pipeline, sent, 1500, 14)
    parts = ("out of disk space", "data_dir", "nothing is lost")

    def reported() -> bool:
        fill(ballast)  # background merges may have freed space
        return all(part in pipeline.log("store") for part in parts)

    wait_for(reported, "the full disk is reported")
    assert pipeline.children["store"].alive()
    pipeline.stop("store")  # it can still be stopped, and the ledger is sound
    assert pipeline.children["store"].exit_code == 0, "the store had to be killed"

    def again() -> bool:
        fill(ballast)
        return "out of disk space" in pipeline.log("store") or not pipeline.children["store"].alive()

    pipeline.start("store")
    wait_for(again, "it is reported again")
    ballast.unlink()
    wait_until_stored(pipeline, watch=True, shown=True)
    assert_exactly_once(pipeline, sent, verified=False)
    # Grants are views over the entries: an insert that failed halfway cannot leave any of them out.
    activated = "decode_error = '' AND event_type = 'grant.activated' AND outcome NOT IN ('failure', 'denied')"
    grants = f"SELECT uniqExact(grant_id) AS c FROM entries WHERE {activated} AND grant_id != ''"
    assert pipeline.query("SELECT uniqExact(grant_id) AS c FROM grant_states") == pipeline.query(grants)
    assert "Traceback" not in pipeline.log("store")


class Server:
    """The ClickHouse server of the tests, which can be killed and restarted at the same address."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, str(SERVER), str(folder / "data"), str(self.port), "ledger", "right"]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert int(self.process.stdout.readline()) == self.port

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    made.start()
    yield made
    made.kill()


@pytest.mark.timeout(900)
def test_lost_answers_and_a_killed_server_duplicate_nothing(
    pipeline: Pipeline, sent: list[Sent], server: Server, make_pipeline: Callable[..., Pipeline]
) -> None:
    """The same deployment, also stored in a server, through a proxy that loses answers."""
    pipeline.stop("store")
    with FaultyProxy(server.url, seed=5, lose=0.3) as proxy:
        login = {"GRANTLEDGER_CLICKHOUSE_USER": "ledger", "GRANTLEDGER_CLICKHOUSE_PASSWORD": "right"}
        environment = {**pipeline.environment, **login, **WITHOUT_STATES, "GRANTLEDGER_CLICKHOUSE_URL": proxy.url}
        prefix = pipeline.cluster.topic_prefix
        second = Pipeline(pipeline.bootstrap_servers, pipeline.data_dir, environment, topic_prefix=prefix)
        second.start("store")
        load = Load(pipeline.cluster, 600, 150, seed=16).start()
        wait_for(lambda: proxy.late >= 1, "an insert comes late")
        second.kill("store")  # the next process may not group the same batches otherwise
        second.start("store")
        wait_for(lambda: proxy.lost >= 3, "answers were lost")
        server.kill()
        wait_for(lambda: "clickhouse_url" in second.log("store"), "the dead server is reported")
        told = lambda: [one for one in second.health("store").waits if one.startswith("waits for ClickHouse at ")]  # noqa: E731
        wait_for(told, "the store says what it waits for")
        assert not second.health("store").hanging
        server.start()
        wait_for(lambda: len(load.sent) > 400, "the load continues")
        proxy.broken = True
        time.sleep(1)
        proxy.broken = False
        sent += load.finish()

        def stored() -> bool:
            second.children["store"].restart_if_failed()
            return True

        wait_for(stored, "the store runs")
        wait_until_stored(second, limit=300, watch=True)
        second.wait_ready("store")
        second.environment["GRANTLEDGER_CLICKHOUSE_URL"] = server.url
        assert_exactly_once(second, sent)
        assert "Traceback" not in second.log("store")
        second.stop("store")
    pipeline.start("store")
    wait_until_stored(pipeline)
    assert_exactly_once(pipeline, sent)


@pytest.mark.slow
def test_a_hanging_server_does_not_block_a_stop(pipeline: Pipeline, sent: list[Sent], server: Server) -> None:
    """Slow, because the store waits half a minute for the answer."""
    pipeline.stop("store")
    login = {"GRANTLEDGER_CLICKHOUSE_USER": "ledger", "GRANTLEDGER_CLICKHOUSE_PASSWORD": "right"}
    environment = {**pipeline.environment, **login, **WITHOUT_STATES, "GRANTLEDGER_CLICKHOUSE_URL": server.url}
    prefix = pipeline.cluster.topic_prefix
    second = Pipeline(pipeline.bootstrap_servers, pipeline.data_dir, environment, topic_prefix=prefix)
    second.start("store")
    wait_until_stored(second)
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        sealed = pipeline.metric("seal", "grantledger_log_size_entries")
        sent += Load(pipeline.cluster, 100, 2000, seed=17).start().finish()
        wait_for(lambda: pipeline.metric("seal", "grantledger_log_size_entries") >= sealed + 100, "sealed")
        began = time.monotonic()
        second.stop("store")
        assert time.monotonic() - began < 39, "the store had to be killed"
    finally:
        server.process.send_signal(signal.SIGCONT)
    pipeline.start("store")
    wait_until_stored(pipeline)
    assert_exactly_once(pipeline, sent)
