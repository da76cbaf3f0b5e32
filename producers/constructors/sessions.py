"""Constructors for ``session.*``: the use of access."""

from __future__ import annotations

from typing import Literal, Unpack

from ...schemas.event import Action, Event, Subject
from .draft import SessionFields, draft, outcome_of_exit_code

Outcome = Literal["success", "failure", "denied", "pending", "unknown"]


def session_started(*, subject: Subject | str, session_id: str | None = None, **common: Unpack[SessionFields]) -> Event:
    """A session started.

    Args:
        subject: who uses the access.
        session_id: default: a new id. Every later event of this session must carry it.
        common: see :class:`SessionFields`.
    """
    return draft("session.started", common, subject=subject, session_id=session_id)


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
    **common: Unpack[SessionFields],
) -> Event:
    """An action in a session: a shell command, an API call, a file transfer.

    Args:
        subject: who did it.
        session_id: the session.
        command: the command or call.
        args: its arguments.
        exit_code: the exit code of the command.
        redacted: whether secrets were removed from ``command`` or ``args``.
        truncated: whether ``command`` or ``args`` are incomplete.
        outcome: default: from ``exit_code``: ``success`` for 0, ``failure`` for other codes, else ``unknown``.
        common: see :class:`SessionFields`.
    """
    action = Action(command=command, args=args, exit_code=exit_code, redacted=redacted, truncated=truncated)
    result = outcome or outcome_of_exit_code(exit_code)
    return draft("session.command", common, subject=subject, session_id=session_id, action=action, outcome=result)


def session_query(
    *,
    subject: Subject | str,
    session_id: str,
    query: str,
    args: tuple[str, ...] = (),
    redacted: bool = False,
    truncated: bool = False,
    outcome: Outcome = "unknown",
    **common: Unpack[SessionFields],
) -> Event:
    """A database query in a session.

    Args:
        subject: who sent it.
        session_id: the session.
        query: the statement as it was sent.
        args: its parameters.
        redacted: whether secrets were removed.
        truncated: whether ``query`` or ``args`` are incomplete.
        outcome: the result, if known.
        common: see :class:`SessionFields`.
    """
    action = Action(query=query, args=args, redacted=redacted, truncated=truncated)
    return draft("session.query", common, subject=subject, session_id=session_id, action=action, outcome=outcome)


def session_ended(*, subject: Subject | str, session_id: str, **common: Unpack[SessionFields]) -> Event:
    """A session ended.

    Args:
        subject: who used the access.
        session_id: the session.
        common: see :class:`SessionFields`.
    """
    return draft("session.ended", common, subject=subject, session_id=session_id)


def session_denied(*, subject: Subject | str, session_id: str | None = None, **common: Unpack[SessionFields]) -> Event:
    """An attempt to use access was denied.

    Args:
        subject: who tried.
        session_id: the session of the attempt; default: a new id.
        common: see :class:`SessionFields`; ``reason`` or ``error`` explains the denial.
    """
    return draft("session.denied", common, subject=subject, session_id=session_id)


def session_recording_failed(*, subject: Subject | str, session_id: str, **common: Unpack[SessionFields]) -> Event:
    """The recording of a session stopped or was lost.

    Args:
        subject: who uses the access.
        session_id: the session.
        common: see :class:`SessionFields`; ``error`` gives the reason.
    """
    return draft("session.recording_failed", common, subject=subject, session_id=session_id)
