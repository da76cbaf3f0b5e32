"""A note on standard error if the store is behind, so that people do not take an old answer for the present state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ..runtime.settings import Settings
from ..runtime.store_access import load_engine_early
from ..runtime.store_lag import NOTED_SECONDS, StoreLagReading


@contextmanager
def noting_lag(settings: Settings, *, quiet: bool = False) -> Iterator[None]:
    """Read the lag of the store while the command asks it, and print a note afterwards if it is behind."""
    load_engine_early(settings)
    reading = None if quiet else StoreLagReading(settings)
    yield
    if reading is not None and (lag := reading.result()) is not None and lag.seconds > NOTED_SECONDS:
        typer.echo(lag.note, err=True)


def note_old_states() -> None:
    """Print that the answer has older states of grants and findings than the store has events."""
    typer.echo("The store has not computed the states of its latest events: this answer lacks them.", err=True)
