"""Judges everything that is known at a given time: which findings open, and which are resolved.

The findings depend on the facts and the time alone, never on when or how often they are judged. :mod:`.rules` states
what is wrong and for how long; this module turns that into findings that open and resolve once.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ....schemas.finding_rules import FINDING_RULES
from ...access import NEVER, SECOND, split_tenant_key
from ...watch_policy import BUILT_IN, EffectivePolicy, WatchPolicy
from . import rules
from .candidate import Candidate
from .claims import FOREIGN, UNSIGNED
from .commands import COMMANDS, LOOK, REVOKE, look_commands
from .entities import Entity, Kind
from .facts import Fact
from .grants import Grant
from .late_records import LATE
from .session_rules import WITHOUT_GRANT, session_candidates
from .sessions import Request, Session
from .sources import CONFLICT, HISTORY_SUFFIX, SKEW
from .state import AccessState

Identity = tuple[str, str, int]
"""Rule, key and deadline: together they identify a finding."""
NO_FINDINGS = frozenset[Identity]()


@dataclass(slots=True)
class KnownFindings:
    """The findings on record, each open or not, and the entries that people accepted of conflicting events."""

    findings: dict[Identity, bool] = field(default_factory=dict)
    accepted: set[tuple[str, int]] = field(default_factory=set)
    """Source and index of each accepted entry."""

    def add(self, event_type: str, identity: Identity, accept_index: int | None = None) -> None:
        """Add one event about a finding, in the order of the log."""
        rule, key, deadline = identity
        if event_type in ("revoke.requested", "lookup.requested"):
            self.findings[REVOKE if event_type == "revoke.requested" else LOOK, key, deadline] = True
        elif event_type == "finding.opened":
            self.findings[identity] = True
        elif event_type in ("finding.resolved", "finding.closed"):
            self.findings[identity] = False
        if accept_index is not None and rule == "event_conflict":
            source = split_tenant_key(key)[1]
            self.accepted |= {(name, accept_index) for name in (source, source.removesuffix(HISTORY_SUFFIX))}


EARLY_RULES = ("no_deadline", "removal_unconfirmed", "extended_beyond_policy")
"""Rules that open findings before a deadline has passed."""
ABOUT_ACCESS = frozenset({*COMMANDS, *(rule.name for rule in FINDING_RULES.values() if rule.about)})
"""Rules whose findings have an access key."""
ABOUT_TENANT = frozenset({CONFLICT, FOREIGN, UNSIGNED, SKEW, LATE, "watch_fault"})
"""Rules whose findings are about what a source did in one tenant: their key is a ``tenant_key``. Whoever may see only
that tenant must not learn about others from them."""


class FindingChange(NamedTuple):
    """A finding that opens or is resolved. ``at``: from when on that holds."""

    kind: Literal["opened", "resolved"]
    at: int
    finding: Candidate

    @property
    def identity(self) -> Identity:
        """Rule, key and deadline of the finding."""
        return self.finding.rule, self.finding.key, self.finding.deadline


def entity_of_finding(rule: str, key: str) -> Entity | None:
    """Return the entity that can resolve a finding; None if nothing resolves it, or another process does."""
    if rule == LATE:
        return "late", key
    if rule in (FOREIGN, UNSIGNED):  # the history of the source resolves them
        return "source", split_tenant_key(key)[1]
    if rule == "source_silent":
        return "source", key
    known = FINDING_RULES.get(rule)
    return (known.about, key) if known is not None and known.about and not known.persists else None


class LookupTimes:
    """When enforcers are asked to look whether the access of historical grants exists: an import may bring many."""

    def __init__(self, per_minute: float) -> None:
        self._pause = int(60 * SECOND / per_minute) if per_minute else NEVER
        self._next = -NEVER if per_minute else NEVER
        self._turns: dict[str, int] = {}

    def turn(self, key: str, now: int) -> int:
        """Return when it is a grant's turn: now, or a later time that is then its own."""
        turn = self._turns.get(key)
        if turn is None:
            turn = max(now, self._next)
            self._next = min(turn + self._pause, NEVER)
        if turn > now:
            self._turns[key] = turn
        else:
            self._turns.pop(key, None)
        return turn


class Judge:
    """Holds the state and the findings on record, which are not reported again.

    Args:
        silences: whether to judge the silence of sources.
    """

    def __init__(
        self, policy: WatchPolicy = BUILT_IN, known: Mapping[Identity, bool] | None = None, *, silences: bool = True
    ) -> None:
        self.policy, self._silences = EffectivePolicy(policy), silences
        self.state = AccessState(self.policy, silences=silences)
        self.known: dict[Identity, bool] = {}
        """The findings on record, and whether each is open."""
        self.judged_until = -NEVER
        """The time of the last judgement."""
        self.faults: list[tuple[Entity, Exception]] = []
        """Entities that could not be judged, for the caller to collect. A new fact has them judged again."""
        self._open: dict[Entity, set[Identity]] = {}
        self._schedule: list[tuple[int, Kind, str]] = []
        """Heap of times at which entities are to be judged again."""
        self._looks = LookupTimes(policy.lookups_per_minute)
        self._source_times: dict[str, int] = {}
        """The earliest scheduled time per source: each event postpones it, and old times must not pile up."""
        self.restore(KnownFindings(dict(known or {})))

    def restore(self, known: KnownFindings) -> None:
        """Continue with the findings on record, before any fact is added."""
        self.state.events.accepted |= known.accepted
        self.known.update(known.findings)
        for identity, is_open in known.findings.items():
            entity = entity_of_finding(*identity[:2])
            if is_open and entity is not None:
                self._open.setdefault(entity, set()).add(identity)

    def close(self, findings: Iterable[Identity]) -> None:
        """Take findings for closed by a person: they neither resolve nor open again."""
        for identity in findings:
            self.known[identity] = False
            entity = entity_of_finding(*identity[:2])
            if entity is not None and entity in self._open:
                self._open[entity].discard(identity)

    def forget_all(self, accepted: Collection[tuple[str, int]]) -> list[dict[str, Any]]:
        """Begin with an empty state, in which more entries of conflicting events are accepted. Findings stay known.

        Return the histories of the sources, with which, and with all facts, the state must be restored.
        """
        old = self.state
        self.state = AccessState(self.policy, silences=self._silences)
        self.state.events.accepted |= old.events.accepted.union(accepted)
        return old.sources.to_json()

    def add(self, fact: Fact) -> None:
        """Add a fact from the log."""
        self.state.add(fact)

    @property
    def next_time(self) -> int:
        """When something falls due next, or ``NEVER``; 0 if something has changed."""
        if self.state.changed:
            return 0
        return self._schedule[0][0] if self._schedule else NEVER

    def judge(self, now: int, limit: int = NEVER, *, past: bool = False) -> list[FindingChange]:
        """Return the changes up to a time. Only entities that changed or fall due are judged, and cost time.

        Args:
            now: every fact appended up to then must have been added.
            limit: the number of entities to judge. If ``next_time`` is then still before ``now``, call again.
            past: the log is still being read: a finding on record stays open although its cause was not read yet.
        """
        self.judged_until = now
        changed = self.state.changed
        for _ in range(len(changed), limit):
            if not self._schedule or self._schedule[0][0] >= now:
                break
            _, kind, key = heapq.heappop(self._schedule)
            if kind == "source":
                self._source_times.pop(key, None)
            changed.mark(kind, key)
        changes: list[FindingChange] = []
        for entity in changed.take(limit):
            try:
                changes += self._judge_entity(entity, now, past=past)
                if entity[0] == "grant":
                    self._settle(entity[1], now)
            except Exception as error:  # one entity must not stop the judgement of the others
                self.faults.append((entity, error))
        changes.sort(key=lambda change: (change.at, change.identity, change.kind))
        return changes

    def _settle(self, key: str, now: int) -> None:
        """Let later judgements of a grant with many periods leave out those that are over."""
        grant = self.state.grants.get(key)
        if grant is None or grant.many is None:
            return
        limits, alone = self.state.limits_of(grant), self.state.is_alone(grant)
        grant.settle(limits, lambda period: rules.is_settled(grant, period, limits, alone=alone, now=now))

    def _judge_entity(self, entity: Entity, now: int, *, past: bool) -> Iterator[FindingChange]:
        open_before: Set[Identity] = self._open.get(entity, NO_FINDINGS)
        open_now: set[Identity] = set()
        possible: set[Identity] = set()
        next_time = NEVER
        for candidate in self.candidates(entity):
            rule, key, deadline, opens, ends, _, _ = candidate
            if opens >= ends:
                continue
            if opens >= now and not open_before:  # nearly all grants
                next_time = min(next_time, opens)
                continue
            identity = (rule, key, deadline)
            possible.add(identity)
            if opens >= now:
                next_time = min(next_time, opens)
                if identity in open_before:  # opened by a clock that was ahead, or under another policy
                    open_now.add(identity)
                continue
            if rule in COMMANDS:  # sent once and never withdrawn; pointless if the access is gone
                if identity in self.known or ends <= now:
                    continue
                if rule == LOOK and (turn := self._looks.turn(key, now)) > now:
                    next_time = min(next_time, turn)
                    continue
                if past:  # the access may be gone by a record that was not read yet
                    next_time = min(next_time, now)
                    continue
                self.known[identity] = False
                yield FindingChange("opened", opens, candidate)
                continue
            if identity not in self.known:
                self.known[identity] = True
                yield FindingChange("opened", opens, candidate)
            if ends <= now and self.known[identity]:
                self.known[identity] = False
                yield FindingChange("resolved", ends, candidate)
            if self.known[identity]:
                open_now.add(identity)
                next_time = min(next_time, ends)
        unexplained = open_before - possible if open_before else open_before
        if past and unexplained:  # judged again later
            open_now |= open_before
            unexplained = NO_FINDINGS
            next_time = min(next_time, now)
        for identity in unexplained:  # opened under another policy
            rule, key, deadline = identity
            if FINDING_RULES[rule].persists:
                continue
            self.known[identity] = False
            since = self.state.sources.of(entity[1]).last if entity[0] == "source" else now
            yield FindingChange("resolved", since, Candidate(rule, key, deadline, since, since, {}))
        if open_now:
            self._open[entity] = open_now
        elif open_before is not NO_FINDINGS:
            del self._open[entity]
        if next_time < NEVER:
            self._schedule_at(next_time, entity)

    def _schedule_at(self, time: int, entity: Entity) -> None:
        if entity[0] == "source":
            if self._source_times.get(entity[1], NEVER) <= time:
                return
            self._source_times[entity[1]] = time
        heapq.heappush(self._schedule, (time, *entity))

    def forget(self, before: int) -> Iterator[Entity | None]:
        """Forget entities that are over (:meth:`.AccessState.forget`), and when to judge them again."""
        for entity in self.state.forget(before, self._is_needed):
            if entity is not None:
                self._open.pop(entity, None)
            yield entity
        state = self.state
        known: dict[str, Collection[str]] = {
            "grant": state.grants, "session": state.sessions, "request": state.requests,
        }  # fmt: skip
        if len(self._schedule) > 1000 + 2 * sum(map(len, known.values())):
            self._schedule = [one for one in self._schedule if one[1] not in known or one[2] in known[one[1]]]
            heapq.heapify(self._schedule)

    def _is_needed(self, entity: Entity) -> bool:
        return (
            entity in self.state.changed
            or any(not FINDING_RULES[one[0]].persists for one in self._open.get(entity, ()))
            or (entity[0] == "grant" and self._would_hide_a_finding(self.state.grants[entity[1]]))
        )

    def _would_hide_a_finding(self, grant: Grant) -> bool:
        """Whether the grant, if it were forgotten and came back, would open a finding with an identity on record.

        Only a grant without a deadline, or with one in the future, can come back under the same identity.
        """
        periods = grant.periods(self.state.limits_of(grant))
        deadlines = {one.finding_deadline for one in periods}
        lasting = {one for one in deadlines if one == 0 or one > self.judged_until}
        return any((rule, grant.key, one) in self.known for rule in EARLY_RULES for one in lasting)

    def candidates(self, entity: Entity) -> Iterable[Candidate]:
        """Return everything that is, was or will be wrong with an entity."""
        kind, key = entity
        state = self.state
        if kind == "grant":
            grant = state.grants.get(key)
            return () if grant is None else self._grant_candidates(grant)
        if kind == "request":
            return self._request_candidates(state.requests[key]) if key in state.requests else iter(())
        if kind == "session":
            return self._session_candidates(state.sessions[key]) if key in state.sessions else iter(())
        if kind == "late":
            return state.late.candidates(key)
        return state.sources.of(key).candidates() if key in state.sources else iter(())

    def _grant_candidates(self, grant: Grant) -> Iterable[Candidate]:
        state = self.state
        limits = state.limits_of(grant)
        if state.late.update(grant, limits):  # old records never page: they are counted
            return () if state.events.is_disputed(grant.key) else look_commands(grant, limits)
        request = state.requests.get(grant.request_key) if grant.request_key else None
        found = rules.grant_candidates(
            grant, request, limits, lambda time: state.covered_until(grant, time),
            alone=state.is_alone(grant),
        )  # fmt: skip
        if not state.events.is_disputed(grant.key):
            return found
        # No command while a person has not decided the conflict.
        return (one for one in found if one.rule not in COMMANDS)

    def _request_candidates(self, request: Request) -> Iterator[Candidate]:
        grants = (
            one for one in self.state.grants_of_request(request.key) if not one.is_historical(self.state.limits_of(one))
        )
        return rules.request_candidates(request, grants, self.policy.stated.history_after_seconds)

    def _session_candidates(self, session: Session) -> Iterator[Candidate]:
        limits = self.policy.limits(session.source, session.access, session.environment)
        grants = [(grant, self.state.limits_of(grant)) for grant in self.state.grants_of(session)]
        found = session_candidates(session, limits, grants)
        if not session.reported.is_historical(limits.history_after_seconds):
            self.state.late.discard(("session", session.key))
            return found
        return self._without_history(session, list(found))

    def _without_history(self, session: Session, found: list[Candidate]) -> Iterator[Candidate]:
        """Return the findings of a historical session: that no grant covers it is only counted."""
        if any(one.rule == WITHOUT_GRANT for one in found):
            self.state.late.add_session(session)
        else:
            self.state.late.discard(("session", session.key))
        return (one for one in found if one.rule != WITHOUT_GRANT)
