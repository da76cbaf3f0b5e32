"""A period of a grant, from one activation or extension to the next one. A deadline belongs to a period."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...access import NEVER, SECOND
from ...watch_policy import GrantLimits
from .activations import STRENGTH, Activation, Removal


class Period(NamedTuple):
    """The time from one activation or extension to the next, or to the end."""

    activation: Activation
    first: Activation  # with which this continuous access began
    deadline: int  # when access must have ended, or ``NEVER``
    superseded: int  # append time of the next activation or extension, or ``NEVER``
    removals: tuple[Removal, ...]
    finding_deadline: int
    """The deadline in its findings, unlike that of any other period: its own, or 0 without one. If an earlier
    period had the same, the append time of its activation."""
    late: bool = False
    """Already over when it was reported: by the source's clock, a removal earlier in the log came after it."""
    ends_by_itself: bool = False
    """Whether all credentials of the period stop working by its deadline, and the policy believes that."""
    alone_from: int = 0
    """Since when it is known that no earlier credential lasts: its removal may have been known later."""
    undone: tuple[Removal, int] | None = None
    """The first removal that was unconfirmed for too long before the access was given back, and when it was."""

    def includes(self, activation: Activation, deadline: int, limits: GrantLimits, *, by_itself: bool) -> bool:
        """Whether the next activation or extension only repeats the same end, or adds a credential that ends earlier.

        ``by_itself``: whether it ends by itself.
        """
        if any(one.evidence in limits.removal for one in self.removals):
            return False
        if deadline == self.deadline:
            return activation.extended or not self.activation.extended
        earlier = self.activation.ends is not None and deadline < self.deadline
        return by_itself and not activation.extended and earlier

    def continued(
        self, activation: Activation, deadline: int, superseded: int, removals: tuple[Removal, ...],
        limits: GrantLimits, *, by_itself: bool,
    ) -> Period:  # fmt: skip
        """Return the period with an activation or extension that it includes, and the removals since that.

        An activation with the same end gives the access back, for example when a lock is lifted.
        """
        earlier = deadline < self.deadline
        together = self.ends_by_itself and (by_itself or earlier)
        kept, undone = self.removals, self.undone
        if kept and not earlier and not activation.extended:
            kept, until = (), activation.begins
            undone = undone or next(((one, until) for one in self.unconfirmed(limits, until)), None)
        return self._replace(
            superseded=superseded, removals=first_of_each(*kept, *removals), ends_by_itself=together, undone=undone
        )  # fmt: skip

    def unconfirmed(self, limits: GrantLimits, until: int) -> Iterator[Removal]:
        """Yield the first removal that does not count if it stays unconfirmed for too long before a time."""
        weak = next((one for one in self.removals if one.evidence not in limits.removal), None)
        if weak is not None and self.is_unconfirmed_from(weak, limits) < until:
            yield weak

    def is_unconfirmed_from(self, weak: Removal, limits: GrantLimits) -> int:
        """Return when a removal that does not count has been unconfirmed for too long."""
        return max(weak.append, self.activation.append) + int(limits.confirm_wait_seconds * SECOND)

    def removed(self, limits: GrantLimits) -> int:
        """Return when a removal that counts was reported, or ``NEVER``."""
        ends_by_itself = NEVER
        if "deadline" in limits.removal:
            ends_by_itself = self.deadline
        elif self.ends_by_itself:
            ends_by_itself = max(self.deadline, self.alone_from)
        if not self.removals:
            return ends_by_itself
        reported = next((one.append for one in self.removals if one.evidence in limits.removal), NEVER)
        return min(ends_by_itself, max(reported, self.activation.append))  # both reports must have arrived

    def left(self, limits: GrantLimits) -> int:
        """Return when the subject lost the access, by the source that removed it, or ``NEVER``."""
        counting = (one for one in self.removals if one.evidence in limits.removal)
        return next((one.left for one in counting), NEVER)

    def ended(self, limits: GrantLimits) -> int:
        """Return when the access ended, or had to, by the clock of the source that reported it; ``NEVER`` without."""
        return min(self.left(limits), max(self.deadline, self.activation.happened))

    def overdue_after(self, limits: GrantLimits) -> int:
        """Return the last moment at which a removal is on time."""
        return limits.overdue_after(self.deadline, self.activation.append)

    def cover(self, limits: GrantLimits) -> tuple[int, int]:
        """Return from when to when it rightly gives its subject the access."""
        return self.activation.begins, min(self.removed(limits), self.superseded, self.overdue_after(limits))

    @property
    def best_evidence(self) -> str:
        """The strongest evidence of a removal so far."""
        return max((removal.evidence for removal in self.removals), key=STRENGTH.__getitem__, default="")


def first_of_each(*removals: Removal) -> tuple[Removal, ...]:
    """Return the first removal of each evidence: the others of one period do not matter."""
    first: dict[str, Removal] = {}
    for one in removals:
        first.setdefault(one.evidence, one)
    return tuple(first.values())
