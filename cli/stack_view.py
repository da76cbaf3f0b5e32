"""How `up` and `demo` run a stack, and how the status looks on a terminal."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..console.address import read_address
from ..runtime.children import ChildSpec
from ..runtime.settings import DEFAULT_DATA_DIR, Settings
from ..runtime.stack import Stack
from ..runtime.status import Status
from .output import span

EXAMPLE = "SELECT * FROM active_grants LIMIT 10"
_LINE_SECONDS = 10.0

Watcher = Callable[[Console, Stack], Callable[[], None]]
"""Called when the stack is ready; the function it returns is called every second from then on."""


def run_stack(settings: Settings, more: tuple[ChildSpec, ...] = (), watcher: Watcher | None = None) -> None:
    """Start a stack, show its status until SIGTERM or Ctrl-C, then drain and stop it."""
    console = Console(highlight=False)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    spinner = console.status("starting") if console.is_terminal else nullcontext()

    def report(text: str) -> None:
        console.print(f"  {text}", markup=False, soft_wrap=True)
        if spinner is not None and console.is_terminal:
            spinner.update(text)  # type: ignore[union-attr]

    stack = Stack(settings, report, more)
    started = False
    try:
        with spinner:
            stack.start()
            started = True
            report("waiting until the store answers")
            _wait_until_ready(stack, console, stop)
        if not stop.is_set():
            _print_ready(stack, console)
            _show_until(stack, console, stop, watcher(console, stack) if watcher else lambda: None)
    finally:
        if started:
            console.print("Stopping: first the intake, then the rest as it drains")
        stack.stop()
        if started:
            console.print("Stopped. All data is in the data folder; the next start continues from there.")


def _wait_until_ready(stack: Stack, console: Console, stop: threading.Event) -> None:
    shown: set[str] = set()
    while not stop.is_set() and not stack.ready():
        stack.watch()
        for trouble in stack.status().troubles:
            if trouble not in shown:
                shown.add(trouble)
                console.print(Text(trouble, style="red"), soft_wrap=True)
        stop.wait(0.5)


def executable(settings: Settings, *arguments: str) -> str:
    """Return a command line that can be pasted as it stands: with the path of this executable and the data folder."""
    own = Path(sys.argv[0])
    name = own.name if own.name == "grantledger" else None
    if name and shutil.which(name) and Path(str(shutil.which(name))).resolve() == own.resolve():
        command = [name]
    elif name:
        near = own.absolute()
        command = [str(near.relative_to(Path.cwd()) if near.is_relative_to(Path.cwd()) else near)]
    else:
        command = [sys.executable, "-m", "grantledger.cli"]
    folder = [] if settings.data_dir == DEFAULT_DATA_DIR else ["--data", str(settings.data_dir)]
    return shlex.join([*command, *arguments, *folder])


def _print_ready(stack: Stack, console: Console) -> None:
    settings = stack.settings
    where = [f"deployment {settings.deployment}", f"Kafka {settings.kafka_bootstrap_servers}"]
    if not settings.clickhouse_url and (access := read_address(settings.data_dir)) is not None:
        where.append(f"SQL {access.url}")
    lines = {
        "query": executable(settings, "query", EXAMPLE),
        "findings": executable(settings, "findings"),
        "verify": executable(settings, "verify"),
        "send": executable(settings, "import", "vault", "audit.log"),
        "status": executable(settings, "status"),
        "logs": str(settings.data_dir / "logs"),
    }
    console.print(f"Ready: {', '.join(where)}", soft_wrap=True, markup=False)
    for name, line in lines.items():
        console.print(f"  {f'{name}:':<10} {line}", soft_wrap=True, markup=False)
    console.print("Ctrl-C drains and stops.")


def _show_until(stack: Stack, console: Console, stop: threading.Event, tick: Callable[[], None]) -> None:
    if console.is_terminal:
        with Live(status_table(stack.status()), console=console, refresh_per_second=2) as live:
            while not stop.wait(1.0):
                stack.watch()
                live.update(status_table(stack.status()))
                tick()
        return
    shown_at = 0.0
    while not stop.wait(1.0):
        stack.watch()
        tick()
        if time.monotonic() - shown_at >= _LINE_SECONDS:
            shown_at = time.monotonic()
            console.print(status_line(stack.status()), soft_wrap=True, markup=False)


def _ago(time: datetime | None) -> str:
    return "none yet" if time is None else f"{span(max(0.0, (datetime.now(UTC) - time).total_seconds()))} ago"


def _findings(status: Status) -> str:
    if status.findings is None:
        return "unknown"
    critical = f" ({status.findings.critical:,} critical)" if status.findings.critical else ""
    return f"{status.findings.open:,}{critical}"


def status_line(status: Status) -> str:
    """Return the status as one line, for a log."""
    troubles = "".join(f"; TROUBLE {trouble}" for trouble in status.troubles)
    return (
        f"{datetime.now(UTC):%H:%M:%S} events in {status.events:,}, sealed {status.sealed:,}, "
        f"stored {status.stored:,}, last checkpoint {_ago(status.last_checkpoint)}, "
        f"last anchor {_ago(status.last_anchor)}, lag {status.lag:,}, open findings {_findings(status)}{troubles}"
    )


def status_table(status: Status) -> Group:
    """Return the status as a table, with one red line for each trouble below it."""
    table = Table("events in", "sealed", "stored", "last checkpoint", "last anchor", "lag", "open findings")
    critical = status.findings is not None and status.findings.critical
    table.add_row(
        f"{status.events:,}",
        f"{status.sealed:,}",
        f"{status.stored:,}",
        _ago(status.last_checkpoint),
        _ago(status.last_anchor),
        f"{status.lag:,}",
        Text(_findings(status), style="red" if critical else ""),
    )
    return Group(table, *(Text(trouble, style="red") for trouble in status.troubles))
