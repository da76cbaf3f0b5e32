"""Removals before their activations in the log, and removals that are repeated forever."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.processors.access import NEVER
from grantledger.processors.watch.core import grants
from grantledger.processors.watch.core.facts import Fact
from grantledger.processors.watch.core.judge import Judge
from grantledger.processors.watch_policy import AccessLimits, WatchPolicy
from support.watching import CHECKER, CHECKERS, Story, at, key, ordered, said

GRACE = AccessLimits(grace_seconds=10, confirm_wait_seconds=100, approval_wait_seconds=5)
PLAIN = WatchPolicy(default=GRACE, reporter=CHECKERS)
Told = tuple[str, str, float]


def overdue(story: Story, policy: WatchPolicy = PLAIN) -> list[Told]:
    """What was found of rule ``overdue`` in the end."""
    return [(what, key, when) for what, rule, key, when in story.findings(5000, policy) if rule == "overdue"]


def test_a_removal_that_stands_before_its_activation_ends_it() -> None:
    story = Story()
    story.removed(100, "g", occurred=at(90))
    story.granted(150, "g", 120, occurred=at(20))
    judge = story.watched(5000, PLAIN)
    changes = judge.judge(at(5000))
    assert (said(changes), ordered(changes)) == ([], [])
    assert judge.state.grants[key("g")].removed(GRACE) < NEVER


def test_the_activation_names_the_holder_and_not_a_removal_before_it() -> None:
    story = Story()
    story.removed(50, "g", occurred=at(10), who="carol", what="host")
    story.granted(100, "g", 200, occurred=at(90))
    story.granted(120, "g", 300, occurred=at(110), who="bob")
    judge = story.watched(5000, PLAIN)
    opened = [one.finding for one in judge.judge(at(5000)) if one.finding.rule == "overdue"]
    assert [(one.evidence["subject"], one.evidence["resource"]) for one in opened] == [("alice", "db")]
    assert judge.state.grants[key("g")].person == ("alice", "alice@example.com")


def test_one_that_comes_back_in_the_same_second_or_later_is_not_taken_for_removed() -> None:
    for back in (90, 91):
        story = Story()
        story.granted(0, "g", 1000)
        story.removed(100, "g", occurred=at(90))
        story.granted(101, "g", 200, occurred=at(back))
        assert overdue(story) == [("opened", "g", 210)], back


@pytest.mark.parametrize(
    ("given_at", "removed_at", "gone"),
    [
        (90, 90, False),
        (90, 90.9, False),  # nobody knows when in that second it was given
        (90, 91, True),
        (90.5, 90.5004, False),  # nor when in that thousandth
        (90.5, 90.501, True),
        (90.50001, 90.50002, True),
        (90.50001, 90.50001, False),
        (91, 90, False),
    ],
)
def test_the_precision_of_a_clock_decides_the_order(given_at: float, removed_at: float, gone: bool) -> None:
    story = Story()
    story.removed(100, "g", occurred=at(removed_at))
    story.granted(101, "g", 200, occurred=at(given_at))
    assert overdue(story) == ([] if gone else [("opened", "g", 210)])


def test_a_conflict_about_the_last_of_many_removals_leaves_the_one_before() -> None:
    story = Story()
    story.granted(0, "g", 1000)
    for when in (100, 200, 250, 300):
        last = story.removed(when, "g", occurred=at(when))
    story.facts.append(replace(last, index=5, content=b"other", removal="none"))
    story.granted(400, "g", 1000, occurred=at(220), index=6)
    assert overdue(story) == []


def test_only_times_of_one_source_are_compared() -> None:
    story = Story()
    story.removed(100, "g", occurred=at(90), source=CHECKER)
    story.granted(101, "g", 200, occurred=at(20))
    assert overdue(story) == [("opened", "g", 210)]


def test_a_fast_clock_removes_nothing_that_is_given_later() -> None:
    story = Story()
    story.granted(0, "g", 1000)
    story.removed(100, "g", occurred=at(700))  # then the clock is put right
    story.granted(150, "g", 200, occurred=at(150))
    assert overdue(story) == [("opened", "g", 210)]


def test_an_extension_that_arrives_after_the_removal_starts_nothing() -> None:
    story = Story()
    story.granted(0, "g", 200)
    story.removed(100, "g")
    story.say(101, "grant.extended", "g", ends=400, occurred=at(80))
    assert overdue(story) == []
    back = Story()
    back.granted(0, "g", 200)
    back.removed(100, "g")
    back.say(120, "grant.extended", "g", ends=400, occurred=at(120))
    assert overdue(back) == [("opened", "g", 410)]


def test_several_late_activations_have_all_ended() -> None:
    story = Story()
    story.removed(100, "g", occurred=at(90))
    story.granted(150, "g", 50, occurred=at(10))
    story.say(400, "grant.extended", "g", ends=300, occurred=at(40))
    assert overdue(story) == []
    assert story.findings(399, PLAIN) == []  # nor does the second make the first one overdue


def test_a_late_activation_neither_ends_nor_renews_a_newer_one() -> None:
    story = Story()
    story.removed(100, "g", occurred=at(90))
    story.granted(120, "g", 300, occurred=at(110))
    story.granted(150, "g", 50, occurred=at(10))
    assert overdue(story) == [("opened", "g", 310)]
    story.removed(350, "g")
    assert overdue(story) == [("opened", "g", 310), ("resolved", "g", 350)]


def test_a_repeated_deadline_after_the_removal_is_no_new_access() -> None:
    story = Story()
    story.granted(0, "g", 100)
    story.removed(150, "g")
    story.granted(200, "g", 100, occurred=at(0.5))
    found = [("opened", "g", 110), ("resolved", "g", 150)]
    assert overdue(story) == found
    story.granted(300, "g", 100, occurred=at(300))
    assert overdue(story) == [*found, ("opened", "g", 310)]


def test_an_order_to_remove_that_stands_before_is_one() -> None:
    story = Story()
    story.removed(100, "g", "api_accepted", occurred=at(90))
    story.granted(300, "g", 350, occurred=at(20))
    found = story.findings(5000, PLAIN)
    assert found == [("opened", "overdue", "g", 360), ("opened", "removal_unconfirmed", "g", 400)]
    lenient = WatchPolicy(default=GRACE.model_copy(update={"removal": frozenset({"api_accepted"})}))
    assert story.findings(5000, lenient) == []
    story.removed(340, "g", source=CHECKER)
    assert story.findings(5000, PLAIN) == []


def test_the_session_of_a_grant_that_arrives_late() -> None:
    story = Story()
    story.removed(100, "g", occurred=at(90))
    story.granted(150, "g", 120, occurred=at(20))
    story.say(152, "session.started", "g", session_id="s", occurred=at(30))
    story.say(153, "session.ended", "g", session_id="s", occurred=at(60))
    story.say(158, "session.started", "g", session_id="stays")
    story.say(400, "session.started", "g", session_id="after")
    story.granted(170, "g", 300, index=100)
    found = {one for one in story.findings(5000, PLAIN) if one[1] != "overdue"}
    assert found == {
        ("opened", "used_without_grant", "after", 405),
        ("opened", "used_without_grant", "stays", 163),  # by the clock of the source, the grant was gone
    }


def test_a_session_of_a_newer_activation_is_allowed() -> None:
    story = Story()
    story.removed(100, "g", occurred=at(90))
    story.granted(120, "g", 1000, occurred=at(110))
    story.say(125, "session.started", "g", session_id="s")
    story.granted(150, "g", 50, occurred=at(10))
    story.say(300, "session.ended", "g", session_id="s")
    assert story.findings(900, PLAIN) == []


def test_a_late_activation_does_not_cover_access() -> None:
    story = Story()
    story.granted(0, "one", 100)
    story.removed(80, "two", occurred=at(79))
    story.granted(90, "two", 1000, occurred=at(10))
    assert overdue(story) == [("opened", "one", 110)]


def repeated(story: Story, begin: float, count: int, evidence: str, grant: str = "g") -> None:
    for number in range(count):
        story.removed(begin + number / 100, grant, evidence)


def test_few_of_many_repeated_removals_are_kept() -> None:
    story = Story()
    story.granted(0, "g", 100)
    judge = story.watched(1)
    for number in range(5000):
        judge.add(story.removed(10 + number / 100, "g", "api_accepted"))
        if number % 10 == 9:
            judge.judge(at(10 + number / 100))
    judge.judge(at(70))
    assert len(judge.state.grants[key("g")].removals) == 3
    assert story.findings(5000, PLAIN) == [
        ("opened", "overdue", "g", 110),
        ("opened", "removal_unconfirmed", "g", 110),
    ]


def test_no_stronger_removal_is_dropped() -> None:
    story = Story()
    story.granted(0, "g", 100)
    repeated(story, 10, 50, "none")
    repeated(story, 50, 50, "api_accepted")
    story.removed(60, "g")
    repeated(story, 70, 50, "api_accepted")
    judge = story.watched(80, PLAIN)
    assert judge.judge(at(80)) == []
    assert len(judge.state.grants[key("g")].removals) < 10
    assert judge.state.grants[key("g")].removed(GRACE) < NEVER
    assert story.findings(5000, PLAIN) == []


def test_a_dropped_removal_is_recognized_as_a_duplicate() -> None:
    story = Story()
    story.granted(0, "g", 1000)
    repeated(story, 10, 50, "confirmed")
    judge = story.watched(20, PLAIN)
    judge.judge(at(20))
    judge.add(story.granted(30, "g", 100))
    for fact in story.facts[1:51]:  # a file is imported once more
        more = {"event_id": fact.event_id, "content": fact.content, "occurred": fact.occurred}
        judge.add(story.removed(40, "g", **more))
    assert said(judge.judge(at(500))) == [("opened", "overdue", "g", 110)]


def stretches(draw: random.Random) -> list[Fact]:
    """One grant, given again and again, with many removals of every kind in between, some of them out of order."""
    story = Story()
    now = 0.0
    for _ in range(draw.randint(2, 8)):
        now += draw.randint(1, 50)
        kind = draw.choice(["grant.activated", "grant.extended"])
        early = draw.choice([0, 0, 30])
        story.say(now, kind, "g", ends=now + draw.randint(-10, 200), occurred=at(now - early))
        for _ in range(draw.randint(0, 4)):
            evidence = draw.choice(["none", "deadline", "api_accepted", "confirmed"])
            source = draw.choice([story.facts[0].source, CHECKER])
            for _ in range(draw.choice([1, 3, 20])):
                now += draw.choice([0.1, 2])
                wrong = draw.choice([0, 0, -20, 40])
                story.removed(now, "g", evidence, source=source, occurred=at(now + wrong))
    return story.facts


def told(facts: list[Fact], policy: WatchPolicy, *, looks: int, every: bool = False) -> list[tuple[object, ...]]:
    """Return the changes found by a watch that looks after every so many facts, and may keep every removal."""
    judge, words = Judge(policy), []
    with pytest.MonkeyPatch.context() as patch:
        if every:
            patch.setattr(grants, "with_removal", lambda removals, new, *_: [*removals, new])
        for number, fact in enumerate(facts, 1):
            judge.add(fact)
            if number % looks == 0 or number == len(facts):
                now = fact.append if number < len(facts) else at(5000)
                words += [(one.kind, *one.finding[:5], dict(one.finding.evidence)) for one in judge.judge(now)]
    return words


@given(st.randoms(use_true_random=False))
def test_dropped_removals_change_nothing(draw: random.Random) -> None:
    facts = stretches(draw)
    lenient = GRACE.model_copy(update={"removal": frozenset({"api_accepted", "confirmed"})})
    policy = WatchPolicy(default=draw.choice([GRACE, lenient]), reporter=CHECKERS)
    assert told(facts, policy, looks=2) == told(facts, policy, looks=2, every=True)
    assert told(facts, policy, looks=len(facts)) == told(facts, policy, looks=len(facts), every=True)
