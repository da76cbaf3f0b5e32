"""Typed constructors for ``session.*``: what is done with the access."""

from __future__ import annotations

from typing import Literal, Unpack

from ..schemas.event import Action, Event, Subject
from .drafting import SessionCommon, draft

Outcome = Literal["success", "failure", "denied", "pending", "unknown"]


def session_started(*, subject: Subject | str, session_id: str | None = None, **common: Unpack[SessionCommon]) -> Event:
    """A session began.

    Args:
        subject: who uses the access.
        session_id: the session; a fresh id, unless given. Everything done in it must carry the same.
        common: see :class:`SessionCommon`.
    """
    return draft("session.started", subject, {"session_id": session_id}, common)


def session_command(
    *,
    subject: Subject | str,
    session_id: str,
    command: str,
    args: tuple[str, ...] = (),
    exit_code: int | None = None,
    redacted: bool = False,
    truncated: bool = False,
    outcome: Outcome | None = None,
    **common: Unpack[SessionCommon],
) -> Event:
    """Something was done in a session: a shell command, a call, a file transfer.

    Args:
        subject: who did it.
        session_id: the session.
        command: what was run.
        args: its arguments, one each.
        exit_code: as the command returned it.
        redacted: secrets were taken out of ``command`` or ``args``.
        truncated: ``command`` or ``args`` are not whole.
        outcome: from ``exit_code`` unless given: 0 is success, others are failure, none is unknown.
        common: see :class:`SessionCommon`.
    """
    if outcome is None:
        outcome = "unknown" if exit_code is None else "success" if exit_code == 0 else "failure"
    own = {
        "session_id": session_id,
        "action": Action(command=command, args=args, exit_code=exit_code, redacted=redacted, truncated=truncated),
        "outcome": outcome,
    }
    return draft("session.command", subject, own, common)


def session_query(
    *,
    subject: Subject | str,
    session_id: str,
    query: str,
    args: tuple[str, ...] = (),
    redacted: bool = False,
    truncated: bool = False,
    outcome: Outcome = "unknown",
    **common: Unpack[SessionCommon],
) -> Event:
    """A database was asked something in a session.

    Args:
        subject: who asked.
        session_id: the session.
        query: the statement as it was sent.
        args: its parameters, one each.
        redacted: secrets were taken out.
        truncated: ``query`` or ``args`` are not whole.
        outcome: what became of it.
        common: see :class:`SessionCommon`.
    """
    own = {
        "session_id": session_id,
        "action": Action(query=query, args=args, redacted=redacted, truncated=truncated),
        "outcome": outcome,
    }
    return draft("session.query", subject, own, common)


def session_ended(*, subject: Subject | str, session_id: str, **common: Unpack[SessionCommon]) -> Event:
    """A session is over.

    Args:
        subject: who used the access.
        session_id: the session.
        common: see :class:`SessionCommon`.
    """
    return draft("session.ended", subject, {"session_id": session_id}, common)


def session_denied(*, subject: Subject | str, session_id: str | None = None, **common: Unpack[SessionCommon]) -> Event:
    """Somebody tried to use access and was refused.

    Args:
        subject: who tried.
        session_id: the session in which it happened, or that did not come to be; a fresh id, unless given.
        common: see :class:`SessionCommon`; ``reason`` or ``error`` says why.
    """
    return draft("session.denied", subject, {"session_id": session_id}, common)


def session_recording_failed(*, subject: Subject | str, session_id: str, **common: Unpack[SessionCommon]) -> Event:
    """What is done in a session is no longer recorded, or the recording is lost.

    Args:
        subject: who uses the access.
        session_id: the session.
        common: see :class:`SessionCommon`; ``error`` says why.
    """
    return draft("session.recording_failed", subject, {"session_id": session_id}, common)
