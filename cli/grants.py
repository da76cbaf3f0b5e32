"""``grantledger grants list``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from textwrap import indent
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ..base.errors import EXIT_USAGE
from ..base.text import printable
from ..runtime.settings import Settings
from ..runtime.store_access import ask_states
from .errors import exit_code, fail
from .lag_note import note_old_states, noting_lag
from .output import Column, Format, Output, Row, print_table, span, text_column
from .shrinking import print_shrunk, width_of_table

PAST_END = "past its end"
"""State of a grant that has ended, whose removal is not confirmed, and that has no open finding."""
UNRESOLVED = "unresolved"
"""State of a historical grant: nothing of it was received until long after its end, and no removal is confirmed."""
_COLOURS = {
    "overdue": "red", "active": "green", "covered": "yellow", PAST_END: "yellow", "no deadline": "yellow",
    UNRESOLVED: "dim", "removed": "dim",
}  # fmt: skip
_STATES = {
    "active": ["overdue", PAST_END, "covered", "active", "no deadline"],
    "overdue": ["overdue"],
    "past end": [PAST_END],
    "unresolved": [UNRESOLVED],
}
_NOTHING = {
    "active": "No open grant",
    "overdue": "No overdue grant",
    "past end": "No grant past its end without a finding",
    "unresolved": "No unresolved grant",
    "all": "No grant",
}
_FIELDS = (
    "grant_id", "state", "subject_id", "subject_kind", "person", "resource_kind", "resource_id",
    "resource_environment", "entitlement", "activated_at", "expires_at", "deadline", "removal_evidence", "removed_at",
    "removal_recorded_at", "late_seconds", "historical", "finding", "found_deadline", "found_at", "reason", "ticket",
    "customer", "request_id", "requested_at", "requested_by", "approvals", "approved_by", "forced", "source_system",
    "source_instance", "tenant", "grant_key", "origin", "index",
)  # fmt: skip
TenantOption = Annotated[str, typer.Option(help="Only this tenant.")]
SourceOption = Annotated[
    str, typer.Option(metavar="SYSTEM[/INSTANCE]", help="Only what this tool, or this installation of it, issued.")
]
OF_SOURCE = """
    (empty({tenant:String}) OR tenant = {tenant:String})
    AND (empty({source:String}) OR {source:String} IN (source_system, concat(source_system, '/', source_instance)))
"""
"""Conditions of the two options on the columns of ``grants``."""

_FILTER = f"""
WHERE {OF_SOURCE} AND positionCaseInsensitiveUTF8(subject_id, {{subject:String}}) > 0
    AND positionCaseInsensitiveUTF8(resource_id, {{resource:String}}) > 0
    AND (empty({{states:Array(String)}}) OR has({{states:Array(String)}}, state))
"""
_QUERY = f"""
SELECT {", ".join(f"`{name}`" for name in _FIELDS)},
    if(state = 'overdue', found_deadline, deadline) AS due, count() OVER () AS total
FROM grants
{_FILTER}
ORDER BY state = 'removed', if(state = 'removed', removed_at, NULL) DESC, due IS NULL, due, grant_id
LIMIT {{limit:UInt32}}
"""  # noqa: S608 - our own text
_COUNT = f"SELECT count() AS count FROM grants {_FILTER}"  # noqa: S608 - our own text


def list_command(  # noqa: PLR0917 - one parameter per flag
    settings: Settings,
    output: Output,
    active: Annotated[bool, typer.Option("--active", help="Grants without a confirmed removal (default).")] = False,
    overdue: Annotated[bool, typer.Option("--overdue", help="Only overdue grants.")] = False,
    past_end: Annotated[
        bool,
        typer.Option("--past-end", help="Only grants past their end, neither removed nor overdue."),
    ] = False,
    unresolved: Annotated[
        bool,
        typer.Option("--unresolved", help="Only grants whose records arrived long after their end, without a removal."),
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="All grants, including removed ones.")] = False,
    subject: Annotated[str, typer.Option(help="Only grants whose holder contains this text.")] = "",
    resource: Annotated[str, typer.Option(help="Only grants whose resource contains this text.")] = "",
    tenant: TenantOption = "",
    source: SourceOption = "",
    limit: Annotated[int, typer.Option(help="Maximum number of rows.", min=1, max=100_000)] = 50,
) -> None:
    """List grants: who has access to what, until when, and whether it was removed. The next deadline comes first.

    A grant is overdue when the watch has an open finding about it under the policy. It is removed only when its removal
    is confirmed. It is past its end when its removal is not confirmed and there is no finding: it ended under the
    policy, the grace period is not over, or the watch has not judged it yet. It is unresolved when nothing of it was
    received until long after its end, and no removal is confirmed. Such grants are not judged, and listed only with
    --unresolved or --all.

    Exit codes: 0 listed, even if nothing matches; 2 the store cannot be read, or the options contradict each other.
    """
    chosen = {"active": active, "overdue": overdue, "past end": past_end, "unresolved": unresolved, "all": everything}
    if sum(chosen.values()) > 1:
        fail("give only one of --active, --overdue, --past-end, --unresolved and --all")
    which = next((name for name, given in chosen.items() if given), "active")
    filters = {"subject": subject, "resource": resource, "tenant": tenant, "source": source}
    with noting_lag(settings, quiet=output.quiet), exit_code(EXIT_USAGE), ask_states(settings, note_old_states) as ask:
        rows = ask(_QUERY, **filters, states=_STATES.get(which, []), limit=limit)
        others = ask(_COUNT, **filters, states=[PAST_END])[0]["count"] if overdue else 0
    total = rows[0]["total"] if rows else 0
    for row in rows:
        del row["total"], row["due"]
    given = [printable(f"{name} {text}") for name, text in filters.items() if text]
    empty = f"{_NOTHING[which]} on record{' for ' + ' and '.join(given) if given else ''}."
    output.rows(rows, identity="grant_id", fields=_FIELDS, show=partial(_print, output, rows), empty=empty)
    if total > len(rows):
        output.note(f"{len(rows):,} of {total:,}: --limit shows more")
    if others:
        past = "is past its" if others == 1 else "are past their"
        output.note(f"{others:,} more {past} end, not confirmed as removed, without a finding: see --past-end")


def _print(output: Output, rows: Sequence[Row], console: Console) -> None:
    """Print a table that fits the terminal: with whole cells, else with shortened ones, else one grant per paragraph.

    No cell is wrapped. ``-o wide`` and an output that is not a terminal get whole cells, however wide.
    """
    now = datetime.now(UTC)
    columns = [
        text_column("grant", "grant_id"),
        text_column("who", "subject_id"),
        Column("what", access_of),
        text_column("entitlement", "entitlement"),
        Column("granted", lambda row: output.moment(row["activated_at"])),
        Column(f"deadline ({output.zone_name})", lambda row: until(output, row, now)),
        Column("state", _state, style=lambda row: _COLOURS[row["state"]]),
    ]
    if len({row["grant_id"] for row in rows}) < len(rows):  # some access keys share an id
        columns.insert(1, Column("source", lambda row: printable(source_of(row))))
    if output.format is Format.wide or not console.is_terminal:
        console.size = max(console.width, width_of_table(rows, columns)), console.height
    if console.width >= width_of_table(rows, columns):
        print_table(console, rows, columns)
        return
    short = [
        text_column("grant", "grant_id", shrinks="middle"),
        text_column("who", "subject_id", shrinks="end"),
        Column("access", _short_access, shrinks="end"),
        Column("deadline", lambda row: _distance(row, now)),
        Column("state", lambda row: row["state"], style=lambda row: _COLOURS[row["state"]]),
    ]
    if not print_shrunk(console, rows, short):
        _print_stacked(console, output, rows, now)


def _print_stacked(console: Console, output: Output, rows: Sequence[Row], now: datetime) -> None:
    for row in rows:
        head = (printable(row["grant_id"]), "bold"), "  ", (_state(row), _COLOURS[row["state"]])
        who = printable(row["subject_id"])
        access = _access_and_entitlement(row)
        lines = [f"{who}: {access}" if access else who]
        if row["activated_at"] is not None:
            lines.append(f"granted {output.moment(row['activated_at'])}")
        lines.append(f"deadline {until(output, row, now)}")
        console.print(Text.assemble(*head), soft_wrap=True)
        console.print(Text(indent("\n".join(lines), "  ")), soft_wrap=True)


def source_of(row: Row) -> str:
    """Return the source that issued a grant, and the tenant if it is not the default one."""
    instance = f"/{row['source_instance']}" if row["source_instance"] else ""
    tenant = f", tenant {row['tenant']}" if row["tenant"] != "default" else ""
    return f"{row['source_system']}{instance}{tenant}"


def access_of(row: Row) -> str:
    """Return the resource for a terminal: kind, id and environment."""
    environment = row["resource_environment"]
    named = f"{row['resource_kind']} {row['resource_id']}".strip()
    return printable(named + (f" ({environment})" if environment else ""))


def _access_and_entitlement(row: Row) -> str:
    return ", ".join(filter(None, (access_of(row), printable(row["entitlement"]))))


def _short_access(row: Row) -> str:
    return printable(", ".join(filter(None, (row["resource_id"], row["entitlement"]))))


def until(output: Output, row: Row, now: datetime) -> str:
    """Return the deadline of a row and its distance, or how late the removal was."""
    deadline = _deadline(row)
    return f"{output.moment(deadline)}, {_distance(row, now)}" if deadline is not None else "none given"


def _deadline(row: Row) -> datetime | None:
    deadline: datetime | None = row["found_deadline"] if row["state"] == "overdue" else row["deadline"]
    return deadline


def _distance(row: Row, now: datetime) -> str:
    deadline = _deadline(row)
    if deadline is None:
        return "none given"
    if row["state"] == "removed":
        return lateness(row["late_seconds"])
    if deadline >= now:
        return f"in {span((deadline - now).total_seconds())}"
    return span((now - deadline).total_seconds()) + (" late" if row["state"] == "overdue" else " ago")


def lateness(seconds: float) -> str:
    """Return how late a removal was."""
    return f"removed {span(seconds)} late" if seconds > 0 else "removed on time"


def _state(row: Row) -> str:
    evidence = row["removal_evidence"]
    return row["state"] if row["state"] == "removed" or evidence == "none" else f"{row['state']}, {evidence}"
