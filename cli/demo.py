"""``grantledger demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..runtime.settings import Settings
from ..simulator.company_policy import POLICY
from ..simulator.lifecycle import TOOLS
from .errors import missing_packages
from .traffic import DEFAULT_LIVES, Traffic, send_traffic, tools_named

DEFAULT_RATE = 2.0
HIGHEST_RATE = 1000.0


def command(  # noqa: PLR0917 - one parameter per flag
    settings: Settings,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, max=HIGHEST_RATE, help="Lives per second, in real time. Default: 2."),
    ] = None,
    lives: Annotated[int | None, typer.Option(min=1, help="Stop the traffic after this many lives.")] = None,
    faults: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of lives with a fault, for example 0.1: a lease that stays, a session that outlives its grant, "
            "a clock that is ten minutes fast.",
        ),
    ] = 0.0,
    tool: Annotated[str, typer.Option(metavar="TOOL", help=f"Format: {', '.join(TOOLS)}, or all.")] = "all",
    seed: Annotated[
        int | None, typer.Option(help="Seed of the lives: the same seed gives the same lives. Default: random.")
    ] = None,
    traffic_only: Annotated[
        bool,
        typer.Option(
            "--traffic-only",
            help="Start nothing; send the traffic to the brokers in the settings. Without --rate, send 20 lives (or "
            "--lives) at once, each as if it had just ended.",
        ),
    ] = False,
    write: Annotated[
        Path | None,
        typer.Option(
            help="Start nothing; write the records to files: NAME.teleport.EXT, NAME.vault.EXT and so on of this path, "
            "and NAME.emit.EXT for `grantledger emit --stdin`."
        ),
    ] = None,
    policy: Annotated[
        bool,
        typer.Option("--policy", help="Start nothing; print the watch policy that fits the simulated lives."),
    ] = False,
) -> None:
    """Run the local stack with simulated traffic, plant one overdue grant, and show the next steps.

    A simulated life is one grant with its request, approval, use and end; some are denied, cancelled or revoked. The
    records have the formats of Teleport, Vault, hoop and AWS, and pass through the real adapters.

    Exit codes: 0 stopped on request; 1 something could not be started; 2 a setting is wrong, a stack already runs in
    the data folder, or nothing can be sent; 3 the ledger contradicts itself: a person must investigate.
    """
    if policy:
        typer.echo(POLICY, nl=False)
        return
    tools = tools_named(tool)
    if traffic_only or write is not None:
        endless = rate is not None and lives is None and write is None
        count = None if endless else lives or DEFAULT_LIVES
        send_traffic(settings, Traffic(count, rate, tools, seed, faults), write)
        return
    with missing_packages("demo"):
        from .demo_stack import run_demo
    run_demo(settings, Traffic(lives, rate or DEFAULT_RATE, tools, seed, faults), tool)
