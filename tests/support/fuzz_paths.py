"""What happens to a record of any sender in every process, without Kafka and without a database.

`follow` raises if something crashes that must not, or if text comes out that a terminal would obey.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import second_verifier
from rich.console import Console

from grantledger.cli.output import Column, print_table
from grantledger.enforcers.command_rules import CommandHistory
from grantledger.enforcers.contract import InvalidCommandError
from grantledger.enforcers.events import apply, command_of
from grantledger.enforcers.running_grants import GrantEvent, RunningGrants, SealedActivations
from grantledger.ledger.batch import Head, Records, seal
from grantledger.ledger.entry import NO_HEADERS, Genesis
from grantledger.ledger.registered_schemas import collect_schemas
from grantledger.processors.watch.core.judge import Judge
from grantledger.processors.watch.findings import FindingEvents, WatchFault
from grantledger.processors.watch_policy import EffectivePolicy
from grantledger.schemas.arrow import decode_values
from grantledger.schemas.catalog import SchemaCatalog, SchemaConflictError, event_schema
from grantledger.schemas.codec import DecodeError, EventEncoder, decode
from grantledger.schemas.framing import FramingError
from grantledger.schemas.rules import InvalidEventError
from grantledger.sinks.alerts.alertmanager import annotations_of, labels_of
from grantledger.sinks.alerts.finding import InvalidFindingError, finding_of, from_text

from .columns import comparable
from .decoded import facts_of
from .small_ledger import SIGNER

DEPLOYMENT = "fuzz.example"
NOW_MS = 1_790_000_000_000
NOW = datetime.fromtimestamp(NOW_MS / 1000, UTC)
GENESIS = Genesis(f"{DEPLOYMENT}/access.lifecycle/0/0", bytes(16), 0)
CATALOG = SchemaCatalog((event_schema(),))
DAY = 86_400_000_000
DESCRIBED = {
    "findings", "person", "tool", "resource", "environment", "entitlement", "grant", "session", "deadline", "late",
    "approved by", "reason", "about", "next", "runbook",
}  # fmt: skip
"""The names of the lines of an alert's description."""
SKIPPED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""The errors that make an enforcer skip an event."""


def follow(values: list[bytes]) -> None:
    """Send records through the readers of every process, all in one batch."""
    rows = comparable(decode_values(pa.array(values, pa.binary()), [NOW_MS] * len(values), CATALOG))
    outside = second_verifier.Schemas({})
    outside.found = {bytes(schema.prefix): (schema.text, schema.in_force_ms) for schema in CATALOG}
    for value, row in zip(values, rows, strict=True):
        assert row == outside.columns(value, NOW_MS)
    _print(rows)
    _watch(values)
    _register(values)
    running, activations, history = RunningGrants(), SealedActivations(), CommandHistory()
    for value, row in zip(values, rows, strict=True):
        try:
            datum = decode(value, CATALOG, NOW_MS)
        except (FramingError, DecodeError) as error:
            assert error.code == row["decode_error"]
            continue
        _alert(datum)
        _skipping(lambda datum=datum: _add(running, activations, datum))  # type: ignore[misc]
        _skipping(lambda datum=datum: apply(history, DEPLOYMENT, datum))  # type: ignore[misc]
        try:
            command = command_of(datum)
        except InvalidCommandError as error:
            assert str(error)
            continue
        json.dumps(command.as_json(), sort_keys=True).encode()
        running.covering(command, NOW, NOW, lambda _: True)
        activations.find(command)
    running.prune(NOW + timedelta(days=1))


def _add(running: RunningGrants, activations: SealedActivations, datum: dict[str, Any]) -> None:
    event = GrantEvent.of(datum, NOW, signed=False)
    if event is not None:
        running.add(event, NOW)
        activations.add(event, event.appended)


def _skipping(step: Callable[[], None]) -> None:
    """Pass over what an enforcer passes over."""
    with suppress(*SKIPPED):
        step()


def _print(rows: list[dict[str, Any]]) -> None:
    """Print the columns that have a value: each cell takes rich as long as a column takes our decoder."""
    names = [name for name in rows[0] if any(row[name] for row in rows)] if rows else []
    columns = [Column(name, lambda row, name=name: _shown(row[name])) for name in names]
    console = Console(file=io.StringIO(), width=20_000)
    print_table(console, rows, columns)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(char.isprintable() or char == "\n" for char in text)


def _shown(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _watch(values: list[bytes]) -> None:
    """Judge the facts now and long after; every change becomes events or a fault, which become records."""
    count = len(values)
    records = Records(
        [1] * count, list(range(count)), [NOW_MS] * count, [b"k"] * count, list(values), [NO_HEADERS] * count
    )
    batch, _ = seal(Head.at_genesis(GENESIS), records, count, NOW, SIGNER)
    judge, events = Judge(), FindingEvents(DEPLOYMENT, EffectivePolicy(), EventEncoder())
    for fact in facts_of(batch, CATALOG):
        judge.add(fact)
    for at in (NOW_MS * 1000, NOW_MS * 1000 + 3 * DAY, NOW_MS * 1000 + 4000 * DAY):
        for change in judge.judge(at):
            try:
                events.of_change(change, judge.state, {})
            except InvalidEventError as error:
                fault = WatchFault("grant x", error)
                events.of_faults(fault.identity, at, [fault])
    assert judge.faults == []
    list(judge.forget(NOW_MS * 1000 + 5000 * DAY))


def _register(values: list[bytes]) -> None:
    """Take the records for registrations of schemas, and decode them again with whatever they register."""
    count, catalog = len(values), SchemaCatalog((event_schema(),))
    try:
        collect_schemas([b"schema/x"] * count, list(values), [NOW_MS] * count, catalog)
    except SchemaConflictError:
        return
    decode_values(pa.array(values, pa.binary()), [NOW_MS] * count, catalog)


def _alert(datum: dict[str, Any]) -> None:
    try:
        finding = finding_of(datum, DEPLOYMENT, "x#1", NOW_MS * 1000)
    except InvalidFindingError:
        return
    if finding is not None:
        assert from_text(finding.as_text()) == finding
        found = labels_of(finding) | annotations_of(finding, "https://example.com")
        lines = found.pop("description").split("\n")
        assert all(text.isprintable() for text in (*found.values(), *lines)), found
        assert {line.partition(": ")[0] for line in lines} <= DESCRIBED, lines
