"""Simulated traffic: lives of grants in the formats of the tools, sent through the real adapters."""

from __future__ import annotations

import random
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import typer

from ..producers.adapters import Location, Skipped, make_adapter
from ..producers.client import Client
from ..producers.event_json import event_from_json
from ..producers.json_fields import parse_object
from ..runtime.settings import Settings
from ..simulator.lifecycle import TOOLS, Tool
from ..simulator.playback import Playback, RecordSink, utc_now
from ..simulator.scenario import scenarios
from .errors import fail, open_to_write, suggestion
from .sending import open_client, sending_errors

DEFAULT_LIVES = 20


@dataclass(frozen=True, slots=True)
class Traffic:
    """Which lives to simulate.

    Attributes:
        lives: number of lives; None: no end.
        rate: lives per second, in real time; None: all at once, each as if it had just ended.
        seed: the same seed gives the same lives.
        faults: share of lives with a planted fault.
    """

    lives: int | None
    rate: float | None
    tools: tuple[Tool, ...] = TOOLS
    seed: int | None = None
    faults: float = 0.0


def tools_named(name: str) -> tuple[Tool, ...]:
    """Return the tool with this name, or every tool for ``all``."""
    tools = TOOLS if name == "all" else tuple(known for known in TOOLS if known == name)
    if not tools:
        fail(f"--tool: no traffic for {name!r}; there are {', '.join(TOOLS)}, and all{suggestion(name, TOOLS)}")
    return tools


def send_traffic(settings: Settings, traffic: Traffic, write: Path | None = None) -> None:
    """Send simulated traffic to the brokers in the settings, or write it to files, until it ends or SIGTERM."""
    seed = traffic.seed if traffic.seed is not None else secrets.randbits(32)
    # The ids depend on the time as well: one id must never name records with different times.
    ids = random.Random(f"{seed} {utc_now().isoformat()}")  # noqa: S311 - not for secrets
    with _stopping() as time, ExitStack() as stack:
        sink, counts = _files(write, traffic.tools, stack) if write else _adapters(settings, stack)
        lives = scenarios(random.Random(seed), traffic.tools, traffic.faults)  # noqa: S311
        player = Playback(lives, sink, time, ids)
        if write is None:
            typer.echo(f"sending simulated traffic (seed {seed}) until it ends or Ctrl-C", err=True)
        with sending_errors():
            if traffic.rate is not None:
                player.in_real_time(traffic.rate, traffic.lives)
            else:
                player.all_at_once(traffic.lives or DEFAULT_LIVES)
            stack.close()
    planted = ", ".join(f"{count} {name}" for name, count in sorted(player.planted.items()))
    typer.echo(f"{player.played} lives (seed {seed}), {counts()}" + (f"; planted: {planted}" if planted else ""))


class _WallTime:
    """The real clock; ``wait`` ends early on a stop signal."""

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


def _adapters(settings: Settings, stack: ExitStack) -> tuple[RecordSink, Callable[[], str]]:
    client: Client = stack.enter_context(open_client(settings))
    adapters = {tool: make_adapter(tool) for tool in TOOLS}
    counts = {"records": 0}

    def sink(tool: Tool, line: bytes) -> None:
        counts["records"] += 1
        place = Location(f"simulated {tool}", counts["records"])
        if tool == "emit":
            client.send(event_from_json(parse_object(line, place)))
            return
        outcome = adapters[tool].read(line, place)
        if not isinstance(outcome, Skipped):
            for event in outcome:
                client.send(event)

    return sink, lambda: f"{counts['records']} records, {client.acknowledged} events acknowledged"


def _files(path: Path, tools: tuple[Tool, ...], stack: ExitStack) -> tuple[RecordSink, Callable[[], str]]:
    files: dict[Tool, IO[bytes]] = {}
    counts = {"records": 0}

    def file_of(tool: Tool) -> IO[bytes]:
        if tool not in files:
            alone = len(tools) == 1 and tool in tools
            name = path if alone else path.with_name(f"{path.stem}.{tool}{path.suffix}")
            files[tool] = stack.enter_context(open_to_write(name, "--write"))
        return files[tool]

    for tool in tools:  # a tool gets its file even without records; the removal checker only with some
        file_of(tool)

    def sink(tool: Tool, line: bytes) -> None:
        counts["records"] += 1
        file_of(tool).write(line + b"\n")

    return sink, lambda: f"{counts['records']} records in {', '.join(str(file.name) for file in files.values())}"
