"""``grantledger grants revoke``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from ..base.errors import EXIT_USAGE
from ..base.text import printable
from ..runtime.operator_events import request_revocation
from ..runtime.settings import Settings
from ..runtime.store_access import ask_states
from ..schemas.access_key import id_of
from ..sinks.clickhouse import Ask, Row
from . import grant_revocations
from .errors import exit_code, fail
from .grant_command import grant_command
from .grant_history import STATE
from .grant_revocations import revocations_of
from .grant_show import resolved
from .grants import ENDED, UNRESOLVED, SourceOption, TenantOption, due_of, resource_text
from .output import Output, echo
from .person import PersonOption, person, required

REFUSED = 1


def command(  # noqa: PLR0917 - one parameter per flag
    settings: Settings,
    output: Output,
    grant: Annotated[str, typer.Argument(metavar="ID", help="Id of the grant, or its short form in a list.")],
    reason: Annotated[str, typer.Option(help="Why the access must end now, for the record.")],
    tenant: TenantOption = "",
    source: SourceOption = "",
    name: PersonOption = "",
) -> None:
    """Request the revocation of a grant. The request is sealed, with your name and reason, and enforcers carry it out.

    It also ends a grant that is still running. The limits of the enforcer apply: its routes and breakers, and another
    running grant of the same access. `grantledger grants show` shows the progress; without an enforcer nothing happens.

    This writes to access.findings and access.commands, with the credentials of the pipeline.

    Exit codes: 0 requested; 1 no grant has this id, or several have it: they are listed; or the grant is removed or
    historical, was requested already, or lacks what an enforcer needs; or Kafka does not answer; 2 the store cannot be
    read, or an option is wrong.
    """
    reason, who = required(reason, "--reason"), person(name)
    with exit_code(EXIT_USAGE), ask_states(settings) as ask:
        row = _revocable(output, ask, resolved(ask, grant, tenant, source, whole=True), datetime.now(UTC))
    request_revocation(settings, row, person=who, reason=reason)
    shown = printable(row["grant_id"])
    about = ", ".join(filter(None, (printable(row["subject_id"]), resource_text(row), printable(row["entitlement"]))))

    def show(_console: object) -> None:
        echo(f"requested the revocation of grant {shown} ({about}) as {who}")
        echo(f"next: {grant_command('show', row)}   (what the enforcers do)")

    output.record({"grant_id": row["grant_id"], "grant_key": row["grant_key"], "requested_by": who}, show)
    if row["running"] and row["state"] in ("covered", ENDED):
        output.note("another grant of the same access is running: an enforcer waits for its end, at most a day")


def _revocable(output: Output, ask: Ask, key: str, now: datetime) -> Row:
    """Return the state of a grant that an enforcer can revoke; otherwise end the command."""
    mine = {"grant": key, "id": id_of(key)}
    rows = ask(STATE, **mine)
    row, shown = (rows[0] if rows else None), printable(mine["id"])
    if row is None or row["activated_at"] is None:
        fail(f"grant {shown} has no activation on record: no enforcer would revoke it. Use the tool", REFUSED)
    if row["state"] == "removed":
        fail(f"grant {shown} is removed already, at {output.moment(row['removed_at'])} {output.zone_name}", REFUSED)
    if row["state"] == UNRESOLVED:
        last = "end" if due_of(row) is not None else "newest event"
        fail(
            f"grant {shown} was reported long after its {last}: no enforcer revokes historical access. Use the tool",
            REFUSED,
        )
    if not row["entitlement"] or not row["resource_id"]:
        fail(f"grant {shown} names no entitlement or resource: no enforcer can revoke it. Use the tool", REFUSED)
    for request in revocations_of(ask(grant_revocations.QUERY, **mine, limit=grant_revocations.MOST_ROWS)):
        if request.person and request.is_pending(now):
            fail(f"grant {shown}: {printable(request.text(output, now))}", REFUSED)
    return row
