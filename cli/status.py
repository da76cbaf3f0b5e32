"""``grantledger status``."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.console import Console

from ..base.errors import EXIT_DEPENDENCY
from ..runtime.open_findings import count_open_findings
from ..runtime.settings import Settings
from ..runtime.status import processes_here, read_status
from ..runtime.store_lag import StoreLagReading
from .errors import fail
from .output import Column, Output, Row, echo, print_table, text_column
from .status_table import status_table


def command(settings: Settings, output: Output) -> None:
    """Show the status of the stack that runs in the data folder, as `grantledger up` shows it.

    Without a stack, show the processes that `grantledger run` started with this data folder. With -q, print only the
    troubles.

    Exit codes: 0 no trouble; 1 a process or a partition has trouble; 2 nothing runs here.
    """
    processes = processes_here(settings)
    if not processes:
        fail(f"nothing runs in {settings.data_dir}: start it with `grantledger up`, or name another folder with --data")
    reading = StoreLagReading(settings)
    status = read_status(settings, settings.cluster(), processes, count_open_findings(settings))
    lag = reading.result()
    if output.quiet:
        for trouble in status.troubles:
            echo(trouble)
    else:
        columns = [
            text_column("process", "name"),
            text_column("pid", "pid"),
            text_column("restarts", "restarts"),
            Column("state", _state, lambda row: "red" if row["trouble"] else ""),
        ]

        def show(console: Console) -> None:
            console.print(status_table(status))
            print_table(console, [asdict(process) for process in status.processes], columns)
            console.print(lag.text if lag is not None else "It is unknown how far the store is behind.")

        behind = {"entries": lag.entries, "seconds": round(lag.seconds, 1)} if lag is not None else None
        output.record(status.as_json() | {"store_behind": behind}, show)
    if status.troubles:
        raise typer.Exit(EXIT_DEPENDENCY)


def _state(row: Row) -> str:
    """Return the state of a process. A line above the table has its trouble."""
    if row["trouble"]:
        return "trouble" if row["pid"] else "down"
    return "runs" if row["pid"] else "done"
