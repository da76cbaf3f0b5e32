"""What the whole watch publishes and when, with a list instead of Kafka. Delivery is tested elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from grantledger.processors.access import LONGEST_REASON
from grantledger.schemas.event import Actor, Approval, Event, EventSource, Finding, IssuingSource, Resource, Subject
from grantledger.schemas.topics import COMMANDS_TOPIC
from support.watch_world import (
    NOON,
    World,
    faults,
    given_until,
    grant,
    ids,
    overdue,
    removed,
    started,
)
from support.watching import key


def test_a_finding_a_command_and_the_resolution() -> None:
    world = World()
    world.hears(given_until(100))
    world.at(110)
    assert world.paper.said == []
    world.at(110.2)
    assert world.paper.findings() == [("finding.opened", "overdue"), ("revoke.requested", "overdue")]
    [command] = [event for topic, event in world.paper.said if topic == COMMANDS_TOPIC]
    assert command.finding and command.finding.key == command.grant_id == "g"
    assert command.finding.deadline == NOON + timedelta(seconds=100)
    assert (command.subject.id, command.entitlement, command.grant_id_kind) == ("alice", "rw", "native")
    assert command.resource == Resource("database", "db-g", "production")
    world.hears(removed(150))
    world.at(151)
    assert world.paper.findings()[-1] == ("finding.resolved", "overdue")
    evidence = json.loads(world.paper.said[-1][1].finding.evidence)  # type: ignore[union-attr]
    assert evidence["late_seconds"] == 50


def test_a_finding_has_the_context_of_its_grant_and_a_command_has_not() -> None:
    """The reason and the decisions: of the grant, otherwise of its request; for a person only."""
    world, at = World(), NOON - timedelta(minutes=5)
    bob, carol = Approval("bob", "approved", at=at, forced=True), Approval("carol", "denied", at=at)
    request = {"request_id": "r", "expiry_source": None}
    world.hears(
        grant("request.created", -300, grant_id=None, grant_id_kind=None, reason="INC-1: " + "x" * 1000, **request)
    )
    world.hears(grant("request.approved", -300, grant_id=None, grant_id_kind=None, approvals=(bob, carol), **request))
    subject = Subject("00u17", "human", "alice@example.com")
    world.hears(replace(given_until(100), request_id="r", subject=subject, approvals=(Approval("bob", "approved"),)))
    world.at(110.2)
    opened, command, _ = (event for _, event in world.paper.said)
    assert opened.reason is not None and opened.reason.startswith("INC-1: x") and len(opened.reason) == LONGEST_REASON
    assert (opened.subject, opened.approvals) == (subject, (bob, carol)), "what the grant repeats counts once"
    assert (command.event_type, command.reason, command.approvals) == ("revoke.requested", None, ())


def test_the_finding_of_a_session_names_the_person_and_the_access_of_its_grant() -> None:
    world = World()
    world.hears(replace(given_until(100), reason="INC-1"))
    bare = {"subject": Subject("unknown"), "resource": None, "entitlement": None, "session_id": "s"}
    world.hears(grant("session.started", 10, outcome="unknown", **bare))
    world.at(111)
    (found,) = (
        event
        for _, event in world.paper.said
        if event.finding is not None and event.finding.rule == "session_outlived_grant"
    )
    assert (found.subject.id, found.resource, found.entitlement) == (
        "alice",
        Resource("database", "db-g", "production"),
        "rw",
    )
    assert (found.session_id, found.grant_id, found.reason) == ("s", "g", "INC-1")


def test_lag_hides_the_answer_and_no_alarm_is_false() -> None:
    world = World()
    world.hears(given_until(100))
    world.at(50)
    late = world.batch(removed(105))  # in Kafka, not applied
    for seconds in (111, 112, 150):
        world.at(seconds)
    assert world.paper.said == []
    world.take(late)
    world.at(160)
    world.at(161)
    assert world.paper.said == []


def test_after_the_lag_bound_it_publishes_unconfirmed_findings() -> None:
    world = World()
    world.hears(given_until(100))
    world.at(50)
    world.batch(removed(105))
    world.at(111)
    world.at(170.9)
    assert world.paper.said == []
    world.at(171.1)
    assert ("finding.opened", "overdue") in world.paper.findings()
    opened = next(event for _, event in world.paper.said if event.event_type == "finding.opened")
    assert "lag 1" in json.loads(opened.finding.evidence)["unconfirmed"]  # type: ignore[union-attr]


def test_markers_at_the_end_of_the_log_are_not_waited_for() -> None:
    world = World()
    world.hears(given_until(100))
    world.at(50)
    world.paper.end_offset += 1  # a transaction marker takes an offset, and nothing will ever be sealed for it
    world.paper.only_markers = True
    for seconds in (111, 112.5, 113):
        world.at(seconds)
    assert ("finding.opened", "overdue") in world.paper.findings()


@pytest.mark.parametrize("step", [3600, -3600])
def test_a_clock_step_publishes_nothing_early_and_is_reported(step: float) -> None:
    world = World()
    world.hears(given_until(100))
    world.at(50)
    world.step = step
    world.at(60)
    world.at(105)
    assert {rule for _, rule in world.paper.findings()} == {"clock_skew"}
    assert [kind for kind, _ in world.paper.findings()] == ["finding.opened", "finding.resolved"]


def test_a_standby_publishes_nothing() -> None:
    world = World()
    world.hears(given_until(100))
    world.watch.stand_by()
    world.at(200)
    assert world.paper.said == []
    world.watch.resume()
    world.at(201)
    assert ("finding.opened", "overdue") in world.paper.findings()


@pytest.mark.parametrize("step", [3600, -3600])
def test_a_machine_that_starts_with_a_wrong_clock_finds_nothing_early_or_late(step: int) -> None:
    world = World(step=step)
    world.hears(given_until(1800))
    world.at(1810)
    assert world.paper.findings() == [("finding.opened", "clock_skew"), ("finding.resolved", "clock_skew")]
    [skew, _] = [event for _, event in world.paper.said]
    assert skew.finding and json.loads(skew.finding.evidence) == {"jumped_seconds": step}
    world.at(1810.2)
    assert world.paper.findings()[2:] == [("finding.opened", "overdue"), ("revoke.requested", "overdue")]


def test_a_jump_of_the_brokers_clock_ends_nothing_unjudged() -> None:
    world = World()
    world.hears(grant("request.approved", 0, "q", request_id="q"))
    world.at(1)
    world.hears(given_at(90))
    assert key("q") in world.watch.judge.state.requests
    world.at(91 * 86_400)
    world.at(91 * 86_400 + 1)
    world.hears(given_at(91))
    assert key("q") not in world.watch.judge.state.requests
    assert World(world.paper).watch.judge.state.requests == {}


def given_at(days: float) -> Event:
    return grant("grant.activated", days * 86_400, expires_at=NOON + timedelta(days=200), expiry_source="native")


def closed(rule: str, key: str, deadline: datetime | None = None, accept: int | None = None) -> Event:
    """Return the event by which a person closes a finding."""
    return Event(
        event_type="finding.closed",
        occurred_at=NOON,
        source=EventSource("grantledger-operator", "test", f"{rule}:{key}", "finding"),
        subject=Subject(key, "system"),
        actor=Actor("dana", "human"),
        reason="checked",
        finding=Finding(rule, key, "critical", deadline, accept_index=accept),
        grant_source=None if rule == "event_conflict" else IssuingSource("vault", "prod"),
    )


@pytest.mark.parametrize("restarted", [False, True])
def test_a_finding_that_a_person_closed_does_not_open_again(restarted: bool) -> None:
    world = World()
    world.hears(given_until(100))
    world.at(120)
    world.paper.said.append(("access.findings", closed("overdue", "g", NOON + timedelta(seconds=100))))
    said = len(world.paper.said)
    again = World(world.paper) if restarted else world
    again.at(130)
    again.head, again.records = world.head, world.records
    again.hears(removed(150))
    again.at(151)
    assert len(world.paper.said) == said, "neither opened nor resolved"


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("accept", [0, 1])
def test_the_entry_that_a_person_accepted_counts(accept: int, restarted: bool) -> None:
    world = World()
    world.hears(given_until(100), replace(given_until(5000), salt=bytes(16)))
    world.at(50)
    [conflict] = [event.finding for _, event in world.paper.said if event.finding]
    assert conflict.rule == "event_conflict"
    world.paper.said.append(("access.findings", closed("event_conflict", conflict.key, accept=accept)))
    again = World(world.paper) if restarted else world
    again.at(60)
    again.at(200)
    opened = [event.finding.rule for _, event in world.paper.said if event.event_type == "finding.opened"]  # type: ignore[union-attr]
    assert opened == (["event_conflict", "overdue"] if accept == 0 else ["event_conflict"])


def test_what_a_person_accepts_resolves_a_finding_and_everything_else_stays() -> None:
    """A running watch starts again from the facts that it has."""
    world = World()
    world.hears(given_until(100), replace(given_until(5000), salt=bytes(16)), given_until(90, "h"), started(10, "s"))
    world.at(150)
    assert overdue(world) == ["h", "g"]
    sources = world.watch.judge.state.sources.to_json()
    world.paper.said.append(("access.findings", closed("event_conflict", "vault/prod", accept=1)))
    world.at(160)
    resolved = [event.finding.key for _, event in world.paper.said if event.event_type == "finding.resolved"]  # type: ignore[union-attr]
    assert resolved == ["g"] and overdue(world) == ["h", "g"]
    state = world.watch.judge.state
    assert state.sources.to_json() == sources
    assert set(state.grants) == {key("g"), key("h"), key("s")}
    world.hears(removed(170))
    world.at(6000)
    assert overdue(world) == ["h", "g"] and state is world.watch.judge.state
    assert ids(World(world.paper)) == {"g", "h", "s"}, "and so does the next start"


@pytest.mark.parametrize("restarted", [False, True])
def test_a_new_epoch_is_judged_from_its_first_entry(restarted: bool) -> None:
    world = World()
    world.hears(given_until(100), given_until(100, "h"), given_until(100, "i"))
    world.opens_epoch()
    world.hears(removed(50))
    if restarted:
        again = World(world.paper)
        again.head, again.records = world.head, world.records
        world = again
    world.hears(grant("grant.revoked", 60, "h", removal_evidence="confirmed"), given_until(150, "j"))
    world.at(200)
    assert overdue(world) == ["i", "j"] and world.paper.problems == []


def test_lag_in_a_new_epoch_hides_the_answer_too() -> None:
    world = World()
    world.hears(given_until(100), given_until(1000, "h"))
    world.at(50)
    world.opens_epoch()
    world.hears(given_until(1000, "i"))
    late = world.batch(removed(90))  # in Kafka, not applied: its offset is below those of the epoch before
    world.at(111)
    world.at(112)
    assert overdue(world) == []
    world.take(late)
    world.at(160)
    world.at(161)
    assert overdue(world) == []


@pytest.mark.parametrize("markers", [False, True])
def test_a_topic_that_was_created_again_hides_the_answer_before_its_epoch_is_opened(markers: bool) -> None:
    world = World()
    world.hears(given_until(100), given_until(1000, "h"))
    world.at(50)
    world.paper.only_markers = markers  # of the old topic's offsets, which the new one has not reached
    world.paper.topic_id, world.paper.end_offset = bytes([1]) * 16, 1  # a removal, which no epoch covers yet
    for seconds in (111, 112, 150):
        world.at(seconds)
    assert overdue(world) == []
    world.opens_epoch()
    world.hears(removed(90))
    world.at(160)
    world.at(161)
    assert overdue(world) == []


def test_an_epoch_in_the_middle_of_a_topic_keeps_no_finding_back() -> None:
    """The records before it are in the epoch before, and nothing may come after the genesis."""
    world = World()
    world.hears(given_until(100))
    world.at(50)
    world.opens_epoch(first_offset=500)
    world.hears()
    world.at(111)
    world.at(112)
    assert overdue(world) == ["g"]


def test_an_empty_topic_that_was_created_again_keeps_no_finding_back() -> None:
    world = World()
    world.hears(given_until(100))
    world.at(50)
    world.paper.topic_id, world.paper.end_offset = bytes([1]) * 16, 0
    world.at(111)
    assert overdue(world) == ["g"]


def test_entries_of_a_new_epoch_are_named_with_it_and_can_be_accepted() -> None:
    world = World()
    world.hears(given_until(100))
    world.opens_epoch()
    world.hears_unchecked(replace(given_until(100, "odd"), outcome="perhaps"), given_until(5000))
    world.at(50)
    assert faults(world) == [("entry 0 of epoch 1", "InvalidEventError: outcome")]
    [conflict] = [
        event.finding for _, event in world.paper.said if event.finding and event.finding.rule != "watch_fault"
    ]
    world.paper.said.append(("access.findings", closed("event_conflict", conflict.key, accept=1)))
    again = World(world.paper)
    again.at(200)
    assert overdue(again) == []
