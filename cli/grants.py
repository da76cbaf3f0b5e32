"""``grantledger grants``: who has what now, and what should be gone."""

from __future__ import annotations

from datetime import UTC, datetime
from textwrap import indent
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..runtime.process import complain
from .asking import Row, asking
from .running import settings_of
from .terminal import WIDE, as_json, moment, printable, span, wide_console

NARROW = 120
"""Columns below which a table would cut every cell to pieces: grants are printed one below the other."""
PAST_END = "past its end"
"""State of a grant past its end that nobody confirmed to be gone and of which the watch has no open finding."""
_COLOURS = {
    "overdue": "red", "active": "green", "covered": "yellow", PAST_END: "yellow", "no deadline": "yellow",
    "removed": "dim",
}  # fmt: skip
_STATES = {
    "active": ["overdue", PAST_END, "covered", "active", "no deadline"],
    "overdue": ["overdue"],
    "past end": [PAST_END],
}
_NOTHING = {
    "active": "No open grant",
    "overdue": "No overdue grant",
    "past end": "No grant past its end without a finding",
    "all": "No grant",
}

_FILTER = """
WHERE positionCaseInsensitiveUTF8(subject_id, {subject:String}) > 0
    AND positionCaseInsensitiveUTF8(resource_id, {resource:String}) > 0
    AND (empty({states:Array(String)}) OR has({states:Array(String)}, state))
"""
_QUERY = f"""
SELECT
    grant_id, state, subject_id, resource_kind, resource_id, resource_environment, entitlement, activated_at,
    expires_at, deadline, removal_evidence, removed_at, removal_recorded_at, late_seconds, finding, found_deadline,
    found_at, reason, ticket, request_id, source_system, source_instance, tenant, origin, `index`,
    if(state = 'overdue', found_deadline, deadline) AS due, count() OVER () AS total
FROM judged_grants
{_FILTER}
ORDER BY state = 'removed', if(state = 'removed', removed_at, NULL) DESC, due IS NULL, due, grant_id
LIMIT {{limit:UInt32}}
"""  # noqa: S608 - our own text
_COUNT = f"SELECT count() AS count FROM judged_grants {_FILTER}"  # noqa: S608 - our own text


def command(  # noqa: PLR0917 - one parameter a flag
    context: typer.Context,
    active: Annotated[bool, typer.Option("--active", help="Grants without a confirmed removal: the default.")] = False,
    overdue: Annotated[bool, typer.Option("--overdue", help="Only those that should be gone.")] = False,
    past_end: Annotated[
        bool, typer.Option("--past-end", help="Only those past their end: not confirmed to be gone, and no finding.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Removed ones too.")] = False,
    subject: Annotated[str, typer.Option(help="Only where who holds the access contains this text.")] = "",
    resource: Annotated[str, typer.Option(help="Only where what is accessed contains this text.")] = "",
    limit: Annotated[int, typer.Option(help="Rows at most.", min=1, max=100_000)] = 50,
    as_json_: Annotated[bool, typer.Option("--json", help="Print an object with total and grants.")] = False,
) -> None:
    """List grants: who has what, until when, and whether it is gone.

    The next deadline comes first. Overdue is what the watch has an open finding of, under its policy. A grant counts as
    removed only where its removal is confirmed. Past its end is what nobody confirmed to be gone, without a finding:
    the policy takes it for gone, the grace is not over, or the watch has not judged it yet. Times are UTC.
    `grantledger grant ID` tells one of them in full.

    Exit codes: 0 listed, also where there is none; 2 the store cannot be read, or the options contradict each other.
    """
    settings = settings_of(context)
    if active + overdue + past_end + everything > 1:
        complain("give one of --active, --overdue, --past-end and --all")
        raise typer.Exit(2)
    which = "overdue" if overdue else "past end" if past_end else "all" if everything else "active"
    filters = {"subject": subject, "resource": resource}
    with asking(settings) as ask:
        rows = ask(_QUERY, **filters, states=_STATES.get(which, []), limit=limit)
        others = ask(_COUNT, **filters, states=[PAST_END])[0]["count"] if overdue else 0
    total = rows[0]["total"] if rows else 0
    for row in rows:
        del row["total"], row["due"]
    if as_json_:
        typer.echo(as_json({"total": total, "grants": rows} | ({"past_end": others} if overdue else {})))
        return
    if rows:
        _print(rows, total)
    else:
        given = [printable(f"{name} {text}") for name, text in filters.items() if text]
        typer.echo(f"{_NOTHING[which]} is on record{' for ' + ' and '.join(given) if given else ''}.")
    if others:
        past = "is past its" if others == 1 else "are past their"
        typer.echo(f"{others:,} {past} end, not confirmed to be gone, and without a finding: --past-end lists them.")


def _print(rows: list[Row], total: int) -> None:
    console, now = wide_console(), datetime.now(UTC)
    if console.width < NARROW:
        _print_stacked(console, rows, now)
    else:
        _print_table(console, rows, now)
    if total > len(rows):
        console.print(f"{len(rows):,} of {total:,}: --limit shows more")


def _print_table(console: Console, rows: list[Row], now: datetime) -> None:
    table = Table("grant", "who", "what", "entitlement", "granted", "deadline", "state", caption_justify="left")
    for column in table.columns:
        column.overflow = "fold"
        # Long names give way to times and states, where there is room for both.
        column.no_wrap = console.width >= WIDE and column.header in {"granted", "deadline", "state"}
    for row in rows:
        cells = [printable(row["grant_id"]), printable(row["subject_id"]), thing(row), printable(row["entitlement"])]
        times = [_granted(row), until(row, now)]
        table.add_row(*map(Text, [*cells, *times]), Text(_state(row), style=_COLOURS[row["state"]]))
    console.print(table)


def _print_stacked(console: Console, rows: list[Row], now: datetime) -> None:
    for row in rows:
        head = (printable(row["grant_id"]), "bold"), "  ", (_state(row), _COLOURS[row["state"]])
        who, access = printable(row["subject_id"]), ", ".join(filter(None, (thing(row), printable(row["entitlement"]))))
        lines = [f"{who}: {access}" if access else who]
        if row["activated_at"] is not None:
            lines.append(f"granted {_granted(row)}")
        lines.append(f"deadline {until(row, now)}")
        console.print(Text.assemble(*head), soft_wrap=True)
        console.print(Text(indent("\n".join(lines), "  ")), soft_wrap=True)


def _granted(row: Row) -> str:
    return moment(row["activated_at"]) if row["activated_at"] else ""


def thing(row: Row) -> str:
    """Return what is accessed, for a terminal: kind, id and environment."""
    environment = row["resource_environment"]
    named = f"{row['resource_kind']} {row['resource_id']}".strip()
    return printable(named + (f" ({environment})" if environment else ""))


def until(row: Row, now: datetime) -> str:
    """Return the deadline of a row, and how far away it is, or how late the removal was."""
    overdue = row["state"] == "overdue"
    deadline = row["found_deadline"] if overdue else row["deadline"]
    if deadline is None:
        return "none given"
    if row["state"] == "removed":
        distance = lateness(row["late_seconds"])
    elif deadline >= now:
        distance = f"in {span((deadline - now).total_seconds())}"
    else:
        distance = span((now - deadline).total_seconds()) + (" late" if overdue else " ago")
    return f"{moment(deadline)}, {distance}"


def lateness(seconds: float) -> str:
    """Return how late a removal was, in words."""
    return f"removed {span(seconds)} late" if seconds > 0 else "removed in time"


def _state(row: Row) -> str:
    evidence = row["removal_evidence"]
    return row["state"] if row["state"] == "removed" or evidence == "none" else f"{row['state']}, {evidence}"
