"""The kinds of things that are judged (grant, request, session, source), and which of them a fact concerns."""

from __future__ import annotations

from typing import Literal

Kind = Literal["grant", "request", "session", "source", "late"]
Entity = tuple[Kind, str]
"""Kind of something that is judged, and its access key; of a source and of its late records, the key of findings."""
FactKey = tuple[int, str, str, str, str]
"""Index, event type, and the access keys of grant, request and session: enough to find the entity of a fact."""


def entity_of(key: FactKey) -> Entity:
    """Return the entity that a fact is about. The family of the event type decides which of its ids that is.

    An event about a grant that names only a request is about all grants of the request.
    """
    _, event_type, grant_key, request_key, session_key = key
    if event_type.startswith("grant.") and grant_key:
        return "grant", grant_key
    return ("session", session_key) if event_type.startswith("session.") else ("request", request_key)
