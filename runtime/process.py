"""What all long-running processes have in common: logs, a metrics endpoint, a status file, stop signals."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from prometheus_client import start_http_server

from .logs import configure_logs
from .settings import Settings, SettingsError

log = structlog.get_logger("grantledger.process")


@contextmanager
def serving(name: str, settings: Settings) -> Iterator[None]:
    """Run a process with logs, a metrics endpoint, and a status file in the data folder."""
    configure_logs(settings.log_level, settings.log_format)
    host = settings.metrics_host
    try:
        server, _thread = start_http_server(settings.metrics_port, addr=host)
    except OSError as error:
        raise SettingsError(
            f"metrics cannot be served on {host}:{settings.metrics_port}: {error.strerror or error} (metrics_host, "
            "metrics_port)"
        ) from error
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    url = f"http://{f'[{near}]' if ':' in near else near}:{server.server_port}/metrics"
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
    """Return the file with the pid and metrics address of the process with this name."""
    return data_dir / "run" / f"{name}.json"


def on_stop_signal(stop: Callable[[], None]) -> None:
    """Call ``stop`` on SIGTERM and SIGINT."""

    def handle(_number: int, _frame: object) -> None:
        stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
