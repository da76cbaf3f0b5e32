"""CloudTrail: sign-ins to the console, sessions of Session Manager, and every call made with temporary credentials."""

from __future__ import annotations

from typing import Any

from ....schemas.event import Action, Actor, Event, Resource, Subject
from ..contract import Mapped, Skipped, synthesized
from ..reading import Fields
from .call import Call
from .identity import HIDDEN, UNKNOWN, session_of

_MASKED = (HIDDEN, "****", "***", "Value hidden due to security reasons.", "HIDDEN_FOR_SECURITY_REASONS")


def map_sessions(call: Call) -> Mapped | Skipped | None:
    """Return the event of a session that began, ended or was refused, or None for another record."""
    if call.is_one("signin", "ConsoleLogin", "SwitchRole"):
        return (_console(call),)
    if call.is_one("signin", "ExitRole"):
        ended = {"subject": call.identity.subject, "outcome": call.outcome, **_ids(call, _console_session(call))}
        return (Event(event_type="session.ended", resource=call.resource_of(call.account), **ended, **call.common()),)
    if call.is_one("ssm", "StartSession"):
        return (_shell(call),)
    if call.is_one("ssm", "TerminateSession") and call.error_code is None:
        return (_shell_ended(call),)
    if call.service == "signin.amazonaws.com" and not call.identity.temporary:
        return Skipped("authentication", call.name)
    return None


def map_command(call: Call) -> Mapped | None:
    """Return the event of a call made with temporary credentials, or None where it was not."""
    who = call.identity
    if not who.temporary or who.subject.id == UNKNOWN:
        return None
    return (
        Event(
            event_type="session.command",
            subject=who.subject,
            resource=call.resource_of(),
            entitlement=who.role,
            outcome=call.outcome,
            action=_action(call),
            **call.under(),
            **call.common(),
        ),
    )


def _ids(call: Call, session: str) -> dict[str, Any]:
    who = call.identity
    return {"session_id": session, "grant_id": who.grant_id, "grant_id_kind": who.grant_id_kind}


def _console(call: Call) -> Event:
    """A sign-in to the console, or a change of role within it. The answer tells whether it went well."""
    went_well = call.answer.text(call.operation) == "Success" and call.error_code is None
    before = call.more.text("SwitchFrom")
    common = call.common()
    return Event(
        event_type="session.started" if went_well else "session.denied",
        subject=call.identity.subject,
        resource=call.resource_of(call.account or UNKNOWN),
        entitlement=call.identity.role,
        outcome="success" if went_well else "denied",
        **_ids(call, _console_session(call)),
        # Who changed the role is whoever they were before.
        **{**common, "actor": Actor(before) if before else common["actor"]},
    )


def _console_session(call: Call) -> str:
    """Return the console session: what is done in it has the time of the sign-in as time of its credentials.

    A role is left under the ARN under which it was taken, and neither record holds the time of the other.
    """
    arn = call.record.object("userIdentity").text("arn")
    if call.operation in ("SwitchRole", "ExitRole"):
        return synthesized("console_role", arn or call.native_id)
    signed_in = session_of(None, arn, call.occurred_at)
    return call.identity.session_id or signed_in or synthesized("session", call.native_id)


def _shell(call: Call) -> Event:
    """A session of Session Manager on an instance; its id is the tool's own."""
    failed = call.error_code is not None
    session = call.answer.text("sessionId") or synthesized("session", call.native_id)
    return Event(
        event_type="session.denied" if failed else "session.started",
        subject=call.identity.subject,
        resource=Resource("managed_instance", call.asked.text("target") or UNKNOWN),
        entitlement=call.asked.text("documentName"),
        reason=call.asked.text("reason"),
        outcome=call.outcome,
        **_ids(call, session),
        **call.common(),
    )


def _shell_ended(call: Call) -> Event:
    """Ended by whoever called; that need not be who opened it, so the subject is not known."""
    session = call.asked.text("sessionId") or call.answer.required_text("sessionId")
    return Event(
        event_type="session.ended", subject=Subject(UNKNOWN), session_id=session, outcome="success", **call.common()
    )


def _action(call: Call) -> Action:
    arguments = _arguments(call.asked)
    return Action(
        command=call.name,
        args=arguments,
        redacted=any(mask in argument for argument in arguments for mask in _MASKED),
        # CloudTrail leaves out parameters that are too long for a record, and says so.
        truncated=call.asked.has("omitted"),
    )


def _arguments(asked: Fields) -> tuple[str, ...]:
    found = []
    for name in asked.values:
        text = asked.text(name) if isinstance(asked.values[name], str) else asked.compact(name)
        if text is not None:
            # A name may hold a lone surrogate as well; one that does is written with its escape.
            found.append(f"{name.encode('utf-8', 'backslashreplace').decode()}={text}")
    return tuple(found)
