"""``grantledger epoch``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from ..base.errors import UsageError
from ..base.text import printable
from ..ledger.keys import LogKeys
from ..runtime.epochs.anchors import AnchorEpochPlan
from ..runtime.epochs.reopening import PartitionCountPlan, Plan, Reopening, log_name, open_epochs, select
from ..runtime.keys import load_signers
from ..runtime.sealed_logs import sealed_logs
from ..runtime.settings import Settings
from ..runtime.source_keys import own_signer
from ..runtime.store_access import ask_store, load_engine_early
from ..schemas.event import ACTIVITY_TOPIC
from ..schemas.finding_rules import RUNBOOKS
from ..schemas.own_sources import OPERATOR
from ..sinks.clickhouse import StoreUnavailableError
from .errors import fail
from .output import Output, text_column
from .person import PersonOption, person, required

_FIELDS = ("log", "rule", "reason", "binds", "bound_in", "size", "root", "first_offset", "lost", "runbook")
WithoutStoreOption = Annotated[
    bool, typer.Option("--without-store", help="Do not ask the store, although it may hold the last head of a log.")
]


def show(settings: Settings, output: Output, without_store: WithoutStoreOption = False) -> None:
    """Show the stopped logs: why each is stopped, which head its next epoch would bind, and what would be lost.

    Nothing is changed.

    Exit codes: 0 no log is stopped; 1 Kafka does not answer; 2 the store cannot be read, or a setting is wrong; 3 a log
    is stopped.
    """
    with _reopening(settings, without_store=without_store) as reopening:
        plans = reopening.plans()
    columns = [text_column(name, name) for name in ("log", "rule", "binds", "first_offset", "lost")]
    rows = [_row(plan) for plan in plans]
    output.rows(rows, identity="log", fields=_FIELDS, show=columns, empty="No log is stopped.")
    if plans:
        raise typer.Exit(3)


def open_command(  # noqa: PLR0917 - one parameter per flag
    settings: Settings,
    logs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LOG]…", help="Stopped logs as `epoch show` names them. Default: all of them."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why the log may continue, for the record.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    without_store: WithoutStoreOption = False,
    name: PersonOption = "",
) -> None:
    """Continue stopped logs as new epochs. Find out first why they stopped: the runbook of each stop explains it.

    The genesis of the new epoch binds the last head that the sealed topic, the store or an anchor has, so that nothing
    before it can be changed later. The command shows what it found and what is lost, and asks. The decision is a sealed
    event, epoch.opened, with your name and reason. It needs the private key.

    All processes continue within seconds; start those that have ended.

    Exit codes: 0 opened; 1 Kafka does not answer, or you declined; 2 nothing is stopped, the store cannot be read, or
    an option is wrong; 3 the copies of a log contradict one another, or changed meanwhile: a person must investigate.
    """
    reason = required(reason, "--reason")
    signers = load_signers(settings)
    with _reopening(settings, without_store=without_store, keys=signers.keys) as reopening:
        plans = select(reopening.plans(), logs or [])
        if not plans:
            fail("no log is stopped: there is nothing to open")
        for plan in plans:
            _explain(plan)
        who = person(name)
        if not yes and not typer.confirm(f"Continue {len(plans)} log(s) in this way, as {who}? There is no undo."):
            raise typer.Exit(1)
        sealed = sealed_logs(settings, OPERATOR, signers.keys)
        open_epochs(reopening, sealed, signers.newest, own_signer(settings, OPERATOR), plans, person=who, reason=reason)
    for plan in plans:
        done = f"{plan.smaller} has {plan.wanted} partitions" if isinstance(plan, PartitionCountPlan) else "continues"
        typer.echo(f"{log_name(plan)}: {done}")
    if any(isinstance(plan, PartitionCountPlan) for plan in plans):
        if any(plan.topic == ACTIVITY_TOPIC for plan in plans if isinstance(plan, PartitionCountPlan)):
            typer.echo("Set activity_partitions to the new number.")
        typer.echo("Run `grantledger epoch show` again.")


@contextmanager
def _reopening(settings: Settings, *, without_store: bool, keys: LogKeys | None = None) -> Iterator[Reopening]:
    if not without_store:
        load_engine_early(settings)
    logs = sealed_logs(settings, OPERATOR, keys)
    if without_store:
        yield Reopening(settings, logs, None)
        return
    try:
        with ask_store(settings) as ask:
            yield Reopening(settings, logs, ask)
    except StoreUnavailableError as error:
        raise UsageError(
            f"{error}. The store may hold the last head of a stopped log: start it, or give --without-store"
        ) from error


def _row(plan: Plan) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_FIELDS, "") | {"log": log_name(plan)}
    if isinstance(plan, PartitionCountPlan):
        lost = f"nothing: {plan.smaller} gets {plan.wanted - plan.now} more partitions"
        return row | {"rule": "partition_count", "reason": lost, "lost": lost, "runbook": _runbook("partition_count")}
    row |= {"size": plan.old.size, "root": plan.old.root.hex(), "lost": "; ".join(plan.losses) or "nothing"}
    row["binds"] = f"{plan.old.origin} with {plan.old.size:,} entries"
    if isinstance(plan, AnchorEpochPlan):
        return row | {
            "rule": "anchors_lost", "reason": plan.reason, "bound_in": plan.place, "runbook": _runbook("anchors_lost")
        }  # fmt: skip
    return row | {
        "rule": plan.stop.rule, "reason": str(plan.stop), "bound_in": plan.bound.place if plan.bound else "",
        "first_offset": plan.genesis.first_offset, "runbook": _runbook(plan.stop.rule),
    }  # fmt: skip


def _explain(plan: Plan) -> None:
    row = _row(plan)
    typer.echo(f"{row['log']} is stopped ({row['rule']}, {row['runbook']}): {printable(row['reason'])}")
    if isinstance(plan, PartitionCountPlan):
        return
    found = f", found in {row['bound_in']}" if row["bound_in"] else ""
    typer.echo(f"  the new epoch binds: {row['binds']}, root {row['root'][:16]}…{found}")
    if row["first_offset"] != "":
        typer.echo(f"  it begins at input offset {row['first_offset']}")
    if isinstance(plan, AnchorEpochPlan) and plan.missing:
        typer.echo(f"  written to the topic again: {len(plan.missing)} anchors that only the file holds")
    for loss in plan.losses or ("nothing",):
        typer.echo(f"  lost: {loss}")


def _runbook(rule: str) -> str:
    return f"{RUNBOOKS}/{rule}.md"
