"""An index for grants with many reports, so that each new report takes constant time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import TypeVar

from ...access import Source
from ...watch_policy import GrantLimits
from .activations import Activation, Removal, note_given
from .period_walk import LateReports, PeriodWalk

Report = TypeVar("Report", Activation, Removal)


class ManyReports:
    """An index of the activations and removals of a grant."""

    def __init__(self, activations: Iterable[Activation], removals: Iterable[Removal]) -> None:
        self.given: dict[Source, int] = {}
        """By source, the latest time, by its own clock, at which it gave the grant."""
        self.walk: PeriodWalk | None = None
        """The periods so far; None before they are needed, and after reports have changed."""
        self._activations: dict[int, int] = {}
        self._removals: dict[int, int] = {}
        """From the event to the index. Some of the removals were dropped."""
        for activation in activations:
            self.add_activation(activation)
        for removal in removals:
            self.add_removal(removal)

    def add_activation(self, activation: Activation) -> None:
        """Add the next activation."""
        note_given(self.given, activation)
        self._activations[activation.event] = activation.index
        if self.walk is not None:
            self.walk.add(activation)

    def add_removal(self, removal: Removal) -> None:
        """Add the next removal, whether it was dropped at once or not: one that is dropped changes no period."""
        self._removals[removal.event] = removal.index
        if self.walk is not None:
            self.walk.add(removal)

    def walk_of(
        self, activations: Sequence[Activation], removals: Sequence[Removal], limits: GrantLimits, late: LateReports
    ) -> PeriodWalk:
        """Return the periods of these reports so far."""
        if self.walk is None or (self.walk.limits, self.walk.late_reports) != (limits, late):
            self.walk = PeriodWalk(limits, (*activations, *removals), late)
        return self.walk

    def position_of_activation(self, event: int, activations: Sequence[Activation]) -> int | None:
        """Return the position of the activation that an event reported."""
        return _position(self._activations.get(event), activations)

    def position_of_removal(self, event: int, removals: Sequence[Removal]) -> int | None:
        """Return the position of the removal that an event reported."""
        return _position(self._removals.get(event), removals)


def _position(index: int | None, reports: Sequence[Report]) -> int | None:
    if index is None:
        return None
    at = bisect_left(reports, index, key=attrgetter("index"))
    return at if at < len(reports) and reports[at].index == index else None
