"""One grant: the facts known of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from ....schemas.access_key import AccessKey, id_of, parse_access_key
from ...access import Access, Source
from ...policy import AccessLimits
from .facts import Decision, Fact, names_someone
from .periods import Activation, Period, Removal, periods_of, weaker, with_removal

GIVING = ("grant.activated", "grant.extended")
REMOVING = ("grant.revoked", "grant.expired")
NO_ACCESS = Access("", "", "", "", "")


@dataclass(slots=True)
class Grant:
    """The facts of one grant. Subject and resource come from its source's earliest event that names a subject."""

    key: str
    """Its access key."""
    access: Access
    environment: str
    source: Source
    person: tuple[str, ...]
    kinds: tuple[str, str]
    """Kind of the subject, and kind of the grant id."""
    request_key: str = ""
    """Access key of the request that the earliest event names, or empty."""
    # Tuples, because an empty one takes no memory, and most grants have few items.
    activations: tuple[Activation, ...] = ()
    removals: tuple[Removal, ...] = ()
    decisions: tuple[tuple[int, int, Decision], ...] = ()
    """(index, append time, decision)."""
    last_append: int = 0

    @classmethod
    def of(cls, fact: Fact) -> Grant:
        """Return a new grant that the fact describes, without the fact itself."""
        return cls(fact.grant_key, *_description(fact))

    @property
    def grant_id(self) -> str:
        """The id that its source issued."""
        return id_of(self.key)

    @property
    def address(self) -> AccessKey:
        """The parts of its access key."""
        return parse_access_key(self.key)

    def describe(self, fact: Fact) -> None:
        """Take from a fact of its own source what earlier facts did not name."""
        if not names_someone(self.person) and names_someone(fact.person):
            self.access, self.environment, self.source, self.person, self.kinds = _description(fact)
        if not self.request_key and fact.request_id:
            request = fact.request_key
            self.request_key = self.key if request == self.key else request

    def add(self, fact: Fact) -> None:
        """Add what the next fact reports."""
        self.last_append = max(self.last_append, fact.append)
        if fact.event_type in GIVING:
            activation = Activation.of(fact)
            if not self.activations or all(one.event_key != activation.event_key for one in self.activations):
                self.activations += (activation,)
        elif fact.event_type in REMOVING:
            removal = Removal.of(fact)
            if all(one.event_key != removal.event_key for one in self.removals):
                self.removals = with_removal(self.removals, removal, self.activations)
        if fact.decisions:
            self.decisions += tuple((fact.index, fact.append, one) for one in fact.decisions)

    def add_earlier(self, facts: Iterable[Fact], known: int) -> None:
        """Add the removals among earlier facts that named only the request. ``known``: since when that is its request.

        Before, nobody could know that they concern it, so they end no finding earlier.
        """
        found = [Removal.of(one) for one in facts if one.event_type in REMOVING]
        found = [replace(one, occurred=one.left, append=max(one.append, known)) for one in found]
        self.removals = tuple(sorted((*self.removals, *found)))

    def add_disputed(self, fact: Fact, earlier: Collection[int]) -> None:
        """Add a fact whose event had other contents before, at the indexes ``earlier``: the stricter reading counts.

        Of several ends the earliest counts. Removals and approvals count only where all contents agree.
        """
        self.last_append = max(self.last_append, fact.append)
        same = [one for one in self.removals if one.index in earlier]
        if fact.event_type in GIVING:
            mine = Activation.of(fact)
            if not any(one.index in earlier for one in self.activations):
                self.activations += (mine,)
            self.activations = tuple(
                one.stricter(mine) if one.index in earlier else one for one in self.activations
            )  # fmt: skip
        agreed: tuple[Removal, ...] = ()
        if fact.event_type in REMOVING:
            agreed = tuple(weaker(one, fact.removal, fact.append, fact.occurred) for one in same)
        self.removals = tuple(sorted((*(one for one in self.removals if one.index not in earlier), *agreed)))
        self.decisions = agreed_decisions(self.decisions, fact, earlier)

    def withdraw(self, indexes: Collection[int]) -> bool:
        """Forget what the facts at some indexes reported. Return whether there was anything."""
        before = self.activations, self.removals, self.decisions
        self.activations = tuple(one for one in self.activations if one.index not in indexes)
        self.removals = tuple(one for one in self.removals if one.index not in indexes)
        self.decisions = tuple(one for one in self.decisions if one[0] not in indexes)
        return before != (self.activations, self.removals, self.decisions)

    def reports(self, indexes: Collection[int]) -> bool:
        """Whether it has anything from the facts at some indexes."""
        own = [one.index for one in self.activations]
        own += [one.index for one in self.removals]
        return any(index in indexes for index in own) or any(one[0] in indexes for one in self.decisions)

    def doubt(self, indexes: Collection[int]) -> None:
        """Forget the removals and approvals of the facts at some indexes; their activations count."""
        self.removals = tuple(one for one in self.removals if one.index not in indexes)
        self.decisions = tuple(one for one in self.decisions if one[0] not in indexes)

    def periods(self, limits: AccessLimits) -> list[Period]:
        """Return the grant's periods in order."""
        return periods_of(self.activations, self.removals, limits)

    def removed(self, limits: AccessLimits) -> int:
        """Return when a removal that counts ended the last period, or ``NEVER``; 0 if the grant was never active."""
        periods = self.periods(limits)
        return periods[-1].removed(limits) if periods else 0

    def keeps(self, index: int, event_type: str) -> bool:
        """Whether the grant still uses the fact at an index: it drops most repeated removals."""
        if event_type not in REMOVING:
            return True
        return any(removal.index == index for removal in self.removals)


def agreed_decisions(
    decisions: tuple[tuple[int, int, Decision], ...], fact: Fact, earlier: Collection[int]
) -> tuple[tuple[int, int, Decision], ...]:
    """Return decisions without the approvals of earlier contents that the fact does not repeat; with its other ones."""
    kept = [one for one in decisions if one[0] not in earlier or one[2].decision != "approved"
            or one[2] in fact.decisions]  # fmt: skip
    new = ((fact.index, fact.append, one) for one in fact.decisions if one.decision != "approved")
    return (*kept, *new)


def _description(fact: Fact) -> tuple[Access, str, Source, tuple[str, ...], tuple[str, str]]:
    kinds = _kinds(fact.subject_kind, fact.grant_id_kind)
    return fact.access or NO_ACCESS, fact.environment, fact.source, fact.person, kinds


@lru_cache(maxsize=256)
def _kinds(subject: str, grant_id: str) -> tuple[str, str]:
    """Return one object for all grants of the same kinds."""
    return subject or "unknown", grant_id or "synthesized"
