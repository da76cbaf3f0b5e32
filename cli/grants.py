"""``grantledger grants list``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from textwrap import indent
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ..base.text import printable
from ..runtime.settings import Settings
from .errors import fail
from .lag_note import asking_states
from .output import MAP_THEM, Column, Output, Row, span, text_column
from .shrinking import print_shrunk, print_whole

PAST_END = "past its end"
"""State of a grant whose end has passed, that has not ended under the policy, and that has no open finding."""
ENDED = "ended"
"""State of a grant whose removal is not confirmed, and that has ended under the policy."""
UNRESOLVED = "unresolved"
"""State of a historical grant that has not ended: nothing of it was received until long after its end."""
_COLOURS = {
    "active": "green", "no deadline": "yellow", "overdue": "red", PAST_END: "yellow", "covered": "yellow",
    ENDED: "dim", UNRESOLVED: "dim", "removed": "dim",
}  # fmt: skip
HAVE_ACCESS = ("active", "no deadline", "overdue", PAST_END)
"""The states of the default list, and of the view ``active_grants``."""


class GrantState(StrEnum):
    """The states as values of an option."""

    active = "active"
    no_deadline = "no-deadline"
    overdue = "overdue"
    past_its_end = "past-its-end"
    covered = "covered"
    ended = "ended"
    unresolved = "unresolved"
    removed = "removed"


_FIELDS = (
    "grant_id", "state", "subject_id", "subject_kind", "person", "resource_kind", "resource_id", "resource_environment",
    "entitlement", "activated_at", "expires_at", "deadline", "policy_deadline", "removal_evidence", "removed_at",
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
"""
_ENVIRONMENT = "(empty({environment:String}) OR resource_environment = {environment:String})"
_QUERY = f"""
SELECT {", ".join(f"`{name}`" for name in _FIELDS)},
    if(state = 'overdue', found_deadline, ifNull(deadline, policy_deadline)) AS due
FROM grants
{_FILTER} AND {_ENVIRONMENT} AND has({{states:Array(String)}}, state)
ORDER BY state = 'removed', if(state = 'removed', removed_at, NULL) DESC, due IS NULL, due, grant_id
LIMIT {{limit:UInt32}}
"""  # noqa: S608 - our own text
_COUNTS = f"""
SELECT state, countIf({_ENVIRONMENT}) AS count, countIf(resource_environment = '') AS unnamed
FROM grants {_FILTER} GROUP BY state
"""  # noqa: S608 - our own text


def list_command(  # noqa: PLR0917 - one parameter per flag
    settings: Settings,
    output: Output,
    state: Annotated[
        list[GrantState] | None,
        typer.Option(help="Only grants in this state; repeatable. Default: those that have access."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Grants in every state.")] = False,
    subject: Annotated[str, typer.Option(help="Only grants whose holder contains this text.")] = "",
    resource: Annotated[str, typer.Option(help="Only grants whose resource contains this text.")] = "",
    environment: Annotated[str, typer.Option(help="Only grants of resources in this environment.")] = "",
    tenant: TenantOption = "",
    source: SourceOption = "",
    limit: Annotated[int, typer.Option(help="Maximum number of rows.", min=1, max=100_000)] = 50,
) -> None:
    """List who has access to what, and until when. The next deadline comes first.

    The list has grants that are active or have no deadline, grants that are overdue, and grants past their end. A line
    under it says how many others there are; --state and --all list them.

    active: before its deadline. no-deadline: without an end from the tool or the policy. overdue: the watch has an open
    finding about it. past-its-end: past its deadline, not ended under the policy, and without an open finding: the
    grace period is not over, the watch has not judged it yet, or a person closed the finding. covered: the same, but
    another running grant gives the same access. ended: under the policy, its passed deadline or accepted removal is
    enough. removed: the removal is confirmed, or the credentials ended automatically. unresolved: received only long
    after its end, and not ended under the policy.

    Exit codes: 0 listed, even if nothing matches; 2 the store cannot be read, or the options contradict each other.
    """
    if state and everything:
        fail("give --state or --all, not both")
    shown = [one.replace("-", " ") for one in state] if state else list(_COLOURS if everything else HAVE_ACCESS)
    filters = {"subject": subject, "resource": resource, "tenant": tenant, "source": source}
    values = {**filters, "environment": environment}
    with asking_states(settings, output) as ask:
        rows = ask(_QUERY, **values, states=shown, limit=limit)
        counts = {row["state"]: row for row in ask(_COUNTS, **values)} if not output.quiet else {}
    for row in rows:
        del row["due"]
    given = [printable(f"{name} {text}") for name, text in values.items() if text]
    kind = " or ".join(state) if state else "" if everything else "running, overdue or unconfirmed"
    empty = f"No {kind} grant on record{' for ' + ' and '.join(given) if given else ''}.".replace("  ", " ")
    output.rows(rows, identity="grant_id", fields=_FIELDS, show=partial(_print, output, rows), empty=empty)
    total = sum(row["count"] for name, row in counts.items() if name in shown)
    if total > len(rows):
        output.note(f"{len(rows):,} of {total:,}: --limit shows more")
    others = [f"{counts[name]['count']:,} {name}" for name in _COLOURS if name not in shown and name in counts]
    if others := [one for one in others if not one.startswith("0 ")]:
        output.note(f"Left out: {', '.join(others)}. --all or --state shows them.")
    unnamed = sum(row["unnamed"] for name, row in counts.items() if name in shown)
    if environment and unnamed:
        output.note(f"{unnamed:,} more without an environment; {MAP_THEM}")


def _print(output: Output, rows: Sequence[Row], console: Console) -> None:
    """Print a table that fits the terminal: with whole cells, else with shortened ones, else one grant per paragraph.

    No cell is wrapped. ``-o wide`` and an output that is not a terminal get whole cells, however wide.
    """
    now = datetime.now(UTC)
    columns = [
        text_column("grant", "grant_id"),
        text_column("who", "subject_id"),
        Column("what", resource_text),
        text_column("entitlement", "entitlement"),
        Column("granted", lambda row: output.moment(row["activated_at"])),
        Column(f"deadline ({output.zone_name})", lambda row: until(output, row, now)),
        Column("state", _state, style=lambda row: _COLOURS[row["state"]]),
    ]
    if len({row["grant_id"] for row in rows}) < len(rows):  # some access keys share an id
        columns.insert(1, Column("source", lambda row: printable(source_of(row))))
    if print_whole(console, output, rows, columns):
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


def resource_text(row: Row) -> str:
    """Return the resource for a terminal: kind, id and environment."""
    environment = row["resource_environment"]
    named = f"{row['resource_kind']} {row['resource_id']}".strip()
    return printable(named + (f" ({environment})" if environment else ""))


def _access_and_entitlement(row: Row) -> str:
    return ", ".join(filter(None, (resource_text(row), printable(row["entitlement"]))))


def _short_access(row: Row) -> str:
    return printable(", ".join(filter(None, (row["resource_id"], row["entitlement"]))))


def until(output: Output, row: Row, now: datetime) -> str:
    """Return the deadline of a row and its distance, or how late the removal was."""
    deadline = _deadline(row)
    by = " (policy)" if row["deadline"] is None and row["activated_at"] is not None else ""
    return f"{output.moment(deadline)}, {_distance(row, now)}{by}" if deadline is not None else "none given"


def due_of(row: Row) -> datetime | None:
    """Return when a grant must end by its tool, or else by the watch policy; None without an end."""
    due: datetime | None = row["deadline"] or row["policy_deadline"]
    return due


def _deadline(row: Row) -> datetime | None:
    deadline: datetime | None = row["found_deadline"] if row["state"] == "overdue" else due_of(row)
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
