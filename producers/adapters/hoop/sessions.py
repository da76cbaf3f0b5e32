"""hoop.dev: sessions opened and closed, as its catalogue of events and its webhooks write them."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from ....schemas.event import Action, Actor, Event, Subject
from ..contract import Mapped, Skipped
from ..reading import Fields
from .record import UNKNOWN, HoopRecord

NO_EXIT_CODE = -100
"""What ``session.close`` writes where no exit status could be told."""
_REFUSED = frozenset({"REJECTED", "REVOKED", "EXPIRED"})


def map_session(found: HoopRecord) -> Mapped | Skipped | None:
    """Return the events of a record about a session, or None when its type is about something else."""
    if found.event_type == "session.started":
        return (_event(found, "session.started", _session(found), outcome="success"),)
    if found.event_type == "session.closed":
        return (_closed(found, found.payload.integer("exit_code"), None),)
    if found.event_type not in ("session.open", "session.close"):
        return None
    if found.time is None:
        return Skipped("no_time", f"{found.event_type} of session {found.payload.text('id') or UNKNOWN}")
    if found.event_type == "session.open":
        return _opened(found)
    code = found.payload.integer("exit_code")
    return (_closed(found, None if code == NO_EXIT_CODE else code, found.payload.text("exit_err")),)


def _session(found: HoopRecord) -> str:
    """Events of the catalogue name the session ``session_id``, webhooks ``id``."""
    return found.payload.text("session_id") or found.payload.required_text("id")


def _event(found: HoopRecord, event_type: str, session: str, **own: Any) -> Event:
    fields = {"subject": found.subject, "resource": found.connection, **found.common(session), **own}
    return Event(event_type=event_type, session_id=session, **fields)


def _closed(found: HoopRecord, exit_code: int | None, error: str | None) -> Event:
    """A session's end. Without an exit code it broke off or was left, and nobody can say which."""
    session = _session(found)
    outcome = "unknown" if exit_code is None else "success" if exit_code == 0 else "failure"
    named = found.payload.has("connection")
    more: dict[str, Any] = {} if named else {"resource": None, "subject": Subject(UNKNOWN), "actor": Actor(UNKNOWN)}
    return _event(found, "session.ended", session, outcome=outcome, error=error, **more)


def _opened(found: HoopRecord) -> Mapped:
    """``session.open`` comes when a session asks for its review and again when it runs; the state tells which."""
    payload = found.payload
    session = _session(found)
    review = payload.object("review")
    status = review.text("status")
    source = found.source(session, f"{found.event_type}/{status}" if status else None)
    if status == "PENDING":
        # The webhook does not say which review it waits for; hoop takes the session's id for the review's as well.
        asked = {"request_id": session, "entitlement": UNKNOWN, "outcome": "pending", "action": _action(payload)}
        return (_event(found, "request.created", session, source=source, **asked),)
    if status in _REFUSED:
        return (_event(found, "session.denied", session, source=source, outcome="denied", action=_action(payload)),)
    opened = _event(found, "session.started", session, source=source, outcome="success")
    action = _action(payload)
    if action is None:
        return (opened,)
    acts = "session.query" if action.query is not None else "session.command"
    # That it was let through says nothing yet of how it ended.
    return opened, _event(found, acts, session, source=source, action=action, outcome="unknown", ordinal=1)


def _action(payload: Fields) -> Action | None:
    """Return what was given to run: the input goes to the command on its standard input, or to the database."""
    command = payload.texts("command")
    text = _input(payload)
    if text is None:
        return None
    cut = payload.flag("is_input_truncated") or False
    if payload.text("connection_type") == "database":
        return Action(query=text, truncated=cut)
    return Action(command=" ".join(command) or text, args=(text,) if command else (), truncated=cut)


def _input(payload: Fields) -> str | None:
    encoded = payload.text("input")
    if encoded is None:
        return None
    try:
        # What is no UTF-8 stays readable as \x escapes.
        return base64.b64decode(encoded, validate=True).decode("utf-8", "backslashreplace") or None
    except (binascii.Error, ValueError):
        payload.fail("input", "is not base64")
