"""Wrong addresses and passwords: every command reports the setting within a bounded time."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support.pipeline import Pipeline
from support.shared_broker import RunningBroker

DEAD = "127.0.0.1:1"
BOUND = 180.0


@pytest.fixture
def nowhere(tmp_path: Path) -> Pipeline:
    """A pipeline without a broker."""
    return Pipeline(DEAD, tmp_path)


@pytest.fixture
def key(nowhere: Pipeline, pipeline: Pipeline) -> None:
    """The keys of an existing ledger."""
    shutil.copytree(pipeline.data_dir / "keys", nowhere.data_dir / "keys")


@pytest.fixture(scope="module")
def pipeline(broker: RunningBroker, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    running = make_pipeline(broker.bootstrap_servers)
    running.start("seal", "anchor")  # creates the key
    return running


EMIT = ("emit", "session.started", "--subject", "alice", "--resource-kind", "host", "--resource", "db1")
COMMANDS: dict[tuple[str, ...], int] = {
    ("run", "seal"): 1,
    ("run", "store"): 1,
    ("run", "anchor"): 1,
    ("topics", "check"): 1,
    ("topics", "create"): 1,
    ("verify", "--from", "kafka"): 2,
    EMIT: 2,
    ("import", "vault"): 2,
}
"""Commands, with their documented exit codes for unreachable brokers."""


@pytest.mark.timeout(400)
def test_every_command_reports_an_unreachable_broker(nowhere: Pipeline, key: None, samples: Path) -> None:
    del key

    def run(arguments: tuple[str, ...]) -> tuple[subprocess.CompletedProcess[str], float]:
        began = time.monotonic()
        files = (str(samples / "vault" / "audit.log"),) if arguments[0] == "import" else ()
        run_one = nowhere.run if arguments[0] == "run" else nowhere.run_process
        return run_one(*arguments, *files, timeout=BOUND + 15), time.monotonic() - began

    with ThreadPoolExecutor(len(COMMANDS)) as pool:  # each waits for half a minute
        answers = dict(zip(COMMANDS, pool.map(run, COMMANDS), strict=True))
    for arguments, (answer, seconds) in answers.items():
        assert seconds < BOUND, arguments
        assert "Traceback" not in answer.stderr, (arguments, answer.stderr)
        assert answer.returncode == COMMANDS[arguments], (arguments, answer.stderr[-1000:])
        messages = [line for line in answer.stderr.splitlines() if line.startswith("grantledger: ")]
        assert messages and "kafka_bootstrap_servers" in messages[-1].lower(), (arguments, answer.stderr[-1000:])


@pytest.fixture
def refusing() -> Iterator[str]:
    """A server that rejects every user, with ClickHouse's message."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._refuse()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._refuse()

        def _refuse(self) -> None:
            body = (
                b"Code: 516. DB::Exception: default: Authentication failed: password is incorrect, or there is no user "
                b"with such name. (AUTHENTICATION_FAILED) (version 25.8.1.1 (official build))\n"
            )
            self.send_response(403)
            self.send_header("X-ClickHouse-Exception-Code", "516")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def refused(pipeline: Pipeline, url: str) -> str:
    pipeline.environment["GRANTLEDGER_CLICKHOUSE_URL"] = url
    try:
        answer = pipeline.run("run", "store", timeout=BOUND)
    finally:
        del pipeline.environment["GRANTLEDGER_CLICKHOUSE_URL"]
    assert answer.returncode == 1 and "Traceback" not in answer.stderr, answer.stderr[-1000:]
    return answer.stderr.splitlines()[-1]


def test_a_wrong_password_is_reported_with_the_settings(pipeline: Pipeline, refusing: str) -> None:
    message = refused(pipeline, refusing)
    assert "clickhouse_user" in message and "clickhouse_password" in message


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "tcp://127.0.0.1:9000", "http://"])
def test_a_wrong_clickhouse_url_is_reported_with_the_setting(pipeline: Pipeline, url: str) -> None:
    assert "clickhouse_url" in refused(pipeline, url)
