"""The lives that the watch follows: grants, requests, sessions and sources, out of facts in any order. Pure.

What is over for long is forgotten, and never in part: what is forgotten of a life, or of lives that are judged
together, would make the rest tell another story.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args

from .ageing import last_index_of_grant, last_index_of_request, last_time_of_session, rests_on
from .facts import Access, Fact, Source
from .groups import join, leave, members
from .islands import Islands
from .life import NEVER, Grant, Request, Session
from .policy import Judge, Policy
from .source_memory import forget as forget_of_source
from .source_memory import recalled, source_of
from .sources import SourceLife

Kind = Literal["grant", "request", "session", "source", "event"]
About = tuple[Kind, str]
"""What a judgement is about."""
Row = tuple[int, str, str, str, str]
"""Index, event type, and the ids of grant, request and session: where a fact belongs."""
PAUSE = 1000
"""Things looked at before others get their turn."""


def _identity_of(event_id: str) -> bytes:
    """Return an event id in 16 bytes."""
    return hashlib.blake2b(event_id.encode(), digest_size=16).digest()


def life_of(told: Row) -> About:
    """Return what a fact belongs to. Its family says which of its ids that is."""
    _, event_type, grant_id, request_id, session_id = told
    if event_type.startswith("grant."):
        return "grant", grant_id
    return ("session", session_id) if event_type.startswith("session.") else ("request", request_id)


class Lives:
    """Everything known. ``add`` takes facts in any order."""

    def __init__(self, policy: Policy) -> None:
        self.judge_by = Judge(policy)
        self.grants: dict[str, Grant] = {}
        self.requests: dict[str, Request] = {}
        self.sessions: dict[str, Session] = {}
        self.sources: dict[Source, SourceLife] = {}
        self.seen = Islands()
        self._of_access: dict[Access, str | set[str]] = {}
        """The grants of each access: one, or several."""
        self._held: dict[Access, Islands] = {}
        self._waiting: dict[Access, set[str]] = {}
        self._grants_of: dict[str, str | set[str]] = {}
        """The grants of each request: one, or several. Some tools call both the same; those are not here."""
        self._sessions_of: dict[str, str | set[str]] = {}
        """The sessions that name a grant: one, or several."""
        self._source_of: dict[str, Source] = {}
        self._again: dict[About, int] = {}
        """Of lives that do not know by themselves when they were told of last: the index of that."""
        self._contents: dict[bytes, bytes] = {}
        """By event id: content and append time of its first telling, packed, because there is one for every event."""
        self._conflicts: dict[str, dict[bytes, int]] = {}
        self._touched: dict[Kind, dict[str, None]] = {kind: {} for kind in get_args(Kind)}

    def add(self, fact: Fact) -> None:
        """Take a fact; one whose index was taken before changes nothing."""
        if fact.index in self.seen:
            return
        self.recall(fact)
        limits = self.judge_by.source(fact.source)
        source = self.sources.get(fact.source)
        if source is None:
            source = self.sources[fact.source] = SourceLife.of(fact.source, limits)
            self._source_of[source.key] = fact.source
        source.add(fact, limits)
        self._touch("source", source.key)

    def recall(self, fact: Fact) -> None:
        """Take a fact that another state had taken: one that is in ``sources`` already."""
        if fact.index in self.seen:
            return
        self.seen.add(fact.index)
        self._compare(fact)
        family = fact.event_type.partition(".")[0]
        if family == "grant" and fact.grant_id:
            self._add_grant(fact)
        elif family == "request" and fact.request_id:
            self.requests.setdefault(fact.request_id, Request(fact.request_id)).add(fact)
            self._touch("request", fact.request_id)
        elif family == "session" and fact.session_id:
            self._add_session(fact)
        if fact.request_id:
            for grant_id in members(self._grants_of.get(fact.request_id, "")):
                self._touch("grant", grant_id)
            if fact.request_id in self.grants:
                self._touch("grant", fact.request_id)

    def resume(self, size: int, sources: Iterable[dict[str, Any]]) -> None:
        """Go on where another state was, all of whose facts that matter still were recalled.

        Args:
            size: index of the first entry that it had not taken.
            sources: what it knew of sources (:mod:`.source_memory`).
        """
        if size:
            self.seen.add_stretch(0, size - 1)
        for kept in sources:
            source = source_of(kept)
            life = self.sources[source] = recalled(kept, self.judge_by.source(source))
            self._source_of[life.key] = source
            self._touch("source", life.key)

    def _add_grant(self, fact: Fact) -> None:
        grant = self.grants.get(fact.grant_id)
        if grant is None:
            grant = self.grants[fact.grant_id] = Grant.of(fact)
            grant.add(fact)
            if last_index_of_grant(grant) < fact.index:
                self._told_again(("grant", grant.grant_id), fact.index)
        else:
            self._add_to(grant, fact)
        join(self._of_access, grant.access, grant.grant_id)
        self._changed(grant.access)
        if grant.request_id and grant.request_id != grant.grant_id:
            join(self._grants_of, grant.request_id, grant.grant_id)
        self._touch("grant", grant.grant_id)
        for session_id in members(self._sessions_of.get(grant.grant_id, "")):
            self._touch("session", session_id)

    def _add_to(self, grant: Grant, fact: Fact) -> None:
        before, request_id = grant.access, grant.request_id
        last = max(fact.index, last_index_of_grant(grant))
        grant.add(fact)
        if last_index_of_grant(grant) < last or grant.heard is not None:
            self._told_again(("grant", grant.grant_id), last)
        if grant.access != before:  # an earlier event, heard later, says otherwise
            leave(self._of_access, before, grant.grant_id)
            self._changed(before)
        if grant.request_id != request_id:
            leave(self._grants_of, request_id, grant.grant_id)

    def _add_session(self, fact: Fact) -> None:
        session = self.sessions.setdefault(fact.session_id, Session(fact.session_id))
        first, grant_id = session.first, session.grant_id
        session.add(fact)
        if first < NEVER:
            self._told_again(("session", fact.session_id), max(first, fact.index))
        if session.grant_id != grant_id:
            leave(self._sessions_of, grant_id, fact.session_id)
            join(self._sessions_of, session.grant_id, fact.session_id)
        self._touch("session", fact.session_id)

    def _told_again(self, about: About, index: int) -> None:
        self._again[about] = max(index, self._again.get(about, 0))

    def _changed(self, access: Access) -> None:
        """Forget until when an access is held; grants that waited for another one are looked at again."""
        self._held.pop(access, None)
        for grant_id in self._waiting.pop(access, ()):
            self._touch("grant", grant_id)

    def _compare(self, fact: Fact) -> None:
        """Remember what an event id stands for; another content under it is a conflict."""
        event = _identity_of(fact.event_id)
        here = fact.content + fact.append.to_bytes(8, "big")
        known = self._contents.setdefault(event, here)
        if known[:-8] == fact.content:
            self._contents[event] = min(known, here)
            if fact.event_id not in self._conflicts:
                return
        contents = self._conflicts.setdefault(fact.event_id, {})
        for told in (self._contents[event], here):
            append = int.from_bytes(told[-8:], "big")
            contents[told[:-8]] = min(append, contents.get(told[:-8], NEVER))
        self._touch("event", fact.event_id)

    def _touch(self, kind: Kind, key: str) -> None:
        self._touched[kind][key] = None

    def remembers(self, told: Row) -> bool:
        """Whether anything here still rests on a fact."""
        index, event_type, *_ = told
        kind, key = life_of(told)
        if kind == "grant":
            grant = self.grants.get(key)
            return grant is not None and rests_on(grant, index, event_type)
        return key in (self.sessions if kind == "session" else self.requests)

    def forget(self, before: int, index: int) -> Iterator[About | None]:
        """Forget what is over and can matter no more; yield what, and None now and then.

        What is open, falls due or is not judged yet stays, however old it is. What comes of it all the same is new.

        Args:
            before: microseconds since 1970; what ended later stays.
            index: what was told by an entry at or after it stays.
        """
        for number, session in enumerate(list(self.sessions.values())):
            if number % PAUSE == 0:
                yield None
            if self._is_over(session, before, index):
                self._forget_session(session)
                yield "session", session.session_id
        for number, access in enumerate(list(self._of_access)):
            if number % PAUSE == 0:
                yield None
            for grant in self._settled(access, before, index):
                self._forget_grant(grant)
                yield "grant", grant.grant_id
        for number, (request_id, request) in enumerate(list(self.requests.items())):
            if number % PAUSE == 0:
                yield None
            named = request_id in self.grants or request_id in self._grants_of
            if not named and last_index_of_request(request) < index and not self._matters(("request", request_id)):
                del self.requests[request_id]
                yield "request", request_id
        for number, (event, told) in enumerate(list(self._contents.items())):
            if number % PAUSE == 0:
                yield None
            if int.from_bytes(told[-8:], "big") < before:
                self._contents.pop(event, None)
        for source in self.sources.values():
            forget_of_source(source, before)
        for event_id, contents in list(self._conflicts.items()):
            if max(contents.values()) < before and not self._matters(("event", event_id)):
                del self._conflicts[event_id]

    def _matters(self, about: About) -> bool:
        """Whether something is to be said of it yet."""
        return about[1] in self._touched[about[0]]

    def _is_over(self, session: Session, before: int, index: int) -> bool:
        about: About = "session", session.session_id
        # One whose end nobody saw counts as long as its grant does; one that never began says nothing.
        over = session.ended < before or session.started == NEVER or session.grant_id not in self.grants
        told = max(session.first, self._again.get(about, 0))
        return over and told < index and last_time_of_session(session) < before and not self._matters(about)

    def _settled(self, access: Access, before: int, index: int) -> list[Grant]:
        """Return the grants of an access that can go: none that overlaps with one that stays."""
        over: list[tuple[int, int, Grant]] = []
        earliest = NEVER
        for name in members(self._of_access.get(access, "")):
            grant = self.grants[name]
            begin = grant.granted[0].append if grant.granted else NEVER
            end = self._end_of(grant)
            told = max(last_index_of_grant(grant), self._again.get(("grant", name), 0))
            old = end < before and told < index and name not in self._sessions_of
            if old and not self._matters(("grant", name)):
                over.append((end, begin, grant))
            else:
                earliest = min(earliest, begin)
        settled = []
        for end, begin, grant in sorted(over, key=lambda one: one[0], reverse=True):
            if end < earliest:
                settled.append(grant)
            else:
                earliest = min(earliest, begin)
        return settled

    def _end_of(self, grant: Grant) -> int:
        episode = grant.last(self.judge_by.limits(grant.source, grant.access, grant.environment))
        return episode.removed(self.judge_by.limits(grant.source, grant.access, grant.environment)) if episode else 0

    def _forget_session(self, session: Session) -> None:
        del self.sessions[session.session_id]
        self._again.pop(("session", session.session_id), None)
        leave(self._sessions_of, session.grant_id, session.session_id)

    def _forget_grant(self, grant: Grant) -> None:
        del self.grants[grant.grant_id]
        self._again.pop(("grant", grant.grant_id), None)
        leave(self._of_access, grant.access, grant.grant_id)
        self._held.pop(grant.access, None)
        if grant.access not in self._of_access:
            self._waiting.pop(grant.access, None)
        if grant.request_id:
            leave(self._grants_of, grant.request_id, grant.grant_id)
