"""``grantledger verify``."""

from __future__ import annotations

import os
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import KafkaException
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..base.errors import GrantledgerError, UsageError
from ..base.text import printable
from ..ledger.keys import LogKeys
from ..runtime.keys import load_log_keys
from ..runtime.settings import Settings
from ..runtime.store_access import is_live, load_engine_early, open_store
from ..verifier.clickhouse_source import ClickHouseEvidence
from ..verifier.kafka_source import KafkaEvidence
from ..verifier.outside import OutsideAnchors, read_outside
from ..verifier.procedure import verify
from ..verifier.remembered_heads import RememberedHeads, read_state, write_state
from ..verifier.report import VerifyReport
from ..verifier.since import Since
from ..verifier.stored_states import check_states
from ..verifier.verdict import EXIT_COULD_NOT_CHECK, Verdict
from .errors import fail
from .output import Output

STORE_PATIENCE = 60.0
"""Seconds without progress after which a running store no longer counts as catching up."""


STORE_DELAY = 3600.0
"""Seconds after which a running store that makes no progress must have the entries that an anchor covers."""


class EvidenceSource(StrEnum):
    """Where the evidence comes from."""

    clickhouse = "clickhouse"
    kafka = "kafka"


def command(
    settings: Settings,
    output: Output,
    *,
    source: Annotated[
        EvidenceSource, typer.Option("--from", help="Verify the rows in ClickHouse, or the sealed topics.")
    ] = EvidenceSource.clickhouse,
    public_key: Annotated[
        Path | None,
        typer.Option(
            help="Public keys of the logs (log.pub). Auditors use their own copy. Default: beside the private key."
        ),
    ] = None,
    anchors: Annotated[
        Path | None,
        typer.Option(help="File of the anchor target 'file'. Default: the one in the settings, if it exists."),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="File that remembers the verified heads. The next run demands that they are still contained. Keep it "
            "where the ledger's operators cannot write."
        ),
    ] = None,
    since: Annotated[
        Path | None,
        typer.Option(
            help="Verify only what is new since the run that wrote this file with --state. The report says what was "
            "not read."
        ),
    ] = None,
    states: Annotated[
        bool,
        typer.Option(help="Compare the computed states of requests, grants and findings with the entries (step 14)."),
    ] = True,
) -> None:
    """Verify that the stored evidence is unchanged since it was sealed and signed.

    For every entry: its payload hash, decoded columns, leaf, and the chain back to the genesis. For every log: the
    Merkle root and the signatures of every checkpoint. For every anchor: the checkpoints that it covers. This command
    computes all hashes itself, not the database. docs/ledger.md explains each numbered step.

    Exit codes: 0 sound; 1 tampered: the first bad entry of each checked log is named; 2 could not check: for example a
    wrong key or deployment name, or an unreadable --anchors file; 3 behind: the store lacks entries that
    anchors from outside cover, and is stopped or not an hour late; 4 sound, compared with nothing outside: the anchor
    file is missing, empty or cut off.
    """
    try:
        report = _run(settings, source, public_key, anchors, state, since_file=since, states=states, quiet=output.quiet)
    except Exception as error:  # exit code 1 would mean tampered
        message = str(error) if isinstance(error, GrantledgerError) else _first_line(error)
        _could_not_check(output, message)
    output.record(report.as_json(), lambda _console: typer.echo("\n".join(report.as_text())))
    raise typer.Exit(report.verdict.exit_code)


def _run(
    settings: Settings,
    source: EvidenceSource,
    public_key: Path | None,
    anchors: Path | None,
    state_file: Path | None,
    *,
    since_file: Path | None,
    states: bool,
    quiet: bool,
) -> VerifyReport:
    deployment, keys = settings.require_deployment(), load_log_keys(settings, public_key)
    if anchors is not None and not (anchors.is_file() and os.access(anchors, os.R_OK)):
        raise UsageError(f"the anchor file {anchors} cannot be read (--anchors)")
    state = read_state(state_file, deployment) if state_file is not None else None
    remembered, going_on = state, None
    if since_file is not None:
        remembered, going_on = _going_on(source, deployment, since_file, state)
    # Outside anchors first: everything that they cover was stored before.
    file = anchors or settings.anchor_path
    missing = OutsideAnchors(missing=f"the file of anchors {file} does not exist (--anchors)")
    outside = read_outside(file) if file.exists() else missing
    report = _verify(settings, source, keys, outside, remembered, since=going_on, states=states, quiet=quiet)
    report.own_anchor_file = "" if anchors is not None else str(file)
    if state_file is not None and state is not None:
        if report.sound or report.verdict is Verdict.behind:
            heads = report.heads | report.anchor_heads
            write_state(state_file, state.remember(report.source, heads, report.since))
        elif report.verdict is Verdict.tampered:
            typer.echo(f"grantledger: {state_file} still has the heads of the last sound verification", err=True)
    return report


def _going_on(
    source: EvidenceSource, deployment: str, file: Path, state: RememberedHeads | None
) -> tuple[RememberedHeads, Since]:
    """Return the heads to compare, and where the verification goes on."""
    if source is EvidenceSource.kafka:
        raise UsageError("--since is for the store: --from kafka verifies the topics as a whole")
    known = read_state(file, deployment)
    if known.going_on is None:
        raise UsageError(f"{file} has no place to go on from: run `grantledger verify --state {file}` first (--since)")
    return (state if state is not None and state.heads else known), known.going_on


def _could_not_check(output: Output, message: str) -> NoReturn:
    """End without a report; programs get the verdict all the same."""
    if not output.for_people:
        output.record(
            {"verdict": Verdict.could_not_check, "sound": False, "could_not_check": [message]}, lambda _: None
        )
    fail(f"could not check: {printable(message)}", EXIT_COULD_NOT_CHECK)


def _first_line(error: Exception) -> str:
    expected = isinstance(error, ClickHouseError | KafkaException | OSError)
    return ("" if expected else f"{type(error).__name__}: ") + (str(error).splitlines() or [""])[0]


def _verify(
    settings: Settings,
    source: EvidenceSource,
    keys: LogKeys,
    outside: OutsideAnchors,
    state: RememberedHeads | None,
    *,
    since: Since | None,
    states: bool,
    quiet: bool,
) -> VerifyReport:
    if source is EvidenceSource.clickhouse:
        load_engine_early(settings)
    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("entries", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None)

        deployment = settings.require_deployment()
        if source is EvidenceSource.kafka:
            cluster = settings.cluster()
            cluster.check_answers()
            evidence = KafkaEvidence.on_brokers(deployment, cluster)
            return verify(evidence, keys, outside=outside, remembered=state, progress=progress)
        with open_store(settings) as client:
            live = is_live(settings)
            patience, stored_by = (STORE_PATIENCE, int((time.time() - STORE_DELAY) * 1000)) if live else (0.0, 0)
            stored = ClickHouseEvidence(client, deployment, patience, server=bool(settings.clickhouse_url), since=since)
            report = verify(stored, keys, outside=outside, remembered=state, stored_by=stored_by, progress=progress)
            if not states or since is not None:
                report.unchecked_states = "--no-states" if not states else "only what is new was read (--since)"
            elif report.sound:
                started = time.monotonic()
                check_states(client, report, patience)
                report.states_seconds = time.monotonic() - started
            else:
                report.unchecked_states = "the entries are not sound"
            return report
