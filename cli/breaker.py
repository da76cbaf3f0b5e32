"""``grantledger breaker``: the enforcer's circuit breakers, one per source of grants and target."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import Annotated

import typer

from ..enforcers.command_rules import Circuit
from ..enforcers.event_writer import kafka_errors
from ..enforcers.events import Recorder
from ..enforcers.history_reader import HistoryReader
from ..runtime.event_schemas import schema_catalog
from ..runtime.sealed_logs import sealed_logs
from ..runtime.settings import Settings
from ..runtime.source_keys import publish_as_operator
from ..schemas.own_sources import OPERATOR
from .output import Output, echo
from .person import PersonOption, person, required


def show(settings: Settings, output: Output) -> None:
    """Show the open breakers. One opens when too many grants of a source would be revoked at a target at once.

    Exit codes: 0 shown; 1 Kafka does not answer; 2 a setting is wrong.
    """
    breakers = sorted(_open_breakers(settings).items())
    limit, seconds = settings.enforce_max_per_window, settings.enforce_window_seconds
    record = {
        "state": "open" if breakers else "closed",
        "open": [{"source": _source(one), "target": one.target, "opened_at": at} for one, at in breakers],
        "max_per_window": limit,
        "window_seconds": seconds,
    }

    def text(_console: object) -> None:
        for circuit, at in breakers:
            echo(f"open for {_about(circuit)} since {output.moment(at)} {output.zone_name}")
        state = (
            "check the revocations, then run: grantledger breaker close --reason …" if breakers else "all are closed"
        )
        echo(f"{state}\na breaker opens at more than {limit} revocations in {seconds:g} s")

    output.record(record, text, identity="state")


def close(
    settings: Settings,
    reason: Annotated[str, typer.Option(help="Why the revocations may continue, for the record.")],
    source: Annotated[str, typer.Option(help="Only for grants of this source: system/instance.")] = "",
    target: Annotated[str, typer.Option(help="Only for this target of the policy.")] = "",
    name: PersonOption = "",
) -> None:
    """Close all open breakers, or some, so that the enforcer continues. This is sealed, with your name and reason.

    Exit codes: 0 closed, or not open; 1 Kafka does not answer; 2 a setting or an option is wrong.
    """
    reason, who = required(reason, "--reason"), person(name)
    recorder, closed = Recorder(settings.require_deployment()), 0
    for circuit in sorted(_open_breakers(settings)):
        if source in ("", _source(circuit)) and target in ("", circuit.target):
            publish_as_operator(settings, [recorder.breaker_closed(datetime.now(UTC), circuit, who, reason)])
            echo(f"closed for {_about(circuit)}")
            closed += 1
    if not closed:
        echo("no such breaker is open")


def _open_breakers(settings: Settings) -> dict[Circuit, datetime]:
    settings.cluster().check_answers()
    with (
        kafka_errors("the breakers cannot be read"),
        closing(HistoryReader(sealed_logs(settings, OPERATOR), schema_catalog(settings))) as findings,
    ):
        return findings.history.open_since


def _source(circuit: Circuit) -> str:
    return f"{circuit.system}/{circuit.instance}"


def _about(circuit: Circuit) -> str:
    return f"grants of {_source(circuit)} at the target {circuit.target}"
