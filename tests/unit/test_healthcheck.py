"""The health check of the image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from grantledger.runtime.healthcheck import check
from grantledger.runtime.loopback_ports import free_port
from grantledger.runtime.process import serving
from grantledger.runtime.settings import Settings
from grantledger.runtime.stack_file import STACK_FILE


@contextmanager
def answering(status: int, body: str) -> Iterator[int]:
    """Serve /readyz on a port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/readyz"
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def environment(data: Path, port: int) -> Mapping[str, str]:
    return {"GRANTLEDGER_DATA_DIR": str(data), "GRANTLEDGER_METRICS_PORT": str(port)}


def test_a_single_process_is_asked_on_its_metrics_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with answering(200, "ready\n") as port:
        assert check(environment(tmp_path, port)) == (True, ["ready"])
        assert check({**environment(tmp_path, port), "GRANTLEDGER_METRICS_HOST": "0.0.0.0"}) == (True, ["ready"])
    with answering(503, "waits for Kafka: no broker answers\nmore\n") as port:
        assert check(environment(tmp_path, port)) == (False, ["waits for Kafka: no broker answers"])


def test_each_process_of_a_stack_is_asked(tmp_path: Path) -> None:
    dead = free_port()
    (tmp_path / "run").mkdir()
    ready, [line] = check(environment(tmp_path, dead))
    assert not ready and "no process answers on 127.0.0.1" in line and "no local stack runs" in line
    (tmp_path / STACK_FILE).write_text(json.dumps({"pid": 1}))
    (tmp_path / "run" / "sql.json").write_text(json.dumps({"host": "127.0.0.1", "port": 1}))
    (tmp_path / "run" / "torn.json").write_text("{")
    with answering(200, "ready\n") as first, answering(503, "waits for the sealed tail\n") as second:
        for name, port in (("seal", first), ("watch", second)):
            content = {"pid": 1, "metrics": f"http://127.0.0.1:{port}/metrics"}
            (tmp_path / "run" / f"{name}.json").write_text(json.dumps(content))
        assert check(environment(tmp_path, dead)) == (False, ["seal: ready", "watch: waits for the sealed tail"])
        (tmp_path / "run" / "watch.json").unlink()
        assert check(environment(tmp_path, dead)) == (True, ["seal: ready"])
    ready, [line] = check(environment(tmp_path, dead))
    assert not ready and line.startswith("seal: does not answer: ")


def test_a_real_process_answers_the_program(tmp_path: Path) -> None:
    with serving("seal", Settings(data_dir=tmp_path)):
        (tmp_path / STACK_FILE).write_text(json.dumps({"pid": os.getpid()}))
        done = subprocess.run(
            [sys.executable, "-m", "grantledger.runtime.healthcheck"],
            env={**os.environ, **environment(tmp_path, free_port())},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("seal: ") and "does not answer" not in done.stdout
