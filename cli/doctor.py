"""``grantledger doctor``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ..base.text import counted, printable
from ..runtime.doctor.diagnosis import Diagnosis, State, exit_code
from ..runtime.doctor.examination import Examination
from ..runtime.settings import Settings
from .output import Format, Output

_FIELDS = ("subject", "state", "text", "action")
_STYLE = {State.ok: "green", State.warning: "yellow", State.problem: "bold red", State.unchecked: "cyan"}
_WELL = "all is well"
_WIDTH = max(map(len, State))


def command(
    settings: Settings,
    output: Output,
    problems: Annotated[bool, typer.Option("--problems", help="Leave out what is ok.")] = False,
    seconds: Annotated[float, typer.Option(help="How long to wait for the first answer of Kafka.", min=0.1)] = 8.0,
) -> None:
    """Look at everything that the ledger needs, and say what is wrong and what to do: docs/health.md.

    The brokers, topics and access rules, ClickHouse, the key, the clocks, the disks, the sandbox, the versions, and
    what is stopped or not ready. Nothing is written. With -q, print only the texts of problems.

    Exit codes: 0 all is well; 1 there is a problem; 2 a setting is wrong, so that nothing could be checked; 4 there is
    no problem, but a warning, or something that could not be checked.
    """
    found: list[Diagnosis] = []
    with Console(stderr=True).status("") as status:
        for subject, step in Examination(settings, seconds).steps():
            status.update(f"checking {subject} …")
            found += step()
    shown = [one for one in found if not problems or one.state is not State.ok]
    if output.quiet:
        output.rows([asdict(one) for one in found if one.state is State.problem], identity="text", show=[])
    else:
        rows = [asdict(one) for one in shown]
        output.rows(rows, identity="text", fields=_FIELDS, show=lambda console: _print(console, shown), empty=_WELL)
        if output.format in (Format.table, Format.wide):
            typer.echo(_summary(found))
    raise typer.Exit(exit_code(found))


def _print(console: Console, found: Sequence[Diagnosis]) -> None:
    subject = ""
    for one in found:
        if one.subject != subject:
            subject = one.subject
            console.print(Text(subject, style="bold"))
        line = Text("  ")
        line.append(f"{one.state:<{_WIDTH}}", style=_STYLE[one.state])
        line.append(f"  {printable(one.text)}")
        if one.action:
            line.append(f" → {printable(one.action)}")
        console.print(line, soft_wrap=True)


def _summary(found: Sequence[Diagnosis]) -> str:
    count = Counter(one.state for one in found)
    return (
        f"{counted(count[State.problem], 'problems')}, {counted(count[State.warning], 'warnings')}, "
        f"{count[State.unchecked]} not checked, {count[State.ok]} ok"
    )
