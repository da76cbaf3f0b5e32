"""Removals and extensions that name only a request: they are about all its grants."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grantledger.processors.access import Source
from grantledger.processors.watch.core.judge import KnownFindings
from grantledger.processors.watch_policy import AccessLimits, Reporter, WatchPolicy
from support.watching import CHECKER, CHECKERS, VAULT, Story, at, key, ordered

EVIL = Source("emit", "evil")
FOREIGN = ("foreign_claim", "emit/evil")
GRACE = AccessLimits(grace_seconds=10)
PLAIN = WatchPolicy(default=GRACE)
CHECKED = WatchPolicy(default=GRACE, reporter=CHECKERS)
EXTENDING = WatchPolicy(
    default=GRACE, reporter=(Reporter(system="checker", source="vault", may=frozenset({"extend"})),)
)


def overdue(story: Story, policy: WatchPolicy = PLAIN, until: float = 5000) -> list[str]:
    """Return what opened until a second, revoke commands aside: ``overdue`` by grant, other rules by their name."""
    changes = story.watched(until, policy).judge(at(until))
    opened = [one.finding for one in changes if one.kind == "opened" and one.finding.rule != "revoke"]
    return sorted(one.key.rpartition("/")[2] if one.rule == "overdue" else one.rule for one in opened)


def two_grants(**more: object) -> Story:
    """Return two grants of one request, and one of another, all until second 100."""
    story = Story()
    story.granted(0, "g1", 100, request_id="r", what="db1", **more)
    story.granted(1, "g2", 100, request_id="r", what="db2", **more)
    story.granted(2, "other", 100, request_id="r2", what="db3", **more)
    return story


def test_a_removal_of_a_request_ends_all_its_grants() -> None:
    story = two_grants()
    story.removed(50, "", request_id="r")
    assert overdue(story) == ["other"]


@pytest.mark.parametrize("kind", ["grant.revoked", "grant.expired"])
def test_both_kinds_of_removal(kind: str) -> None:
    story = two_grants()
    story.say(50, kind, request_id="r", removal="confirmed")
    assert overdue(story) == ["other"]


def test_a_weak_removal_of_a_request_does_not_end_them() -> None:
    story = two_grants()
    story.removed(50, "", "api_accepted", request_id="r")
    assert set(overdue(story)) == {"g1", "g2", "other", "removal_unconfirmed"}


def test_a_grant_that_has_the_id_of_its_request() -> None:
    story = Story()
    story.granted(0, "r", 100, request_id="r")
    story.removed(50, "", request_id="r")
    assert overdue(story) == []


def test_an_extension_of_a_request_extends_its_active_grants_only() -> None:
    story = two_grants()
    story.removed(40, "g1", what="db1")
    story.say(50, "grant.extended", request_id="r", ends=1000)
    story.say(60, "grant.extended", request_id="r", ends=1000)
    assert overdue(story, until=900) == ["other"]
    assert overdue(story) == ["g2", "other"]


def test_an_extension_of_a_request_starts_no_grant() -> None:
    story = Story()
    story.say(0, "grant.extended", request_id="r", ends=2000)
    story.granted(10, "g", 100, request_id="r")
    assert overdue(story) == ["g"]


def test_a_failed_grant_of_a_request_changes_nothing() -> None:
    story = two_grants()
    story.say(50, "grant.failed", request_id="r")
    assert overdue(story) == ["g1", "g2", "other"]


def test_a_removal_before_its_activation_in_the_log_ends_it_as_one_that_names_the_grant() -> None:
    story = Story()
    story.removed(50, "", request_id="r", occurred=at(50))
    story.granted(55, "g", 100, request_id="r", occurred=at(10))
    story.granted(60, "again", 100, request_id="r", occurred=at(60), what="db2")
    assert overdue(story) == ["again"]


def test_a_removal_counts_for_a_grant_that_names_its_request_later() -> None:
    story = Story()
    story.granted(0, "g", 100)
    story.removed(50, "", request_id="r")
    story.say(60, "grant.failed", "g", request_id="r")
    assert overdue(story) == []


def test_a_request_of_another_source_tenant_or_name_is_another_request() -> None:
    for other in ({"request_source": Source("vault", "dr")}, {"source": Source("vault", "dr")}):
        story = two_grants()
        story.removed(50, "", request_id="r", **other)
        assert set(overdue(story)) >= {"g1", "g2", "other"}


@pytest.mark.parametrize("named", [VAULT, None])
def test_another_source_removes_nothing_and_that_is_a_finding(named: Source | None) -> None:
    story = two_grants()
    story.removed(50, "", request_id="r", source=EVIL, request_source=named)
    story.say(60, "grant.extended", request_id="r", source=EVIL, request_source=named, ends=4000)
    assert overdue(story) == ["foreign_claim", "g1", "g2", "other"]


def test_a_checker_removes_the_access_that_it_repeats() -> None:
    story = two_grants()
    story.removed(50, "", request_id="r", source=CHECKER, request_source=VAULT, what="db2")
    assert overdue(story, CHECKED) == ["g1", "other"]
    story.say(60, "grant.extended", request_id="r", source=CHECKER, request_source=VAULT, what="db1", ends=4900)
    assert overdue(story, CHECKED) == ["foreign_claim", "g1", "other"]
    wrong = two_grants()
    wrong.removed(50, "", request_id="r", source=CHECKER, request_source=VAULT, who="mallory")
    assert overdue(wrong, CHECKED) == ["foreign_claim", "g1", "g2", "other"]


def test_a_reporter_that_may_extend() -> None:
    story = two_grants()
    story.say(60, "grant.extended", request_id="r", source=CHECKER, request_source=VAULT, what="db1", ends=9000)
    assert overdue(story, EXTENDING) == ["g2", "other"]


def test_of_two_contents_the_stricter_counts() -> None:
    story = two_grants()
    removal = story.removed(50, "", request_id="r")
    story.facts.append(replace(removal, index=4, content=b"other", removal="api_accepted"))
    assert set(overdue(story)) >= {"event_conflict", "g1", "g2", "other"}
    assert ordered(story.watched(5000, PLAIN).judge(at(5000))) == [("other", 100)]
    story.facts.append(replace(removal, index=5, content=b"third"))
    assert set(overdue(story)) >= {"event_conflict", "g1", "g2", "other"}


@pytest.mark.parametrize("is_enough", [True, False])
def test_of_two_contents_before_its_grant_the_weaker_counts(*, is_enough: bool) -> None:
    story = Story()
    removal = story.removed(50, "", request_id="r")
    story.facts.append(replace(removal, index=1, content=b"other", removal="api_accepted"))
    story.granted(60, "g", 100, request_id="r", index=2, occurred=at(10))
    evidence = frozenset({"confirmed", "api_accepted"} if is_enough else {"confirmed"})
    policy = WatchPolicy(default=AccessLimits(grace_seconds=10, removal=evidence))
    assert ("g" in overdue(story, policy)) != is_enough


@pytest.mark.parametrize("whole_first", [True, False])
def test_contents_about_one_grant_and_about_the_whole_request(*, whole_first: bool) -> None:
    story = two_grants()
    removal = story.removed(50, "" if whole_first else "g1", request_id="r", what="db1")
    story.facts.append(replace(removal, index=4, content=b"other", grant_id="g1" if whole_first else ""))
    assert set(overdue(story)) >= {"event_conflict", "g1", "g2", "other"}


def test_the_accepted_content_counts() -> None:
    story = two_grants()
    removal = story.removed(50, "", request_id="r")
    story.facts.append(replace(removal, index=4, entry=4, content=b"other", request_id="r2"))
    judge = story.watched(0, PLAIN)
    judge.restore(KnownFindings(accepted={("vault/prod", 4)}))
    for fact in story.facts[1:]:
        judge.add(fact)
    opened = {one.finding.key for one in judge.judge(at(5000)) if one.finding.rule == "overdue"}
    assert opened == {key("g1"), key("g2")}


def test_its_facts_stay_as_long_as_its_grants() -> None:
    story = two_grants()
    fact = story.removed(50, "", request_id="r")
    judge = story.watched(5000, PLAIN)
    judge.judge(at(5000))
    index = (fact.index, fact.event_type, fact.grant_key, fact.request_key, fact.session_key)
    assert judge.state.keeps(index)
    gone = [one for one in judge.forget(at(1_000_000)) if one is not None]
    assert ("grant", key("g1")) in gone and ("request", key("r")) in gone and ("grant", key("other")) not in gone
    assert not judge.state.keeps(index)


def test_a_removal_counts_for_the_next_credential_from_when_its_request_was_known() -> None:
    story = Story()
    story.granted(0, "g", None)
    story.removed(50, "", request_id="r")
    story.granted(60, "g", 200, ends_by_itself=True)
    believed = WatchPolicy(default=AccessLimits(grace_seconds=10, ends_by_itself=True))
    found = [
        ("opened", "no_deadline", "g", 0.0),
        ("resolved", "no_deadline", "g", 60.0),
        ("opened", "overdue", "g", 210),
    ]
    assert story.findings(299, believed) == found
    story.removed(300, "g", "none", request_id="r")
    assert story.findings(5000, believed) == [*found, ("resolved", "overdue", "g", 300)]
