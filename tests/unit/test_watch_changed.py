"""The entities to judge are taken in order of arrival, in slices, however many there are."""

from __future__ import annotations

from grantledger.processors.watch.core.changed import ChangedEntities
from grantledger.processors.watch.core.links import Links
from grantledger.processors.watch.core.reports import FEW


def test_entities_are_taken_once_in_order_of_arrival() -> None:
    changed = ChangedEntities(Links(), Links())
    for key in ("b", "a", "c", "a"):
        changed.mark("grant", key)
    changed.mark("session", "s")
    assert len(changed) == 4
    assert list(changed.take(2)) == [("grant", "b"), ("grant", "a")]
    assert list(changed.take(9)) == [("grant", "c"), ("session", "s")]
    assert not changed and list(changed.take(9)) == []


def test_an_entity_that_changes_again_is_taken_again() -> None:
    changed = ChangedEntities(Links(), Links())
    for key in ("a", "b"):
        changed.mark("grant", key)
    assert list(changed.take(1)) == [("grant", "a")]
    changed.mark("grant", "a")
    assert ("grant", "b") in changed and ("grant", "a") in changed
    assert list(changed.take(9)) == [("grant", "b"), ("grant", "a")]
    assert ("grant", "a") not in changed


def test_counts_that_grants_mark_come_last() -> None:
    changed, taken = ChangedEntities(Links(), Links()), []
    for kind, key in (("late", "vault"), ("grant", "a"), ("source", "vault")):
        changed.mark(kind, key)  # type: ignore[arg-type]
    for entity in changed.take(9):
        taken.append(entity)
        if entity[0] == "grant":
            changed.mark("late", "teleport")
    assert taken == [("grant", "a"), ("source", "vault"), ("late", "vault"), ("late", "teleport")]


def test_many_dependents_are_entities_to_judge() -> None:
    grants = Links[str]()
    for number in range(FEW + 1):
        grants.add("r", f"g{number}")
    changed = ChangedEntities(grants, Links())
    changed.mark_dependents("grant", "r")
    assert changed and ("grant", "g0") in changed
    assert len(list(changed.take(99))) == FEW + 1
