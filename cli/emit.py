"""``grantledger emit``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from ..producers.adapters import Location, RecordError
from ..producers.event_json import event_from_json, event_to_json
from ..producers.importer import MAX_RECORD_BYTES
from ..producers.input_files import InputFile
from ..producers.json_fields import Fields, parse_object
from ..producers.redaction.redactor import Redactor
from ..runtime.settings import Settings
from ..schemas.event import ACCESS_TYPES, Event
from ..schemas.rules import InvalidEventError
from .errors import fail
from .output import Output, echo
from .redaction_option import RedactionOption, RedactionRulesOption, redactor
from .sending import SOME_REFUSED, SourceKeyOption, key_path, open_client, sending_errors

_Record = tuple[Location, bytes | Fields | None, str]
"""Location, content, and the reason if there is no content."""
_IDS = ("event_id", "event_type", "grant_id", "request_id", "session_id")
MOST_PRINTED = 100
"""Problems of refused events that are printed for people."""
_FLAGS = {
    "event_type": "the event type",
    "subject.id": "--subject",
    "resource.id": "--resource",
    "resource.environment": "--environment",
    "actor.id": "--actor",
    "action": "--run or --query",
    "action.command": "--run",
    "action.args": "--arg",
    "action.query": "--query",
    "action.exit_code": "--exit-code",
    "approvals": "--approved-by or --denied-by",
    "expires_at": "--expires-in or --expires-at",
    "source.native_id": "--native-id",
    "source.system": "--system",
    "source.instance": "--instance",
}
"""The flags of fields whose names differ."""
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def command(  # noqa: PLR0917 - one parameter per flag
    settings: Settings,
    output: Output,
    event_type: Annotated[
        str | None, typer.Argument(help="Type of the event, for example grant.activated. Not with --stdin.")
    ] = None,
    stdin: Annotated[
        bool, typer.Option("--stdin", help="Read events from standard input, one JSON object per line.")
    ] = False,
    subject: Annotated[str | None, typer.Option(help="Holder of the access.")] = None,
    subject_kind: Annotated[str | None, typer.Option(help="human, service, agent or system.")] = None,
    actor: Annotated[str | None, typer.Option(help="Who caused the event. Default: the subject.")] = None,
    actor_kind: Annotated[str | None, typer.Option(help="human, service, agent or system.")] = None,
    resource_kind: Annotated[str | None, typer.Option(help="Kind of the resource, for example database.")] = None,
    resource: Annotated[str | None, typer.Option(help="Id of the resource.")] = None,
    environment: Annotated[str | None, typer.Option(help="Environment of the resource, for example prod.")] = None,
    entitlement: Annotated[str | None, typer.Option(help="The role or permission.")] = None,
    grant_id: Annotated[str | None, typer.Option(help="Id of the grant. Generated on grant.activated.")] = None,
    request_id: Annotated[str | None, typer.Option(help="Id of the request. Generated on request.created.")] = None,
    session_id: Annotated[str | None, typer.Option(help="Id of the session. Generated on session.started.")] = None,
    expires_in: Annotated[str | None, typer.Option(help="Duration of the access: 90s, 45m, 1h30m, 2d.")] = None,
    expires_at: Annotated[str | None, typer.Option(help="End of the access: ISO 8601 with a zone.")] = None,
    occurred_at: Annotated[str | None, typer.Option(help="Time of the event: ISO 8601. Default: now.")] = None,
    removal_evidence: Annotated[
        str | None, typer.Option(help="On grant.revoked and grant.expired: none, deadline, api_accepted, confirmed.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="On session.command: the command.")] = None,
    arg: Annotated[list[str] | None, typer.Option(help="On session.command: an argument; repeatable.")] = None,
    query: Annotated[str | None, typer.Option(help="On session.query: the statement.")] = None,
    exit_code: Annotated[int | None, typer.Option(help="On session.command: the exit code.")] = None,
    approved_by: Annotated[list[str] | None, typer.Option(help="A reviewer who approved; repeatable.")] = None,
    denied_by: Annotated[list[str] | None, typer.Option(help="A reviewer who denied; repeatable.")] = None,
    reason: Annotated[str | None, typer.Option(help="Reason for the access.")] = None,
    ticket: Annotated[str | None, typer.Option(help="Ticket for the access.")] = None,
    customer: Annotated[str | None, typer.Option(help="Customer on whose data the work is done.")] = None,
    outcome: Annotated[str | None, typer.Option(help="success, failure, denied, pending or unknown.")] = None,
    error: Annotated[str | None, typer.Option(help="Error message.")] = None,
    client_ip: Annotated[str | None, typer.Option(help="IP address of the client.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Tenant. Default: default.")] = None,
    native_id: Annotated[
        str | None, typer.Option(help="Your own id of this event. If you send it twice, it counts once.")
    ] = None,
    system: Annotated[str, typer.Option(help="Name of the sender, in source.system.")] = "emit",
    instance: Annotated[str, typer.Option(help="Name of this sender among several, in source.instance.")] = "default",
    source_key: SourceKeyOption = None,
    redaction: RedactionOption = None,
    redaction_rules: RedactionRulesOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="With --stdin: send nothing if any line is invalid.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and print the events; send nothing.")] = False,
) -> None:
    """Send events about access to the ledger.

    Give one event with flags, or any number with --stdin: one JSON object per line, with the fields of an event. Each
    problem of an invalid line is reported with its number and field. The other lines are sent, unless --strict is
    given.

    Exit codes: 0 all sent and acknowledged; 1 some refused; 2 could not send.
    """
    if stdin and event_type is not None:
        fail("give one event with flags, or --stdin, not both: each line names its event_type")
    if stdin or event_type == "-":
        records: Iterable[_Record] = InputFile("-").lines(MAX_RECORD_BYTES)
    elif event_type is None:
        fail(f"name the event type, or --stdin; types: {', '.join(ACCESS_TYPES)}")
    else:
        flags: dict[str, Any] = {
            "event_type": event_type,
            "subject": _object(id=subject, kind=subject_kind),
            "actor": _object(id=actor, kind=actor_kind),
            "resource": _object(kind=resource_kind, id=resource, environment=environment),
            "action": _object(command=run, args=arg or None, query=query, exit_code=exit_code),
            "approvals": [
                *({"reviewer": name, "decision": "approved"} for name in approved_by or ()),
                *({"reviewer": name, "decision": "denied"} for name in denied_by or ()),
            ],
            "expires_at": _expiry(expires_in, expires_at),
            "source": _object(native_id=native_id),
            "occurred_at": occurred_at,
            "entitlement": entitlement,
            "grant_id": grant_id,
            "request_id": request_id,
            "session_id": session_id,
            "removal_evidence": removal_evidence,
            "reason": reason,
            "ticket": ticket,
            "customer": customer,
            "outcome": outcome,
            "error": error,
            "client_ip": client_ip,
            "tenant": tenant,
        }
        place = Location("flags", 1)
        records = [(place, Fields(flags, place), "")]

    result = _Result()
    events = _read(records, result, redactor(settings, redaction, redaction_rules))
    if strict:
        checked = list(events)
        events = iter(() if result.refused else checked)
    if dry_run:
        for _, event in events:
            typer.echo(json.dumps(event_to_json(_stamped(event, system, instance)), ensure_ascii=False))
        result.count_more()
        raise typer.Exit(result.exit_code)
    # The ids of a long input are kept only if they will be printed.
    keep = output.quiet or not output.for_people
    signed = key_path(settings, source_key) is not None
    with sending_errors(), open_client(settings, system=system, instance=instance, source_key=source_key) as client:
        for place, event in events:
            try:
                sent = client.send(event)
            except InvalidEventError as refusal:
                result.refuse(place, refusal)
                continue
            result.sent += 1
            if keep or not result.ids:
                result.ids.append({name: value for name in _IDS if (value := getattr(sent, name))})
    result.count_more()

    def show(_console: object) -> None:
        if result.sent == 1:
            typer.echo(" ".join(f"{name}={value}" for name, value in result.ids[0].items()))
        unsigned = "" if signed or not result.sent else " (unsigned)"
        typer.echo(f"sent {result.sent}{unsigned}, refused {result.refused}")

    if output.quiet:
        for ids in result.ids:
            typer.echo(ids["event_id"])
    else:
        output.record({"sent": result.sent, "signed": signed, "refused": result.problems, "events": result.ids}, show)
    raise typer.Exit(result.exit_code)


class _Result:
    """The numbers and ids of the events that were sent, and the problems of the refused ones, as in the input."""

    def __init__(self) -> None:
        self.sent = 0
        self.refused = 0
        self.ids: list[dict[str, str]] = []
        self.problems: list[dict[str, Any]] = []

    @property
    def exit_code(self) -> int:
        return SOME_REFUSED if self.refused else 0

    def refuse(self, place: Location, error: RecordError | InvalidEventError) -> None:
        """Name every problem of an event, for people at most ``MOST_PRINTED`` of all events."""
        self.refused += 1
        by_flags = place.file == "flags"
        for one in (error, *error.more):
            self.problems.append({"line": place.line, "field": one.field, "problem": one.problem})
            if len(self.problems) <= MOST_PRINTED:
                where = "" if by_flags else f"line {place.line}: "
                name = ", ".join(map(flag_of, one.field.split(", "))) if by_flags and one.field else one.field
                echo(f"refused: {where}{f'{name}: ' if name else ''}{one.problem}", err=True)

    def count_more(self) -> None:
        """Say how many problems were not printed."""
        if (more := len(self.problems) - MOST_PRINTED) > 0:
            echo(f"refused: and {more:,} more problems", err=True)


def flag_of(field: str) -> str:
    """Return the flag that sets a field of the event, for messages."""
    path = field.partition("[")[0]
    if path in _FLAGS:
        return _FLAGS[path]
    flag = path.replace(".", "-").replace("_", "-")
    return f"--{flag}"


def _read(records: Iterable[_Record], result: _Result, redactor: Redactor | None) -> Iterator[tuple[Location, Event]]:
    for place, record, problem in records:
        if isinstance(record, bytes) and not record.strip():
            continue
        try:
            if record is None:
                raise RecordError(place, None, problem)
            event = event_from_json(parse_object(record, place) if isinstance(record, bytes) else record)
            yield place, event if redactor is None else redactor.event(event)
        except RecordError as error:
            result.refuse(place, error)


def _stamped(event: Event, system: str, instance: str) -> Event:
    """Return an event as the client would send it, except for its sequence number."""
    if event.source.system:
        return event
    return replace(event, source=replace(event.source, system=system, instance=instance), event_id="")


def _object(**members: Any) -> dict[str, Any] | None:
    given = {name: value for name, value in members.items() if value is not None}
    return given or None


def _expiry(expires_in: str | None, expires_at: str | None) -> str | None:
    if expires_in is None:
        return expires_at
    if expires_at is not None:
        fail("give --expires-in or --expires-at, not both")
    found = _DURATION.fullmatch(expires_in)
    parts = [int(part or 0) for part in found.groups()] if found else []
    if not any(parts):
        fail(f"--expires-in: {expires_in!r} is not a duration; for example 90s, 45m, 1h30m, 2d")
    days, hours, minutes, seconds = parts
    try:
        return (datetime.now(UTC) + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)).isoformat()
    except OverflowError:
        fail(f"--expires-in: {expires_in!r} is longer than the calendar")
