"""Everything known of all grants, requests, sessions and sources, from facts in the order of the log.

Entities that ended long ago are forgotten as a whole, and so are entities that are judged together: with only some of
their facts the rest would be judged wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from ....schemas.access_key import is_issuer, issuer_of
from ...access import NEVER, Access
from ...watch_policy import EffectivePolicy, GrantLimits
from .changed import ChangedEntities
from .claims import FOREIGN, UNSIGNED, Claims
from .entities import Entity, FactKey, Kind, entity_of
from .facts import Fact
from .grants import Grant
from .identities import EventIdentities, Reading
from .intervals import IntervalUnion
from .late_records import LateRecords
from .links import Links
from .sessions import Request, Session
from .source_histories import SourceHistories
from .sources import CONFLICT, OLD_CONFLICT, REMAPPED


class AccessState:
    """Everything that is known, and which entities have changed since they were last judged.

    Args:
        silences: whether to judge the silence of sources.
    """

    def __init__(self, policy: EffectivePolicy, *, silences: bool = True) -> None:
        self._policy, self._claims = policy, Claims(policy)
        self.grants: dict[str, Grant] = {}
        self.requests: dict[str, Request] = {}
        self.sessions: dict[str, Session] = {}
        self.events = EventIdentities()
        self.size = 0
        """The number of entries up to the last fact: the next one has at least this index."""
        self._grants_of_access = Links[Access]()
        self._grants_of_request = Links[str]()
        """Without grants that have the same key as their request."""
        self._sessions_of_link = Links[str]()
        """By the grant that a session names, or else the request."""
        self.changed = ChangedEntities(self._grants_of_request, self._sessions_of_link)
        self.sources = SourceHistories(policy, self.changed, silences=silences)
        self.late = LateRecords(self.changed)
        self._coverage: dict[Access, IntervalUnion] = {}
        self._waiting: dict[Access, set[str]] = {}
        """Grants whose finding waits until another grant of the same access ends."""
        self._unlocated, self._searched_at = set[int](), -NEVER
        """Indexes of the first contents of events whose other contents are about other entities; and index of the fact
        at which they were last searched."""

    def add(self, fact: Fact) -> None:
        """Add the next fact of the log; one that was added before changes nothing."""
        if fact.index < self.size:
            return
        broken = None
        try:
            broken = self.restore(fact)
        finally:  # it was received, even if it cannot be judged
            self.sources.add(fact, broken)

    def add_unsigned(self, fact: Fact, mistake: str = "") -> None:
        """Count an event that its registered source did not sign, and why if known. It changes nothing else."""
        self.sources.count(UNSIGNED, fact, mistake)

    def restore(self, fact: Fact) -> str | None:
        """Add a fact from a snapshot, whose source histories already include it.

        Return the rule that its source broke by sending it.
        """
        self.size = fact.index + 1
        reading = self.events.add(fact)
        if reading.status in ("repeated", "remapped", "rejected"):
            return REMAPPED if reading.status == "remapped" else None
        if reading.status == "accepted":
            self._withdraw(reading.earlier)
            reading = Reading("first")
        elif reading.status == "conflicting" and not self._has_reports(fact, reading.earlier):
            self._unlocated.add(next(iter(reading.earlier)))  # later contents removed and approved nothing
        family = fact.event_type.partition(".")[0]
        broken = None
        if family == "grant" and fact.grant_id:
            broken = self._add_to_grant(fact, reading)
        elif family == "grant" and fact.request_id:
            broken = self._add_to_grants_of_request(fact, reading)
        elif family == "request" and fact.request_id:
            broken = self._add_to_request(fact, reading)
        elif family == "session" and fact.session_id:
            broken = self._add_to_session(fact, reading)
        if fact.request_id:
            self._mark_grants_of(fact.request_key)
        if self._unlocated and fact.index - self._searched_at >= len(self.grants) // 10:
            self._doubt_unlocated(fact.index)
        if len(reading.earlier) != 1:  # counted once per event, however many contents it has
            return broken
        return OLD_CONFLICT if self._concerns_history(fact) else CONFLICT

    def _concerns_history(self, fact: Fact) -> bool:
        """Whether a fact is about access, all reports about which were received long after its end."""
        known: list[bool] = []
        history_after = self._policy.stated.history_after_seconds
        if grant := self.grants.get(fact.grant_key):
            known.append(grant.is_historical(self.limits_of(grant)))
        for about in (self.sessions.get(fact.session_key), self.requests.get(fact.request_key)):
            if about is not None:
                known.append(about.reported.is_historical(history_after))
        return bool(known) and all(known)

    def restore_sources(self, size: int, histories: Iterable[dict[str, Any]]) -> None:
        """Continue after a snapshot of so many entries, all facts of which were restored."""
        self.size = size
        self.sources.restore(histories)

    def mark(self, kind: Kind, key: str) -> None:
        """Have an entity judged."""
        self.changed.mark(kind, key)

    def _mark_grants_of(self, request: str) -> None:
        self.changed.mark_dependents("grant", request)
        if request in self.grants:
            self.mark("grant", request)

    def limits_of(self, grant: Grant) -> GrantLimits:
        """Return the limits of a grant."""
        return self._policy.limits(grant.source, grant.access, grant.environment)

    def is_alone(self, grant: Grant) -> bool:
        """Whether no other grant of the same access is known."""
        return self._grants_of_access.is_only(grant.access, grant.key)

    def covered_until(self, grant: Grant, time: int) -> int:
        """Return until when all grants of the same access cover it without a break, from a time on."""
        if self.is_alone(grant):  # the usual case
            return time
        coverage = self._coverage.get(grant.access)
        if coverage is None:
            grants = [self.grants[name] for name in self._grants_of_access.of(grant.access)]
            spans = [period.cover(limits) for one in grants for limits in (self.limits_of(one),)
                     if not one.is_historical(limits) for period in one.periods(limits)]  # fmt: skip
            coverage = self._coverage[grant.access] = IntervalUnion(0, (span for span in spans if span[0] < span[1]))
        until = coverage.end_of(time)
        if until > time:
            self._waiting.setdefault(grant.access, set()).add(grant.key)
        return until

    def grants_of_request(self, key: str) -> list[Grant]:
        """Return the known grants with ids of their own that name a request."""
        return [self.grants[one] for one in self._grants_of_request.of(key) if one in self.grants and one != key]

    def grants_of(self, session: Session) -> list[Grant]:
        """Return the known grants that a session may use: the one that it names, or else those of its request."""
        link = session.access_link
        keys = [link] if session.grant_key else [link, *self._grants_of_request.of(link)]
        return [self.grants[key] for key in keys if key in self.grants]

    def _add_to_grant(self, fact: Fact, reading: Reading) -> str | None:
        """Add a fact about a grant, if its source may report it. Return the rule that was broken."""
        key, issuer = fact.grant_key, issuer_of(fact.source, fact.grant_source)
        grant = self.grants.get(key)
        broken = None
        if is_issuer(fact.source, issuer):
            if grant is None:
                grant = self.grants[key] = Grant.of(fact)
                access, request_key = grant.access, ""
            else:
                access, request_key = grant.access, grant.request_key
                grant.describe(fact)
            if grant.request_key != request_key and (request := self.requests.get(grant.request_key)) is not None:
                earlier = (one for one in request.about_grants if is_issuer(one.source, issuer))
                grant.add_earlier(earlier, fact.append)
            if grant.access != access:  # this is the first event that names a subject
                self._grants_of_access.discard(access, key)
                self._access_changed(access)
            if fact.event_type == "grant.activated":
                self._claims.add_issuer(fact.tenant, issuer)
            elif not grant.activations and self._claims.is_issued_elsewhere(fact, self.grants, self._grants_of_request):
                broken = FOREIGN
        else:
            if not self._claims.allows(fact, issuer):
                return FOREIGN
            if grant is None or not grant.activations:  # nothing to remove yet
                return None
            if fact.access != grant.access:
                return FOREIGN
        if reading.status == "conflicting":
            grant.add_disputed(fact, reading.earlier)
            self.events.dispute(fact.index, key)
        else:
            grant.add(fact)
        self._grant_changed(grant)
        return broken

    def _add_to_grants_of_request(self, fact: Fact, reading: Reading) -> str | None:
        """Add a fact that names only a request: it is about all grants of the request that its source may report about.

        Return the rule that was broken: it may report about none of them.

        Raises:
            TooManyReportsError: facts about this request cost too much.
        """
        key = fact.request_key
        request = self.requests.setdefault(key, Request(key))
        request.search(fact, 1 + len(self._grants_of_request.of(key)))
        request.add_about_grants(fact, reading.earlier)
        grants = [one for name in (key, *self._grants_of_request.of(key))
                  if (one := self.grants.get(name)) is not None and one.request_key == key]  # fmt: skip
        if not grants:
            foreign = self._claims.is_issued_elsewhere(fact, self.grants, self._grants_of_request)
            return FOREIGN if foreign else None
        concerned = [one for one in grants if self._claims.concerns(fact, one)]
        for grant in concerned:
            if reading.status == "conflicting":
                grant.add_disputed(fact, reading.earlier)
                self.events.dispute(fact.index, grant.key)
            else:
                grant.add(fact)
            self._grant_changed(grant)
        return FOREIGN if not concerned and any(one.activations for one in grants) else None

    def _grant_changed(self, grant: Grant) -> None:
        """Have a grant judged, with everything that depends on it."""
        key, request_key = grant.key, grant.request_key
        self._grants_of_access.add(grant.access, key)
        if self._coverage or self._waiting:
            self._access_changed(grant.access)
        self.changed.mark("grant", key)
        self.changed.mark_dependents("session", key)
        if request_key and request_key != key:
            self._grants_of_request.add(request_key, key)
            self.changed.mark_dependents("session", request_key)

    def _add_to_request(self, fact: Fact, reading: Reading) -> str | None:
        key, issuer = fact.request_key, issuer_of(fact.source, fact.request_source)
        own = is_issuer(fact.source, issuer)
        if not own and not self._claims.allows_approval(fact, issuer):
            return FOREIGN
        request = self.requests.setdefault(key, Request(key))
        if reading.status == "conflicting":
            request.add_disputed(fact, reading.earlier)
        elif own:
            request.add(fact)
        else:
            request.add_other(fact)
        self.mark("request", key)
        return None

    def _add_to_session(self, fact: Fact, reading: Reading) -> str | None:
        if not is_issuer(fact.source, issuer_of(fact.source, fact.session_source)):
            return FOREIGN
        key = fact.session_key
        session = self.sessions.get(key)
        if session is None:
            session = self.sessions[key] = Session(key, fact.access, fact.environment, fact.subject_kind, fact.source)
        link = session.access_link
        if reading.status == "conflicting":
            session.add_disputed(fact, reading.earlier)
        else:
            session.add(fact)
        if session.access_link != link:
            self._sessions_of_link.discard(link, key)
            self._sessions_of_link.add(session.access_link, key)
        self.mark("session", key)
        return None

    def _has_reports(self, fact: Fact, indexes: Collection[int]) -> bool:
        """Whether the entity of a fact has anything from the facts at some indexes."""
        key = (fact.index, fact.event_type, fact.grant_key, fact.request_key, fact.session_key)
        entity = self._entity(*entity_of(key))
        if isinstance(entity, Grant):
            request = self.requests.get(entity.request_key)
            if request is not None and request.reports(indexes):  # the other content is about all its grants
                return False
        return entity is not None and entity.reports(indexes)

    def _entity(self, kind: Kind, key: str) -> Grant | Request | Session | None:
        if kind == "grant":
            return self.grants.get(key)
        return self.sessions.get(key) if kind == "session" else self.requests.get(key)

    def _doubt_unlocated(self, index: int) -> None:
        """Forget removals, approvals and ends that another content of their event, about another entity, disputes."""
        indexes, self._unlocated, self._searched_at = self._unlocated, set(), index
        for grant in self.grants.values():
            if grant.reports(indexes):
                for one in indexes:
                    self.events.dispute(one, grant.key)
                grant.doubt(indexes)
                self._grant_changed(grant)
        self._withdraw_decisions(indexes)

    def _withdraw_decisions(self, indexes: Collection[int]) -> None:
        for request in self.requests.values():
            if request.withdraw(indexes):
                self.mark("request", request.key)
                self._mark_grants_of(request.key)
        for session in self.sessions.values():
            if session.withdraw(indexes):
                self.mark("session", session.key)

    def _withdraw(self, indexes: Collection[int]) -> None:
        """Forget what the facts at some indexes reported, of any entity: a person accepted another content."""
        for grant in self.grants.values():
            if grant.withdraw(indexes):
                self._grant_changed(grant)
        self._withdraw_decisions(indexes)

    def _access_changed(self, access: Access) -> None:
        """Discard the coverage of an access; judge the grants again that waited for another one."""
        self._coverage.pop(access, None)
        for grant_id in self._waiting.pop(access, ()):
            self.mark("grant", grant_id)

    def keeps(self, key: FactKey) -> bool:
        """Whether anything here still uses a fact."""
        if self.events.is_conflicting(key[0]):
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
            if not self._is_over(session, before) or is_needed(("session", session.key)):
                yield None
                continue
            del self.sessions[session.key]
            self.late.discard(("session", session.key))
            self._sessions_of_link.discard(session.access_link, session.key)
            yield "session", session.key
        for access in list(self._grants_of_access):
            for grant in self._removable(access, before, is_needed):
                self._forget_grant(grant)
                yield "grant", grant.key
            yield None
        for key, request in list(self.requests.items()):
            used = key in self.grants or key in self._grants_of_request
            if used or request.last_append >= before or is_needed(("request", key)):
                yield None
                continue
            del self.requests[key]
            yield "request", key
        for _ in self.events.forget(before, self.grants.__contains__):
            yield None
        self.sources.forget(before, is_needed)

    def _is_over(self, session: Session, before: int) -> bool:
        # Without a reported end it lasts as long as its grant is known; without a start it needs no judgement.
        over = session.ended < before or session.started == NEVER or not self.grants_of(session)
        return over and session.last_append < before

    def _removable(self, access: Access, before: int, is_needed: Callable[[Entity], bool]) -> list[Grant]:
        """Return the grants of an access that are over and do not overlap with one that stays."""
        over: list[tuple[int, int, Grant]] = []
        earliest = NEVER
        for name in self._grants_of_access.of(access):
            grant = self.grants[name]
            begin = grant.activations[0].append if grant.activations else NEVER
            end = grant.removed(self.limits_of(grant))
            used = name in self._sessions_of_link or grant.request_key in self._sessions_of_link
            old = end < before and grant.last_append < before and not used
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
        del self.grants[grant.key]
        self.late.discard(("grant", grant.key))
        self._grants_of_access.discard(grant.access, grant.key)
        self._coverage.pop(grant.access, None)
        if grant.access not in self._grants_of_access:
            self._waiting.pop(grant.access, None)
        if grant.request_key:
            self._grants_of_request.discard(grant.request_key, grant.key)
