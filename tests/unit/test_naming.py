"""The names that the policy gives to people, and the environments that it gives to resources."""

from __future__ import annotations

from pathlib import Path

import pytest

from grantledger.base.errors import UsageError
from grantledger.base.times import micros_of
from grantledger.processors.access import Source
from grantledger.processors.naming import Environment, Naming, Person, matches_pattern
from grantledger.processors.watch.core.judge import Judge
from grantledger.processors.watch_policy import AccessLimits, AccessRule, EffectivePolicy, WatchPolicy, load_policy
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.event import Approval, Resource
from support.access_store import Story
from support.decoded import facts_of

ALICE = Person(name="alice@example.com", identities=("alice", "CORP\\Alice", "arn:aws:sts::1:assumed-role/x/alice"))
BOB = Person(name="bob@example.com", identities=("bob",))
PRODUCTION = (
    Environment(environment="production", resource="*-prod"),
    Environment(environment="staging", system="bot", resource_kind="database", resource="orders-prod"),
)


def test_a_person_is_known_by_each_identity_in_any_form() -> None:
    naming = Naming(people=(ALICE,))
    assert naming.reviewer(" corp\\ALICE ") == naming.reviewer("Alice") == naming.reviewer("ALICE@example.com")
    assert naming.reviewer("corp\\alice") == "alice@example.com" and naming.reviewer("mallory") == "mallory"
    assert naming.person_of("alice", "a@old.example") == ("alice", "a@old.example", "alice@example.com")
    assert naming.person_of("alice@example.com", "") == ("alice@example.com",)
    assert naming.person_of("mallory", "mallory") == ("mallory",)
    assert Naming().person_of("alice", "") == ("alice",)


def test_the_last_environment_that_matches_counts() -> None:
    naming = Naming(environments=PRODUCTION)
    bot, vault = Source("bot", "eu-1"), Source("vault", "eu-1")
    assert naming.environment_of(bot, "database", "orders-prod") == "staging"
    assert naming.environment_of(vault, "database", "orders-prod") == "production"
    assert naming.environment_of(vault, "database", "orders-prod-2") == ""


def test_a_pattern_has_two_wildcards_only() -> None:
    assert matches_pattern("db[1]", "db[1]") and not matches_pattern("db1", "db[1]")
    assert matches_pattern("db12", "db?2") and matches_pattern("anything", "*") and not matches_pattern("DB", "db")


def open_findings(policy: WatchPolicy, story: Story) -> set[str]:
    """Return the rules of the open findings of a story, at its ``now``."""
    judge = Judge(policy)
    for fact in facts_of(story.batch(), SchemaCatalog((event_schema(),)), policy.naming):
        judge.add(fact)
    found = {change.finding.rule: change.kind for change in judge.judge(micros_of(story.now))}
    return {rule for rule, kind in found.items() if kind == "opened"}


def approved_by(*reviewers: str) -> Story:
    story = Story()
    approvals = tuple(Approval(one, "approved") for one in reviewers)
    story.give("g", -10, 60, subject="alice", approvals=approvals)
    return story


def test_two_identities_of_one_person_are_one_approver_and_approve_nothing_for_themselves() -> None:
    policy = WatchPolicy(default=AccessLimits(approvals=2), person=(ALICE, BOB))
    assert open_findings(policy, approved_by("bob", "carol")) == set()
    assert open_findings(policy, approved_by("bob", "Bob@example.com")) == {"no_approval"}
    assert "self_approved" in open_findings(policy, approved_by("corp\\alice", "carol", "bob"))
    without = WatchPolicy(default=AccessLimits(approvals=2))
    assert open_findings(without, approved_by("bob", "Bob@example.com")) == set()


def test_the_rules_of_an_environment_apply_to_a_resource_that_the_policy_puts_there() -> None:
    rule = AccessRule(environment="production", max_seconds=60)
    policy = WatchPolicy(rule=(rule,), environment=PRODUCTION[:1])

    def given(resource: Resource) -> Story:
        story = Story()
        story.give("g", -10, 60, resource=resource)
        return story

    unnamed = given(Resource("database", "orders-prod"))
    assert open_findings(policy, unnamed) == {"extended_beyond_policy"}
    assert open_findings(policy, given(Resource("database", "orders-prod", "test"))) == set()
    assert open_findings(WatchPolicy(rule=(rule,)), unnamed) == set()
    assert EffectivePolicy(policy).limits(Source("bot", "eu-1"), None, "production").max_seconds == 60


def test_problems_are_named(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    for text, expected in (
        (
            '[[person]]\nname = "a"\nidentities = ["x"]\n[[person]]\nname = "b"\nidentities = [" X"]\n',
            "person:  X is an identity of a and of b",
        ),
        ('[[person]]\nname = "a"\nidentities = []\n', "person 1.identities"),
        ('ticket_pattern = "(?<=x)y"\n', "ticket_pattern: is not a regular expression of RE2"),
        ('[[environment]]\nresource = "x"\n', "environment 1.environment"),
        (f'[[person]]\nname = "a"\nidentities = ["{"x" * (1 << 20)}"]\n', "at most 1048576 go on record"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError) as caught:
            load_policy(file)
        assert expected in str(caught.value), str(caught.value)
