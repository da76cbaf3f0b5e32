"""``grantledger import``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from ..base.errors import GrantledgerError
from ..producers.adapters import ADAPTERS, make_adapter
from ..producers.client import Client
from ..producers.importer import Importer, Report
from ..producers.input_files import InputFile
from ..runtime.settings import Settings
from ..schemas.event import Event
from .errors import fail
from .output import Column, Output, print_table, text_column
from .sending import SOME_REFUSED, open_client, plain


def command(  # noqa: PLR0917 - one parameter per flag
    settings: Settings,
    output: Output,
    tool: Annotated[str, typer.Argument(metavar="TOOL", help=f"One of {', '.join(sorted(ADAPTERS))}.")],
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Files to read, plain or gzip; - is standard input.")
    ],
    instance: Annotated[
        str | None, typer.Option(help="Name of the installation of the tool. Default: as each record states.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="Tenant of the events.")] = "default",
    rejects: Annotated[Path | None, typer.Option(help="Write the records that failed to this file.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and count; send nothing.")] = False,
) -> None:
    """Import a tool's audit files.

    Every record is mapped, skipped for a stated reason, or failed; the table at the end counts them. Importing a file
    twice is safe: its events have the same ids, so nothing counts twice.

    Exit codes: 0 all read and acknowledged; 1 some records failed; 2 a file cannot be read, or nothing can be sent.
    """
    adapter = make_adapter(tool, instance=instance, tenant=tenant)
    inputs = [InputFile(name) for name in files]
    client = None if dry_run else open_client(settings)
    problem: str | None = None
    with _reject_file(rejects) as reject, _progress(inputs, output) as progress:
        importer = Importer(adapter, client.send if client else _drop, reject=reject, progress=progress.advance)
        try:
            with client or nullcontext():
                for source in inputs:
                    with source:
                        progress.begin(source)
                        importer.run(source)
        except GrantledgerError as error:
            problem = plain(error)
    _print(importer.report, client, problem, output)
    if problem is not None:
        fail(problem)
    raise typer.Exit(SOME_REFUSED if importer.report.failed else 0)


def _drop(event: Event) -> None:
    """Stand in for a client in a dry run."""


@contextmanager
def _reject_file(path: Path | None) -> Iterator[Callable[[bytes], object] | None]:
    if path is None:
        yield None
        return
    try:
        file: IO[bytes] = path.open("wb")
    except OSError as error:
        fail(f"--rejects: {path} cannot be written ({error.strerror})")
    with file:
        yield file.write


class _Bar:
    """Shows how far a file has been read: a bar on a terminal, one line per file elsewhere."""

    def __init__(self, output: Output, bar: Progress | None) -> None:
        self._output, self._bar = output, bar
        self._task: Any = None

    def begin(self, source: InputFile) -> None:
        if self._bar is None:
            self._output.note(f"reading {source.name}")
        else:
            self._task = self._bar.add_task(source.name, total=source.size)

    def advance(self, position: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=position)


@contextmanager
def _progress(inputs: list[InputFile], output: Output) -> Iterator[_Bar]:
    if output.quiet or not sys.stderr.isatty():
        yield _Bar(output, None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield _Bar(output, bar)


def _print(report: Report, client: Client | None, problem: str | None, output: Output) -> None:
    acknowledged = client.acknowledged if client else 0
    counts = [("records", report.records), ("mapped", report.mapped)]
    counts += [(f"skipped: {reason}", count) for reason, count in report.skipped.most_common()]
    counts += [("failed", report.failed), ("events" if client else "events that would be sent", report.events)]
    counts += [("acknowledged", acknowledged)] if client else []
    counts += [("sent without raw (too large)", report.without_raw)] if report.without_raw else []
    columns = [text_column("records and events", "name"), Column("count", lambda row: f"{row['count']:,}", right=True)]
    result = {
        "records": report.records,
        "mapped": report.mapped,
        "skipped": dict(sorted(report.skipped.items())),
        "failed": report.failed,
        "failures": [{"place": str(failure.location), "problem": failure.problem} for failure in report.failures],
        "events": report.events,
        "acknowledged": acknowledged,
        "without_raw": report.without_raw,
        "dry_run": client is None,
        "error": problem,
    }
    rows = [{"name": name, "count": count} for name, count in counts]
    output.record(result, lambda console: print_table(console, rows, columns))
    for failure in report.failures:
        typer.echo(f"failed: {failure.location}: {failure.problem}", err=True)
    if report.failed > len(report.failures):
        typer.echo(f"failed: and {report.failed - len(report.failures):,} more; see --rejects", err=True)
