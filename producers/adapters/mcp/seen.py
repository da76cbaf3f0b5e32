"""MCP: what an adapter remembers of one run: who is in a session, and which call an answer belongs to."""

from __future__ import annotations

from typing import NamedTuple

from ..teleport.seen import Recent


class Session(NamedTuple):
    """A session, its agent and the person for whom the agent acts."""

    id: str
    agent: str | None
    user: str | None


class Seen:
    """The sessions and unanswered calls of one run."""

    def __init__(self) -> None:
        self.sessions = Recent[Session]()
        self.calls = Recent[str]()
