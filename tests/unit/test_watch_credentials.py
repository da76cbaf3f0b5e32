"""Credentials that end by themselves: which sources are believed, and how several of them add up."""

from __future__ import annotations

import pytest

from grantledger.processors.access import SECOND, Source
from grantledger.processors.watch_policy import BUILT_IN, AccessLimits, AccessRule, WatchPolicy
from support.watching import Story, at, ordered, said

HOUR = 3600
BELIEVED = WatchPolicy(default=AccessLimits(grace_seconds=10, ends_by_itself=True, approval_wait_seconds=5))


def overdue(story: Story, policy: WatchPolicy = BELIEVED, until: float = 20_000) -> list[tuple[str, str, str, float]]:
    return [one for one in story.findings(until, policy) if one[1] == "overdue"]


@pytest.mark.parametrize("system", ["cloudtrail", "kubernetes", "teleport", "vault"])
def test_the_passed_deadline_is_the_end_under_the_default_policy_and_nobody_is_asked_to_revoke(system: str) -> None:
    story = Story()
    story.granted(0, "g", 100, ends_by_itself=True, native=True, source=Source(system, "prod"))
    changes = story.watched(1000, BUILT_IN).judge(at(1000))
    assert (said(changes), ordered(changes)) == ([], [])


def test_another_tool_is_not_believed_unless_the_policy_names_it() -> None:
    story = Story()
    story.granted(0, "g", 100, ends_by_itself=True, source=Source("emit", "host"))
    assert len(overdue(story, BUILT_IN)) == 1
    named = WatchPolicy(rule=(*BUILT_IN.rule, AccessRule(source="emit", ends_by_itself=True)))
    assert overdue(story, named) == []
    distrusted = WatchPolicy(rule=(*named.rule, AccessRule(tenant="default", ends_by_itself=False)))
    assert len(overdue(story, distrusted)) == 1


def test_one_of_a_believed_tool_that_does_not_end_by_itself_is_overdue() -> None:
    story = Story()
    story.granted(0, "g", 100)
    assert overdue(story) == [("opened", "overdue", "g", 110)]


def test_a_session_that_is_open_at_the_end_outlived_its_grant() -> None:
    story = Story()
    story.granted(0, "g", 100, ends_by_itself=True)
    story.say(50, "session.started", "g", session_id="s")
    assert story.findings(1000, BELIEVED) == [("opened", "session_outlived_grant", "s", 110)]


def test_a_short_credential_does_not_shorten_a_long_one_of_the_same_grant() -> None:
    for ends in ([8 * HOUR, 60], [60, 8 * HOUR], [60, 8 * HOUR, 90]):
        story = Story()
        for number, end in enumerate(ends):
            story.granted(number, "g", end, ends_by_itself=True)
        story.say(200, "session.started", "g", session_id="s")
        assert story.findings(8 * HOUR + 9, BELIEVED) == [], ends
        assert story.findings(9 * HOUR, BELIEVED) == [("opened", "session_outlived_grant", "s", 8 * HOUR + 10)]


def test_an_extension_replaces() -> None:
    story = Story()
    story.granted(0, "g", 1000, ends_by_itself=True)
    story.say(10, "grant.extended", "g", ends=100, ends_by_itself=True)
    story.say(50, "session.started", "g", session_id="s")
    assert story.findings(500, BELIEVED) == [("opened", "session_outlived_grant", "s", 110)]
    story.say(60, "grant.extended", "g", ends=300)
    assert overdue(story) == [("opened", "overdue", "g", 310)], "the new end needs a removal"


def test_a_short_credential_hides_no_access_that_must_be_removed() -> None:
    story = Story()
    story.granted(0, "g", 100)
    story.granted(10, "g", 60, ends_by_itself=True)
    assert overdue(story) == [("opened", "overdue", "g", 110)]
    story.granted(90, "g", 200, ends_by_itself=True)
    assert overdue(story) == [("opened", "overdue", "g", 210)]
    story.granted(500, "g", 600, ends_by_itself=True)
    assert overdue(story)[0] == ("opened", "overdue", "g", 210)
    assert len(overdue(story)) == 3, "a person still has to confirm that the first one is gone"


def test_a_credential_after_a_removal_starts_anew() -> None:
    story = Story()
    story.granted(0, "g", 1000, ends_by_itself=True)
    story.removed(50, "g")
    story.granted(60, "g", 100, ends_by_itself=True)
    story.say(70, "session.started", "g", session_id="s")
    assert story.findings(500, BELIEVED) == [("opened", "session_outlived_grant", "s", 110)]


def test_a_credential_that_is_reported_after_its_end_is_no_finding() -> None:
    story = Story()
    story.granted(500, "g", 100, ends_by_itself=True, occurred=0)
    story.granted(900, "g", 700, ends_by_itself=True, occurred=SECOND)
    assert story.findings(2000, BELIEVED) == []
