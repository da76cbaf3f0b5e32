"""``grantledger import``."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ..base.errors import GrantledgerError
from ..base.text import printable
from ..producers.adapters import ADAPTERS, make_adapter
from ..producers.importer import Importer
from ..producers.input_files import inputs
from ..producers.source_reports import SourceReports
from ..runtime.settings import Settings
from .errors import fail, open_to_write
from .import_summary import print_summary
from .mapping_option import MappingOption
from .output import Output
from .redaction_option import RedactionOption, RedactionRulesOption, redactor
from .sending import SOME_REFUSED, SourceKeyOption, key_path, open_client, plain


def command(  # noqa: PLR0917 - one parameter per flag
    settings: Settings,
    output: Output,
    tool: Annotated[
        str, typer.Argument(metavar="TOOL", help=f"One of {', '.join(sorted(ADAPTERS))}, or that of --mapping.")
    ],
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Files or folders to read, also compressed; s3://BUCKET/PREFIX: objects in S3; - is standard input.",
        ),
    ],
    mapping: MappingOption = None,
    instance: Annotated[
        str | None, typer.Option(help="Name of the installation of the tool. Default: the one in each record.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="Tenant of the events.")] = "default",
    rejects: Annotated[Path | None, typer.Option(help="Write the records that failed to this file.")] = None,
    source_key: SourceKeyOption = None,
    history: Annotated[
        bool, typer.Option("--history", help="Mark the events as history: their late_records findings are info.")
    ] = False,
    redaction: RedactionOption = None,
    redaction_rules: RedactionRulesOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and count; send nothing.")] = False,
) -> None:
    """Import a tool's audit files.

    What collectors wrap around a record is removed: docs/envelopes.md. Each record is mapped to events, skipped for a
    stated reason, or fails; a table at the end has the counts. You can import a file twice: its events have the same
    ids and count once. Old access opens no overdue finding and is not revoked, with or without `--history`:
    docs/watch.md, "History".

    Exit codes: 0 all read and acknowledged; 1 some records failed; 2 a file or object cannot be read, or nothing can be
    sent.
    """
    rules = redactor(settings, redaction, redaction_rules)
    adapter = make_adapter(tool, instance=instance, tenant=tenant, mapping=mapping, redactor=rules)
    sources = inputs(files)
    client = None if dry_run else open_client(settings, source_key=source_key, history=history)
    problem: str | None = None
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), disable=output.quiet or not sys.stderr.isatty())
    with open_to_write(rejects, "--rejects") if rejects else nullcontext() as file, bar:
        task = TaskID(0)  # of the file being read
        importer = Importer(
            adapter,
            client.send if client else lambda _event: None,
            reject=file.write if file else None,
            keep=client.send if client else None,
            progress=lambda position: bar.update(task, completed=position),
        )
        try:
            with client or nullcontext():
                for source in sources:
                    with source:
                        if bar.disable:
                            output.note(f"reading {source.name}")
                        task = bar.add_task(printable(source.name), total=source.size)
                        importer.run(source)
                        bar.remove_task(task)  # a folder may have thousands of files
                if client:
                    reports = SourceReports(importer.source)
                    reports.add(importer.counts)
                    for event in reports.take(last=True):
                        client.send(event)
        except GrantledgerError as error:
            problem = plain(error)
    signed = key_path(settings, source_key) is not None
    acknowledged = client.acknowledged if client else None
    print_summary(tool, importer.report, acknowledged, problem, output, signed=signed)
    if problem is not None:
        fail(problem)
    raise typer.Exit(SOME_REFUSED if importer.report.failed else 0)
