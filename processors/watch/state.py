"""Everything the watch knows: facts in, changes of findings out, and when to look again. Pure; time is given.

What is found depends on the facts and the time alone, never on the order in which they came or on how often.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Literal, NamedTuple

from . import rules
from .facts import Access
from .groups import members
from .islands import Islands, joined
from .life import NEVER, Grant, Session
from .lives import About, Kind, Lives
from .policy import DEFAULT, Policy
from .rules import REVOKE, Candidate

Identity = tuple[str, str, int]
"""Rule, key and deadline: what makes a finding the same finding."""
LASTING = frozenset({"self_approved", "event_conflict"})
"""Rules whose findings nothing resolves: what they are about need not be kept for them."""

UNTIMED = ("no_deadline", "removal_unconfirmed", "extended_beyond_policy")
"""Rules that find something before a deadline has passed."""


class Change(NamedTuple):
    """A finding that opens or is resolved. ``at``: the moment from which on that is so."""

    what: Literal["opened", "resolved"]
    at: int
    finding: Candidate


def _about(rule: str, key: str) -> About | None:
    """Return what a finding is about; None where it can never come to nothing, or is not this state's."""
    if rule in ("overdue", "no_deadline", "no_approval", "extended_beyond_policy", "removal_unconfirmed"):
        return "grant", key
    if rule in ("used_without_grant", "session_outlived_grant"):
        return "session", key
    if rule in ("source_silent", "sequence_gap"):
        return "source", key.rpartition("#")[0] if rule == "sequence_gap" else key
    return None


def about_of(finding: Candidate) -> tuple[str, str]:
    """Return what a finding is about, in words: all that is said of one grant is about that grant."""
    if finding.rule == REVOKE:
        return "grant", finding.key
    return _about(finding.rule, finding.key) or (finding.rule, finding.key)


class WatchState(Lives):
    """The state. ``add`` takes facts in any order; ``judge`` says what has changed at a time.

    Args:
        known: findings said before, and whether they are open still: what is on record is not said again.
    """

    def __init__(self, policy: Policy = DEFAULT, known: Mapping[Identity, bool] | None = None) -> None:
        super().__init__(policy)
        self._known: dict[Identity, bool] = {}
        self._open: dict[About, set[Identity]] = {}
        self._later: list[tuple[int, Kind, str]] = []
        self._source_looks: dict[str, int] = {}
        """When a source is looked at next: all that it tells puts that off, and nothing is to be left of each time."""
        self.judged = -NEVER
        """The time of the last judgement."""
        self.faults: list[tuple[About, Exception]] = []
        """What could not be judged, until somebody takes note. It is tried again when something new is heard of it."""
        self.knows(known or {})

    def knows(self, known: Mapping[Identity, bool]) -> None:
        """Learn what is on record: findings said before, and whether they are open still."""
        self._known.update(known)
        for identity, is_open in known.items():
            if is_open and (about := _about(*identity[:2])) is not None:
                self._open.setdefault(about, set()).add(identity)

    def _matters(self, about: About) -> bool:
        return (
            super()._matters(about)
            or any(one[0] not in LASTING for one in self._open.get(about, ()))
            or (about[0] == "grant" and self._may_be_named_again(self.grants[about[1]]))
        )

    def _may_be_named_again(self, grant: Grant) -> bool:
        """Whether a finding is on record by a name that the grant, were it forgotten and came back, would use again.

        So it is where there is no end, or one that is still to come: then the new finding would pass for the old one.
        """
        limits = self.judge_by.limits(grant.source, grant.access, grant.environment)
        names = {one.name for one in grant.episodes(limits) if one.name == 0 or one.name > self.judged}
        return any((rule, grant.grant_id, name) in self._known for rule in UNTIMED for name in names)

    @property
    def next_look(self) -> int:
        """When something falls due next, or ``NEVER``; at once where facts are waiting."""
        if any(self._touched.values()):
            return 0
        return self._later[0][0] if self._later else NEVER

    def judge(self, now: int, at_most: int = NEVER, *, past: bool = False) -> list[Change]:
        """Return what has changed by a time: work for what was touched or falls due, not for what is merely there.

        Args:
            now: microseconds since 1970. Every fact appended up to then must have been added.
            at_most: how many things to look at. There are more while ``next_look`` is before ``now``.
            past: what is on record was found later than that: that there is no reason for it yet means nothing.
        """
        self.judged = now
        while self._later and self._later[0][0] < now and sum(map(len, self._touched.values())) < at_most:
            _, kind, key = heapq.heappop(self._later)
            if kind == "source":
                self._source_looks.pop(key, None)
            self._touch(kind, key)
        changes: list[Change] = []
        touched = ((kind, key) for kind, keys in self._touched.items() for key in keys)
        for about in list(islice(touched, at_most)):
            del self._touched[about[0]][about[1]]
            try:
                changes += self._judge_one(about, now, past=past)
            except Exception as error:  # a fault in one judgement must not keep the others back
                self.faults.append((about, error))
        changes.sort(key=lambda change: (change.at, change.finding[:3], change.what))
        return changes

    def _judge_one(self, about: About, now: int, *, past: bool) -> Iterator[Change]:
        open_before = self._open.get(about, set())
        open_now: set[Identity] = set()
        following = NEVER
        there: set[Identity] = set()
        for candidate in self.candidates(about):
            if not candidate.real:
                continue
            identity = (candidate.rule, candidate.key, candidate.deadline)
            there.add(identity)
            if candidate.opens >= now:
                following = min(following, candidate.opens)
                if identity in open_before:  # by a clock ahead of this one, or under another policy
                    open_now.add(identity)
                continue
            if candidate.rule == REVOKE:  # done once, and never taken back; in vain where the access is gone
                if identity in self._known or candidate.ends <= now:
                    continue
                if past:  # it may be in vain by what is not read yet
                    following = min(following, now)
                    continue
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
        if past and open_before - there:  # is asked again, later
            open_now |= open_before
            there |= open_before
            following = min(following, now)
        for rule, key, deadline in open_before - there:  # under another policy, or of another telling
            if rule in LASTING:
                continue
            if rule == "sequence_gap" and not self._has_come(about, key):  # its part of the log is lost
                open_now.add((rule, key, deadline))
                continue
            self._known[rule, key, deadline] = False
            since = self._heard(about, now)
            yield Change("resolved", since, Candidate(rule, key, deadline, since, since, {}))  # type: ignore[arg-type]
        if open_now:
            self._open[about] = open_now
        else:
            self._open.pop(about, None)
        if following < NEVER:
            self._look_at(following, about)

    def _look_at(self, time: int, about: About) -> None:
        if about[0] == "source":
            if self._source_looks.get(about[1], NEVER) <= time:
                return
            self._source_looks[about[1]] = time
        heapq.heappush(self._later, (time, *about))

    def _has_come(self, about: About, key: str) -> bool:
        """Whether a number of a source's counter was heard, which was missing once."""
        number = int(key.rpartition("#")[2])
        return any(run.first <= number <= run.last for run in self.sources[self._source_of[about[1]]].numbers)

    def forget(self, before: int, index: int) -> Iterator[About | None]:
        """Forget what is over, as :class:`Lives` does, and when to look at it again."""
        for about in super().forget(before, index):
            if about is not None:
                self._open.pop(about, None)
            yield about
        there: dict[str, Collection[str]] = {"grant": self.grants, "session": self.sessions, "request": self.requests}
        if len(self._later) > 1000 + 2 * sum(map(len, there.values())):
            self._later = [one for one in self._later if one[1] not in there or one[2] in there[one[1]]]
            heapq.heapify(self._later)

    def _heard(self, about: About, now: int) -> int:
        """Return since when a finding that is none any more is known to be none."""
        if about[0] != "source":
            return now
        return self.sources[self._source_of[about[1]]].last

    def candidates(self, about: About) -> Iterator[Candidate]:
        """Return everything that is, was or will be wrong with one thing."""
        kind, key = about
        if kind == "grant":
            return self._on_grant(self.grants[key]) if key in self.grants else iter(())
        if kind == "request":
            return rules.on_request(self.requests[key]) if key in self.requests else iter(())
        if kind == "session":
            return self._on_session(self.sessions[key]) if key in self.sessions else iter(())
        if kind == "source":
            source = self._source_of[key]
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
            for grant_id in members(self._of_access.get(access, "")):
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
