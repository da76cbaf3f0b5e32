"""The wait for an answer of the watch's group."""

from __future__ import annotations

from grantledger.processors.watch.joining import JOIN_SECONDS, JoiningGroup


def test_a_group_that_never_answers_is_overdue() -> None:
    now = [0.0]
    joining = JoiningGroup(lambda: now[0])
    now[0] = JOIN_SECONDS
    assert not joining.is_overdue
    now[0] += 1
    assert joining.is_overdue
    joining.ended()
    now[0] += 10 * JOIN_SECONDS
    assert not joining.is_overdue, "an assigned or waiting process has an answer"
    joining.began()
    assert not joining.is_overdue, "each rebalance has the whole time"
    now[0] += JOIN_SECONDS + 1
    assert joining.is_overdue
