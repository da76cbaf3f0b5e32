"""``grantledger verify``: check everything."""

from __future__ import annotations

import json
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import KafkaException
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..runtime.keys import load_public_key
from ..runtime.process import complain
from ..runtime.reading import live, reading
from ..runtime.settings import Settings
from ..verifier.report import Report
from ..verifier.sealed_topics import verify_kafka
from ..verifier.store import verify_store
from .running import settings_of, told

TAMPERED = 1
COULD_NOT_CHECK = 2
SINK_MAY_LAG = 60.0
"""Seconds that a running store may take nothing in of what the anchors outside cover already."""


class Origin(StrEnum):
    """Where the evidence is read."""

    clickhouse = "clickhouse"
    kafka = "kafka"


def command(
    context: typer.Context,
    source: Annotated[Origin, typer.Option("--from", help="Read what ClickHouse stores, or the sealed topics.")] = (
        Origin.clickhouse
    ),
    public_key: Annotated[
        Path | None,
        typer.Option(help="Public key of the logs, PEM. An auditor brings it along; default: beside the private key."),
    ] = None,
    anchors: Annotated[
        Path | None,
        typer.Option(help="File that the anchor target 'file' wrote. Default: that of the settings, if there."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check that everything stored is what was sealed and signed.

    Of every entry: payload against its hash, decoded columns against the payload (with sealed schemas), its leaf, its
    link to the entry before, back to the genesis. Of every log: the Merkle root and signature of every checkpoint. Of
    every anchor: the checkpoints it covers. All hashing happens in this command, none in the database.

    Exit codes: 0 sound, 1 tampered: names the first bad entry of each log and what is wrong, 2 could not check.
    """
    settings = settings_of(context)
    with told(COULD_NOT_CHECK):
        key = load_public_key(settings, public_key)
        file = anchors or settings.anchor_path
        if anchors is not None and not anchors.is_file():
            complain(f"the anchor file {anchors} does not exist (--anchors)")
            raise typer.Exit(COULD_NOT_CHECK)
        try:
            report = _verify(settings, source, key, file if file.is_file() else None, quiet=as_json)
        except (ClickHouseError, KafkaException, OSError) as error:
            complain(f"could not check: {str(error).splitlines()[0]}")
            raise typer.Exit(COULD_NOT_CHECK) from error
    if report.sound and not (report.entries or report.anchors or report.outside_anchors):
        complain(f"nothing is stored of deployment {settings.deployment}: there is nothing to check")
        raise typer.Exit(COULD_NOT_CHECK)
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        _print(report)
    raise typer.Exit(0 if report.sound else TAMPERED)


def _verify(settings: Settings, source: Origin, key: bytes, anchors: Path | None, *, quiet: bool) -> Report:
    console = Console(stderr=True, highlight=False)
    bar = Progress(
        TextColumn("verifying"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with nullcontext() if quiet or not console.is_terminal else bar:
        task = bar.add_task("entries", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None)

        if source is Origin.kafka:
            options = settings.kafka_client_options()
            return verify_kafka(options, key, anchor_file=anchors, on_progress=progress)
        deployment = settings.require_deployment()
        with reading(settings) as client:
            patience = SINK_MAY_LAG if live(settings) else 0.0
            return verify_store(client, deployment, key, anchor_file=anchors, patience=patience, on_progress=progress)


def _print(report: Report) -> None:
    console = Console(highlight=False, soft_wrap=True)
    rate = f", {report.entries / report.seconds:,.0f} entries/s" if report.entries >= 10_000 else ""
    console.print(
        f"{report.source}: {report.entries:,} entries in {report.logs} logs, {report.checkpoints:,} checkpoints, "
        f"{report.anchors:,} anchors, {report.outside_anchors:,} of them outside; {report.seconds:.1f} s{rate}"
    )
    for origin, (size, root) in sorted(report.heads.items()):
        console.print(f"  {origin}  {size:,} entries  root {root[:16]}…")
    if report.outside_only:
        console.print(f"  {report.outside_only:,} anchors outside are not in the store (yet)")
    if report.sound:
        console.print("[green]SOUND[/green]: everything is what was sealed and signed")
        return
    for problem in report.problems:
        where = problem.origin if problem.index is None else f"{problem.origin} index {problem.index}"
        console.print(f"[red]{where}[/red]: {problem.check}: {problem.message}", markup=True)
    console.print("[red]TAMPERED[/red]")
    if report.source == "clickhouse" and any(problem.check == "truncated" for problem in report.problems):
        console.print(
            "Entries that anchors cover are missing as well where they were not stored yet: `grantledger store` has "
            "stopped, or Kafka or ClickHouse is away. `grantledger verify --from kafka` shows whether they were sealed."
        )
