"""``grantledger sources list``: the sources at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ..base.text import printable
from ..runtime.settings import Settings
from .grants import OF_SOURCE, TenantOption
from .lag_note import asking_states
from .output import Column, Output, Row, span, text_column
from .shrinking import print_shrunk, print_whole

FIELDS = (
    "name", "tenant", "source_system", "source_instance", "state", "registered", "expected", "signed", "added_at",
    "first_event_at", "last_event_at", "first_recorded_at", "last_recorded_at", "silent_since", "events",
    "events_per_hour", "delay_p50_seconds", "delay_p99_seconds", "mapped", "skipped", "failed", "skipped_by_reason",
    "rejected", "unsigned", "open_gaps",
)  # fmt: skip
_LIST = f"""
SELECT concat(source_system, '/', source_instance) AS name, *
FROM source_health
WHERE {OF_SOURCE}
ORDER BY indexOf(['never heard', 'silent', 'no events', 'heard'], state), name, tenant
"""  # noqa: S608 - our own text
DAY = 86_400
_COUNTS = {
    "mapped": "mapped", "skipped": "skipped", "failed": "failed", "rejected": "rejected", "gaps": "open_gaps",
}  # fmt: skip
"""Titles of the counts, and their fields."""
_STYLES = {"never heard": "yellow", "silent": "yellow"}


SourceOption = Annotated[
    str, typer.Option(metavar="SYSTEM[/INSTANCE]", help="Only this tool, or this installation of it.")
]


def command(settings: Settings, output: Output, tenant: TenantOption = "", source: SourceOption = "") -> None:
    """List the sources of events, one row per tenant, those first that were added and never heard, or are silent.

    Rate and delay are those of the last 24 hours: the delay is from the time of an event to its append time. Records
    are counted by import, follow and the gateway. docs/sources.md explains every column.

    Exit codes: 0 listed, even if there are none; 2 the store cannot be read.
    """
    with asking_states(settings, output) as ask:
        rows = ask(_LIST, tenant=tenant, source=source)

    def show(console: Console) -> None:
        _print(output, rows, console)
        for row in rows:
            if row["skipped_by_reason"]:
                console.print(
                    Text(f"{printable(row['name'])} skipped {printable(_reasons(row))}", style="dim"), soft_wrap=True
                )

    output.rows(rows, identity="name", fields=FIELDS, show=show, empty="No source has sent an event.")


def _print(output: Output, rows: Sequence[Row], console: Console) -> None:
    """Print a table that fits the terminal: with all columns, else with the most important, else one source per line.

    No cell is wrapped.
    """
    now = datetime.now(UTC)
    source, rate = text_column("source", "name", shrinks="middle"), Column("per hour", _rate_of, right=True)
    state = Column("state", partial(_state, now), lambda row: _STYLES.get(row["state"], ""))
    columns = [
        source,
        text_column("tenant", "tenant"),
        state,
        Column("signed", _signed),
        Column(f"last event ({output.zone_name})", lambda row: output.moment(row["last_event_at"])),
        rate,
        Column("delay (p99)", _delays, right=True),
        *(Column(title, partial(_count_of, name), right=True) for title, name in _COUNTS.items()),
    ]
    if print_whole(console, output, rows, columns):
        return
    tenants = {row["tenant"] for row in rows} - {"", "default"}
    short = [
        source,
        *([text_column("tenant", "tenant", shrinks="middle")] if tenants else []),
        state,
        Column("last event", partial(_last, now), right=True),
        rate,
        Column("delay", lambda row: _delays(row).partition(" (")[0], right=True),
        Column("problems", _problems, shrinks="end"),
    ]
    if print_shrunk(console, rows, short):
        console.print(Text("-o wide has all columns.", style="dim"))
        return
    for row in rows:
        about = [_last(now, row) and f"last event {_last(now, row)}", f"{_rate_of(row)} per hour", _problems(row)]
        line = f"{printable(row['name'])}: {', '.join(filter(None, (_state(now, row), *about)))}"
        console.print(Text(line, style=_STYLES.get(row["state"], "")), soft_wrap=True)


def _last(now: datetime, row: Row) -> str:
    last: datetime | None = row["last_event_at"]
    return f"{span(max(0.0, (now - last).total_seconds()))} ago" if last is not None else ""


def _problems(row: Row) -> str:
    counts = {"failed": row["failed"], "rejected": row["rejected"], "unsigned": row["unsigned"]}
    shown = [f"{count:,} {name}" for name, count in counts.items() if count]
    if gaps := row["open_gaps"]:
        shown.append("1 gap" if gaps == 1 else f"{gaps:,} gaps")
    return ", ".join(shown)


def _state(now: datetime, row: Row) -> str:
    since: datetime | None = row["silent_since"]
    return f"{row['state']} for {span((now - since).total_seconds())}" if since is not None else str(row["state"])


def _signed(row: Row) -> str:
    """Return whether the events are signed. Without a registration nobody checks that."""
    if row["unsigned"]:
        return f"{row['unsigned']:,} are not"
    if not row["registered"]:
        return "not checked" if row["events"] else ""
    return "yes" if row["signed"] else "registered"


def _count_of(name: str, row: Row) -> str:
    return f"{row[name]:,}" if row[name] else ""


def _rate_of(row: Row) -> str:
    """Return the rate with one decimal; of a larger one nobody needs it."""
    per_hour: float = row["events_per_hour"]
    if 0 < per_hour < 0.05:  # it would be rounded to 0
        return "<0.1"
    return f"{per_hour:,.0f}" if per_hour >= 10 else f"{per_hour:.1f}".removesuffix(".0")


def _delays(row: Row) -> str:
    if row["delay_p50_seconds"] is None:
        return ""
    return f"{_delay(row['delay_p50_seconds'])} ({_delay(row['delay_p99_seconds'])})"


def _delay(seconds: float) -> str:
    """Return a delay; it is negative if the clock of the source is ahead."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return span(seconds) if seconds < 2 * DAY else f"{seconds / DAY:,.0f} d"


def _reasons(row: Row) -> str:
    reasons = sorted(row["skipped_by_reason"].items(), key=lambda one: -one[1])
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons)
