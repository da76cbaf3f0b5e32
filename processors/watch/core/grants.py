"""One grant: the facts known of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ...access import Access, Source
from ...policy import AccessLimits
from .facts import Decision, Fact, names_someone
from .periods import Activation, Period, Removal, periods_of, with_removal

NO_ACCESS = Access("", "", "", "", "")


@dataclass(slots=True)
class Grant:
    """The facts of one grant. Subject and resource come from the earliest event that names a subject."""

    grant_id: str
    access: Access
    environment: str
    source: Source
    person: tuple[str, ...]
    kinds: tuple[str, str]
    """Kind of the subject, and kind of the grant id."""
    request_id: str = ""
    """The request that the earliest event names, or empty."""
    # Tuples, because an empty one takes no memory, and most grants have few items.
    activations: tuple[Activation, ...] = ()
    removals: tuple[Removal, ...] = ()
    decisions: tuple[tuple[int, int, Decision], ...] = ()
    """(index, append time, decision)."""
    last_append: int = 0

    @classmethod
    def of(cls, fact: Fact) -> Grant:
        """Return a new grant that the fact describes, without the fact itself."""
        return cls(fact.grant_id, *_description(fact))

    def add(self, fact: Fact) -> None:
        """Add the next fact."""
        self.last_append = max(self.last_append, fact.append)
        if not names_someone(self.person) and names_someone(fact.person):
            self.access, self.environment, self.source, self.person, self.kinds = _description(fact)
        self.request_id = self.request_id or fact.request_id
        if fact.event_type in ("grant.activated", "grant.extended"):
            activation = Activation.of(fact)
            if not self.activations or all(one.event_key != activation.event_key for one in self.activations):
                self.activations += (activation,)
        elif fact.event_type in ("grant.revoked", "grant.expired"):
            removal = Removal(fact.index, fact.append, fact.occurred, fact.removal, fact.source, fact.event_key)
            if all(one.event_key != removal.event_key for one in self.removals):
                self.removals = with_removal(self.removals, removal, self.activations)
        if fact.decisions:
            self.decisions += tuple((fact.index, fact.append, one) for one in fact.decisions)

    def periods(self, limits: AccessLimits) -> list[Period]:
        """Return the grant's periods in order."""
        return periods_of(self.activations, self.removals, limits)

    def removed(self, limits: AccessLimits) -> int:
        """Return when a removal that counts ended the last period, or ``NEVER``; 0 if the grant was never active."""
        periods = self.periods(limits)
        return periods[-1].removed(limits) if periods else 0

    def keeps(self, index: int, event_type: str) -> bool:
        """Whether the grant still uses the fact at an index: it drops most repeated removals."""
        if event_type not in {"grant.revoked", "grant.expired"}:
            return True
        return any(removal.index == index for removal in self.removals)


def _description(fact: Fact) -> tuple[Access, str, Source, tuple[str, ...], tuple[str, str]]:
    kinds = _kinds(fact.subject_kind, fact.grant_id_kind)
    return fact.access or NO_ACCESS, fact.environment, fact.source, fact.person, kinds


@lru_cache(maxsize=256)
def _kinds(subject: str, grant_id: str) -> tuple[str, str]:
    """Return one object for all grants of the same kinds."""
    return subject or "unknown", grant_id or "synthesized"
