"""A statement of a person, and the `query.executed` event that records it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ..schemas.event import Action, Actor, Event, EventSource, ExecutedQuery, Subject
from ..schemas.own_sources import STORE

SYSTEM: Final = STORE
"""`source.system` of the events. The store signs them."""
MAX_TEXT_BYTES: Final = 16 << 10
"""Longest recorded text of a statement, together with the values of its parameters, as UTF-8."""
MAX_ERROR_BYTES: Final = 1 << 10
# For the other columns and their storage.
_OVERHEAD_BYTES: Final = 512


@dataclass(frozen=True)
class PersonStatement:
    """A statement that the endpoint received.

    Attributes:
        user: whose credential it came with.
        parameters: values of its `{name:Type}` substitutions, as `name=value`.
        truncated: whether text or parameters were cut to `MAX_TEXT_BYTES`.
    """

    received_at: datetime
    user: str
    text: str
    parameters: tuple[str, ...] = ()
    truncated: bool = False
    client_ip: str = ""

    @classmethod
    def shortened(
        cls, received_at: datetime, user: str, text: str, parameters: Mapping[str, str], client_ip: str
    ) -> PersonStatement:
        """Return a statement whose text and parameters are cut to `MAX_TEXT_BYTES`."""
        room, parts = MAX_TEXT_BYTES, []
        given = [text, *(f"{name}={value}" for name, value in parameters.items())]
        for part in given:
            parts.append(cut(part, room))
            room -= len(parts[-1].encode())
        truncated = any(len(part) != len(whole) for part, whole in zip(parts, given, strict=True))
        kept = tuple(part for part in parts[1:] if part)
        return cls(received_at, user, parts[0], kept, truncated, client_ip)

    @property
    def size(self) -> int:
        """Bytes that the statement may take on the spool, with its completion."""
        text = sum(len(part.encode()) for part in (self.text, *self.parameters))
        return text + MAX_ERROR_BYTES + _OVERHEAD_BYTES


@dataclass(frozen=True)
class Completion:
    """How a statement ended.

    Attributes:
        outcome: `success`; `denied`: refused before it ran; `failure`; `unknown`: the process was killed meanwhile.
        rows: rows of the complete answer; None if there was none, or if it was no SELECT.
    """

    outcome: str
    rows: int | None = None
    duration_ms: int = 0
    error: str = ""


KILLED: Final = Completion("unknown", error="the endpoint was killed before the statement ended")


@dataclass(frozen=True)
class SpooledStatement:
    """A completed statement on the spool. `spool` and `number` identify it, `salt` is that of its event."""

    spool: str
    number: int
    salt: bytes
    statement: PersonStatement
    completion: Completion


def executed_event(deployment: str, spooled: SpooledStatement) -> Event:
    """Return the event that records a statement. The same statement always gives the same event, byte for byte."""
    statement, completion = spooled.statement, spooled.completion
    native_id = f"{spooled.spool}:{spooled.number}"
    return Event(
        event_type="query.executed",
        occurred_at=statement.received_at,
        source=EventSource(SYSTEM, deployment, native_id, "statement", seq=spooled.number, sender=spooled.spool),
        # A credential, which people and their tools share.
        subject=Subject(statement.user),
        actor=Actor(statement.user),
        outcome=completion.outcome,
        error=completion.error or None,
        client_ip=statement.client_ip or None,
        action=Action(query=statement.text, args=statement.parameters, truncated=statement.truncated),
        executed_query=ExecutedQuery(completion.rows, completion.duration_ms),
        salt=spooled.salt,
    )


def cut(text: str, most: int) -> str:
    """Return at most `most` bytes of a text, as UTF-8; lone surrogates become question marks."""
    return text.encode("utf-8", "replace")[: max(most, 0)].decode("utf-8", "ignore")
