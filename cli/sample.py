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

from ..producers.adapters import Location, Skipped, make_adapter
from ..producers.client import Client
from ..producers.event_json import event_from_json
from ..producers.json_fields import parse_object
from ..simulator.faults import stories
from ..simulator.life import TOOLS, Tool
from ..simulator.player import Player, Sink, utc_now
from ..simulator.policy import POLICY
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
        typer.Option(
            help="Only write the tools' records to files: NAME.teleport.EXT, NAME.vault.EXT and so on of this path, "
            "and NAME.own.EXT for `grantledger emit --stdin`."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same lives again. Default: others each time.")] = None,
    faults: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Let this part of the lives go wrong, 0.1 for a tenth: a lease that stays, a session that lives on, "
            "a clock ten minutes fast and more. Best with --rate: told at once, no fault has had time to show.",
        ),
    ] = 0.0,
    policy: Annotated[
        bool, typer.Option("--policy", help="Only print the policy under which no life is a finding but planted ones.")
    ] = False,
) -> None:
    """Generate lives of access: asked for, approved, used, ended; some denied, cancelled or revoked.

    The records are written as Teleport, Vault, hoop and AWS write them and read by the adapters, as real ones are; what
    the company's own checker of removals sends stands among them. Without --rate every life has just ended. SIGTERM and
    Ctrl-C end what is open, wait for the brokers and exit with 0.

    Exit codes: 0 all sent and acknowledged, 2 could not send.
    """
    if policy:
        typer.echo(POLICY, nl=False)
        return
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
        player = Player(stories(random.Random(plot), tools, faults), sink, time, ids)  # noqa: S311
        with reporting():
            if forever or rate is not None:
                player.as_time_goes_by(rate or DEFAULT_RATE, None if forever else lives or DEFAULT_LIVES)
            else:
                player.at_once(lives or DEFAULT_LIVES)
            stack.close()
    planted = ", ".join(f"{count} {name}" for name, count in sorted(player.planted.items()))
    typer.echo(f"{player.told} lives (seed {plot}), {counts()}" + (f"; planted: {planted}" if planted else ""))


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
        place = Location(f"sample {tool}", counts["records"])
        if tool == "own":
            client.send(event_from_json(parse_object(line, place)))
            return
        outcome = adapters[tool].read(line, place)
        if not isinstance(outcome, Skipped):
            for event in outcome:
                client.send(event)

    return sink, lambda: f"{counts['records']} records, {client.acknowledged} events acknowledged"


def _files(path: Path, tools: tuple[Tool, ...], stack: ExitStack) -> tuple[Sink, Callable[[], str]]:
    files: dict[Tool, IO[bytes]] = {}
    counts = {"records": 0}

    def file_of(tool: Tool) -> IO[bytes]:
        if tool not in files:
            alone = len(tools) == 1 and tool in tools
            name = path if alone else path.with_name(f"{path.stem}.{tool}{path.suffix}")
            try:
                files[tool] = stack.enter_context(name.open("wb"))
            except OSError as error:
                fail(f"--write: {name} cannot be written ({error.strerror})")
        return files[tool]

    for tool in tools:  # also of a tool of which then nothing is told; what the checker says only where it does
        file_of(tool)

    def sink(tool: Tool, line: bytes) -> None:
        counts["records"] += 1
        file_of(tool).write(line + b"\n")

    return sink, lambda: f"{counts['records']} records in {', '.join(str(file.name) for file in files.values())}"
