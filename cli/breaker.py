"""``grantledger breaker``: the enforcer's circuit breaker."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from ..enforcers.journal import close_breaker, read_history
from ..ledger.source_keys import OPERATOR
from ..runtime.event_schemas import schema_catalog
from ..runtime.process import configure_logs
from ..runtime.sealed_logs import sealed_logs
from ..runtime.settings import Settings
from .output import Output
from .person import PersonOption, person, required


def show(settings: Settings, output: Output) -> None:
    """Show whether the breaker is open. It opens, and stops the enforcer, when too much would be revoked at once.

    Exit codes: 0 shown; 1 Kafka does not answer; 2 a setting is wrong.
    """
    configure_logs(settings)
    history = read_history(sealed_logs(settings, OPERATOR), schema_catalog(settings))
    opened = history.breaker_opened
    record = {
        "state": "closed" if opened is None else "open",
        "opened_at": opened,
        "max_per_window": settings.enforce_max_per_window,
        "window_seconds": settings.enforce_window_seconds,
    }

    def text(_console: object) -> None:
        since = f" since {output.moment(opened)} {output.zone_name}" if opened else ""
        typer.echo(
            f"the breaker is {record['state']}{since}; it opens at more than {settings.enforce_max_per_window} "
            f"revocations in {settings.enforce_window_seconds:g} s"
        )
        if opened:
            typer.echo("check the revocations, then run: grantledger breaker close --reason …")

    output.record(record, text, identity="state")


def close(
    settings: Settings,
    reason: Annotated[str, typer.Option(help="Why the revocations may continue, for the record.")],
    name: PersonOption = "",
) -> None:
    """Close the breaker, so that the enforcer continues. The decision is sealed, with your name and reason.

    Exit codes: 0 closed, or it was not open; 1 Kafka does not answer; 2 a setting or an option is wrong.
    """
    reason = required(reason, "--reason")
    configure_logs(settings)
    was_open = close_breaker(
        sealed_logs(settings, OPERATOR),
        catalog=schema_catalog(settings),
        now=lambda: datetime.now(UTC),
        person=person(name),
        reason=reason,
    )
    typer.echo("the breaker is closed" if was_open else "the breaker was not open")
