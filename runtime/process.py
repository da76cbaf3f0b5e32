"""What every long-running process does the same way: signals, metrics endpoint, a status file, exit codes."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from prometheus_client import start_http_server

from .logs import configure_logs
from .settings import Settings

log = structlog.get_logger("grantledger.process")


@contextmanager
def serving(name: str, settings: Settings) -> Iterator[None]:
    """Run a process's work with logs, a metrics endpoint on loopback, and its status file in the data folder."""
    configure_logs(settings.log_level, settings.log_format)
    server, _thread = start_http_server(settings.metrics_port, addr="127.0.0.1")
    url = f"http://127.0.0.1:{server.server_port}/metrics"
    path = status_path(settings.data_dir, name)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(json.dumps({"pid": os.getpid(), "metrics": url}))
    log.info("started", process=name, pid=os.getpid(), metrics=url)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        server.shutdown()
        log.info("stopped", process=name)


def status_path(data_dir: Path, name: str) -> Path:
    """Return where a process of this name says its pid and metrics address."""
    return data_dir / "run" / f"{name}.json"


def on_stop_signal(stop: Callable[[], None]) -> None:
    """Call ``stop`` on SIGTERM and SIGINT."""

    def handle(_number: int, _frame: object) -> None:
        stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def complain(message: str) -> None:
    """Say on standard error what is wrong."""
    print(f"grantledger: {message}", file=sys.stderr, flush=True)
