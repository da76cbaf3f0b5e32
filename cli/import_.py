"""``grantledger import``: the files of a tool into the ledger, through its adapter."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..producers.adapters import ADAPTERS, UnknownToolError, make_adapter
from ..producers.client import Client, ClientError
from ..producers.importer import Importer, Report
from ..producers.input_files import InputError, InputFile
from ..producers.registry import RegistryError
from ..schemas.event import Event
from .sending import NOT_ALL_TAKEN, NOT_SENT, fail, open_client, plain


def command(  # noqa: PLR0917 - one parameter a flag
    context: typer.Context,
    tool: Annotated[str, typer.Argument(help=f"Who wrote the files: {', '.join(sorted(ADAPTERS))}.")],
    files: Annotated[list[str], typer.Argument(help="Files to read, plain or gzip; - is standard input.")],
    instance: Annotated[
        str | None, typer.Option(help="Which installation of the tool. Default: what each record says.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="The tenant of the events.")] = "default",
    rejects: Annotated[Path | None, typer.Option(help="Write the records that failed to this file.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and count; send nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Import a tool's audit files.

    Every record is mapped, skipped for a stated reason, or failed; the table at the end counts them. Importing a file
    twice gives the same event ids, so nothing counts twice.

    Exit codes: 0 all read and acknowledged, 1 some records failed, 2 could not read a file or could not send.
    """
    try:
        adapter = make_adapter(tool, instance=instance, tenant=tenant)
        inputs = [InputFile(name) for name in files]
    except (UnknownToolError, InputError) as error:
        fail(str(error))
    client = None if dry_run else open_client(context)
    problem: str | None = None
    with _reject_file(rejects) as reject, _progress(inputs) as progress:
        importer = Importer(adapter, client.send if client else _drop, reject=reject, progress=progress.advance)
        try:
            with client or nullcontext():
                for source in inputs:
                    with source:
                        progress.begin(source)
                        importer.run(source)
        except (ClientError, RegistryError, InputError) as error:
            problem = plain(error)
    _show(importer.report, client, problem, as_json=as_json)
    if problem is not None:
        fail(problem)
    raise typer.Exit(NOT_ALL_TAKEN if importer.report.failed else 0)


def _drop(event: Event) -> None:
    """Take the place of a client in a dry run."""


@contextmanager
def _reject_file(path: Path | None) -> Iterator[Callable[[bytes], object] | None]:
    if path is None:
        yield None
        return
    try:
        file: IO[bytes] = path.open("wb")
    except OSError as error:
        fail(f"--rejects: {path} cannot be written ({error.strerror})", NOT_SENT)
    with file:
        yield file.write


class _Bar:
    """Shows how far a file has been read: a bar on a terminal, a line a file elsewhere."""

    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar
        self._task: Any = None

    def begin(self, source: InputFile) -> None:
        if self._bar is None:
            typer.echo(f"reading {source.name}", err=True)
        else:
            self._task = self._bar.add_task(source.name, total=source.size)

    def advance(self, position: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=position)


@contextmanager
def _progress(inputs: list[InputFile]) -> Iterator[_Bar]:
    if not sys.stderr.isatty():
        yield _Bar(None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield _Bar(bar)


def _show(report: Report, client: Client | None, problem: str | None, *, as_json: bool) -> None:
    acknowledged = client.acknowledged if client else 0
    if as_json:
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
        typer.echo(json.dumps(result, ensure_ascii=False))
        return
    table = Table("what", "count", show_edge=False)
    table.columns[1].justify = "right"
    table.add_row("records", f"{report.records:,}")
    table.add_row("mapped", f"{report.mapped:,}")
    for reason, count in report.skipped.most_common():
        table.add_row(f"skipped: {reason}", f"{count:,}")
    table.add_row("failed", f"{report.failed:,}")
    table.add_row("events that would be sent" if client is None else "events", f"{report.events:,}")
    if client is not None:
        table.add_row("acknowledged", f"{acknowledged:,}")
    if report.without_raw:
        table.add_row("sent without raw (too large)", f"{report.without_raw:,}")
    Console().print(table)
    for failure in report.failures:
        typer.echo(f"failed: {failure.location}: {failure.problem}", err=True)
    if report.failed > len(report.failures):
        typer.echo(f"failed: and {report.failed - len(report.failures):,} more; see --rejects", err=True)
