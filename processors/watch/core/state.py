"""Everything known of all grants, requests, sessions and sources, from facts in the order of the log.

Entities that ended long ago are forgotten as a whole, and so are entities that are judged together: with only some of
their facts the rest would be judged wrongly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, get_args

from ...access import NEVER, Access, Source
from ...policy import AccessLimits, PolicyLookup
from .facts import Fact
from .grants import Grant
from .intervals import IntervalUnion
from .links import Links
from .sessions import Request, Session
from .sources import SourceHistory

Kind = Literal["grant", "request", "session", "source", "event"]
Entity = tuple[Kind, str]
"""Kind and id of something that is judged."""
FactKey = tuple[int, str, str, str, str]
"""Index, event type, and the ids of grant, request and session: enough to find the entity of a fact."""
_TIME_BITS = 64


def entity_of(key: FactKey) -> Entity:
    """Return the entity that a fact is about. The family of the event type decides which of its ids that is."""
    _, event_type, grant_id, request_id, session_id = key
    if event_type.startswith("grant."):
        return "grant", grant_id
    return ("session", session_id) if event_type.startswith("session.") else ("request", request_id)


class AccessState:
    """Everything that is known, and which entities have changed since they were last judged."""

    def __init__(self, lookup: PolicyLookup) -> None:
        self._lookup = lookup
        self.grants: dict[str, Grant] = {}
        self.requests: dict[str, Request] = {}
        self.sessions: dict[str, Session] = {}
        self.sources: dict[Source, SourceHistory] = {}
        self.conflicts: dict[str, dict[int, int]] = {}
        """By event id: each content, and the append time of its first event."""
        self.accepted: dict[str, int] = {}
        """By event id: the entry that a person has accepted, of several with different contents."""
        self._conflicting: dict[int, str] = {}
        """Index and id of events whose id had another content before: a person may accept one of them."""
        self.changed: dict[Kind, dict[str, None]] = {kind: {} for kind in get_args(Kind)}
        """Entities to judge, by kind and in order of arrival."""
        self.size = 0
        """The number of entries up to the last fact: the next one has at least this index."""
        self._source_by_key: dict[str, Source] = {}
        self._grants_of_access = Links[Access]()
        self._grants_of_request = Links[str]()
        """Without grants that have the same id as their request."""
        self._sessions_of_grant = Links[str]()
        self._coverage: dict[Access, IntervalUnion] = {}
        self._waiting: dict[Access, set[str]] = {}
        """Grants whose finding waits until another grant of the same access ends."""
        self._contents: dict[int, int] = {}
        """By event id: content and append time of its first event, packed, because there is one for every event."""

    def add(self, fact: Fact) -> None:
        """Add the next fact of the log; one that was added before changes nothing."""
        if fact.index < self.size:
            return
        self.restore(fact)
        limits = self._lookup.source_limits(fact.source)
        history = self.sources.get(fact.source)
        if history is None:
            history = self.sources[fact.source] = SourceHistory.of(fact.source, limits)
            self._source_by_key[str(fact.source)] = fact.source
        history.add(fact, limits)
        self.mark("source", str(fact.source))

    def restore(self, fact: Fact) -> None:
        """Add a fact from a snapshot, whose source histories already include it."""
        self.size = fact.index + 1
        if not self._counts(fact):
            return
        family = fact.event_type.partition(".")[0]
        if family == "grant" and fact.grant_id:
            self._add_to_grant(fact)
        elif family == "request" and fact.request_id:
            self.requests.setdefault(fact.request_id, Request(fact.request_id)).add(fact)
            self.mark("request", fact.request_id)
        elif family == "session" and fact.session_id:
            self._add_to_session(fact)
        if fact.request_id:
            for grant_id in self._grants_of_request.of(fact.request_id):
                self.mark("grant", grant_id)
            if fact.request_id in self.grants:
                self.mark("grant", fact.request_id)

    def restore_sources(self, size: int, histories: Iterable[dict[str, Any]]) -> None:
        """Continue after a snapshot of so many entries, all facts of which were restored."""
        self.size = size
        for stored in histories:
            system, instance = stored["source"]
            source = Source(system, instance)
            self.sources[source] = SourceHistory.from_json(stored, source, self._lookup.source_limits(source))
            self._source_by_key[str(source)] = source
            self.mark("source", str(source))

    def mark(self, kind: Kind, key: str) -> None:
        """Have an entity judged."""
        self.changed[kind][key] = None

    def is_marked(self, entity: Entity) -> bool:
        """Whether an entity is still to be judged."""
        return entity[1] in self.changed[entity[0]]

    def limits_of(self, grant: Grant) -> AccessLimits:
        """Return the limits of a grant."""
        return self._lookup.limits(grant.source, grant.access, grant.environment)

    def source(self, key: str) -> SourceHistory:
        """Return the history of the source that a finding's key names."""
        return self.sources[self._source_by_key[key]]

    def is_alone(self, grant: Grant) -> bool:
        """Whether no other grant of the same access is known."""
        return self._grants_of_access.is_only(grant.access, grant.grant_id)

    def covered_until(self, grant: Grant, time: int) -> int:
        """Return until when all grants of the same access cover it without a break, from a time on."""
        if self.is_alone(grant):  # the usual case
            return time
        coverage = self._coverage.get(grant.access)
        if coverage is None:
            grants = [self.grants[name] for name in self._grants_of_access.of(grant.access)]
            spans = [period.cover(limits) for one in grants for limits in (self.limits_of(one),)
                     for period in one.periods(limits)]  # fmt: skip
            coverage = self._coverage[grant.access] = IntervalUnion(0, (span for span in spans if span[0] < span[1]))
        until = coverage.end_of(time)
        if until > time:
            self._waiting.setdefault(grant.access, set()).add(grant.grant_id)
        return until

    def _add_to_grant(self, fact: Fact) -> None:
        grant = self.grants.get(fact.grant_id)
        if grant is None:
            grant = self.grants[fact.grant_id] = Grant.of(fact)
        access = grant.access
        grant.add(fact)
        if grant.access != access:  # this is the first event that names a subject
            self._grants_of_access.discard(access, grant.grant_id)
            self._access_changed(access)
        self._grants_of_access.add(grant.access, grant.grant_id)
        self._access_changed(grant.access)
        if grant.request_id and grant.request_id != grant.grant_id:
            self._grants_of_request.add(grant.request_id, grant.grant_id)
        self.mark("grant", grant.grant_id)
        for session_id in self._sessions_of_grant.of(grant.grant_id):
            self.mark("session", session_id)

    def _add_to_session(self, fact: Fact) -> None:
        session = self.sessions.get(fact.session_id)
        if session is None:
            session = self.sessions[fact.session_id] = Session(
                fact.session_id, fact.access, fact.environment, fact.subject_kind, fact.source
            )
        session.add(fact)
        if session.grant_id:
            self._sessions_of_grant.add(session.grant_id, fact.session_id)
        self.mark("session", fact.session_id)

    def _access_changed(self, access: Access) -> None:
        """Discard the coverage of an access; judge the grants again that waited for another one."""
        self._coverage.pop(access, None)
        for grant_id in self._waiting.pop(access, ()):
            self.mark("grant", grant_id)

    def _counts(self, fact: Fact) -> bool:
        """Whether a fact is the first with its event id, or the one that a person accepted.

        Another content under the same id is a conflict.
        """
        event = int.from_bytes(hashlib.blake2b(fact.event_id.encode(), digest_size=16).digest(), "big")
        content = int.from_bytes(fact.content, "big")
        known = self._contents.get(event)
        if known is None:
            self._contents[event] = (content << _TIME_BITS) + fact.append
        elif known >> _TIME_BITS != content or fact.event_id in self.conflicts:
            self._conflicting[fact.index] = fact.event_id
            contents = self.conflicts.setdefault(fact.event_id, {known >> _TIME_BITS: _append_time(known)})
            contents.setdefault(content, fact.append)
            self.mark("event", fact.event_id)
        accepted = self.accepted.get(fact.event_id)
        return known is None if accepted is None else fact.entry == accepted

    def keeps(self, key: FactKey) -> bool:
        """Whether anything here still uses a fact."""
        if key[0] in self._conflicting:
            return True
        kind, name = entity_of(key)
        if kind == "grant":
            grant = self.grants.get(name)
            return grant is not None and grant.keeps(key[0], key[1])
        return name in (self.sessions if kind == "session" else self.requests)

    def forget(self, before: int, is_needed: Callable[[Entity], bool]) -> Iterator[Entity | None]:
        """Forget entities that have ended; yield each of them, and None for the others, so that other work can proceed.

        Entities that ended or had a fact since ``before``, are open, fall due or were not judged yet stay. A fact about
        a forgotten entity starts a new one.
        """
        for session in list(self.sessions.values()):
            if not self._is_over(session, before) or is_needed(("session", session.session_id)):
                yield None
                continue
            del self.sessions[session.session_id]
            self._sessions_of_grant.discard(session.grant_id, session.session_id)
            yield "session", session.session_id
        for access in list(self._grants_of_access):
            for grant in self._removable(access, before, is_needed):
                self._forget_grant(grant)
                yield "grant", grant.grant_id
            yield None
        for name, request in list(self.requests.items()):
            used = name in self.grants or name in self._grants_of_request
            if used or request.last_append >= before or is_needed(("request", name)):
                yield None
                continue
            del self.requests[name]
            yield "request", name
        for event, packed in list(self._contents.items()):
            if _append_time(packed) < before:
                self._contents.pop(event, None)
            yield None
        for source in self.sources.values():
            source.forget(before)
        for event_id, contents in list(self.conflicts.items()):
            if max(contents.values()) < before and not is_needed(("event", event_id)):
                del self.conflicts[event_id]
        self._conflicting = {index: name for index, name in self._conflicting.items() if name in self.conflicts}

    def _is_over(self, session: Session, before: int) -> bool:
        # Without a reported end it lasts as long as its grant is known; without a start it needs no judgement.
        over = session.ended < before or session.started == NEVER or session.grant_id not in self.grants
        return over and session.last_append < before

    def _removable(self, access: Access, before: int, is_needed: Callable[[Entity], bool]) -> list[Grant]:
        """Return the grants of an access that are over and do not overlap with one that stays."""
        over: list[tuple[int, int, Grant]] = []
        earliest = NEVER
        for name in self._grants_of_access.of(access):
            grant = self.grants[name]
            begin = grant.activations[0].append if grant.activations else NEVER
            end = grant.removed(self.limits_of(grant))
            old = end < before and grant.last_append < before and name not in self._sessions_of_grant
            if old and not is_needed(("grant", name)):
                over.append((end, begin, grant))
            else:
                earliest = min(earliest, begin)
        removable = []
        for end, begin, grant in sorted(over, key=lambda one: one[0], reverse=True):
            if end < earliest:
                removable.append(grant)
            else:
                earliest = min(earliest, begin)
        return removable

    def _forget_grant(self, grant: Grant) -> None:
        del self.grants[grant.grant_id]
        self._grants_of_access.discard(grant.access, grant.grant_id)
        self._coverage.pop(grant.access, None)
        if grant.access not in self._grants_of_access:
            self._waiting.pop(grant.access, None)
        if grant.request_id:
            self._grants_of_request.discard(grant.request_id, grant.grant_id)


def _append_time(packed: int) -> int:
    return packed & ((1 << _TIME_BITS) - 1)
