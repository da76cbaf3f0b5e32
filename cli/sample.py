"""``grantledger sample``: made-up lives of access, in the tools' own formats, through the real adapters."""

from __future__ import annotations

import random
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated

import typer

from ..producers.adapters import Place, Skipped, make_adapter
from ..producers.client import Client
from ..producers.sample.life import TOOLS, Tool, imagine
from ..producers.sample.player import Player, Sink, utc_now
from .sending import fail, open_client, reporting

DEFAULT_LIVES = 20
DEFAULT_RATE = 1.0
HIGHEST_RATE = 1000.0


def command(  # noqa: PLR0917 - one parameter a flag
    context: typer.Context,
    lives: Annotated[int | None, typer.Option(min=1, help="How many lives. Default: 20, unless --forever.")] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, max=HIGHEST_RATE, help="Lives a second, in real time. Default: all at once."),
    ] = None,
    forever: Annotated[
        bool, typer.Option("--forever", help="Until stopped; one life a second, unless --rate.")
    ] = False,
    tool: Annotated[str, typer.Option(help=f"Whose format: {', '.join(TOOLS)}, or all.")] = "all",
    write: Annotated[
        Path | None,
        typer.Option(help="Only write the tools' records to files: NAME.teleport.EXT and NAME.vault.EXT of this path."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same lives again. Default: others each time.")] = None,
) -> None:
    """Generate lives of access: asked for, approved, used, ended; some denied, cancelled or revoked.

    The records are written as Teleport and Vault write them and read by the adapters, as real ones are. Without --rate
    every life has just ended. SIGTERM and Ctrl-C end what is open, wait for the brokers and exit with 0.

    Exit codes: 0 all sent and acknowledged, 2 could not send.
    """
    if forever and lives is not None:
        fail("give --lives or --forever, not both")
    tools = TOOLS if tool == "all" else tuple(known for known in TOOLS if known == tool)
    if not tools:
        fail(f"--tool: no sample for {tool!r}; there are {', '.join(TOOLS)}, and all")
    plot = seed if seed is not None else secrets.randbits(32)
    # The ids depend on the time as well: the same id must never name records with different times.
    ids = random.Random(f"{plot} {utc_now().isoformat()}")  # noqa: S311 - a story, not a secret
    with _stopping() as time, ExitStack() as stack:
        sink, counts = _files(write, tools, stack) if write else _adapters(context, stack)
        player = Player(imagine(random.Random(plot), tools), sink, time, ids)  # noqa: S311
        with reporting():
            if forever or rate is not None:
                player.as_time_goes_by(rate or DEFAULT_RATE, None if forever else lives or DEFAULT_LIVES)
            else:
                player.at_once(lives or DEFAULT_LIVES)
            stack.close()
    typer.echo(f"{player.told} lives (seed {plot}), {counts()}")


class _WallTime:
    """The real clock; ``wait`` ends early when a signal says stop."""

    def __init__(self) -> None:
        self.stop = threading.Event()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def wait(self, seconds: float) -> bool:
        return self.stop.wait(seconds)


@contextmanager
def _stopping() -> Iterator[_WallTime]:
    time = _WallTime()
    kept = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)}
    for name in kept:
        signal.signal(name, lambda _number, _frame: time.stop.set())
    try:
        yield time
    finally:
        for name, handler in kept.items():
            signal.signal(name, handler)


def _adapters(context: typer.Context, stack: ExitStack) -> tuple[Sink, Callable[[], str]]:
    client: Client = stack.enter_context(open_client(context))
    adapters = {tool: make_adapter(tool) for tool in TOOLS}
    counts = {"records": 0}

    def sink(tool: Tool, line: bytes) -> None:
        counts["records"] += 1
        outcome = adapters[tool].read(line, Place(f"sample {tool}", counts["records"]))
        if not isinstance(outcome, Skipped):
            for event in outcome:
                client.send(event)

    return sink, lambda: f"{counts['records']} records, {client.acknowledged} events acknowledged"


def _files(path: Path, tools: tuple[Tool, ...], stack: ExitStack) -> tuple[Sink, Callable[[], str]]:
    files: dict[Tool, IO[bytes]] = {}
    counts = {"records": 0}
    for tool in tools:
        name = path.with_name(f"{path.stem}.{tool}{path.suffix}") if len(tools) > 1 else path
        try:
            files[tool] = stack.enter_context(name.open("wb"))
        except OSError as error:
            fail(f"--write: {name} cannot be written ({error.strerror})")

    def sink(tool: Tool, line: bytes) -> None:
        counts["records"] += 1
        files[tool].write(line + b"\n")

    written = ", ".join(str(file.name) for file in files.values())
    return sink, lambda: f"{counts['records']} records in {written}"
