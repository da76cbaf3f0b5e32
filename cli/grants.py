"""``grantledger grants``: who has what now, and what should be gone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..runtime.process import complain
from .asking import Row, asking
from .running import settings_of
from .terminal import WIDE, as_json, moment, printable, span, wide_console

STATE = """multiIf(
    removed_at IS NOT NULL, 'removed',
    grant_id IN (SELECT grant_id FROM overdue_grants), 'overdue',
    deadline IS NULL, 'no deadline',
    deadline < now64(6), 'covered',
    'active')"""
"""State of a ``grant_states`` row. covered: past its deadline, and another open grant of the same access covers now."""
_COLOURS = {"overdue": "red", "active": "green", "covered": "yellow", "no deadline": "yellow", "removed": "dim"}

_QUERY = f"""
SELECT
    grant_id, {STATE} AS state, subject_id, resource_kind, resource_id, resource_environment, entitlement, activated_at,
    expires_at, deadline, removal_evidence, removed_at, removal_recorded_at, late_seconds, reason, ticket, request_id,
    source_system, source_instance, tenant, origin, `index`, count() OVER () AS total
FROM grant_states
WHERE positionCaseInsensitiveUTF8(subject_id, {{subject:String}}) > 0
    AND positionCaseInsensitiveUTF8(resource_id, {{resource:String}}) > 0
    AND ({{which:String}} = 'all' OR ({{which:String}} = 'active' AND removed_at IS NULL)
        OR ({{which:String}} = 'overdue' AND grant_id IN (SELECT grant_id FROM overdue_grants)))
ORDER BY removed_at IS NOT NULL, removed_at DESC, deadline IS NULL, deadline, grant_id
LIMIT {{limit:UInt32}}
"""  # noqa: S608 - our own text


def command(  # noqa: PLR0917 - one parameter a flag
    context: typer.Context,
    active: Annotated[bool, typer.Option("--active", help="Grants without a confirmed removal: the default.")] = False,
    overdue: Annotated[bool, typer.Option("--overdue", help="Only those that should be gone.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Removed ones too.")] = False,
    subject: Annotated[str, typer.Option(help="Only where who holds the access contains this text.")] = "",
    resource: Annotated[str, typer.Option(help="Only where what is accessed contains this text.")] = "",
    limit: Annotated[int, typer.Option(help="Rows at most.", min=1, max=100_000)] = 50,
    as_json_: Annotated[bool, typer.Option("--json", help="Print an object with total and grants.")] = False,
) -> None:
    """List grants: who has what, until when, and whether it is gone.

    The next deadline comes first. A grant counts as removed only where its removal is confirmed; overdue is what is
    past its deadline, is not confirmed to be gone, and is not covered by another open grant of the same access. Times
    are UTC. `grantledger grant ID` tells one of them in full.

    Exit codes: 0 listed, also where there is none; 2 the store cannot be read, or the options contradict each other.
    """
    settings = settings_of(context)
    if active + overdue + everything > 1:
        complain("give one of --active, --overdue and --all")
        raise typer.Exit(2)
    which = "overdue" if overdue else "all" if everything else "active"
    with asking(settings) as ask:
        rows = ask(_QUERY, subject=subject, resource=resource, which=which, limit=limit)
    total = rows[0]["total"] if rows else 0
    for row in rows:
        del row["total"]
    if as_json_:
        typer.echo(as_json({"total": total, "grants": rows}))
    elif rows:
        _print(rows, total)
    else:
        kind = {"active": "No open grant", "overdue": "No overdue grant", "all": "No grant"}[which]
        filters = [printable(f"{name} {text}") for name, text in (("subject", subject), ("resource", resource)) if text]
        typer.echo(f"{kind} is on record{' for ' + ' and '.join(filters) if filters else ''}.")


def _print(rows: list[Row], total: int) -> None:
    table = Table("grant", "who", "what", "entitlement", "granted", "deadline", "state", caption_justify="left")
    console, now = wide_console(), datetime.now(UTC)
    for column in table.columns:
        column.overflow = "fold"
        # Long names give way to times and states, where there is room for both.
        column.no_wrap = console.width >= WIDE and column.header in {"granted", "deadline", "state"}
    for row in rows:
        cells = [printable(row["grant_id"]), printable(row["subject_id"]), thing(row), printable(row["entitlement"])]
        times = [moment(row["activated_at"]), until(row, now)]
        table.add_row(*map(Text, [*cells, *times]), Text(_state(row), style=_COLOURS[row["state"]]))
    console.print(table)
    if total > len(rows):
        console.print(f"{len(rows):,} of {total:,}: --limit shows more")


def thing(row: Row) -> str:
    """Return what is accessed, for a terminal: kind, id and environment."""
    environment = row["resource_environment"]
    return printable(f"{row['resource_kind']} {row['resource_id']}" + (f" ({environment})" if environment else ""))


def until(row: Row, now: datetime) -> str:
    """Return the deadline of a row with its ``state``, and how far away it is, or how late the removal was."""
    deadline = row["deadline"]
    if deadline is None:
        return "none given"
    if row["state"] == "removed":
        distance = lateness(row["late_seconds"])
    elif deadline >= now:
        distance = f"in {span((deadline - now).total_seconds())}"
    else:
        distance = span((now - deadline).total_seconds()) + (" late" if row["state"] == "overdue" else " ago")
    return f"{moment(deadline)}, {distance}"


def lateness(seconds: float) -> str:
    """Return how late a removal was, in words."""
    return f"removed {span(seconds)} late" if seconds > 0 else "removed in time"


def _state(row: Row) -> str:
    evidence = row["removal_evidence"]
    return row["state"] if row["state"] == "removed" or evidence == "none" else f"{row['state']}, {evidence}"
