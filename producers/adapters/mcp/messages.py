"""MCP: what a JSON-RPC message becomes."""

from __future__ import annotations

from typing import Any

from ....schemas.event import Action, Event
from ...json_fields import Fields
from ..contract import Mapped, Skipped
from ..values import UNKNOWN, synthesized
from .exchange import Exchange, agent_of, arguments, person
from .seen import Seen, Session

_PROTOCOL = frozenset({
    "completion/complete", "elicitation/create", "logging/setLevel", "ping", "prompts/list", "resources/list",
    "resources/templates/list", "roots/list", "sampling/createMessage", "server/discover", "tools/list",
})  # fmt: skip
"""Methods that reach no data. Servers send ``elicitation/create``, ``roots/list`` and ``sampling/createMessage``."""
_NOTIFICATIONS = "notifications/"
_METHOD_NOT_FOUND = -32601
_REFUSALS = ("denied", "forbidden", "unauthorized", "not authorized", "not allowed", "rejected")


def map_message(exchange: Exchange, seen: Seen) -> Mapped | Skipped:
    """Return the events of a line, or the reason to skip it."""
    session = _session(exchange, seen)
    method = exchange.method
    if method is None:
        return _answered(exchange, session, seen)
    failed = _failure(exchange.answer) if exchange.answer is not None else None
    if exchange.answer is None and not exchange.by_server and exchange.number is not None:
        seen.calls.put((session.id, exchange.number), exchange.tool or method)
    if method in _PROTOCOL or method.startswith(_NOTIFICATIONS) or exchange.by_server:
        return Skipped("protocol", method)
    if failed is not None:
        outcome, error = failed
    else:
        outcome, error = "unknown" if exchange.answer is None else "success", None
    if method == "initialize":
        kind = "session.started" if failed is None else "session.denied"
        return (_event(exchange, kind, session, outcome=outcome, error=error),)
    kind = "session.denied" if outcome == "denied" else "session.command"
    return (_event(exchange, kind, session, outcome=outcome, error=error, action=_action(exchange)),)


def _session(exchange: Exchange, seen: Seen) -> Session:
    """Return the session of a message: the log's own, else the one that the last ``initialize`` to the server began."""
    place = (exchange.source.instance, exchange.session or f"server {exchange.server}")
    known = seen.sessions.get(place)
    begins = exchange.method == "initialize"
    if known is None or begins:
        start = exchange.occurred_at.isoformat() if begins else ""
        own = exchange.session or synthesized("session", *place, start)
        known = Session(own, exchange.agent, exchange.user)
        if begins:
            seen.sessions.put(place, known)
    return Session(known.id, exchange.agent or known.agent, exchange.user or known.user)


def _answered(exchange: Exchange, session: Session, seen: Seen) -> Mapped | Skipped:
    """Map an answer, which names only the number of its request."""
    asked = seen.calls.pop((session.id, exchange.number or ""), None)
    if exchange.by_client:
        return Skipped("protocol", "the agent's answer to the server")
    failed = _failure(exchange.asked)
    if failed is None:
        return Skipped("call_result", f"{asked or 'a call'} {exchange.number or ''}".strip())
    if asked in _PROTOCOL or (asked is None and _code(exchange.asked) == _METHOD_NOT_FOUND):
        return Skipped("protocol", f"{asked or 'a method'} refused: {failed[1]}"[:200])
    outcome, error = failed
    kind = "session.denied" if outcome == "denied" or asked == "initialize" else "session.command"
    action = Action(command=asked or UNKNOWN)
    return (_event(exchange, kind, session, outcome=outcome, error=error, action=action),)


def _failure(answer: Fields) -> tuple[str, str | None] | None:
    """Return outcome and message of an answer that is an error: of the protocol, or of the tool."""
    if answer.has("error"):
        error = _member(answer, "error").text("message") or f"error {_code(answer)}"
        refused = _code(answer) in (401, 403) or any(word in error.lower() for word in _REFUSALS)
        return "denied" if refused else "failure", error
    result = _member(answer, "result")
    if result.values.get("isError") is not True:
        return None
    content = result.values.get("content")
    texts = [one.get("text") for one in content if isinstance(one, dict)] if isinstance(content, list) else []
    first = next((text for text in texts if isinstance(text, str)), None)
    return "failure", first.encode("utf-8", "replace").decode()[:1000] if first else "the tool reports an error"


def _code(answer: Fields) -> int | None:
    return _member(answer, "error").integer("code")


def _member(answer: Fields, name: str) -> Fields:
    """Return an object; empty for another value, which a server may answer."""
    value = answer.values.get(name)
    return Fields(value if isinstance(value, dict) else {}, answer.location, f"{answer.path}{name}.")


def _action(exchange: Exchange) -> Action:
    given = exchange.params.object("arguments") if exchange.tool else exchange.params
    args = arguments(given)
    named = exchange.tool or exchange.method
    return Action(command=named, args=args, truncated=exchange.truncated)


def _event(exchange: Exchange, event_type: str, session: Session, **own: Any) -> Event:
    return Event(
        event_type=event_type,
        occurred_at=exchange.occurred_at,
        source=exchange.source,
        subject=person(session.user),
        actor=agent_of(session.agent, session.user),
        resource=exchange.resource,
        session_id=session.id,
        client_ip=exchange.client_ip,
        **own,
    )
