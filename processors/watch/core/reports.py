"""Sequences of reports in the order of the log: a tuple while they are few, because most are; then a list.

A tuple takes no memory if it is empty, and a list takes another item in constant time. Only their owner changes them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from typing import TypeVar

from ....schemas.names import plain_name
from .facts import Decision, Fact

FEW = 8
Item = TypeVar("Item")
Timed = tuple[int, int, Decision]
"""Index, append time and decision."""


def appended(items: Sequence[Item], new: Item) -> Sequence[Item]:
    """Return the items with a new one at the end."""
    if isinstance(items, list):
        items.append(new)
        return items
    return (*items, new) if len(items) < FEW else [*items, new]


def replaced(items: Sequence[Item], at: int, new: Collection[Item] = ()) -> Sequence[Item]:
    """Return the items with others in the place of one."""
    if isinstance(items, list):
        items[at : at + 1] = new
        return items
    return (*items[:at], *new, *items[at + 1 :])


def positions_of(items: Sequence[Item], indexes: Collection[int], index_of: Callable[[Item], int]) -> list[int]:
    """Return the positions of the items that have some indexes."""
    if len(items) <= FEW or len(indexes) * 8 > len(items):
        among = indexes if len(indexes) < FEW or isinstance(indexes, Set) else frozenset(indexes)
        return [at for at, one in enumerate(items) if index_of(one) in among]
    found = ((bisect_left(items, index, key=index_of), index) for index in sorted(indexes))
    return [at for at, index in found if at < len(items) and index_of(items[at]) == index]


class ManyDecisions(list[Timed]):
    """Decisions, and the first approval of each reviewer."""

    __slots__ = ("first",)

    def __init__(self, decisions: Iterable[Timed]) -> None:
        super().__init__(decisions)
        self.first: dict[str, Timed] = {}
        _add_first(self.first, self)

    def add(self, new: Sequence[Timed]) -> None:
        """Add the next decisions."""
        self += new
        _add_first(self.first, new)


def with_decisions(known: Sequence[Timed], new: Sequence[Timed]) -> Sequence[Timed]:
    """Return decisions with the next ones."""
    if isinstance(known, ManyDecisions):
        known.add(new)
        return known
    together = (*known, *new)
    return together if len(together) <= FEW else ManyDecisions(together)


def decisions_of(fact: Fact) -> list[Timed]:
    """Return the decisions that a fact reports."""
    return [(fact.index, fact.append, one) for one in fact.decisions]


def agreed_decisions(known: Sequence[Timed], fact: Fact, earlier: Collection[int]) -> Sequence[Timed]:
    """Return decisions without the approvals of earlier contents that the fact does not repeat; with its other ones."""
    disputed = [known[at] for at in positions_of(known, earlier, decision_index)]
    if any(one[2].decision == "approved" and one[2] not in fact.decisions for one in disputed):
        known = _kept(known, lambda one: one[0] not in earlier or one[2].decision != "approved"
                      or one[2] in fact.decisions)  # fmt: skip
    return with_decisions(known, [one for one in decisions_of(fact) if one[2].decision != "approved"])


def without_facts(known: Sequence[Timed], indexes: Collection[int]) -> Sequence[Timed]:
    """Return decisions without those of the facts at some indexes; the same object if there are none."""
    found = positions_of(known, indexes, decision_index)
    return _kept(known, lambda one: one[0] not in indexes) if found else known


def _kept(known: Sequence[Timed], is_kept: Callable[[Timed], bool]) -> Sequence[Timed]:
    return with_decisions((), tuple(filter(is_kept, known)))


def first_approvals(known: Sequence[Timed]) -> Mapping[str, Timed]:
    """Return the first approval of each reviewer, by plain name."""
    if isinstance(known, ManyDecisions):
        return known.first
    first: dict[str, Timed] = {}
    _add_first(first, known)
    return first


def decision_index(one: Timed) -> int:
    """Return the index of the fact that reported a decision."""
    return one[0]


def _add_first(first: dict[str, Timed], decisions: Iterable[Timed]) -> None:
    for one in decisions:
        if one[2].decision == "approved":
            first.setdefault(plain_name(one[2].reviewer), one)
