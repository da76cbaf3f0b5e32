"""Whether access ended on time: every rule by example, and what must hold for any story in any order."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.base.toml import ConfigError
from grantledger.processors.access import NEVER, SECOND, Access, Source
from grantledger.processors.watch.core.activations import Activation
from grantledger.processors.watch.core.commands import COMMANDS, REVOKE
from grantledger.processors.watch.core.facts import Decision, Fact
from grantledger.processors.watch.core.judge import FindingChange, Judge
from grantledger.processors.watch_policy import (
    BUILT_IN,
    AccessLimits,
    AccessRule,
    EffectivePolicy,
    SourceLimits,
    WatchPolicy,
    load_policy,
)
from support.watching import CHECKERS, START, VAULT, Story, at, bare, key, lives, ordered, said

GRACE = AccessLimits(grace_seconds=10, confirm_wait_seconds=100, approval_wait_seconds=5)
PLAIN = WatchPolicy(default=GRACE, reporter=CHECKERS)
BELIEVED = GRACE.model_copy(update={"ends_by_itself": True})


def of_rule(found: list[tuple[str, str, str, float]], rule: str) -> list[tuple[str, str, float]]:
    return [(what, key, when) for what, name, key, when in found if name == rule]


def test_removed_in_time_is_no_finding() -> None:
    story = Story()
    story.granted(0, "g", 100)
    story.removed(110, "g")  # the last moment
    assert story.findings(1000, PLAIN) == []


def test_overdue_opens_after_the_grace_and_is_resolved_with_its_lateness() -> None:
    story = Story()
    story.granted(0, "g", 100)
    assert story.findings(110, PLAIN) == []
    assert story.findings(110.001, PLAIN) == [("opened", "overdue", "g", 110)]
    story.removed(160, "g")
    judge = story.watched(500, PLAIN)
    changes = judge.judge(at(500))
    assert ordered(changes) == []  # it is gone: nothing is left to be done
    assert said(changes) == [("opened", "overdue", "g", 110), ("resolved", "overdue", "g", 160)]
    assert changes[1].finding.evidence["late_seconds"] == 60
    assert changes[1].finding.deadline == at(100)


@pytest.mark.parametrize("evidence", ["none", "deadline", "api_accepted"])
def test_only_evidence_that_the_policy_accepts_is_a_removal(evidence: str) -> None:
    story = Story()
    story.granted(0, "g", 100)
    story.removed(50, "g", evidence)
    found = story.findings(1000, PLAIN)
    assert found == [("opened", "overdue", "g", 110), ("opened", "removal_unconfirmed", "g", 150)]
    lenient = WatchPolicy(default=GRACE.model_copy(update={"removal": frozenset({"confirmed", evidence})}))
    assert story.findings(1000, lenient) == []
    story.removed(180, "g")
    assert of_rule(story.findings(1000, PLAIN), "removal_unconfirmed")[1] == ("resolved", "g", 180)


def test_a_lock_that_was_lifted_is_no_unconfirmed_removal() -> None:
    story = Story()
    story.granted(0, "g", 5000)
    story.removed(50, "g", "api_accepted")
    story.granted(100, "g", 5000)
    assert story.findings(4000, PLAIN) == []
    story.removed(200, "g", "api_accepted")
    story.granted(400, "g", 5000, occurred=at(400), starts=at(450))
    story.say(500, "grant.extended", "g", ends=5000)
    found = [("opened", "removal_unconfirmed", "g", 300), ("resolved", "removal_unconfirmed", "g", 450)]
    assert story.findings(4000, PLAIN) == found
    judge = story.watched(350, PLAIN)
    assert said(judge.judge(at(350))) == found[:1], "however late the watch looks"
    assert of_rule(story.findings(6000, PLAIN), "overdue") == [("opened", "g", 5010)]


def test_an_extension_does_not_hide_that_a_removal_is_unconfirmed() -> None:
    story = Story()
    story.granted(0, "g", 5000)
    story.removed(50, "g", "api_accepted")
    story.say(60, "grant.extended", "g", ends=5000)
    assert story.findings(4000, PLAIN) == [("opened", "removal_unconfirmed", "g", 150)]


def test_a_deadline_that_counts_as_removal_needs_no_other() -> None:
    story = Story()
    story.granted(0, "g", 100, source=Source("teleport", "prod"))
    expires = AccessRule(source="teleport", removal=frozenset({"confirmed", "deadline"}))
    assert story.findings(1000, WatchPolicy(rule=(expires,))) == []
    story.granted(0, "h", 100)
    assert of_rule(story.findings(1000, WatchPolicy(rule=(expires,))), "overdue") == [("opened", "h", 160)]


def test_a_fast_clock_cannot_lengthen_access() -> None:
    story = Story()
    story.granted(0, "g", 100 + 600, occurred=at(600))
    story.removed(400, "g")
    found = story.findings(1000, PLAIN)
    assert of_rule(found, "overdue") == [("opened", "g", 110), ("resolved", "g", 400)]
    assert [what for what, _, _ in of_rule(found, "clock_skew")] == ["opened"]


def test_an_extension_moves_the_deadline_and_one_that_comes_late_resolves() -> None:
    story = Story()
    story.granted(0, "g", 100)
    story.say(50, "grant.extended", "g", ends=200)
    story.removed(205, "g")
    assert story.findings(1000, PLAIN) == []
    late = Story()
    late.granted(0, "g", 100)
    late.say(150, "grant.extended", "g", ends=200)
    assert of_rule(late.findings(180, PLAIN), "overdue") == [("opened", "g", 110), ("resolved", "g", 150)]
    assert of_rule(late.findings(1000, PLAIN), "overdue")[-1] == ("opened", "g", 210)


def test_an_earlier_deadline_counts_from_its_append_time() -> None:
    story = Story()
    story.granted(0, "g", 500)
    story.say(100, "grant.extended", "g", ends=50)
    assert of_rule(story.findings(1000, PLAIN), "overdue") == [("opened", "g", 110)]


def test_a_grant_that_ends_before_it_begins_and_one_far_away() -> None:
    story = Story()
    story.granted(100, "before", 20, starts=at(90))
    story.granted(100, "far", 8_000_000_000, what="host")
    assert story.findings(1000, PLAIN) == [("opened", "overdue", "before", 110)]


def test_history_that_is_imported_is_judged_from_when_it_came() -> None:
    story = Story()
    story.granted(10_000, "g", -5000, occurred=at(-6000))
    story.removed(10_001, "g", occurred=at(-5001))
    assert story.findings(20_000, PLAIN) == []


def test_a_removal_that_arrives_late_has_its_true_lateness() -> None:
    story = Story()
    story.granted(0, "g", 100)
    story.removed(300, "g", occurred=at(130))
    changes = story.watched(400, PLAIN).judge(at(400))
    assert changes[1].finding.evidence["late_seconds"] == 30


def test_overlapping_grants_of_one_access_are_a_union() -> None:
    story = Story()
    story.granted(0, "one", 100)
    story.granted(50, "two", 200)
    story.removed(205, "two")
    assert story.findings(150, PLAIN) == []
    assert story.findings(1000, PLAIN) == [("opened", "overdue", "one", 205)]
    other = Story()
    other.granted(0, "one", 100)
    other.granted(50, "two", 200, what="host")
    assert other.findings(150, PLAIN) == [("opened", "overdue", "one", 110)]


def test_a_covering_grant_may_end_early() -> None:
    story = Story()
    story.granted(0, "one", 100)
    story.granted(50, "two", 1000)
    judge = story.watched(150, PLAIN)
    assert judge.judge(at(150)) == []
    judge.add(story.removed(160, "two"))
    assert said(judge.judge(at(170))) == [("opened", "overdue", "one", 160)]


def test_a_grant_that_comes_back_is_judged_anew() -> None:
    story = Story()
    story.granted(0, "g", 100)
    story.removed(90, "g")
    story.granted(500, "g", 600)
    found = story.findings(1000, PLAIN)
    assert found == [("opened", "overdue", "g", 610)]


def revoking(when: str) -> WatchPolicy:
    return WatchPolicy(default=GRACE.model_copy(update={"revoke": when}))


@pytest.mark.parametrize(
    ("when", "native", "begins"),
    [
        ("auto", False, 100),
        ("auto", True, 110),
        ("deadline", True, 100),
        ("overdue", False, 110),
        ("never", False, None),
    ],
)
def test_there_is_one_revoke_command_at_the_time_in_the_policy(when: str, native: bool, begins: float | None) -> None:
    story = Story()
    story.granted(0, "g", 100, native=native)
    story.granted(0, "in time", 100, what="other")
    story.removed(99, "in time")
    judge = story.watched(500, revoking(when))
    told = [one for now in (99, 100.5, 105, 110.5, 400) for one in ordered(judge.judge(at(now)))]
    assert told == ([("g", begins)] if begins else [])


def test_an_overlapped_grant_is_not_torn_down() -> None:
    story = Story()
    story.granted(0, "a", 100)
    story.granted(50, "b", 300)
    judge = story.watched(500, revoking("deadline"))
    assert ordered(judge.judge(at(300))) == []
    assert ordered(judge.judge(at(311))) == [("a", 310), ("b", 310)]


def test_a_command_given_before_is_not_given_again() -> None:
    story = Story()
    story.granted(0, "g", 100)
    [change] = [one for one in story.watched(500, PLAIN).judge(at(500)) if one.finding.rule == REVOKE]
    judge = Judge(PLAIN, {change.finding[:3]: True})
    for fact in story.facts:
        judge.add(fact)
    assert ordered(judge.judge(at(900))) == []


def test_work_can_be_cut_in_slices() -> None:
    story = Story()
    for number in range(50):
        story.granted(number / 100, f"g{number}", 100, what=f"db{number}")
    whole = story.watched(500, PLAIN).judge(at(500))
    judge, pieces = story.watched(500, PLAIN), []
    while judge.next_time < at(500):
        pieces.append(judge.judge(at(500), 7))
    assert sorted(change for piece in pieces for change in piece) == sorted(whole) and len(pieces) > 7


def test_a_repeated_deadline_resolves_nothing() -> None:
    story = Story()
    story.granted(0, "g", 100)
    story.say(150, "grant.extended", "g", ends=100)
    story.granted(160, "g", 100)
    assert of_rule(story.findings(1000, PLAIN), "overdue") == [("opened", "g", 110)]
    story.removed(200, "g")
    assert of_rule(story.findings(1000, PLAIN), "overdue") == [("opened", "g", 110), ("resolved", "g", 200)]


def test_a_grant_that_comes_back_with_its_old_end_is_overdue_again() -> None:
    story = Story()
    story.granted(0, "g", 100)
    story.removed(150, "g")
    story.granted(200, "g", 100)
    found = [("opened", "g", 110), ("resolved", "g", 150), ("opened", "g", 210)]
    assert of_rule(story.findings(1000, PLAIN), "overdue") == found


def test_a_duplicate_event_counts_once_at_its_first_place() -> None:
    story = Story()
    given = story.granted(0, "g", 100)
    gone = story.removed(90, "g")
    for number, again in enumerate([given, gone, given]):
        story.facts.append(replace(again, index=10 + number, append=at(300 + number)))
    assert story.findings(1000, PLAIN) == []


def test_a_finding_that_came_to_nothing_is_resolved_after_a_restart_too() -> None:
    story = Story()
    story.granted(0, "g", 100)
    known = {("overdue", key("g"), at(100)): True}
    story.removed(105, "g")  # in time, and heard too late to prevent the finding
    judge = Judge(PLAIN, known)
    for fact in story.facts:
        judge.add(fact)
    assert said(judge.judge(at(900))) == [("resolved", "overdue", "g", 900)]


def test_giving_it_again_and_again_does_not_get_round_the_longest_access() -> None:
    story = Story()
    for begin in (0, 90, 180):
        story.granted(begin, "g", None)
    policy = WatchPolicy(default=GRACE.model_copy(update={"max_seconds": 100}))
    assert of_rule(story.findings(1000, policy), "overdue") == [("opened", "g", 110)]
    back = Story()
    back.granted(0, "g", None)
    back.removed(80, "g")
    back.granted(90, "g", None)
    assert of_rule(back.findings(1000, policy), "overdue") == [("opened", "g", 200)]


def test_an_empty_reviewer_does_not_count_and_case_does_not_matter() -> None:
    policy = WatchPolicy(default=GRACE.model_copy(update={"approvals": 1}))
    story = Story()
    story.granted(0, "g", 500, decisions=approve("unknown"))
    assert of_rule(story.findings(20, policy), "no_approval") == [("opened", "g", 5)]
    named = Story()
    named.granted(0, "g", 500, who="Alice", decisions=approve("alice"))
    assert {rule for _, rule, _, _ in named.findings(20, policy)} == {"self_approved", "no_approval"}
    nameless = Story()
    nameless.granted(0, "g", 500, who="unknown", decisions=approve("unknown"))
    assert of_rule(nameless.findings(20, PLAIN), "self_approved") == []


def test_the_first_event_with_a_subject_decides_the_person() -> None:
    story = Story()
    story.say(0, "request.approved", request_id="r", who="unknown", decisions=approve("alice"))
    story.say(1, "request.created", request_id="r", who="alice")
    assert of_rule(story.findings(20, PLAIN), "self_approved") == [("opened", "r", 0)]


def test_without_an_end_again_and_again() -> None:
    story = Story()
    story.granted(0, "g", None)
    story.say(10, "grant.extended", "g", ends=500)
    story.say(20, "grant.extended", "g")
    story.say(30, "grant.extended", "g")
    found = [("opened", "g", 0), ("resolved", "g", 10), ("opened", "g", 20)]
    assert of_rule(story.findings(400, PLAIN), "no_deadline") == found


def test_no_deadline() -> None:
    story = Story()
    story.granted(0, "g", None)
    assert story.findings(1000, PLAIN) == [("opened", "no_deadline", "g", 0)]
    limited = WatchPolicy(default=GRACE.model_copy(update={"max_seconds": 300.0}))
    assert story.findings(1000, limited) == [("opened", "overdue", "g", 310)]
    story.say(50, "grant.extended", "g", ends=70)
    assert ("resolved", "g", 50) in of_rule(story.findings(1000, PLAIN), "no_deadline")


def test_longer_than_the_policy_allows() -> None:
    limited = WatchPolicy(default=GRACE.model_copy(update={"max_seconds": 300.0}))
    story = Story()
    story.granted(0, "g", 300)
    story.say(100, "grant.extended", "g", ends=301)
    story.removed(200, "g")
    found = of_rule(story.findings(1000, limited), "extended_beyond_policy")
    assert found == [("opened", "g", 100), ("resolved", "g", 200)]


APPROVED = WatchPolicy(default=GRACE.model_copy(update={"approvals": 2}))


def approve(reviewer: str, decision: str = "approved") -> tuple[Decision, ...]:
    return (Decision(reviewer, decision),)


def test_approvals_of_enough_others() -> None:
    story = Story()
    story.say(0, "request.approved", request_id="r", decisions=approve("bob"), outcome="pending")
    story.say(1, "request.approved", request_id="r", decisions=approve("bob"))
    story.say(2, "request.approved", request_id="r", decisions=approve("carol", "pending"))
    story.granted(3, "g", 100, request_id="r")
    story.removed(100, "g")
    found = story.findings(1000, APPROVED)
    assert found == [("opened", "no_approval", "g", 8), ("resolved", "no_approval", "g", 100)]
    story.say(7, "request.approved", request_id="r", decisions=approve("dan"))
    assert story.findings(1000, APPROVED) == []


@pytest.mark.parametrize("reviewer", ["alice", "alice@example.com"])
def test_self_approval_is_found(reviewer: str) -> None:
    story = Story()
    story.say(0, "request.approved", request_id="r", decisions=approve(reviewer))
    story.granted(3, "g", 100, request_id="r")
    story.removed(4, "g")
    assert story.findings(10, PLAIN) == [("opened", "self_approved", "r", 0)]


def test_one_self_approval_is_one_finding_about_what_the_log_names_first() -> None:
    own = approve("alice")
    asked = Story()
    asked.say(0, "request.approved", request_id="r", decisions=own)
    asked.granted(3, "g", 100, request_id="r", decisions=own)
    asked.granted(4, "other", 100, request_id="r", decisions=own)
    assert of_rule(asked.findings(10, PLAIN), "self_approved") == [("opened", "r", 0)]
    given = Story()
    given.granted(3, "g", 100, request_id="r", decisions=own)
    given.say(5, "request.approved", request_id="r", decisions=own)
    assert of_rule(given.findings(10, PLAIN), "self_approved") == [("opened", "g", 3)]
    by_another = Story()
    by_another.say(0, "request.approved", request_id="r", decisions=approve("bob"))
    by_another.granted(3, "g", 100, request_id="r", decisions=own)
    assert of_rule(by_another.findings(10, PLAIN), "self_approved") == [("opened", "g", 3)]


@pytest.mark.parametrize("reviewer", ["alice", "alice@example.com"])
def test_a_late_self_approval_is_found(reviewer: str) -> None:
    one = WatchPolicy(default=GRACE.model_copy(update={"approvals": 1}))
    late = Story()
    late.say(0, "request.approved", request_id="r", decisions=approve(reviewer))
    late.granted(3, "g", 100, request_id="r")
    assert of_rule(late.findings(50, one), "no_approval") == [("opened", "g", 8)]


def test_a_session_must_not_outlive_its_grant() -> None:
    story = Story()
    story.granted(0, "g", 100)
    story.say(10, "session.started", "g", session_id="s")
    story.removed(50, "g")
    assert story.findings(60, PLAIN) == []
    assert story.findings(61, PLAIN) == [("opened", "session_outlived_grant", "s", 60)]
    story.say(70, "session.ended", "g", session_id="s")
    assert story.findings(80, PLAIN)[-1] == ("resolved", "session_outlived_grant", "s", 70)
    kept = Story()
    kept.granted(0, "g", 100)
    kept.say(10, "session.started", "g", session_id="s")
    kept.say(90, "grant.extended", "g", ends=200)
    kept.say(190, "session.ended", "g", session_id="s")
    kept.removed(200, "g")
    assert kept.findings(1000, PLAIN) == []


def test_a_reactivated_grant_keeps_its_earlier_finding() -> None:
    story = Story()
    story.granted(0, "g", 50)
    story.say(58, "session.started", "g", session_id="s")
    story.removed(59, "g")
    assert story.findings(61, PLAIN)[-1] == ("opened", "session_outlived_grant", "s", 60)
    story.granted(62, "g", 500)
    story.say(70, "session.ended", "g", session_id="s")
    found = of_rule(story.findings(100, PLAIN), "session_outlived_grant")
    assert found == [("opened", "s", 60), ("resolved", "s", 70)]


def test_a_session_needs_the_grant_that_it_names() -> None:
    story = Story()
    story.say(10, "session.started", "g", session_id="unheard")
    story.say(11, "session.ended", "g", session_id="unheard")
    story.say(20, "session.started", "g", session_id="early")
    story.granted(24, "g", 100, occurred=at(19))  # a moment later, as events of two tools come
    story.removed(90, "g")
    story.say(95, "session.ended", "g", session_id="early")
    story.say(200, "session.started", "g", session_id="after")
    story.say(300, "session.started", "", session_id="free")
    found = of_rule(story.findings(1000, PLAIN), "used_without_grant")
    assert [one for one in found if one[1] != "unheard"] == [("opened", "after", 205)]
    assert found[:1] == [("opened", "unheard", 15)]
    strict = WatchPolicy(default=GRACE.model_copy(update={"sessions_need_grant": True}))
    assert ("opened", "free", 305) in of_rule(story.findings(1000, strict), "used_without_grant")


def test_a_short_session_without_a_grant_is_found_and_is_over_at_once() -> None:
    story = Story()
    story.say(10, "session.started", "g", session_id="s")
    story.say(11, "session.ended", "g", session_id="s")
    assert story.findings(15, PLAIN) == []  # its grant may be on its way
    changes = story.watched(16, PLAIN).judge(at(16))
    assert [(change.kind, change.at - at(15)) for change in changes] == [("opened", 0), ("resolved", 1)]
    story.granted(14, "g", 100, occurred=at(9))
    assert story.findings(16, PLAIN) == []


def test_a_session_end_may_arrive_before_its_start() -> None:
    story = Story()
    story.granted(0, "g", 100)
    story.say(50, "session.ended", "g", session_id="s")
    story.removed(90, "g")
    story.say(300, "session.started", "g", session_id="s")
    assert story.findings(1000, PLAIN) == []
    other = Story()
    other.say(50, "session.ended", "g", session_id="s")
    other.say(300, "session.started", "g", session_id="s")
    assert other.findings(301, PLAIN)[0] == ("opened", "used_without_grant", "s", 300)  # nobody knew before


def test_a_grant_that_is_reported_late_resolves_the_finding_about_its_session() -> None:
    story = Story()
    story.say(1, "session.started", "g", session_id="s")
    story.granted(100, "g", 300, occurred=at(0))
    wait = PLAIN.default.approval_wait_seconds
    assert story.findings(101, PLAIN) == [
        ("opened", "used_without_grant", "s", 1 + wait), ("resolved", "used_without_grant", "s", 100),
    ]  # fmt: skip


def test_one_id_with_two_contents() -> None:
    story = Story()
    story.say(0, "request.created", request_id="r", event_id="e", content=b"a")
    story.say(1, "request.created", request_id="r", event_id="e", content=b"a")
    assert story.findings(10, PLAIN) == []
    story.say(2, "request.created", request_id="r", event_id="e", content=b"b")
    assert story.findings(10, PLAIN) == [("opened", "event_conflict", "vault/prod", 2)]


def test_a_second_content_under_one_id_neither_lengthens_access_nor_ends_it() -> None:
    story = Story()
    story.granted(0, "g", 100, event_id="given")
    story.granted(50, "g", 10_000, event_id="given")
    story.removed(60, "g", "api_accepted", event_id="taken")
    story.removed(70, "g", "confirmed", event_id="taken")
    found = story.findings(1000, PLAIN)
    assert ("opened", "overdue", "g", 100 + PLAIN.default.grace_seconds) in found
    assert [one[1] for one in found].count("event_conflict") == 1, "one per source and hour"
    changes = story.watched(1000, PLAIN).judge(at(1000))
    [conflict] = [change.finding for change in changes if change.finding.rule == "event_conflict"]
    assert conflict.evidence["count"] == 2
    assert ordered(changes) == [], "the conflict is not decided yet"


Found = dict[tuple[str, str, int], tuple[int, int]]


@pytest.mark.parametrize("said", [(True, True), (True, False), (False, True), (False, False)])
def test_a_credential_ends_by_itself_only_if_all_contents_of_the_event_agree(said: tuple[bool, bool]) -> None:
    story = Story()
    first = story.granted(0, "g", 100, ends_by_itself=said[0], native=said[0])
    story.facts.append(replace(first, index=1, content=b"other", ends_by_itself=said[1], native=said[1]))
    [activation] = story.watched(10).state.grants[key("g")].activations
    assert activation.ends_by_itself == activation.native == all(said)
    endless = replace(first, expires=None)
    assert not Activation.of(endless).ends_by_itself, "without an end it ends at no time"


def everything(facts: list[Fact], policy: WatchPolicy, now: int) -> Found:
    """What there is to find at a time: identity to (opens, ends)."""
    judge = Judge(policy)
    for fact in facts:
        judge.add(fact)
    found: Found = {}
    for change in judge.judge(now):
        identity = (change.finding.rule, change.finding.key, change.finding.deadline)
        opens, _ = found.get(identity, (change.at, NEVER))
        found[identity] = (opens, change.at if change.kind == "resolved" else NEVER)
    return found


POLICIES = st.sampled_from(
    [
        PLAIN,
        WatchPolicy(
            default=AccessLimits(grace_seconds=0, max_seconds=250, approvals=1, sessions_need_grant=True),
            source=(SourceLimits(silent_after_seconds=120),),
            reporter=CHECKERS,
        ),
        WatchPolicy(
            default=GRACE,
            rule=(AccessRule(resource="host", removal=frozenset({"api_accepted", "confirmed"})),),
            reporter=CHECKERS,
        ),
        WatchPolicy(default=BELIEVED, reporter=CHECKERS),
    ]
)


@given(st.randoms(use_true_random=False), POLICIES)
def test_repetition_changes_nothing(draw: random.Random, policy: WatchPolicy) -> None:
    """The same entries delivered again, as after a restart."""
    facts = lives(draw, 40)
    expected = everything(facts, policy, at(3000))
    again = draw.randint(0, len(facts))
    assert everything(facts[:again] + facts[draw.randint(0, again) :], policy, at(3000)) == expected


@given(st.randoms(use_true_random=False), POLICIES)
def test_frequent_judging_finds_the_same_as_judging_once(draw: random.Random, policy: WatchPolicy) -> None:
    """Also with restarts from the published findings alone."""
    facts = lives(draw, 40)
    end = at(3000)
    changes: list[FindingChange] = []
    judge = Judge(policy)
    heard = 0
    for now in [*sorted(at(draw.randint(0, 2000)) for _ in range(12)), end]:
        while heard < len(facts) and facts[heard].append <= now:
            judge.add(facts[heard])
            heard += 1
        changes += judge.judge(now)
        if draw.random() < 0.3:  # killed: everything is read again
            known: dict[tuple[str, str, int], bool] = {}
            for change in changes:
                known[change.finding[:3]] = change.kind == "opened"
            judge = Judge(policy, known)
            for fact in facts[:heard]:
                judge.add(fact)
    told = [(change.kind, *change.finding[:3]) for change in changes]
    assert len(told) == len(set(told))
    changes = [change for change in changes if change.finding.rule not in COMMANDS]  # what is to be done depends on now
    told = [(change.kind, *change.finding[:3]) for change in changes]
    once = everything(facts, policy, end)
    for change in changes:
        opens, ends = once[change.finding[:3]]
        assert change.at == (opens if change.kind == "opened" else ends)


def grants_of_request(facts: list[Fact], about: Fact) -> set[str]:
    """The grants that a removal or extension concerns which names only a request."""
    named: dict[str, Fact] = {}
    begun: dict[str, Fact] = {}
    for fact in facts:
        if fact.grant_id and fact.event_type.startswith("grant.") and fact.source == VAULT:
            if fact.request_id:
                named.setdefault(fact.grant_id, fact)
            if fact.event_type in ("grant.activated", "grant.extended"):
                begun.setdefault(fact.grant_id, fact)
    mine = {name for name, fact in named.items() if fact.request_id == about.request_id and name in begun}
    if about.source == VAULT and about.event_type == "grant.revoked":
        return mine
    return {
        name
        for name in mine
        if named[name].index < about.index > begun[name].index
        and (about.source == VAULT or (about.event_type == "grant.revoked" and about.access == begun[name].access))
    }


def overdue_by_definition(facts: list[Fact], limits: AccessLimits, now: int) -> set[tuple[str, int]]:
    """(grant, second) at which each grant is first overdue in each of its episodes: looked at second by second."""
    grants: dict[str, list[Fact]] = {}
    seen: set[int] = set()
    for fact in facts:
        if fact.event_type.startswith("grant.") and fact.index not in seen:
            seen.add(fact.index)
            for name in (fact.grant_id,) if fact.grant_id else grants_of_request(facts, fact):
                grants.setdefault(name, []).append(fact)

    def told_too_late(grant: str, given: Fact) -> bool:
        """Whether a removal stands before it that came after it by the clock of the source of both."""
        return any(
            fact.removal in limits.removal
            and fact.index < given.index
            and fact.source == given.source
            and given.occurred // SECOND < min(fact.occurred, fact.append) // SECOND
            for fact in grants[grant]
        )

    def deadline_of(given: Fact) -> int:
        return NEVER if given.expires is None else given.expires - max(0, given.occurred - given.append)

    def holding(grant: str, time: int) -> tuple[Fact | None, bool]:
        """The activation or extension that counts at a time, and whether it was removed since or ended by itself."""
        given, removed, confirmed = None, False, False
        asked: Fact | None = None  # of the credentials since, one must be removed
        latest = -NEVER
        for fact in grants[grant]:
            if fact.append > time:
                break
            if fact.event_type in ("grant.activated", "grant.extended"):
                past = -NEVER < latest <= fact.append and deadline_of(fact) <= fact.append
                if fact.event_type == "grant.extended" and past:
                    continue  # it was past its end already
                latest = max(latest, deadline_of(fact))
                if not fact.grant_id and (given is None or confirmed):
                    continue  # an extension of the request extends what is active
                if told_too_late(grant, fact):
                    continue
                ends = fact.ends_by_itself and limits.ends_by_itself and fact.expires is not None
                running = given is not None and not removed and (asked or deadline_of(given) > fact.append)
                if fact.event_type == "grant.extended" or not running:
                    asked = None
                adds = ends and given is not None and given.expires is not None and not removed
                adds = adds and fact.event_type == "grant.activated"
                if not ends:
                    asked = fact
                repeats = (
                    given is not None
                    and not removed
                    and deadline_of(fact) == deadline_of(given)
                    and (fact.event_type == "grant.extended" or given.event_type == "grant.activated")
                )
                if not repeats and not (adds and deadline_of(fact) < deadline_of(given)):
                    given, removed, confirmed = fact, False, False
            else:
                removed |= fact.removal in limits.removal
                confirmed |= fact.removal == "confirmed"
        return given, removed or (given is not None and asked is None and deadline_of(given) < time)

    def last_moment(given: Fact) -> int:
        deadline = deadline_of(given)
        return deadline if deadline == NEVER else max(deadline, given.append) + int(limits.grace_seconds * SECOND)

    found: set[tuple[str, int]] = set()
    told: set[tuple[str, int]] = set()
    first = {name: next(fact.access for fact in facts if fact.grant_id == name) for name in grants}
    for second in range(now // SECOND - START):
        time = at(second) + SECOND // 2
        for name in grants:
            given, removed = holding(name, time)
            if given is None or removed or last_moment(given) > time or (name, given.index) in told:
                continue
            others = [
                other
                for other in grants
                if other != name
                and first[other] == first[name]
                and (has := holding(other, time))[0] is not None
                and not has[1]
                and last_moment(has[0]) > time
            ]
            if not others:
                told.add((name, given.index))
                found.add((name, second))
    return found


@given(st.randoms(use_true_random=False), st.sampled_from([GRACE, BELIEVED]))
def test_overdue_matches_the_definition(draw: random.Random, limits: AccessLimits) -> None:
    facts = lives(draw, 25)
    found = everything(facts, WatchPolicy(default=limits, reporter=CHECKERS), at(1500))
    ours = {(bare(name), opens // SECOND - START) for (rule, name, _), (opens, _) in found.items() if rule == "overdue"}
    assert ours == overdue_by_definition(facts, limits, at(1500))


def test_a_million_grants_of_one_subject_are_judged_in_bounded_work() -> None:
    """Ten thousand here: judging one of them must not look at all others."""
    story = Story()
    for number in range(10_000):
        story.granted(number / 100, f"g{number}", 200 + number / 100)
    judge = story.watched(150, PLAIN)
    assert judge.judge(at(150)) == []
    assert judge.judge(at(160)) == []
    for number in range(10_000):
        judge.add(story.removed(170 + number / 1000, f"g{number}"))
    assert judge.judge(at(1000)) == []


def test_a_policy_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(
        '[default]\ngrace_seconds = 5\n[[rule]]\nsource = "vault"\nresource = "pay*"\napprovals = 2\n'
        '[severity]\noverdue = "warning"\n'
    )
    policy = load_policy(path)
    assert policy.default.grace_seconds == 5 and policy.severity == {"overdue": "warning"}
    assert policy.rule[: len(BUILT_IN.rule)] == BUILT_IN.rule
    on_record = WatchPolicy.model_validate_json(policy.model_dump_json())
    for access in (None, Access("t", "alice", "database", "payments", "rw")):
        limits = [EffectivePolicy(one).limits(VAULT, access, "production") for one in (policy, on_record)]
        assert limits[0] == limits[1], "the policy on record is the policy in force"
    assert limits[1].approvals == 2 and limits[1].grace_seconds == 5 and limits[1].ends_by_itself


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[default]\ngrace = 5\n", ":2: default.grace: unknown key"),
        ("[default]\ngrace_seconds = -5\n", ":2: default.grace_seconds: Input should be greater than or equal to 0"),
        ('[[rule]]\nremoval = ["sure"]\n', ":2: rule 1.removal"),
        ('[severity]\noverdu = "info"\n', ":2: severity.overdu"),
        ("grace", ":1"),
    ],
)
def test_a_wrong_policy_names_the_key(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_policy(path)
    assert f"{path}{words}" in str(raised.value)
    with pytest.raises(ConfigError, match="missing"):
        load_policy(tmp_path / "missing.toml")
