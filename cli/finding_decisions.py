"""``grantledger findings ack`` and ``close``: a person decides about a finding."""

from __future__ import annotations

from typing import Annotated

import typer

from ..base.errors import EXIT_USAGE
from ..base.text import printable
from ..runtime.event_schemas import schema_catalog
from ..runtime.operator_events import settle_finding
from ..runtime.settings import Settings
from ..runtime.store_access import ask_states
from ..runtime.unstored_findings import next_stored_offset, read_unstored_events
from .errors import exit_code, fail
from .finding_conflict import check_acceptable, undecided_note
from .findings import IdArgument, resolved
from .output import Row, echo
from .person import PersonOption, person, required

_ENDS = {"finding.closed": "closed", "finding.resolved": "resolved"}
_SOON = "; lists show it once the store has it"


def acknowledge(
    settings: Settings,
    finding: IdArgument,
    reason: Annotated[str, typer.Option(help="Note for the record.")] = "acknowledged",
    name: PersonOption = "",
) -> None:
    """Record that you know of a finding and work on it. It stays open.

    This writes to access.findings, with the credentials of the pipeline.

    Exit codes: 0 on record; 1 no such finding, or Kafka does not answer; 2 the store cannot be read, or the finding is
    not open.
    """
    reason = required(reason, "--reason")
    with exit_code(EXIT_USAGE), ask_states(settings) as ask:
        start, row = next_stored_offset(ask, settings.deployment), resolved(ask, finding)
    _check_open(row)
    _check_unstored(settings, row, start)
    who = person(name)
    settle_finding(settings, row, "acknowledged", person=who, reason=reason)
    echo(f"acknowledged {row['id']} ({row['rule']}) as {who}{_SOON}")


def close(
    settings: Settings,
    finding: IdArgument,
    reason: Annotated[str, typer.Option(help="Why the finding needs no more attention, for the record.")],
    accept: Annotated[
        int | None,
        typer.Option(min=0, metavar="INDEX", help="On an event_conflict: index of the entry with the right version."),
    ] = None,
    name: PersonOption = "",
) -> None:
    """Close a finding that nothing resolves automatically. The decision is sealed, with your name and reason.

    An event_conflict that was closed without --accept can still be decided: close it again, with --accept. Until then,
    the stricter reading counts.

    Closing a finding ends no access. The same finding, with its key and deadline, does not open again; with another
    deadline, it is another finding. This writes to access.findings, with the credentials of the pipeline.

    Exit codes: 0 on record; 1 no such finding, or Kafka does not answer; 2 the store cannot be read, or an option is
    wrong.
    """
    reason = required(reason, "--reason")
    with exit_code(EXIT_USAGE), ask_states(settings) as ask:
        start, row = next_stored_offset(ask, settings.deployment), resolved(ask, finding)
        if accept is not None:
            check_acceptable(ask, row, accept)
    if accept is None or not row["closed_at"]:
        _check_open(row)
    _check_unstored(settings, row, start)
    who = person(name)
    settle_finding(settings, row, "closed", person=who, reason=reason, accept_index=accept)
    echo(f"closed {row['id']} ({row['rule']}) as {who}{_SOON}")
    if accept is None and (note := undecided_note(row)):
        echo(note, err=True)


def _check_open(row: Row) -> None:
    """End the command if the store shows that a finding has ended."""
    if not row["open"]:
        fail(f"{row['id']} is not open; `grantledger findings show {row['id']}` shows its events")


def _check_unstored(settings: Settings, row: Row, start: int) -> None:
    """End the command if Kafka has the end of a finding that the store still shows as open."""
    events = read_unstored_events(settings.cluster(), schema_catalog(settings), start, row)
    if events and (event := events[-1])["event_type"] in _ENDS:
        ended = _ENDS[event["event_type"]]
        who = f" by {printable(event['actor']['id'])}" if ended == "closed" else ""
        fail(
            f"{row['id']} is {ended}{who}; the store is behind and does not show it yet. `grantledger status` has more"
        )
