"""Everything the watch knows: facts in, changes of findings out, and when to look again. Pure; time is given.

What is found depends on the facts and the time alone, never on the order in which they came or on how often.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Literal, NamedTuple, TypeVar, get_args

from . import rules
from .facts import Access, Fact, Source
from .islands import Islands, joined
from .life import NEVER, Grant, Request, Session
from .policy import DEFAULT, Judge, Policy
from .rules import REVOKE, Candidate
from .sources import SourceLife

Kind = Literal["grant", "request", "session", "source", "event"]
Key = TypeVar("Key")
About = tuple[Kind, str]
"""What a judgement is about."""
Identity = tuple[str, str, int]
"""Rule, key and deadline: what makes a finding the same finding."""


class Change(NamedTuple):
    """A finding that opens or is resolved. ``at``: the moment from which on that is so."""

    what: Literal["opened", "resolved"]
    at: int
    finding: Candidate


def _identity_of(event_id: str) -> bytes:
    """Return an event id in 16 bytes."""
    return hashlib.blake2b(event_id.encode(), digest_size=16).digest()


def _about(rule: str, key: str) -> About | None:
    """Return what a finding is about; None where it can never come to nothing, or is not this state's."""
    if rule in ("overdue", "no_deadline", "no_approval", "extended_beyond_policy", "removal_unconfirmed"):
        return "grant", key
    if rule in ("used_without_grant", "session_outlived_grant"):
        return "session", key
    if rule in ("source_silent", "sequence_gap"):
        return "source", key.rpartition("#")[0] if rule == "sequence_gap" else key
    return None


def _members(found: str | set[str]) -> set[str]:
    """Return one name, several or none as a set."""
    return found if isinstance(found, set) else {found} - {""}


def _join(groups: dict[Key, str | set[str]], key: Key, member: str) -> None:
    """Add a member to a group. One of one member is no set: nearly all are, and sets are large."""
    found = groups.setdefault(key, member)
    if isinstance(found, set):
        found.add(member)
    elif found != member:
        groups[key] = {found, member}


class WatchState:
    """The state. ``add`` takes facts in any order; ``judge`` says what has changed at a time.

    Args:
        known: findings said before, and whether they are open still: what is on record is not said again.
    """

    def __init__(self, policy: Policy = DEFAULT, known: Mapping[Identity, bool] | None = None) -> None:
        self.judge_by = Judge(policy)
        self.grants: dict[str, Grant] = {}
        self.requests: dict[str, Request] = {}
        self.sessions: dict[str, Session] = {}
        self.sources: dict[Source, SourceLife] = {}
        self.seen = Islands()
        self._known: dict[Identity, bool] = {}
        self._open: dict[About, set[Identity]] = {}
        self._of_access: dict[Access, str | set[str]] = {}
        """The grants of each access: one, or several."""
        self._held: dict[Access, Islands] = {}
        self._waiting: dict[Access, set[str]] = {}
        self._grants_of: dict[str, str | set[str]] = {}
        """The grants of each request: one, or several. Some tools call both the same; those are not here."""
        self._sessions_of: dict[str, set[str]] = {}
        self._contents: dict[bytes, bytes] = {}
        """By event id: content and append time of its first telling, packed, because there is one for every event."""
        self._conflicts: dict[str, dict[bytes, int]] = {}
        self._touched: dict[Kind, dict[str, None]] = {kind: {} for kind in get_args(Kind)}
        self._later: list[tuple[int, Kind, str]] = []
        self.faults: list[tuple[About, Exception]] = []
        """What could not be judged, until somebody takes note. It is tried again when something new is heard of it."""
        self.knows(known or {})

    def knows(self, known: Mapping[Identity, bool]) -> None:
        """Learn what is on record: findings said before, and whether they are open still."""
        self._known.update(known)
        for identity, is_open in known.items():
            if is_open and (about := _about(*identity[:2])) is not None:
                self._open.setdefault(about, set()).add(identity)

    def add(self, fact: Fact) -> None:
        """Take a fact; one whose index was taken before changes nothing."""
        if fact.index in self.seen:
            return
        self.seen.add(fact.index)
        self._compare(fact)
        limits = self.judge_by.source(fact.source)
        source = self.sources.get(fact.source)
        if source is None:
            source = self.sources[fact.source] = SourceLife.of(fact.source, limits)
        source.add(fact, limits)
        self._touch("source", source.key)
        family = fact.event_type.partition(".")[0]
        if family == "grant" and fact.grant_id:
            self._add_grant(fact)
        elif family == "request" and fact.request_id:
            self.requests.setdefault(fact.request_id, Request(fact.request_id)).add(fact)
            self._touch("request", fact.request_id)
        elif family == "session" and fact.session_id:
            session = self.sessions.setdefault(fact.session_id, Session(fact.session_id))
            session.add(fact)
            self._sessions_of.setdefault(session.grant_id, set()).add(fact.session_id)
            self._touch("session", fact.session_id)
        if fact.request_id:
            for grant_id in _members(self._grants_of.get(fact.request_id, "")):
                self._touch("grant", grant_id)
            if fact.request_id in self.grants:
                self._touch("grant", fact.request_id)

    def _add_grant(self, fact: Fact) -> None:
        grant = self.grants.get(fact.grant_id)
        if grant is None:
            grant = self.grants[fact.grant_id] = Grant.of(fact)
        before = grant.access
        grant.add(fact)
        if grant.access != before:  # an earlier event, heard later, says otherwise
            self._of_access[before] = _members(self._of_access.get(before, "")) - {grant.grant_id}
            self._changed(before)
        _join(self._of_access, grant.access, grant.grant_id)
        self._changed(grant.access)
        if grant.request_id and grant.request_id != grant.grant_id:
            _join(self._grants_of, grant.request_id, grant.grant_id)
        self._touch("grant", grant.grant_id)
        for session_id in self._sessions_of.get(grant.grant_id, ()):
            self._touch("session", session_id)

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

    @property
    def next_look(self) -> int:
        """When something falls due next, or ``NEVER``; at once where facts are waiting."""
        if any(self._touched.values()):
            return 0
        return self._later[0][0] if self._later else NEVER

    def judge(self, now: int, at_most: int = NEVER) -> list[Change]:
        """Return what has changed by a time: work for what was touched or falls due, not for what is merely there.

        Args:
            now: microseconds since 1970. Every fact appended up to then must have been added.
            at_most: how many things to look at. There are more while ``next_look`` is before ``now``.
        """
        while self._later and self._later[0][0] < now and sum(map(len, self._touched.values())) < at_most:
            self._touch(*heapq.heappop(self._later)[1:])
        changes: list[Change] = []
        touched = ((kind, key) for kind, keys in self._touched.items() for key in keys)
        for about in list(islice(touched, at_most)):
            del self._touched[about[0]][about[1]]
            try:
                changes += self._judge_one(about, now)
            except Exception as error:  # a fault in one judgement must not keep the others back
                self.faults.append((about, error))
        changes.sort(key=lambda change: (change.at, change.finding[:3], change.what))
        return changes

    def _judge_one(self, about: About, now: int) -> Iterator[Change]:
        open_before = self._open.get(about, set())
        open_now: set[Identity] = set()
        following = NEVER
        there: set[Identity] = set()
        for candidate in self.candidates(about):
            if not candidate.real:
                continue
            if candidate.opens >= now:
                following = min(following, candidate.opens)
                continue
            identity = (candidate.rule, candidate.key, candidate.deadline)
            there.add(identity)
            if candidate.rule == REVOKE:  # done once, and never taken back; in vain where the access is gone
                if identity not in self._known and candidate.ends > now:
                    self._known[identity] = False
                    yield Change("opened", candidate.opens, candidate)
                continue
            if identity not in self._known:
                self._known[identity] = True
                yield Change("opened", candidate.opens, candidate)
            if candidate.ends <= now and self._known[identity]:
                self._known[identity] = False
                yield Change("resolved", candidate.ends, candidate)
            if self._known[identity]:
                open_now.add(identity)
                following = min(following, candidate.ends)
        for rule, key, deadline in open_before - there:  # filled in meanwhile, as a gap is
            self._known[rule, key, deadline] = False
            since = self._heard(about, now)
            yield Change("resolved", since, Candidate(rule, key, deadline, since, since, {}))  # type: ignore[arg-type]
        if open_now:
            self._open[about] = open_now
        else:
            self._open.pop(about, None)
        if following < NEVER:
            heapq.heappush(self._later, (following, *about))

    def _heard(self, about: About, now: int) -> int:
        """Return since when a finding that is none any more is known to be none."""
        if about[0] != "source":
            return now
        system, _, instance = about[1].partition("/")
        return self.sources[Source(system, instance)].last

    def candidates(self, about: About) -> Iterator[Candidate]:
        """Return everything that is, was or will be wrong with one thing."""
        kind, key = about
        if kind == "grant":
            return self._on_grant(self.grants[key])
        if kind == "request":
            return rules.on_request(self.requests[key])
        if kind == "session":
            return self._on_session(self.sessions[key])
        if kind == "source":
            system, _, instance = key.partition("/")
            source = Source(system, instance)
            return self.sources[source].candidates(self.judge_by.source(source))
        contents = self._conflicts[key]
        evidence = {"contents": len(contents)}
        return iter((Candidate("event_conflict", key, 0, sorted(contents.values())[1], NEVER, evidence),))

    def _on_grant(self, grant: Grant) -> Iterator[Candidate]:
        limits = self.judge_by.limits(grant.source, grant.access, grant.environment)
        request = self.requests.get(grant.request_id) if grant.request_id else None

        def held_until(time: int) -> int:
            if self._of_access[grant.access] == grant.grant_id:  # the only one, as nearly always
                return time
            until = self._held_by(grant.access).end_of(time)
            if until > time:
                self._waiting.setdefault(grant.access, set()).add(grant.grant_id)
            return until

        alone = self._of_access[grant.access] == grant.grant_id
        return rules.on_grant(grant, request, limits, held_until, alone=alone)

    def _held_by(self, access: Access) -> Islands:
        """Return the stretches in which any grant of an access holds it."""
        held = self._held.get(access)
        if held is None:
            stretches = []
            for grant_id in _members(self._of_access.get(access, "")):
                grant = self.grants[grant_id]
                limits = self.judge_by.limits(grant.source, grant.access, grant.environment)
                for episode in grant.episodes(limits):
                    begin, end = rules.cover(episode, limits)
                    if begin < end:
                        stretches.append((begin, end))
            held = self._held[access] = joined(stretches)
        return held

    def _on_session(self, session: Session) -> Iterator[Candidate]:
        limits = self.judge_by.limits(session.source, session.access, session.environment)
        grant = self.grants.get(session.grant_id)
        own = self.judge_by.limits(grant.source, grant.access, grant.environment) if grant is not None else None
        return rules.on_session(session, grant, limits, own)
