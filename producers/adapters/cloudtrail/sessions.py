"""CloudTrail: console sign-ins, Session Manager sessions, and all calls with temporary credentials."""

from __future__ import annotations

from ....schemas.event import Action, Actor, Event, Resource, Subject
from ...json_fields import Fields
from ..contract import Mapped, Skipped
from ..values import UNKNOWN, synthesized
from .call import Call
from .identity import HIDDEN, session_of

_MASKED = (HIDDEN, "****", "***", "Value hidden due to security reasons.", "HIDDEN_FOR_SECURITY_REASONS")


def map_sessions(call: Call) -> Mapped | Skipped | None:
    """Return the event of a session that started, ended or was denied, or None for any other record."""
    if call.is_one("signin", "ConsoleLogin", "SwitchRole"):
        return (_console(call),)
    if call.is_one("signin", "ExitRole"):
        return (_role_left(call),)
    if call.is_one("ssm", "StartSession"):
        return (_shell(call),)
    if call.is_one("ssm", "TerminateSession") and call.error_code is None:
        return (_shell_ended(call),)
    if call.service == "signin.amazonaws.com" and not call.identity.temporary:
        return Skipped("authentication", call.name)
    return None


def map_command(call: Call) -> Mapped | None:
    """Return the event of a call with temporary credentials, or None for any other call."""
    who = call.identity
    if not who.temporary or who.subject.id == UNKNOWN:
        return None
    own = {"resource": call.resource_of(), "entitlement": who.role, "action": action_of(call)}
    return (call.event("session.command", **own, **call.credential_ids()),)


def _console(call: Call) -> Event:
    """Map a console sign-in or a switch of roles. The response contains the result."""
    succeeded = call.answer.text(call.operation) == "Success" and call.error_code is None
    before = call.more.text("SwitchFrom")
    return call.event(
        "session.started" if succeeded else "session.denied",
        # The actor is the identity before the switch.
        actor=Actor(before) if before else call.identity.actor,
        resource=call.resource_of(call.account or UNKNOWN),
        entitlement=call.identity.role,
        outcome="success" if succeeded else "denied",
        **call.credential_ids(_console_session(call)),
    )


def _role_left(call: Call) -> Event:
    ids = call.credential_ids(_console_session(call))
    return call.event("session.ended", resource=call.resource_of(call.account), **ids)


def _console_session(call: Call) -> str:
    """Return the id of the console session, whose calls use the sign-in time as the creation time of credentials.

    ``SwitchRole`` and ``ExitRole`` share only the ARN of the role session.
    """
    arn = call.record.object("userIdentity").text("arn")
    if call.operation in ("SwitchRole", "ExitRole"):
        return synthesized("console_role", arn or call.native_id)
    signed_in = session_of(None, arn, call.occurred_at)
    return call.identity.session_id or signed_in or synthesized("session", call.native_id)


def _shell(call: Call) -> Event:
    """Map the start of a Session Manager session, which has a native id."""
    failed = call.error_code is not None
    session = call.answer.text("sessionId") or synthesized("session", call.native_id)
    return call.event(
        "session.denied" if failed else "session.started",
        resource=Resource("managed_instance", call.asked.text("target") or UNKNOWN),
        entitlement=call.asked.text("documentName"),
        reason=call.asked.text("reason"),
        **call.credential_ids(session),
    )


def _shell_ended(call: Call) -> Event:
    """Map the end of a Session Manager session. The caller need not be its user, so the subject is unknown."""
    session = call.asked.text("sessionId") or call.answer.required_text("sessionId")
    return call.event("session.ended", subject=Subject(UNKNOWN), session_id=session)


def action_of(call: Call) -> Action:
    """Return a call as an action: its name and parameters."""
    arguments = _arguments(call.asked)
    return Action(
        command=call.name,
        args=arguments,
        redacted=any(mask in argument for argument in arguments for mask in _MASKED),
        # CloudTrail omits parameters that are too long, and marks the omission.
        truncated=call.asked.has("omitted"),
    )


def _arguments(asked: Fields) -> tuple[str, ...]:
    found = []
    for name in asked.values:
        text = asked.text(name) if isinstance(asked.values[name], str) else asked.compact(name)
        if text is not None:
            # Escape lone surrogates in the name.
            found.append(f"{name.encode('utf-8', 'backslashreplace').decode()}={text}")
    return tuple(found)
