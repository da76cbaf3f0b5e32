"""A process that stands by for nobody joins the group again."""

from __future__ import annotations

from grantledger.processors.watch.standby import MOST_MISSES, StandbyGuard


def test_only_checks_in_a_row_without_an_owner_count() -> None:
    owned = iter([True, False, True, False, False])
    guard = StandbyGuard(lambda: next(owned))
    assert MOST_MISSES == 2
    assert [guard.is_forgotten() for _ in range(5)] == [False, False, False, False, True]


def test_an_assignment_starts_the_count_again() -> None:
    guard = StandbyGuard(lambda: False)
    assert not guard.is_forgotten()
    guard.reset()
    assert not guard.is_forgotten()
    assert guard.is_forgotten()
