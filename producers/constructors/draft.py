"""Shared by the event constructors: the common fields, the defaults, and the check of a new event."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypedDict

from ...schemas.event import Actor, Approval, Event, Resource, Source, Subject
from ...schemas.rules import check

NATIVE_TYPE = "event"
"""``source.native_type`` of events without a native record."""

OUTCOMES = {
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
}
"""The default ``outcome`` by event type; for the other types it is ``unknown``."""

NEW_IDS = {
    "request.created": "request_id",
    "grant.activated": "grant_id",
    "grant.failed": "grant_id",
    "session.started": "session_id",
    "session.denied": "session_id",
}
"""The id that an event of this type introduces. It is generated if not given."""

_PLACEHOLDER = Source("sender", "sender", "sender", NATIVE_TYPE)


class CommonFields(TypedDict, total=False):
    """Optional keyword arguments of every constructor.

    actor: who caused the event; default: the subject. A string is an id of unknown kind.
    occurred_at: when it happened, with a time zone; default: now.
    tenant: default: the client's.
    native_id: your own id for this event. If you send the event again with the same ``native_id``, it keeps its event
        id and counts once. Default: a random id.
    reason, ticket, error, client_ip: optional details.
    """

    actor: Actor | str
    occurred_at: datetime
    tenant: str
    native_id: str
    reason: str
    ticket: str
    error: str
    client_ip: str


class GrantFields(CommonFields, total=False):
    """Optional arguments of ``grant.*``: the request behind the grant, and all approvals known so far."""

    request_id: str
    session_id: str
    approvals: tuple[Approval, ...]


class SessionFields(CommonFields, total=False):
    """Optional arguments of ``session.*``. ``grant_id`` is the grant that the session uses."""

    resource: Resource
    entitlement: str
    grant_id: str
    request_id: str


def draft(event_type: str, common: Any, *, subject: Subject | str, **own: Any) -> Event:
    """Return a checked event without a source; :meth:`Client.send` fills in the sender.

    Args:
        event_type: one of the access types.
        common: one of the mappings above.
        subject: who holds the access. A string is an id of unknown kind.
        own: fields of this event type, named as in :class:`Event`; they override ``common``.

    Raises:
        InvalidEventError: a field breaks a rule, for example a time without a time zone. The message names the field.
    """
    holder = Subject(subject) if isinstance(subject, str) else subject
    fields: dict[str, Any] = {**common, **own}
    actor = fields.pop("actor", None) or Actor(holder.id, holder.kind)
    introduced = NEW_IDS.get(event_type)
    if introduced is not None and not fields.get(introduced):
        fields[introduced] = new_id()
    fields["outcome"] = fields.get("outcome") or OUTCOMES.get(event_type, "unknown")
    if fields.get("grant_id") and not fields.get("grant_id_kind"):
        fields["grant_id_kind"] = "native"
    if event_type in ("grant.activated", "grant.extended") and not fields.get("expiry_source"):
        fields["expiry_source"] = "native" if fields.get("expires_at") else "unknown"
    event = Event(
        event_type=event_type,
        occurred_at=fields.pop("occurred_at", None) or datetime.now(UTC),
        source=Source("", "", fields.pop("native_id", None) or new_id(), NATIVE_TYPE),
        subject=holder,
        actor=Actor(actor) if isinstance(actor, str) else actor,
        **fields,
    )
    check(replace(event, source=_PLACEHOLDER))
    return event


def outcome_of_exit_code(code: int | None) -> str:
    """Return ``success`` for 0, ``failure`` for any other code, ``unknown`` for None."""
    return "unknown" if code is None else "success" if code == 0 else "failure"


def new_id() -> str:
    """Return a random id."""
    return str(uuid.uuid4())
