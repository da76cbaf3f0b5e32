"""``grantledger verify``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import KafkaException
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..ledger.keys import LogKeys
from ..runtime.keys import load_public_key
from ..runtime.settings import Settings
from ..runtime.store_access import is_live, open_store
from ..sinks.file_target import read_anchor_file
from ..verifier.clickhouse_source import ClickHouseEvidence
from ..verifier.kafka_source import KafkaEvidence
from ..verifier.procedure import verify
from ..verifier.report import EXIT_COULD_NOT_CHECK, Report
from .errors import exit_code, fail
from .output import Output

STORE_PATIENCE = 60.0
"""Seconds without progress after which a running store no longer counts as catching up."""


class EvidenceSource(StrEnum):
    """Where the evidence comes from."""

    clickhouse = "clickhouse"
    kafka = "kafka"


def command(
    settings: Settings,
    output: Output,
    source: Annotated[
        EvidenceSource, typer.Option("--from", help="Verify the rows in ClickHouse, or the sealed topics.")
    ] = EvidenceSource.clickhouse,
    public_key: Annotated[
        Path | None,
        typer.Option(help="Public key of the logs, PEM. Auditors use their own copy. Default: beside the private key."),
    ] = None,
    anchors: Annotated[
        Path | None,
        typer.Option(help="File of the anchor target 'file'. Default: the one in the settings, if it exists."),
    ] = None,
) -> None:
    """Verify that the stored evidence is unchanged since it was sealed and signed.

    For every entry: its payload hash, decoded columns, leaf, and the chain back to the genesis. For every log: the
    Merkle root and the signatures of every checkpoint. For every anchor: the checkpoints that it covers. This command
    computes all hashes itself, not the database. docs/ledger.md explains each numbered step.

    Exit codes: 0 sound; 1 tampered: the first bad entry of each checked log is named; 2 could not check.
    """
    with exit_code(EXIT_COULD_NOT_CHECK):
        key = load_public_key(settings, public_key)
        file = anchors or settings.anchor_path
        if anchors is not None and not anchors.is_file():
            fail(f"the anchor file {anchors} does not exist (--anchors)", EXIT_COULD_NOT_CHECK)
        try:
            report = _verify(settings, source, key, file if file.is_file() else None, quiet=output.quiet)
        except (ClickHouseError, KafkaException, OSError) as error:
            fail(f"could not check: {str(error).splitlines()[0]}", EXIT_COULD_NOT_CHECK)
    if report.exit_code == EXIT_COULD_NOT_CHECK:
        fail(f"nothing is stored of deployment {settings.deployment}: there is nothing to check", EXIT_COULD_NOT_CHECK)
    output.record(report.as_json(), lambda _console: typer.echo("\n".join(report.as_text())))
    raise typer.Exit(report.exit_code)


def _verify(settings: Settings, source: EvidenceSource, key: bytes, anchors: Path | None, *, quiet: bool) -> Report:
    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("entries", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None)

        # Outside anchors first: everything that they cover was stored before.
        outside = list(read_anchor_file(anchors)) if anchors is not None else []
        deployment, keys = settings.require_deployment(), LogKeys.single(key)
        if source is EvidenceSource.kafka:
            evidence = KafkaEvidence.on_brokers(deployment, settings.cluster())
            return verify(evidence, keys, outside=outside, progress=progress)
        with open_store(settings) as client:
            stored = ClickHouseEvidence(client, deployment, STORE_PATIENCE if is_live(settings) else 0.0)
            return verify(stored, keys, outside=outside, progress=progress)
