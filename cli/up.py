"""``grantledger up``: the local stack."""

from __future__ import annotations

import signal
import threading
import time
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..runtime.stack import Stack, Status
from .running import settings_of, told

EXAMPLE = "SELECT * FROM active_grants LIMIT 10"


def command(
    context: typer.Context,
    sample: Annotated[bool, typer.Option("--sample", help="Feed made-up traffic through the real adapters.")] = False,
    rate: Annotated[float, typer.Option(help="With --sample: lives of grants a second.", min=0.01)] = 2.0,
) -> None:
    """Start the local stack in the data folder, and stay until Ctrl-C, which drains and stops everything.

    Kafka is a real broker as a child process, unless GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS names one; ClickHouse is the
    embedded engine, unless GRANTLEDGER_CLICKHOUSE_URL names a server. A second start goes on from the same data.

    Exit codes: 0 stopped when asked, 1 something could not be started, 2 a setting is wrong, 3 the ledger contradicts
    itself and a person must look.
    """
    console = Console(highlight=False)
    stack = Stack(settings_of(context), lambda text: console.print(f"  {text}"), rate if sample else None)
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    signal.signal(signal.SIGINT, lambda *_: asked.set())
    with told():
        try:
            stack.start()
            _stay(stack, console, asked)
        finally:
            console.print("Stopping: intake first, then what is under way")
            stack.stop()
            console.print("Stopped. Everything is in the data folder; the next start goes on from there.")


def _stay(stack: Stack, console: Console, asked: threading.Event) -> None:
    told_before: set[str] = set()
    while not asked.is_set() and not stack.ready():
        stack.watch()
        for trouble in stack.status().troubles:
            if trouble not in told_before:
                told_before.add(trouble)
                console.print(f"[red]{escape(trouble)}[/red]", soft_wrap=True)
        asked.wait(0.5)
    if asked.is_set():
        return
    data = stack.settings.data_dir
    console.print(
        f"Ready: deployment {stack.settings.deployment}, Kafka {stack.settings.kafka_bootstrap_servers}\n"
        f"  query:   grantledger query --data {data} '{EXAMPLE}'\n"
        f"  verify:  grantledger verify --data {data}\n"
        f"  send:    grantledger import vault audit.log --data {data}\n"
        f"  logs:    {data / 'logs'}\n"
        "Ctrl-C drains and stops.",
        soft_wrap=True,
    )
    if console.is_terminal:
        with Live(_table(stack.status()), console=console, refresh_per_second=2) as live:
            while not asked.wait(1.0):
                stack.watch()
                live.update(_table(stack.status()))
    else:
        told_at = 0.0
        while not asked.wait(1.0):
            stack.watch()
            if time.monotonic() - told_at >= 10.0:
                told_at = time.monotonic()
                console.print(_line(stack.status()), soft_wrap=True)


def _ago(time: datetime | None) -> str:
    return "none yet" if time is None else f"{max(0.0, (datetime.now(UTC) - time).total_seconds()):.0f} s ago"


def _findings(status: Status) -> str:
    if status.findings is None:
        return "not known"
    critical = f" ({status.findings.critical:,} critical)" if status.findings.critical else ""
    return f"{status.findings.open:,}{critical}"


def _line(status: Status) -> str:
    troubles = "".join(f"; TROUBLE {trouble}" for trouble in status.troubles)
    return (
        f"{datetime.now(UTC):%H:%M:%S} events in {status.events:,}, sealed {status.sealed:,}, "
        f"stored {status.stored:,}, last checkpoint {_ago(status.last_checkpoint)}, "
        f"last anchor {_ago(status.last_anchor)}, lag {status.lag:,}, open findings {_findings(status)}{troubles}"
    )


def _table(status: Status) -> Table:
    table = Table("events in", "sealed", "stored", "last checkpoint", "last anchor", "lag", "findings", title=None)
    table.add_row(
        f"{status.events:,}",
        f"{status.sealed:,}",
        f"{status.stored:,}",
        _ago(status.last_checkpoint),
        _ago(status.last_anchor),
        f"{status.lag:,}",
        Text(_findings(status), style="red" if status.findings is not None and status.findings.critical else ""),
    )
    for trouble in status.troubles:
        table.caption = f"[red]{escape(trouble)}[/red]"
    return table
