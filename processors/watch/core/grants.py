"""One grant: the facts known of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from ....schemas.access_key import AccessKey, id_of, is_issuer, parse_access_key
from ....schemas.event import GIVING, OBSERVED, REMOVING
from ...access import NEVER, Access, Source
from ...watch_policy import GrantLimits
from .activations import Activation, Removal, history_begins, is_replayed, last_end, note_given, weaker, with_removal
from .facts import Fact, names_someone
from .period_walk import LateReports, PeriodWalk, periods_of
from .periods import Period
from .report_index import ManyReports
from .reports import (
    FEW,
    Timed,
    agreed_decisions,
    appended,
    decision_index,
    decisions_of,
    positions_of,
    replaced,
    with_decisions,
    without_facts,
)

"""The access was read back, and exists."""
NO_ACCESS = Access("", "", "", "", "")


@dataclass(slots=True)
class Grant:
    """The facts of one grant. Subject and resource come from its source's first activation that names a subject."""

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
    # Empty tuples take no memory, and most grants have few items (:mod:`.reports`).
    activations: Sequence[Activation] = ()
    removals: Sequence[Removal] = ()
    decisions: Sequence[Timed] = ()
    """(index, append time, decision)."""
    many: ManyReports | None = None
    """Saves the search through many activations and removals."""
    last_append: int = 0
    first_received: int = NEVER
    """When the first of its reports was received."""
    imported: bool = False
    """Whether that report was marked as an import of history."""
    newest: int = 0
    """When it was last given, by its source's clock."""
    latest_end: int = 0
    endless: bool = False
    """Whether an activation or extension has no end."""
    observed: int = 0
    """When another source first reported that it read the access back, and that it exists; 0 if none did."""
    reason: str = ""
    """In the latest activation or extension that gives one."""
    replayed: set[int] | None = None
    """Indexes of replayed extensions, if there are any: they change nothing."""

    @classmethod
    def of(cls, fact: Fact) -> Grant:
        """Return a new grant that the fact describes, without the fact itself."""
        grant = cls(fact.grant_key, *_description(fact))
        grant.request_key = fact.request_key
        return grant

    @property
    def grant_id(self) -> str:
        """The id that its source issued."""
        return id_of(self.key)

    @property
    def address(self) -> AccessKey:
        """The parts of its access key."""
        return parse_access_key(self.key)

    def describe(self, fact: Fact) -> None:
        """Take from a fact of its own source what earlier facts did not name.

        The first activation or extension names the access. What a removal before it names is provisional.
        """
        unnamed = not names_someone(self.person) or (fact.event_type in GIVING and not self.activations)
        if unnamed and names_someone(fact.person):
            self.access, self.environment, self.source, self.person, self.kinds = _description(fact)
        self.request_key = self.request_key or fact.request_key

    def _note(self, fact: Fact) -> None:
        """Note when a fact was received."""
        self.last_append = max(self.last_append, fact.append)
        if fact.received < self.first_received:
            self.first_received, self.imported = fact.received, fact.imported

    def is_historical(self, limits: GrantLimits) -> bool:
        """Whether it was reported too late, and the access is not known to exist: it never pages or revokes."""
        return not self.observed and self._is_late(limits)

    def observed_since(self, limits: GrantLimits) -> int:
        """Return since when a grant that was reported too late is known to exist; 0 for any other grant."""
        return self.observed if self.observed and self._is_late(limits) else 0

    def _is_late(self, limits: GrantLimits) -> bool:
        """Whether nothing of it was received until long after its last deadline."""
        if self.first_received < self.latest_end:  # nearly all grants
            return False
        return bool(self.activations) and self.lateness(limits) >= history_begins(0, limits)

    def lateness(self, limits: GrantLimits) -> int:
        """Return how long after its end the first report of it was received."""
        return self.first_received - last_end(self.latest_end, self.newest, limits, endless=self.endless)

    def _late_reports(self, limits: GrantLimits) -> LateReports:
        """Return how late activations and extensions count."""
        replayed = self.replayed or ()
        if len(self.activations) - len(replayed) == 1 or self.is_historical(limits):
            return "all"
        old = all(one.is_stale(limits) or one.index in replayed for one in self.activations)
        return "activations" if old else "none"

    def add(self, fact: Fact) -> None:
        """Add what the next fact reports."""
        self._note(fact)
        if fact.event_type in GIVING:
            if self._activation_of(fact) is None:
                self._append(Activation.of(fact))
                self.reason = fact.reason or self.reason
        elif fact.event_type in REMOVING and self._removal_of(fact) is None:
            removal = Removal.of(fact)
            begin = self.activations[-1].index if self.activations else -1
            self.removals = with_removal(self.removals, removal, begin, self._given)
            if self.many is not None:
                self.many.add_removal(removal)
        elif fact.event_type == OBSERVED and not is_issuer(fact.source, self.address.issuer):
            self.observed = self.observed or fact.append
        if fact.decisions:
            self.decisions = with_decisions(self.decisions, decisions_of(fact))
        if self.many is None and len(self.activations) + len(self.removals) > 2 * FEW:
            self.many = ManyReports(self.activations, self.removals)

    def _append(self, activation: Activation) -> None:
        if activation.extended and activation.signed and is_replayed(activation, self._given()):
            self.replayed = self.replayed or set()
            self.replayed.add(activation.index)
        else:
            self.endless |= activation.ends is None
            self.newest = max(self.newest, activation.happened)
            self.latest_end = max(self.latest_end, activation.ends or 0)
        self.activations = appended(self.activations, activation)
        if self.many is not None:
            self.many.add_activation(activation)

    def _activation_of(self, fact: Fact) -> int | None:
        """Return the position of the activation that the event of a fact reported."""
        if not self.activations:
            return None
        event = fact.event
        if self.many is not None:
            return self.many.position_of_activation(event, self.activations)
        return next((at for at, one in enumerate(self.activations) if one.event == event), None)

    def _removal_of(self, fact: Fact) -> int | None:
        """Return the position of the removal that the event of a fact reported."""
        event = fact.event
        if self.many is not None:
            return self.many.position_of_removal(event, self.removals)
        return next((at for at, one in enumerate(self.removals) if one.event == event), None)

    def _given(self) -> dict[Source, int]:
        if self.many is not None:
            return self.many.given
        given: dict[Source, int] = {}
        for activation in self.activations:
            note_given(given, activation)
        return given

    def add_earlier(self, facts: Iterable[Fact], known: int) -> None:
        """Add the removals among earlier facts that named only the request. ``known``: since when that is its request.

        Before, nobody could know that they concern it, so they end no finding earlier.
        """
        removing = [one for one in facts if one.event_type in REMOVING]
        for one in removing:
            self._note(one)
        found = [Removal.of(one) for one in removing]
        found = [replace(one, occurred=one.left, append=max(one.append, known)) for one in found]
        if found:
            self.removals = sorted((*self.removals, *found))
            self.many = None

    def add_disputed(self, fact: Fact, earlier: Collection[int]) -> None:
        """Add a fact whose event had other contents before, at the indexes ``earlier``: the stricter reading counts.

        Of several ends the earliest counts. Removals and approvals count only where all contents agree.
        """
        self._note(fact)
        if fact.event_type in GIVING:
            mine, at = Activation.of(fact), self._activation_of(fact)
            if at is None:
                self._append(mine)
            else:
                self.activations = replaced(self.activations, at, (self.activations[at].stricter(mine),))
        if (at := self._removal_of(fact)) is not None:
            agreed = weaker(self.removals[at], fact.removal, fact.append, fact.occurred)
            self.removals = replaced(self.removals, at, (agreed,) if fact.event_type in REMOVING else ())
        if self.many is not None:
            self.many.walk = None
        self.decisions = agreed_decisions(self.decisions, fact, earlier)

    def withdraw(self, indexes: Collection[int]) -> bool:
        """Forget what the facts at some indexes reported. Return whether there was anything."""
        found = positions_of(self.activations, indexes, _index)
        if found:
            gone = frozenset(found)
            self.activations = tuple(one for at, one in enumerate(self.activations) if at not in gone)
            self.replayed = self.replayed and self.replayed.difference(indexes)
            self.many = None
        return self.doubt(indexes) or bool(found)

    def reports(self, indexes: Collection[int]) -> bool:
        """Whether it has anything from the facts at some indexes."""
        return bool(
            positions_of(self.activations, indexes, _index)
            or positions_of(self.removals, indexes, _index)
            or positions_of(self.decisions, indexes, decision_index)
        )

    def doubt(self, indexes: Collection[int]) -> bool:
        """Forget the removals and approvals of the facts at some indexes; their activations count.

        Return whether there were any.
        """
        found, decisions = positions_of(self.removals, indexes, _index), self.decisions
        if found:
            gone = frozenset(found)
            self.removals = tuple(one for at, one in enumerate(self.removals) if at not in gone)
            self.many = None
        self.decisions = without_facts(decisions, indexes)
        return bool(found) or self.decisions is not decisions

    def periods(self, limits: GrantLimits) -> list[Period]:
        """Return the grant's periods in order."""
        if self.many is None:
            return periods_of(self.activations, self.removals, limits, self._late_reports(limits))
        return self.walk(limits).periods()

    def unsettled(self, limits: GrantLimits) -> list[Period]:
        """Return the periods that can still cause or resolve a finding, and perhaps others."""
        if self.many is None:
            return self.periods(limits)
        return self.walk(limits).unsettled()

    def walk(self, limits: GrantLimits) -> PeriodWalk:
        """Return the periods of many reports."""
        if self.many is None:
            raise RuntimeError("few reports have no index")
        return self.many.walk_of(self.activations, self.removals, limits, self._late_reports(limits))

    def settle(self, limits: GrantLimits, is_settled: Callable[[Period], bool]) -> None:
        """Leave out of ``unsettled`` the periods that can neither change nor cause a finding."""
        if self.many is not None:
            self.walk(limits).settle(is_settled)

    def removed(self, limits: GrantLimits) -> int:
        """Return when a removal that counts ended the last period, or ``NEVER``; 0 if the grant was never active."""
        if self.many is not None:
            last = self.walk(limits).last()
            return last.removed(limits) if last is not None else 0
        periods = self.periods(limits)
        return periods[-1].removed(limits) if periods else 0

    def keeps(self, index: int, event_type: str) -> bool:
        """Whether the grant still uses the fact at an index: it drops most repeated removals."""
        if event_type not in REMOVING:
            return True
        return bool(positions_of(self.removals, (index,), _index))


def _index(report: Activation | Removal) -> int:
    return report.index


def _description(fact: Fact) -> tuple[Access, str, Source, tuple[str, ...], tuple[str, str]]:
    kinds = _kinds(fact.subject_kind, fact.grant_id_kind)
    return fact.access or NO_ACCESS, fact.environment, fact.source, fact.person, kinds


@lru_cache(maxsize=256)
def _kinds(subject: str, grant_id: str) -> tuple[str, str]:
    """Return one object for all grants of the same kinds."""
    return subject or "unknown", grant_id or "synthesized"
