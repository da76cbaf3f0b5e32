"""How long ago something was last told of."""

from __future__ import annotations

from .life import NEVER, Grant, Request, Session


def last_index_of_grant(grant: Grant) -> int:
    """Return the index of the last entry that a grant rests on."""
    lists = (grant.granted, grant.removals)
    events = [events[-1].index for events in lists if events]
    decisions = [decision[0] for decision in grant.decisions[-1:]]
    return max((*events, *decisions, *grant.failed[-1:]), default=0)


def last_index_of_request(request: Request) -> int:
    """Return the index of the last entry that a request rests on."""
    first = request.first % NEVER  # of one that names nobody, ``NEVER`` is added
    return max((first, *(one[0] for one in request.ends[-1:]), *(one[0] for one in request.decisions[-1:])))


def last_time_of_session(session: Session) -> int:
    """Return when the last end of a session was reported, or its start; 0 where neither was."""
    return max((time for time in (session.started, session.ended) if time < NEVER), default=0)


def rests_on(grant: Grant, index: int, event_type: str) -> bool:
    """Whether a grant still rests on an entry: of removals that are told for ever it keeps the first."""
    if event_type not in {"grant.revoked", "grant.expired"}:
        return True
    return any(removal.index == index for removal in grant.removals)
