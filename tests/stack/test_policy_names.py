"""The names that the policy on record gives to installations, people and environments: watch and views agree."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from grantledger.processors.access import SECOND
from grantledger.processors.naming import Environment, Installation, Person
from grantledger.processors.sweep import compare as sweep
from grantledger.processors.watch.findings import config_event
from grantledger.processors.watch_policy import AccessLimits, AccessRule, WatchPolicy
from grantledger.schemas.access_key import id_of
from grantledger.schemas.event import Approval, EventSource, IssuingSource, Resource
from support.access_store import Story, stored

from .test_sweep import open_overdue, watched

NAMED = Installation(system="bot", instance="prod", other_names=("eu-1", "default"))
POLICY = WatchPolicy(default=AccessLimits(grace_seconds=60), installation=(NAMED,))


def story_with(policy: WatchPolicy | None) -> Story:
    story = Story()

    def by(instance: str) -> dict[str, Any]:
        return {"source": EventSource("bot", instance, f"r{len(story.records)}", "record"), "subject": "alice"}

    story.give("renamed", -100, -50, **by("eu-1"))
    story.remove("renamed", -60, **by("prod"))
    story.give("default-removes", -100, -50, **by("prod"))
    story.remove("default-removes", -60, grant_source=IssuingSource("bot", "eu-1"), **by("default"))
    story.give("still-there", -100, -40, **by("default"))
    story.give("of-another", -100, -50, **by("us-1"))
    story.remove("of-another", -60, **by("prod"))
    story.find("overdue", "still-there", -39, deadline=-40, of="bot", subject="alice", grant_id="still-there")
    if policy is not None:
        story.add(config_event("test", policy, story.now - timedelta(minutes=1)), -1)
    return story


def test_watch_and_views_agree(tmp_path: Path) -> None:
    for number, policy in enumerate((POLICY, None)):
        story, folder = story_with(policy), tmp_path / str(number)
        now = int(story.now.timestamp()) * SECOND
        plain = WatchPolicy(default=AccessLimits(grace_seconds=60))
        with stored(folder, story.records) as ask:
            rows = ask(sweep.OPEN_GRANTS, now=now, ending=[], endless=0)
            found = ask("SELECT issuer_instance, grant_key FROM findings")
            events = ask("SELECT DISTINCT source_instance AS name FROM events WHERE grant_id != '' ORDER BY name")
        view = sweep.view_of_store(rows, policy or plain, now)
        assert set(view.overdue) | view.undecided == open_overdue(watched(story, policy or plain), now)
        if policy is not None:
            keys = {"default/bot/prod/still-there", "default/bot/us-1/of-another"}
            assert set(view.overdue) | view.undecided == keys
            assert [(row["issuer_instance"], row["grant_key"]) for row in found] == [
                ("prod", "default/bot/prod/still-there")
            ]
        names = [row["name"] for row in events]
        assert names == (["prod", "us-1"] if policy is not None else ["default", "eu-1", "prod", "us-1"])


def test_views_name_people_environments_and_tickets(tmp_path: Path) -> None:
    policy = WatchPolicy(
        ticket_pattern="INC-[0-9]+",
        person=(Person(name="alice@example.com", identities=("Alice", "CORP\\alice")),),
        environment=(
            Environment(environment="production", resource="*-prod"),
            Environment(environment="sand[box]", resource="play_?", system="bot"),
            Environment(environment="corp", resource="corp\\db?"),
        ),
    )
    story = Story()
    unnamed = {"resource": Resource("database", "orders-prod")}
    request = {**unnamed, "request_id": "r", "subject": "corp\\ALICE"}
    asked = story.event("request.created", -130, "r", reason="stuck, see INC-12 and INC-13", customer="acme", **request)
    story.add(asked, -130)
    for minutes, reviewer, decision in (
        (-129, "bob", "denied"),
        (-128, "bob", "approved"),
        (-127, "ALICE", "approved"),
    ):
        approvals = (Approval(reviewer, decision, at=story.at(minutes), forced=reviewer == "ALICE"),)
        story.add(story.event(f"request.{decision}", minutes, f"r{minutes}", approvals=approvals, **request), minutes)
    story.give("g", -120, 60, **request)
    story.give(
        "own", -120, 60, subject="carol", reason="INC-1", ticket="CHG-2", resource=Resource("database", "x", "dev")
    )
    story.give("play", -120, 60, resource=Resource("database", "play_1"))
    story.give("corp", -120, 60, resource=Resource("database", "corp\\db1"))
    story.give("no-play", -120, 60, resource=Resource("database", "playx1"))
    in_session = {"grant_id": "no-play", "session_id": "s", "resource": Resource("database", "playx1", "test")}
    story.add(story.event("session.started", -119, "s", subject="user-no-play", **in_session), -119)
    lost = {**unnamed, "request_id": "lost", "subject": "carol"}
    story.add(story.event("request.created", -110, "lost", reason="curious", **lost), -110)
    story.add(story.event("request.denied", -109, "lost-no", **lost), -109)
    story.add(config_event("test", policy, story.now - timedelta(minutes=1)), -1)
    columns = "person, resource_environment, reason, ticket, customer, approved_by, forced, subject_kind"
    with stored(tmp_path, story.records) as ask:
        grants = {row["grant_id"]: row for row in ask(f"SELECT grant_id, {columns} FROM grants")}
        review = {row["grant_id"]: row for row in ask(f"SELECT grant_id, {columns} FROM access_review")}
        requests = ask("SELECT request_id, state, reason, subject_id FROM requests ORDER BY request_id")
    assert grants["g"] == {
        "grant_id": "g", "person": "alice@example.com", "resource_environment": "production",
        "reason": "stuck, see INC-12 and INC-13", "ticket": "INC-12", "customer": "acme",
        "approved_by": ["alice@example.com", "bob"], "forced": True, "subject_kind": "human",
    }  # fmt: skip
    assert (grants["own"]["ticket"], grants["own"]["resource_environment"]) == ("CHG-2", "dev")
    assert grants["play"]["resource_environment"] == "sand[box]"
    assert grants["corp"]["resource_environment"] == "corp"
    assert grants["no-play"]["resource_environment"] == "" and review["no-play"]["resource_environment"] == "test"
    del grants["no-play"], review["no-play"]
    assert grants == review
    assert [tuple(row.values()) for row in requests] == [
        ("lost", "denied", "curious", "carol"), ("r", "approved", "stuck, see INC-12 and INC-13", "corp\\ALICE"),
    ]  # fmt: skip


def test_views_know_which_access_has_ended_under_the_policy(tmp_path: Path) -> None:
    def at(resource: str) -> dict[str, Any]:
        return {"resource": Resource("database", resource)}

    policy = WatchPolicy(
        rule=(
            AccessRule(
                resource="token", removal=frozenset({"confirmed", "api_accepted", "deadline"}), max_seconds=1800
            ),
            AccessRule(resource="lock", removal=frozenset({"confirmed", "api_accepted"})),
            AccessRule(resource="strict-*", removal=frozenset({"confirmed"})),
            AccessRule(resource="strict-2", max_seconds=1800),
        )
    )
    story = Story()
    story.give("token-past", -100, -50, **at("token"))
    story.give("token-runs", -100, 50, **at("token"))
    story.give("token-old", -1, -500, seen=-600, **at("token"))
    for grant, end, resource in (("lock-runs", 50, "lock"), ("lock-back", 50, "lock"), ("strict", -50, "strict-1")):
        story.give(grant, -100, end, **at(resource))
        story.remove(grant, -60, "api_accepted", **at(resource))
    story.give("lock-back", -40, 50, **at("lock"))
    story.give("old", -1, -500, seen=-600, **at("strict-1"))
    story.give("token-endless", -100, None, **at("token"))
    story.give("token-fresh", -5, None, **at("token"))
    story.give("strict-endless", -100, None, **at("strict-2"))
    story.give("endless", -100, None, **at("strict-1"))
    story.give("gone", -100, -50, **at("token"))
    story.remove("gone", -60, **at("token"))
    story.add(config_event("test", policy, story.now - timedelta(minutes=1)), -1)
    with stored(tmp_path, story.records) as ask:
        states = {row["grant_id"]: row["state"] for row in ask("SELECT grant_id, state FROM grants")}
        active = {row["grant_id"] for row in ask("SELECT grant_id FROM active_grants")}
        ended = {row["grant_id"] for row in ask("SELECT grant_id FROM grant_states WHERE ended")}
    assert states == {
        "token-past": "ended", "token-runs": "active", "token-old": "ended", "lock-runs": "ended",
        "lock-back": "active", "strict": "past its end", "old": "unresolved", "gone": "removed",
        "token-endless": "ended", "token-fresh": "active", "strict-endless": "past its end", "endless": "no deadline",
    }  # fmt: skip
    assert active == {"token-runs", "lock-back", "strict", "token-fresh", "strict-endless", "endless"}
    now = int(story.now.timestamp()) * SECOND
    state = watched(story, policy).state
    assert ended == {id_of(key) for key, grant in state.grants.items() if grant.removed(state.limits_of(grant)) <= now}
