"""hoop.dev: the start and end of sessions, from the event catalog and from webhooks."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from ....schemas.event import Action, Actor, Event, Subject
from ...constructors import outcome_of_exit_code
from ...json_fields import Fields
from ...redaction.redactor import Redaction
from ..contract import Mapped, Skipped
from ..values import UNKNOWN
from .record import HoopRecord

NO_EXIT_CODE = -100
"""The exit code in ``session.close`` if the exit status is unknown."""
_REFUSED = frozenset({"REJECTED", "REVOKED", "EXPIRED"})


def map_session(hoop: HoopRecord) -> Mapped | Skipped | None:
    """Return the events of a record about a session, or None for any other type."""
    if hoop.event_type == "session.started":
        return (_event(hoop, "session.started", _session(hoop), outcome="success"),)
    if hoop.event_type == "session.closed":
        return (_closed(hoop, hoop.payload.integer("exit_code"), None),)
    if hoop.event_type not in ("session.open", "session.close"):
        return None
    if hoop.time is None:
        return Skipped("no_time", f"{hoop.event_type} of session {hoop.payload.text('id') or UNKNOWN}")
    if hoop.event_type == "session.open":
        return _opened(hoop)
    code = hoop.payload.integer("exit_code")
    return (_closed(hoop, None if code == NO_EXIT_CODE else code, hoop.payload.text("exit_err")),)


def _session(hoop: HoopRecord) -> str:
    """Return the session id: ``session_id`` in catalog events, ``id`` in webhooks."""
    return hoop.payload.text("session_id") or hoop.payload.required_text("id")


def _event(hoop: HoopRecord, event_type: str, session: str, **own: Any) -> Event:
    return hoop.event(event_type, session, session_id=session, **own)


def _closed(hoop: HoopRecord, exit_code: int | None, error: str | None) -> Event:
    """Map the end of a session. Without an exit code the outcome is unknown."""
    session = _session(hoop)
    named = hoop.payload.has("connection")
    more: dict[str, Any] = {} if named else {"resource": None, "subject": Subject(UNKNOWN), "actor": Actor(UNKNOWN)}
    return _event(hoop, "session.ended", session, outcome=outcome_of_exit_code(exit_code), error=error, **more)


def _opened(hoop: HoopRecord) -> Mapped:
    """Map ``session.open``: sent when a session requests its review, and again when it runs, with another state."""
    payload = hoop.payload
    session = _session(hoop)
    review = payload.object("review")
    status = review.text("status")
    source = hoop.source(session, f"{hoop.event_type}/{status}" if status else None)
    if status == "PENDING":
        # The webhook does not name the review. hoop also uses the session's id as the id of its review.
        asked = {"request_id": session, "entitlement": UNKNOWN, "outcome": "pending", "action": _action(payload)}
        return (_event(hoop, "request.created", session, source=source, **asked),)
    if status in _REFUSED:
        return (_event(hoop, "session.denied", session, source=source, outcome="denied", action=_action(payload)),)
    opened = _event(hoop, "session.started", session, source=source, outcome="success")
    action = _action(payload)
    if action is None:
        return (opened,)
    acts = "session.query" if action.query is not None else "session.command"
    # The action was allowed to start; its result is not known yet.
    return opened, _event(hoop, acts, session, source=source, action=action, outcome="unknown", ordinal=1)


def _action(payload: Fields) -> Action | None:
    """Return the action: the input is the standard input of the command, or the query for the database."""
    command = payload.texts("command")
    text = _input(payload)
    if text is None:
        return None
    cut = payload.flag("is_input_truncated") or False
    if payload.text("connection_type") == "database":
        return Action(query=text, truncated=cut)
    return Action(command=" ".join(command) or text, args=(text,) if command else (), truncated=cut)


def without_secrets_in_input(values: dict[str, Any], redaction: Redaction) -> dict[str, Any]:
    """Return a record whose input, which is in Base64, is without secrets."""
    payload = values.get("payload")
    if isinstance(payload, dict):
        return {**values, "payload": without_secrets_in_input(payload, redaction)}
    encoded = values.get("input")
    if not isinstance(encoded, str):
        return values
    try:
        text = base64.b64decode(encoded, validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return values
    clean = redaction.text(text, is_query=values.get("connection_type") == "database")
    if clean == text:
        return values
    return {**values, "input": base64.b64encode(clean.encode("utf-8", "surrogateescape")).decode("ascii")}


def _input(payload: Fields) -> str | None:
    encoded = payload.text("input")
    if encoded is None:
        return None
    try:
        # Bytes that are not UTF-8 become \x escapes.
        return base64.b64decode(encoded, validate=True).decode("utf-8", "backslashreplace") or None
    except (binascii.Error, ValueError):
        payload.fail("input", "is not base64")
