"""``grantledger import``."""

from __future__ import annotations

import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ..base.errors import GrantledgerError
from ..producers.adapters import ADAPTERS, EVENT, make_adapter
from ..producers.client import Client
from ..producers.importer import Failure, Importer, Report
from ..producers.input_files import STANDARD_INPUT, InputFile, files_in
from ..runtime.settings import Settings
from .errors import fail, open_to_write
from .output import MAP_THEM, Column, Output, echo, print_table, text_column
from .sending import SOME_REFUSED, SourceKeyOption, key_path, open_client, plain


def command(  # noqa: PLR0917 - one parameter per flag
    settings: Settings,
    output: Output,
    tool: Annotated[str, typer.Argument(metavar="TOOL", help=f"One of {', '.join(sorted(ADAPTERS))}.")],
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Files or folders to read, also compressed; - is standard input."),
    ],
    instance: Annotated[
        str | None, typer.Option(help="Name of the installation of the tool. Default: the one in each record.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="Tenant of the events.")] = "default",
    rejects: Annotated[Path | None, typer.Option(help="Write the records that failed to this file.")] = None,
    source_key: SourceKeyOption = None,
    history: Annotated[
        bool, typer.Option("--history", help="Mark the events as history: their late_records findings are info.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and count; send nothing.")] = False,
) -> None:
    """Import a tool's audit files.

    What collectors wrap around a record is removed: docs/envelopes.md. Each record is mapped to events, skipped for a
    stated reason, or fails; a table at the end has the counts. You can import a file twice: its events have the same
    ids and count once. Old access opens no overdue finding and is not revoked, with or without `--history`:
    docs/watch.md, "History".

    Exit codes: 0 all read and acknowledged; 1 some records failed; 2 a file cannot be read, or nothing can be sent.
    """
    adapter = make_adapter(tool, instance=instance, tenant=tenant)
    client = None if dry_run else open_client(settings, source_key=source_key, history=history)
    problem: str | None = None
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), disable=output.quiet or not sys.stderr.isatty())
    with open_to_write(rejects, "--rejects") if rejects else nullcontext() as file, bar:
        task = TaskID(0)  # of the file being read
        importer = Importer(
            adapter,
            client.send if client else lambda _event: None,
            reject=file.write if file else None,
            progress=lambda position: bar.update(task, completed=position),
        )
        try:
            with client or nullcontext():
                for source in map(InputFile, files_in(files)):
                    with source:
                        if bar.disable:
                            output.note(f"reading {source.name}")
                        task = bar.add_task(source.name, total=source.size)
                        importer.run(source)
        except GrantledgerError as error:
            problem = plain(error)
    signed = key_path(settings, source_key) is not None
    _print(tool, importer.report, client, problem, output, signed=signed)
    if problem is not None:
        fail(problem)
    raise typer.Exit(SOME_REFUSED if importer.report.failed else 0)


def _print(
    tool: str, report: Report, client: Client | None, problem: str | None, output: Output, *, signed: bool
) -> None:
    acknowledged = client.acknowledged if client else 0
    counts = [("records", report.records), ("mapped", report.mapped)]
    counts += [(f"skipped: {reason}", count) for reason, count in report.skipped.most_common()]
    counts += [("failed", report.failed), ("events" if client else "events that would be sent", report.events)]
    if client:
        counts.append(("acknowledged" if signed else "acknowledged (unsigned)", acknowledged))
    counts += [("sent without raw (too large)", report.without_raw)] if report.without_raw else []
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
        "of_other_tools": [
            {"file": file, "tool": tool, "records": count} for (file, tool), count in report.of_other_tools.items()
        ],
        "events": report.events,
        "acknowledged": acknowledged,
        "signed": signed,
        "without_raw": report.without_raw,
        "dry_run": client is None,
        "resources": len(report.resources),
        "resources_without_environment": without_environment,
        "error": problem,
    }
    rows = [{"name": name, "count": count} for name, count in counts]
    if problem is None or report.records or not output.for_people:  # a file that cannot be opened has no counts
        output.record(result, lambda console: print_table(console, rows, columns))
    if without_environment:
        have = "resource has" if len(report.resources) == 1 else "resources have"
        several = f"{without_environment:,} of {len(report.resources):,} {have}"
        output.note(f"{several} no environment in the records; {MAP_THEM}")
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
