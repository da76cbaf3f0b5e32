"""What the typed constructors share: defaults, and a check as soon as the event is made."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypedDict

from ..schemas.event import Actor, Approval, Event, Resource, Source, Subject
from ..schemas.rules import check

NATIVE_TYPE = "event"
"""``source.native_type`` of events that a sender makes itself: there is no record of another tool behind them."""

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
"""``outcome`` of an event whose type says it already; of the others it is unknown unless given."""

FRESH_IDS = {
    "request.created": "request_id",
    "grant.activated": "grant_id",
    "grant.failed": "grant_id",
    "session.started": "session_id",
    "session.denied": "session_id",
}
"""The id that begins with the event: where it is not given, a new one is made."""

_STAND_IN = Source("sender", "sender", "sender", NATIVE_TYPE)


class Common(TypedDict, total=False):
    """Keyword arguments that every constructor takes, all optional.

    actor: who caused the event, where it was not the subject; a text is an id of unknown kind.
    occurred_at: when it happened, with a time zone; now, unless given.
    tenant: where not the client's.
    native_id: the sender's own name for what it reports. The same event made again with it keeps its event id, so
        that a resend is no second event. A random one, unless given.
    reason, ticket, error, client_ip: as the sender has them.
    """

    actor: Actor | str
    occurred_at: datetime
    tenant: str
    native_id: str
    reason: str
    ticket: str
    error: str
    client_ip: str


class GrantCommon(Common, total=False):
    """For ``grant.*``: the request that the grant came from, and the whole chain of decisions as known now."""

    request_id: str
    session_id: str
    approvals: tuple[Approval, ...]


class SessionCommon(Common, total=False):
    """For ``session.*``; ``grant_id`` is the grant that the session uses."""

    resource: Resource
    entitlement: str
    grant_id: str
    request_id: str


def draft(event_type: str, subject: Subject | str, own: dict[str, Any], common: Any) -> Event:
    """Return an event without a source; :meth:`Client.send` names the sender in it.

    Args:
        event_type: one of the access types.
        subject: who holds the access; a text is an id of unknown kind.
        own: fields of this type, by their names in :class:`Event`; they win over ``common``.
        common: one of the mappings above.

    Raises:
        InvalidEventError: a field breaks a rule, for example a time without a zone; names the field.
    """
    holder = Subject(subject) if isinstance(subject, str) else subject
    fields: dict[str, Any] = {**common, **own}
    actor = fields.pop("actor", None) or Actor(holder.id, holder.kind)
    fresh = FRESH_IDS.get(event_type)
    if fresh is not None and not fields.get(fresh):
        fields[fresh] = new_id()
    fields["outcome"] = fields.get("outcome") or OUTCOMES.get(event_type, "unknown")
    if fields.get("grant_id") and not fields.get("grant_id_kind"):
        fields["grant_id_kind"] = "native"
    event = Event(
        event_type=event_type,
        occurred_at=fields.pop("occurred_at", None) or datetime.now(UTC),
        source=Source("", "", fields.pop("native_id", None) or new_id(), NATIVE_TYPE),
        subject=holder,
        actor=Actor(actor) if isinstance(actor, str) else actor,
        **fields,
    )
    check(replace(event, source=_STAND_IN))
    return event


def new_id() -> str:
    """Return a fresh id for a request, grant, session or record that the sender has not named."""
    return str(uuid.uuid4())
