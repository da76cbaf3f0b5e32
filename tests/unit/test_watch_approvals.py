"""Whose approval counts: the last decision of each reviewer, by its own time."""

from __future__ import annotations

import unicodedata

import pytest

from grantledger.processors.access import NEVER
from grantledger.processors.watch.core.approvals import approved
from grantledger.processors.watch.core.facts import Decision
from grantledger.processors.watch_policy import AccessLimits, WatchPolicy
from grantledger.schemas.names import plain_name
from support.watching import Story, at

Decided = tuple[int, int, Decision]
YES, NO, PENDING = "approved", "denied", "pending"


def decided(append: int, reviewer: str, decision: str, at: int | None = 0) -> Decided:
    return append, append, Decision(reviewer, decision, at=append if at == 0 else at)


@pytest.mark.parametrize(
    ("decisions", "reviewers", "enough"),
    [
        ([decided(1, "bob", YES)], {"bob"}, 1),
        ([decided(1, "bob", PENDING)], set(), NEVER),
        ([decided(1, "Alice ", YES)], set(), NEVER),
        ([decided(1, "unknown", YES), decided(2, "", YES)], set(), NEVER),
        ([decided(1, "bob", YES), decided(2, " BOB", NO)], set(), NEVER),
        ([decided(1, "bob", YES), decided(2, "bob", NO), decided(3, "bob", YES)], {"bob"}, 3),
        ([decided(1, "bob", YES, at=5), decided(2, "bob", NO, at=4)], {"bob"}, 1),
        ([decided(1, "bob", NO, at=4), decided(2, "bob", YES, at=4)], set(), NEVER),
        ([decided(1, "bob", YES), decided(60, "bob", NO)], {"bob"}, 1),  # too late to matter
        ([decided(60, "carol", YES)], {"carol"}, 60),  # late, but it ends the finding
        ([decided(1, "bob", YES), decided(2, "bob", NO), decided(3, "bob", YES, at=None)], set(), NEVER),
        ([decided(3, "bob", YES, at=None)], {"bob"}, 3),
    ],
)
def test_of_each_reviewer_the_last_decision_counts(decisions: list[Decided], reviewers: set[str], enough: int) -> None:
    assert approved(tuple(decisions), {"alice"}, 1, until=50) == (reviewers, enough)


def test_names_are_compared_in_one_form() -> None:
    composed = "Ren\u00e9 Stra\u00dfe"
    assert plain_name(f" {unicodedata.normalize('NFD', composed).upper()}\u00a0") == plain_name(composed)


POLICY = WatchPolicy(default=AccessLimits(grace_seconds=8, approvals=1, approval_wait_seconds=8))


def decided_requests(*kinds: str) -> list[tuple[str, str, str, float]]:
    """Return the findings about a grant after events of its request, each by another reviewer."""
    story = Story()
    for second, kind in enumerate(kinds):
        own = Decision(f"reviewer {second}", kind.partition(".")[2], at=at(second))
        story.say(second, kind, request_id="r", decisions=(own,))
    story.granted(5, "g", 100, request_id="r")
    story.removed(50, "g")
    return story.findings(1000, POLICY)


def test_a_denied_request_is_not_approved() -> None:
    denied = [("opened", "no_approval", "g", 13), ("resolved", "no_approval", "g", 50)]
    assert decided_requests("request.approved", "request.denied") == denied
    assert decided_requests("request.denied", "request.approved") == []


def test_a_grant_covers_nothing_before_its_start() -> None:
    story = Story()
    story.granted(0, "g", 300, starts=at(200))
    story.say(10, "session.started", "g", session_id="s")
    found = story.findings(290)
    assert [one[:2] for one in found] == [("opened", "used_without_grant")]
    later = Story()
    later.granted(0, "g", 300, starts=at(200))
    later.say(250, "session.started", "g", session_id="s")
    assert later.findings(290) == []
