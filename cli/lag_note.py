"""A note on standard error if the store is behind, so that people do not take an old answer for the present state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import typer

from ..base.errors import EXIT_USAGE
from ..runtime.settings import Settings
from ..runtime.store_access import ask_states, is_live, load_engine_early
from ..sinks.clickhouse import Ask
from .errors import exit_code
from .output import Output


@contextmanager
def noting_lag(settings: Settings, *, quiet: bool = False) -> Iterator[None]:
    """Read the lag of the store while the command asks it, and print a note afterwards if it is behind."""
    load_engine_early(settings)
    if quiet or not (settings.kafka_bootstrap_servers and settings.deployment):
        yield
        return
    from ..runtime.store_lag import NOTED_SECONDS, StoreLagReading  # the Kafka client

    reading = StoreLagReading(settings)
    yield
    if (lag := reading.result()) is not None and lag.seconds > NOTED_SECONDS:
        typer.echo(lag.note, err=True)


@contextmanager
def asking_states(settings: Settings, output: Output) -> Iterator[Ask]:
    """Open the store for queries of requests, grants and findings. Notes say what the answer may lack."""
    old = partial(output.note, "The store has not computed the states of its latest events: this answer lacks them.")
    stopped = not is_live(settings)  # asked now: to answer, this process becomes the owner of the store
    with noting_lag(settings, quiet=output.quiet), exit_code(EXIT_USAGE), ask_states(settings, old) as ask:
        note = _stopped_note(settings, output, ask) if stopped and not output.quiet else ""
        yield ask
    if note:
        output.note(note)


def _stopped_note(settings: Settings, output: Output, ask: Ask) -> str:
    latest = ask("SELECT maxOrNull(append_time) AS latest FROM entries")[0]["latest"]
    until = f"{output.moment(latest)} {output.zone_name}" if latest is not None else "of which there is none"
    return f"Nothing runs in {settings.data_dir}: this is as of the last stored entry, {until}."
