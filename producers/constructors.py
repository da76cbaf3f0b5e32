"""Constructors for access events, one per event type. ``grantledger.producers`` exports them all.

Each takes the fields of its event by name; the classes below describe the fields that several types share. The result
has no source: :meth:`Client.send` fills in the sender. If a field breaks a rule, for example a time without a time
zone, the constructor raises :class:`InvalidEventError`, and the message names the field.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal, NotRequired, TypedDict, Unpack

from ..schemas.event import GIVING, Action, Actor, Approval, Event, EventSource, Resource, Subject
from ..schemas.rules import InvalidEventError, check

NATIVE_TYPE = "event"
"""``source.native_type`` of events without a native record."""

_OUTCOMES = {
    "request.created": "pending",
    "request.approved": "success",
    "request.denied": "denied",
    "request.cancelled": "success",
    "request.expired": "success",
    "grant.activated": "success",
    "grant.extended": "success",
    "grant.revoked": "success",
    "grant.expired": "success",
    "grant.failed": "failure",
    "session.started": "success",
    "session.ended": "success",
    "session.denied": "denied",
    "session.recording_failed": "failure",
    "policy.changed": "success",
}
"""The default ``outcome`` by event type; for the other types it is ``unknown``."""

NEW_IDS = {
    "request.created": "request_id",
    "grant.activated": "grant_id",
    "grant.failed": "grant_id",
    "session.started": "session_id",
    "session.denied": "session_id",
}
"""The id that an event of this type introduces. It is generated if not given. Later events must carry it."""

_PLACEHOLDER = EventSource("sender", "sender", "sender", NATIVE_TYPE)

Outcome = Literal["success", "failure", "denied", "pending", "unknown"]
ExpirySource = Literal["native", "derived", "policy", "unknown"]
"""The origin of ``expires_at``: stated by the tool, computed from its record, set by our policy, or unknown."""
RemovalEvidence = Literal["none", "deadline", "api_accepted", "confirmed"]
"""Proof that access is gone: none, its deadline passed, the tool accepted the removal, or a check confirmed it."""


class CommonFields(TypedDict):
    """Fields of every event.

    subject: who holds the access, held it or would hold it; in a session, who uses it. A string is an id of unknown
        kind, also for ``actor``.
    actor: who caused the event; default: the subject.
    occurred_at: when it happened, with a time zone; default: now.
    tenant: default: the client's.
    native_id: your own id for this event. If you send the event again with the same ``native_id``, it keeps its event
        id and counts once. Default: a random id.
    reason, ticket, customer, error, client_ip: optional details. The customer is on whose data support staff work.
    """

    subject: Subject | str
    actor: NotRequired[Actor | str]
    occurred_at: NotRequired[datetime]
    tenant: NotRequired[str]
    native_id: NotRequired[str]
    reason: NotRequired[str]
    ticket: NotRequired[str]
    customer: NotRequired[str]
    error: NotRequired[str]
    client_ip: NotRequired[str]


class AccessFields(CommonFields):
    """Fields of every ``request.*`` and ``grant.*`` event: the resource, and the role or permission."""

    resource: Resource
    entitlement: str


class GrantFields(AccessFields):
    """Fields of every ``grant.*`` event: the request and session behind the grant, and all approvals known so far."""

    request_id: NotRequired[str]
    session_id: NotRequired[str]
    approvals: NotRequired[tuple[Approval, ...]]


class SessionFields(CommonFields):
    """Fields of every ``session.*`` event. ``grant_id`` is the grant that the session uses."""

    resource: NotRequired[Resource]
    entitlement: NotRequired[str]
    grant_id: NotRequired[str]
    request_id: NotRequired[str]


def request_created(
    *,
    request_id: str | None = None,
    requested_seconds: int | None = None,
    expires_at: datetime | None = None,
    **fields: Unpack[AccessFields],
) -> Event:
    """Someone requested access.

    Args:
        request_id: default: a new id. Every later event about this request must carry it.
        requested_seconds: the requested duration in seconds.
        expires_at: the requested end, if a fixed time was requested.
        fields: see :class:`AccessFields`.
    """
    duration = {"requested_seconds": requested_seconds, "expires_at": expires_at}
    return draft("request.created", fields, request_id=request_id, **duration)


def request_approved(*, request_id: str, approvals: tuple[Approval, ...], **fields: Unpack[AccessFields]) -> Event:
    """A request was approved. The access is not active yet: send ``grant_activated`` when it is.

    Args:
        request_id: the request.
        approvals: all decisions known so far.
        fields: see :class:`AccessFields`; ``actor`` is who approved.
    """
    return draft("request.approved", fields, request_id=request_id, approvals=approvals)


def request_denied(*, request_id: str, approvals: tuple[Approval, ...], **fields: Unpack[AccessFields]) -> Event:
    """A request was denied. The arguments are those of ``request_approved``."""
    return draft("request.denied", fields, request_id=request_id, approvals=approvals)


def request_cancelled(*, request_id: str, **fields: Unpack[AccessFields]) -> Event:
    """A request was withdrawn or deleted before a decision; ``actor`` is who withdrew it."""
    return draft("request.cancelled", fields, request_id=request_id)


def request_expired(*, request_id: str, **fields: Unpack[AccessFields]) -> Event:
    """A request expired. This does not end a grant: see ``grant_expired``."""
    return draft("request.expired", fields, request_id=request_id)


def grant_activated(
    *,
    expires_at: datetime | None,
    grant_id: str | None = None,
    expiry_source: ExpirySource | None = None,
    starts_at: datetime | None = None,
    **fields: Unpack[GrantFields],
) -> Event:
    """Access is active from now on.

    Args:
        expires_at: the time by which the access must end. None if unknown; such a grant is never found overdue.
        grant_id: default: a new id. Every later event about this grant must carry it.
        expiry_source: default: ``native`` if ``expires_at`` is given, else ``unknown``.
        starts_at: the start of the access, if it is later than this event.
        fields: see :class:`GrantFields`.
    """
    times = {"expires_at": expires_at, "expiry_source": expiry_source, "starts_at": starts_at}
    return draft("grant.activated", fields, grant_id=grant_id, **times)


def grant_extended(
    *,
    expires_at: datetime | None,
    grant_id: str | None = None,
    expiry_source: ExpirySource | None = None,
    **fields: Unpack[GrantFields],
) -> Event:
    """A grant has a new end, which replaces the previous one. For the arguments, see ``grant_activated``.

    With only ``request_id``, the event is about all grants of the request that are active.
    """
    end = {"expires_at": expires_at, "expiry_source": expiry_source}
    return draft("grant.extended", fields, grant_id=grant_id, **end)


def grant_revoked(
    *, removal_evidence: RemovalEvidence, grant_id: str | None = None, **fields: Unpack[GrantFields]
) -> Event:
    """A grant was removed; ``actor`` is who removed it.

    Args:
        grant_id: the grant. With only ``request_id``, the event is about all grants of the request.
        removal_evidence: ``api_accepted`` if the tool accepted the removal, ``confirmed`` if a check found it gone.
        fields: see :class:`GrantFields`.
    """
    return draft("grant.revoked", fields, grant_id=grant_id, removal_evidence=removal_evidence)


def grant_expired(
    *, removal_evidence: RemovalEvidence, grant_id: str | None = None, **fields: Unpack[GrantFields]
) -> Event:
    """A grant reached its end.

    Args:
        grant_id: the grant. With only ``request_id``, the event is about all grants of the request.
        removal_evidence: ``deadline`` if only the time has passed, ``confirmed`` if a check found it gone.
        fields: see :class:`GrantFields`.
    """
    return draft("grant.expired", fields, grant_id=grant_id, removal_evidence=removal_evidence)


def grant_failed(*, grant_id: str | None = None, **fields: Unpack[GrantFields]) -> Event:
    """The tool could not activate a grant; ``error`` gives the reason. ``grant_id`` is by default a new id."""
    return draft("grant.failed", fields, grant_id=grant_id)


def session_started(*, session_id: str | None = None, **fields: Unpack[SessionFields]) -> Event:
    """A session started. ``session_id`` is by default a new id; every later event of the session must carry it."""
    return draft("session.started", fields, session_id=session_id)


def session_command(
    *,
    session_id: str,
    command: str,
    args: tuple[str, ...] = (),
    exit_code: int | None = None,
    redacted: bool = False,
    truncated: bool = False,
    outcome: Outcome | None = None,
    **fields: Unpack[SessionFields],
) -> Event:
    """An action in a session: a shell command, an API call, a file transfer.

    Args:
        session_id: the session.
        command: the command or call.
        args: its arguments.
        exit_code: the exit code of the command.
        redacted: whether secrets were removed from ``command`` or ``args``.
        truncated: whether ``command`` or ``args`` are incomplete.
        outcome: default: from ``exit_code``: ``success`` for 0, ``failure`` for other codes, else ``unknown``.
        fields: see :class:`SessionFields`.
    """
    action = Action(command=command, args=args, exit_code=exit_code, redacted=redacted, truncated=truncated)
    result = outcome or outcome_of_exit_code(exit_code)
    return draft("session.command", fields, session_id=session_id, action=action, outcome=result)


def session_query(
    *,
    session_id: str,
    query: str,
    args: tuple[str, ...] = (),
    redacted: bool = False,
    truncated: bool = False,
    outcome: Outcome = "unknown",
    **fields: Unpack[SessionFields],
) -> Event:
    """A database query in a session: ``query`` is the statement as it was sent, ``args`` are its parameters.

    For the other arguments, see ``session_command``.
    """
    action = Action(query=query, args=args, redacted=redacted, truncated=truncated)
    return draft("session.query", fields, session_id=session_id, action=action, outcome=outcome)


def session_ended(*, session_id: str, **fields: Unpack[SessionFields]) -> Event:
    """A session ended."""
    return draft("session.ended", fields, session_id=session_id)


def session_denied(*, session_id: str | None = None, **fields: Unpack[SessionFields]) -> Event:
    """An attempt to use access was denied; ``reason`` or ``error`` explains it. ``session_id`` is by default new."""
    return draft("session.denied", fields, session_id=session_id)


def session_recording_failed(*, session_id: str, **fields: Unpack[SessionFields]) -> Event:
    """The recording of a session stopped or was lost; ``error`` gives the reason."""
    return draft("session.recording_failed", fields, session_id=session_id)


def policy_changed(**fields: Unpack[AccessFields]) -> Event:
    """A role, or another rule about who may get access, was changed.

    ``entitlement`` names the role, ``subject`` whom the rule is about: ``unknown`` if nobody in particular.
    """
    return draft("policy.changed", fields)


def draft(event_type: str, common: Mapping[str, Any], **own: Any) -> Event:
    """Return a checked event with the defaults of its type; without a source, unless one is given.

    Args:
        common, own: fields of :class:`Event`; ``subject`` and ``actor`` may be strings. ``own`` overrides ``common``.

    Raises:
        InvalidEventError: a field breaks a rule.
    """
    fields: dict[str, Any] = {**common, **own}
    if not fields.get("subject"):
        raise InvalidEventError("subject", f"is required on {event_type}")
    subject, actor = fields.pop("subject"), fields.pop("actor", None)
    holder = Subject(subject) if isinstance(subject, str) else subject
    actor = actor or Actor(holder.id, holder.kind)
    introduced = NEW_IDS.get(event_type)
    if introduced is not None and not fields.get(introduced):
        fields[introduced] = _new_id()
    fields["outcome"] = fields.get("outcome") or _OUTCOMES.get(event_type, "unknown")
    if fields.get("grant_id") and not fields.get("grant_id_kind"):
        fields["grant_id_kind"] = "native"
    if event_type in GIVING and not fields.get("expiry_source"):
        fields["expiry_source"] = "native" if fields.get("expires_at") else "unknown"
    native_id, source = fields.pop("native_id", None), fields.pop("source", None)
    event = Event(
        event_type=event_type,
        occurred_at=fields.pop("occurred_at", None) or datetime.now(UTC),
        source=source or EventSource("", "", native_id or _new_id(), NATIVE_TYPE),
        subject=holder,
        actor=Actor(actor) if isinstance(actor, str) else actor,
        **fields,
    )
    check(event if source else replace(event, source=_PLACEHOLDER))
    return event


def outcome_of_exit_code(code: int | None) -> str:
    """Return ``success`` for 0, ``failure`` for any other code, ``unknown`` for None."""
    return "unknown" if code is None else "success" if code == 0 else "failure"


def _new_id() -> str:
    return str(uuid.uuid4())
