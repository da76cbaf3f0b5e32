"""What ``import`` and ``follow --once`` print at the end."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta

from ..producers.adapters import EVENT
from ..producers.importer import Failure, ImportReport
from ..producers.input_files import STANDARD_INPUT
from .output import MAP_THEM, Column, Output, echo, print_table, text_column

OLD = timedelta(hours=1)
"""The default of ``history_after_seconds`` in the watch policy."""


def print_summary(
    tool: str, report: ImportReport, acknowledged: int | None, problem: str | None, output: Output, *, signed: bool
) -> None:
    """Print the counts, and what was not understood.

    Args:
        acknowledged: the number of acknowledged events; None for a dry run.
        problem: why reading ended early.
        signed: the events were signed.
    """
    dry_run = acknowledged is None
    counts = [("records", report.records), ("mapped", report.mapped)]
    counts += [(f"skipped: {reason}", count) for reason, count in report.skipped.most_common()]
    counts += [("failed", report.failed), ("events that would be sent" if dry_run else "events", report.events)]
    if acknowledged is not None:
        counts.append(("acknowledged" if signed else "acknowledged (unsigned)", acknowledged))
    counts += [("sent without raw (too large)", report.without_raw)] if report.without_raw else []
    counts += [(f"redacted: {rule}", count) for rule, count in report.redacted.most_common()]
    without_environment = list(report.resources.values()).count(False)
    columns = [text_column("records and events", "name"), Column("count", lambda row: f"{row['count']:,}", right=True)]
    result = {
        "records": report.records,
        "mapped": report.mapped,
        "skipped": dict(sorted(report.skipped.items())),
        "failed": report.failed,
        "failures": [
            {
                "place": str(failure.location),
                "problem": failure.problem,
                "looks_like": failure.looks_like or None,
                "records": failure.count,
            }
            for failure in report.failures
        ],
        "unwrapped": dict(sorted(report.unwrapped.items())),
        "redacted": dict(sorted(report.redacted.items())),
        "of_other_tools": [
            {"file": file, "tool": tool, "records": count} for (file, tool), count in report.of_other_tools.items()
        ],
        "events": report.events,
        "acknowledged": acknowledged or 0,
        "signed": signed,
        "without_raw": report.without_raw,
        "dry_run": dry_run,
        "resources": len(report.resources),
        "resources_without_environment": without_environment,
        "without_instance": report.without_instance,
        "newest": report.newest,
        "error": problem,
    }
    rows = [{"name": name, "count": count} for name, count in counts]
    if problem is None or report.records or not output.for_people:  # a file that cannot be opened has no counts
        output.record(result, lambda console: print_table(console, rows, columns))
    if without_environment:
        have = "resource has" if len(report.resources) == 1 else "resources have"
        several = f"{without_environment:,} of {len(report.resources):,} {have}"
        output.note(f"{several} no environment in the records; {MAP_THEM}")
    if report.without_instance:
        events = "event names" if report.without_instance == 1 else "events name"
        named = f"{report.without_instance:,} {events} no installation of {tool}"
        output.note(f"{named}: --instance names it; always give the same name")
    if report.newest is not None and report.newest < datetime.now(UTC) - OLD:
        newest = f"The newest event is of {output.moment(report.newest)} {output.zone_name}"
        history = "Access whose end is long past is history: it opens no overdue finding and is not revoked"
        output.note(f'{newest}. {history} (docs/watch.md, "History")')
    for (file, other), count in report.of_other_tools.items():
        path = "-" if file == STANDARD_INPUT else shlex.quote(file)
        records = "1 record looks" if count == 1 else f"{count:,} records look"
        whose, command = f"those of {other}", f"import {other} {path}"
        if other == EVENT:
            whose, command = "events of our own", "emit --stdin" + (f" < {path}" if path != "-" else "")
        echo(f"failed: {file}: {records} like {whose}: use `grantledger {command}`", err=True)
    others = report.of_other_tools.total()
    if len(report.failures) == 1 and 1 < report.failures[0].count == report.records - others:
        none = f"none of the {report.failed:,} records is one of {tool}"
        echo(f"failed: {none}; the first: {_described(report.failures[0])}", err=True)
        return
    for failure in report.failures:
        alike = f"; {failure.count - 1:,} more of this file do, too" if failure.count > 1 else ""
        echo(f"failed: {_described(failure)}{alike}", err=True)
    if more := report.failed - sum(failure.count for failure in report.failures) - others:
        echo(f"failed: and {more:,} more; see --rejects", err=True)


def _described(failure: Failure) -> str:
    looks = f"; it looks like {failure.looks_like}" if failure.looks_like else ""
    return f"{failure.location}: {failure.problem}{looks}"
