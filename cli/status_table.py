"""The status of a pipeline as a line and as a table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..base.text import printable
from .output import span

if TYPE_CHECKING:
    from ..runtime.status import Status


def _ago(time: datetime | None) -> str:
    return "none yet" if time is None else f"{span(max(0.0, (datetime.now(UTC) - time).total_seconds()))} ago"


def _count(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"


def _findings(status: Status) -> str:
    if status.findings is None:
        return "unknown"
    critical = f" ({status.findings.critical:,} critical)" if status.findings.critical else ""
    return f"{status.findings.open:,}{critical}"


def status_line(status: Status) -> str:
    """Return the status as one line of a log."""
    return (
        f"{datetime.now(UTC):%H:%M:%S} events in {status.events:,}, sealed {_count(status.sealed)}, "
        f"stored {_count(status.stored)}, last checkpoint {_ago(status.last_checkpoint)}, "
        f"last anchor {_ago(status.last_anchor)}, lag {_count(status.lag)}, open findings {_findings(status)}"
    )


def status_table(status: Status) -> Group:
    """Return the status as a table, with a red line per trouble and a yellow one per warning below it."""
    table = Table("events in", "sealed", "stored", "last checkpoint", "last anchor", "lag", "open findings")
    critical = status.findings is not None and status.findings.critical
    table.add_row(
        f"{status.events:,}",
        _count(status.sealed),
        _count(status.stored),
        _ago(status.last_checkpoint),
        _ago(status.last_anchor),
        _count(status.lag),
        Text(_findings(status), style="red" if critical else ""),
    )
    lines = [Text(printable(trouble), style="red") for trouble in status.troubles]
    lines += [Text(printable(f"warning: {warning}"), style="yellow") for warning in status.warnings]
    return Group(table, *lines)
