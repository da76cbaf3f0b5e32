"""The common parts of all long-running processes: log lines, metrics, a status file, stop signals."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import Any

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families

from .. import __version__
from ..base.health import HEALTH, Ask
from ..base.text import printable_lines
from ..kafka.client_log import KAFKA_LOGS
from .anonymous_memory import ANONYMOUS_MEMORY, anonymous_bytes
from .data_folder import close_to_others, make_folder, only_process
from .kafka_probe import KafkaProbe
from .process_endpoint import process_endpoint
from .settings import Settings, SettingsError

log = structlog.get_logger("grantledger.process")

Samples = dict[tuple[str, str], float]
"""Values of metrics by name and labels; labels as ``name=value,…`` in alphabetical order."""


def configure_logs(settings: Settings) -> None:
    """Write log lines to standard error. They contain names and numbers, never a payload or a secret."""
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            _printable,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_LibraryLog()])


class _LibraryLog(logging.Handler):
    """Writes the log lines of libraries in the form of our own."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        kind = "kafka_client" if record.name in KAFKA_LOGS else "library"
        fields = {"exc_info": record.exc_info} if record.exc_info else {}
        structlog.get_logger().log(record.levelno, kind, logger=record.name, text=record.getMessage(), **fields)


def _printable(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape what could control a terminal: names in log lines are chosen by senders."""
    return {name: printable_lines(value) if isinstance(value, str) else value for name, value in event.items()}


@contextmanager
def serving(
    name: str,
    settings: Settings,
    labels: Mapping[str, str] = MappingProxyType({}),
    asks: Mapping[str, Ask] | None = None,
) -> Iterator[None]:
    """Run a process with log lines, an endpoint for its metrics and its health, and a status file in the data folder.

    Args:
        labels: of all its metrics, where others of its kind do another part of the work.
        asks: find what it waits for whenever somebody wants to know. Default: whether Kafka answers.
    """
    configure_logs(settings)
    with suppress(OSError):  # standard error is no file
        faulthandler.enable()  # a library that aborts the process leaves the stack of each thread in the log
    ANONYMOUS_MEMORY.set_function(anonymous_bytes)
    HEALTH.begin()
    for ask_name, ask in ({"kafka": KafkaProbe(settings.cluster)} if asks is None else asks).items():
        HEALTH.asks(ask_name, ask)
    path = status_path(settings.data_dir, name)
    make_folder(path.parent)
    close_to_others(settings.data_dir)
    with only_process(settings.data_dir, name):
        yield from _serving(name, path, settings, labels)


class _LabeledRegistry(CollectorRegistry):
    """All metrics of this process, with more labels."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        super().__init__()
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        for metric in REGISTRY.collect():
            metric.samples = [one._replace(labels={**one.labels, **self._labels}) for one in metric.samples]
            yield metric


def _serving(name: str, path: Path, settings: Settings, labels: Mapping[str, str]) -> Iterator[None]:
    host, port = settings.metrics_host, settings.metrics_port
    with ExitStack() as stack:
        registry = _LabeledRegistry(labels) if labels else REGISTRY
        try:
            port = stack.enter_context(process_endpoint(name, host, port, registry, HEALTH))
        except OSError as error:
            raise SettingsError(
                f"metrics cannot be served on {host}:{port}: {error.strerror or error} (metrics_host, metrics_port)"
            ) from error
        near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        url = f"http://{f'[{near}]' if ':' in near else near}:{port}/metrics"
        path.write_text(json.dumps({"pid": os.getpid(), "metrics": url, "version": __version__}))
        log.info("started", process=name, pid=os.getpid(), metrics=url)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    log.info("stopped", process=name)


def run_process(
    name: str,
    settings: Settings,
    run: Callable[[], None],
    stop: Callable[[], None],
    asks: Mapping[str, Ask] | None = None,
) -> None:
    """Run a process until it returns; SIGTERM and SIGINT call ``stop``. For ``asks`` see :func:`serving`."""
    with serving(name, settings, asks=asks):
        on_stop_signal(stop)
        run()


def status_path(data_dir: Path, name: str) -> Path:
    """Return the file with the pid and metrics address of the process with this name."""
    return data_dir / "run" / f"{name}.json"


def read_samples(data_dir: Path, name: str) -> Samples:
    """Return the samples of the metrics endpoint of a process, without buckets; none while it does not answer."""
    try:
        status = json.loads(status_path(data_dir, name).read_text())
        with urllib.request.urlopen(status["metrics"], timeout=1.0) as answer:  # noqa: S310 - a local address of ours
            text = answer.read().decode()
    except (OSError, ValueError, KeyError, HTTPException):
        return {}
    samples = {}
    text = "".join(line for line in text.splitlines(keepends=True) if "_bucket{" not in line)  # most of the work
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            samples[sample.name, labels] = sample.value
    return samples


class StartInterruptedError(BaseException):
    """SIGTERM or SIGINT arrived during a step that may be abandoned. Not an Exception: no step may handle it."""


class StopRequest:
    """A stop requested by SIGTERM or SIGINT.

    ``event`` is set by the first signal. Within ``interrupting``, that signal also ends the current step with
    :class:`StartInterruptedError`; later signals never do, so that a stop completes.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self._interrupting = False
        on_stop_signal(self._receive)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Run a step that may be abandoned at any point. Only for the main thread."""
        if self.event.is_set():
            raise StartInterruptedError
        self._interrupting = True
        try:
            yield
        finally:
            self._interrupting = False

    def _receive(self) -> None:
        first = not self.event.is_set()
        self.event.set()
        if first and self._interrupting:
            raise StartInterruptedError


def on_stop_signal(stop: Callable[[], None]) -> None:
    """Call ``stop`` on SIGTERM and SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop())
