"""``grantledger recompute``."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..base.errors import EXIT_USAGE
from ..runtime.settings import Settings
from ..runtime.store_access import open_store_to_write
from ..sinks.states import States
from .errors import exit_code


def command(settings: Settings) -> None:
    """Compute the states of requests, grants and findings again, if `grantledger verify` finds other ones.

    The views that people query read these states. They show the old ones until the new ones are complete. Stop
    `grantledger up` or `run store` first, unless the store is on a ClickHouse server.

    Exit codes: 0 computed; 2 the store cannot be opened or written.
    """
    columns = (TextColumn("computing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True, highlight=False)
    with exit_code(EXIT_USAGE), open_store_to_write(settings) as client:
        states = States(client)
        states.begin_again()
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("entries", total=None)
            while states.refresh():
                done, total = states.progress()
                bar.update(task, completed=done, total=total)
        done, _ = states.progress()
    typer.echo(f"the states are those of {done:,} entries of requests, grants, sessions and findings")
