"""Whose grant an id means, and who may report about it: two tenants, two installations, and sources that lie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.processors.access import Access, Source
from grantledger.processors.watch.core.facts import Decision
from grantledger.processors.watch.core.judge import Judge
from grantledger.processors.watch_policy import AccessLimits, Reporter, WatchPolicy
from grantledger.schemas.access_key import access_key, parse_access_key
from support.watching import START, VAULT, Story, at, key, ordered

EVIL = Source("emit", "evil")
ENFORCER = Source("grantledger-enforcer", "prod")
CHECKER = Source("checker", "a")
GRACE = AccessLimits(grace_seconds=10, approval_wait_seconds=5)
PLAIN = WatchPolicy(default=GRACE)
CHECKED = WatchPolicy(default=GRACE, reporter=(Reporter(system="checker", source="vault"),))
HOUR = 3600
FOREIGN = ("foreign_claim", "default/emit/evil")


def found(story: Story, policy: WatchPolicy = PLAIN, until: float = 5000) -> list[tuple[str, str]]:
    """Return rule and key of everything that opened, revoke commands included."""
    changes = story.watched(until, policy).judge(at(until))
    return sorted((one.finding.rule, one.finding.key) for one in changes if one.kind == "opened")


@given(st.tuples(*[st.text()] * 4))
def test_different_keys_have_different_texts(parts: tuple[str, str, str, str]) -> None:
    tenant, system, instance, id = parts
    assert parse_access_key(access_key(tenant, (system, instance), id)) == parts


@pytest.mark.parametrize("named", [VAULT, None])
def test_a_removal_by_another_source_changes_nothing_and_is_a_finding(named: Source | None) -> None:
    story = Story()
    story.granted(0, "g", 100)
    story.removed(50, "g", source=EVIL, grant_source=named)
    assert found(story) == [FOREIGN, ("overdue", key("g")), ("revoke", key("g"))]


def test_an_extension_by_another_source_changes_nothing() -> None:
    story = Story()
    story.granted(0, "g", 100)
    story.say(50, "grant.extended", "g", ends=2_000_000_000, source=EVIL, grant_source=VAULT)
    story.say(51, "grant.activated", "g", ends=2_000_000_000, source=EVIL, grant_source=VAULT)
    assert found(story) == [FOREIGN, ("overdue", key("g")), ("revoke", key("g"))]


def test_claims_are_one_finding_per_source_and_hour_with_a_count() -> None:
    story = Story()
    story.granted(0, "g", 90_000)
    begin = HOUR - START % HOUR
    for number in range(10):
        story.removed(begin + number, "g", source=EVIL, grant_source=VAULT)
    story.removed(begin + HOUR, "g", source=EVIL, grant_source=VAULT)
    changes = story.watched(3 * HOUR + begin, PLAIN).judge(at(3 * HOUR + begin))
    counts = [(one.kind, one.at - at(begin), one.finding.evidence["count"]) for one in changes]
    micros = HOUR * 1_000_000
    assert counts == [("opened", 0, 10), ("resolved", micros, 10), ("opened", micros, 1), ("resolved", 2 * micros, 1)]


@pytest.mark.parametrize(("source", "policy"), [(ENFORCER, PLAIN), (CHECKER, CHECKED)])
def test_a_removal_by_an_enforcer_or_a_named_checker_counts_if_it_repeats_the_access(
    source: Source, policy: WatchPolicy
) -> None:
    story = Story()
    story.granted(0, "g", 100)
    story.removed(50, "g", source=source, grant_source=VAULT)
    assert found(story, policy) == []
    for wrong in ({"who": "mallory"}, {"what": "other"}):
        other = Story()
        other.granted(0, "g", 100)
        other.removed(50, "g", source=source, grant_source=VAULT, **wrong)
        assert [rule for rule, _ in found(other, policy)] == ["foreign_claim", "overdue", "revoke"]


def test_a_checker_of_another_system_may_not() -> None:
    story = Story()
    story.granted(0, "g", 100, source=Source("teleport", "root"))
    story.removed(50, "g", source=CHECKER, grant_source=Source("teleport", "root"))
    assert ("foreign_claim", "default/checker/a") in found(story, CHECKED)


@pytest.mark.parametrize("other", [{"tenant": "globex"}, {"source": Source("vault", "dr")}])
def test_one_id_in_two_tenants_or_installations_means_two_grants(other: dict[str, object]) -> None:
    """Case 01."""
    more = {"access": Access(str(other.get("tenant", "default")), "bob", "database", "db", "admin")}
    source = other.get("source", VAULT)
    story = Story()
    story.granted(0, "g", 100)
    story.granted(1, "g", 1000, source=source, **more)
    story.removed(50, "g", source=source, **more)
    assert found(story) == [("overdue", key("g")), ("revoke", key("g"))]


def test_an_approval_in_another_tenant_approves_nothing() -> None:
    """Case 03."""
    policy = WatchPolicy(default=GRACE.model_copy(update={"approvals": 1}))
    story = Story()
    story.say(0, "request.created", request_id="r")
    access = Access("other", "alice", "database", "db", "admin")
    yes = (Decision("erin", "approved"),)
    story.say(1, "request.approved", request_id="r", access=access, decisions=yes)
    story.granted(2, "g", 100, request_id="r")
    assert found(story, policy, until=50) == [("no_approval", key("g"))]


def test_a_session_end_of_another_installation_ends_no_session() -> None:
    """Case 04."""
    story = Story()
    story.granted(0, "g", 100)
    story.say(1, "session.started", "g", session_id="s")
    story.say(2, "session.ended", session_id="s", source=Source("vault", "b"))
    story.say(3, "session.ended", session_id="s", source=EVIL, session_source=VAULT)
    story.removed(50, "g")
    assert found(story) == [FOREIGN, ("session_outlived_grant", key("s"))]


def test_approvals_in_another_system_count_where_the_policy_names_it_and_the_person_is_the_same() -> None:
    limits = GRACE.model_copy(update={"approvals": 1})
    jira = Source("jira", "prod")
    named = WatchPolicy(default=limits, reporter=(Reporter(system="jira", source="vault", may=frozenset({"approve"})),))
    unnamed = WatchPolicy(default=limits)
    cases = (
        (named, "alice", []),
        (named, "bob", ["no_approval"]),
        (unnamed, "alice", ["foreign_claim", "no_approval"]),
    )
    for policy, who, expected in cases:
        story = Story()
        yes = (Decision("erin", "approved"),)
        story.say(0, "request.approved", request_id="r", source=jira, request_source=VAULT, decisions=yes, who=who)
        story.say(1, "request.created", request_id="r")
        story.granted(2, "g", 100, request_id="r")
        assert [rule for rule, _ in found(story, policy, until=50)] == expected


def test_a_session_that_names_only_a_request_may_use_all_its_grants() -> None:
    story = Story()
    story.granted(0, "g1", 100, request_id="r", what="db1")
    story.granted(1, "g2", 500, request_id="r", what="db2")
    story.say(200, "session.started", request_id="r", session_id="s")
    story.say(220, "session.ended", request_id="r", session_id="s")
    story.removed(90, "g1", what="db1", index=10)
    story.removed(490, "g2", what="db2", index=11)
    assert found(story) == []
    story.say(600, "session.started", request_id="r", session_id="late", index=12)
    assert found(story) == [("used_without_grant", key("late"))]


def test_an_id_without_installation_is_issued_by_all_of_them() -> None:
    a, b, anyone = Source("cloudtrail", "a"), Source("cloudtrail", "b"), Source("cloudtrail", "")
    story = Story()
    story.granted(0, "ASIA1", 100, source=a, grant_source=anyone)
    story.say(10, "session.started", "ASIA1", session_id="s", source=b, grant_source=anyone)
    story.say(20, "session.ended", "ASIA1", session_id="s", source=b, grant_source=anyone)
    story.removed(90, "ASIA1", source=b, grant_source=anyone)
    assert found(story) == []


# Identity of events.


def test_the_earlier_end_counts_whichever_content_came_first() -> None:
    for ends in ((100, 5000), (5000, 100)):
        story = Story()
        for number, end in enumerate(ends):
            story.granted(number, "g", end, event_id="e")
        changes = story.watched(300, PLAIN).judge(at(300))
        rules = [(one.finding.rule, one.at - at(0)) for one in changes]
        assert rules == [("event_conflict", 1_000_000), ("overdue", 110_000_000)]
        assert ordered(changes) == [], "nobody has decided what is true"


def test_a_false_first_content_of_a_removal_removes_nothing() -> None:
    """The id of a removal can be predicted, so that a sender can be first."""
    for forged in ("request.cancelled", "grant.activated"):
        story = Story()
        story.granted(0, "g", 100)
        story.say(10, forged, "x", request_id="x", event_id="e", what="x", ends=9000)
        story.removed(50, "g", event_id="e")
        assert ("overdue", key("g")) in found(story, until=300)
    agreed = Story()
    agreed.granted(0, "g", 100)
    agreed.removed(50, "g", event_id="e")
    agreed.removed(60, "g", event_id="e", environment="production")
    assert [rule for rule, _ in found(agreed, until=300)] == ["event_conflict"], "both contents are this removal"


def test_a_later_content_takes_a_removal_back_although_it_is_about_another_grant() -> None:
    story = Story()
    story.granted(0, "g", 100)
    story.granted(1, "h", 5000, what="h")
    story.removed(50, "g", event_id="e")
    story.removed(60, "h", event_id="e", what="h")
    changes = story.watched(300, PLAIN).judge(at(300))
    rules = [one.finding.rule for one in changes]
    assert rules == ["event_conflict", "overdue"], "no command: nobody has decided"


def test_one_event_id_of_two_sources_or_tenants_is_no_conflict() -> None:
    story = Story()
    story.granted(0, "g", 5000, event_id="e")
    story.granted(1, "g", 5000, event_id="e", source=Source("vault", "dr"), what="x")
    story.granted(2, "g", 5000, event_id="e", access=Access("globex", "bob", "database", "db", "admin"))
    assert found(story, until=300) == []


@pytest.mark.parametrize(("accept", "rules"), [(0, ["overdue", "revoke"]), (1, [])])
def test_the_content_that_a_person_accepted_counts(accept: int, rules: list[str]) -> None:
    story = Story()
    story.granted(0, "g", 100, event_id="e")
    story.granted(1, "g", 5000, event_id="e")
    judge = Judge(PLAIN)
    judge.state.events.accepted.add(("vault/prod", accept))
    for fact in story.facts:
        judge.add(fact)
    opened = [one.finding.rule for one in judge.judge(at(300)) if one.finding.rule != "event_conflict"]
    assert sorted(opened) == rules
