"""``grantledger sources list``: the sources at a glance."""

from __future__ import annotations

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
from .output import Column, Output, Row, print_table, span, text_column

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
    columns = [
        Column("source", lambda row: str(row["name"]), whole=True),
        text_column("tenant", "tenant"),
        Column("state", partial(_state, datetime.now(UTC)), lambda row: _STYLES.get(row["state"], ""), whole=True),
        Column("signed", _signed),
        Column(f"last event ({output.zone_name})", lambda row: output.moment(row["last_event_at"]), whole=True),
        Column("per hour", lambda row: _rate(row["events_per_hour"]), right=True),
        Column("delay (p99)", _delays, right=True, whole=True),
        Column("mapped", lambda row: _count(row["mapped"]), right=True),
        Column("skipped", lambda row: _count(row["skipped"]), right=True),
        Column("failed", lambda row: _count(row["failed"]), right=True),
        Column("rejected", lambda row: _count(row["rejected"]), right=True),
        Column("gaps", lambda row: _count(row["open_gaps"]), right=True),
    ]

    def show(console: Console) -> None:
        print_table(console, rows, columns)
        for row in rows:
            if row["skipped_by_reason"]:
                console.print(
                    Text(f"{printable(row['name'])} skipped {printable(_reasons(row))}", style="dim"), soft_wrap=True
                )

    output.rows(rows, identity="name", fields=FIELDS, show=show, empty="No source has sent an event.")


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


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _rate(per_hour: float) -> str:
    return f"{per_hour:,.0f}" if per_hour >= 10 else f"{per_hour:.2g}"


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
