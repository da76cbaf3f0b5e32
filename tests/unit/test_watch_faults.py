"""A fault in one event, judgement or report keeps no other back, and is a finding."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from grantledger.ledger import decoded_entries
from grantledger.processors.access import SECOND
from grantledger.processors.watch.core.judge import FindingChange, Judge
from grantledger.processors.watch.findings import FindingEvents
from grantledger.schemas.event import Actor, Approval, EventSource, Resource, Subject
from grantledger.schemas.topics import COMMANDS_TOPIC
from support.watch_world import (
    NOON,
    START,
    World,
    faults,
    given_until,
    grant,
    ids,
    removed,
)
from support.watching import key


def varint(number: int) -> bytes:
    """Return a number as Avro writes it."""
    left, written = (number << 1) ^ (number >> 63), bytearray()
    while left >= 0x80:
        written.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*written, left])


@pytest.mark.parametrize(("where", "method"), [(Judge, "_grant_candidates"), (FindingEvents, "of_change")])
def test_a_fault_about_one_grant_keeps_no_other_back(where: type, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(where, method)

    def faulty(self: object, about: Any, *more: object) -> Any:
        if key("bad") in (about.finding.key if isinstance(about, FindingChange) else about.key):
            raise KeyError("bug")
        return right(self, about, *more)

    monkeypatch.setattr(where, method, faulty)
    world = World()
    world.hears(given_until(100, "bad"), given_until(100, "good"))
    world.at(200)
    world.at(201)
    found = {(event.finding.rule, event.finding.key) for _, event in world.paper.said if event.finding}
    assert found == {("overdue", "good"), ("watch_fault", f"grant {key('bad')}")}


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("grant_id_kind", {"grant_id_kind": "nativ"}),
        ("grant_id_kind", {"grant_id_kind": None}),
        ("grant_id_kind", {"grant_id_kind": "native\0"}),
        ("subject.kind", {"subject": Subject("alice", "robot")}),
        ("actor.kind", {"actor": Actor("alice", "robot")}),
        ("outcome", {"outcome": "perhaps"}),
        ("expiry_source", {"expiry_source": "somewhere"}),
        ("expiry_source", {"expiry_source": None}),
        ("expires_at", {"expires_at": None}),
        ("expires_at", {"expires_at": datetime(1969, 12, 31, tzinfo=UTC)}),
        ("starts_at", {"starts_at": datetime(1969, 12, 31, tzinfo=UTC)}),
        ("removal_evidence", {"removal_evidence": "sworn"}),
        ("removal_evidence", {"event_type": "grant.revoked"}),
        ("approvals[1].decision", {"approvals": (Approval("carol", "approved"), Approval("dan", "maybe"))}),
        ("approvals[0].at", {"approvals": (Approval("carol", "approved", at=datetime(1969, 1, 1, tzinfo=UTC)),)}),
        ("tenant", {"tenant": ""}),
        ("resource", {"resource": None}),
        ("entitlement", {"entitlement": ""}),
        ("source.instance", {"source": EventSource("vault", "", "1", "lease")}),
        ("event_type", {"event_type": "grant.given"}),
        ("session_id", {"event_type": "session.started"}),
        ("requested_seconds", {"requested_seconds": -1}),
    ],
)
def test_an_event_that_the_rules_forbid_is_one_fault_and_the_others_are_judged(
    field: str, wrong: dict[str, Any]
) -> None:
    world = World()
    world.hears_unchecked(given_until(50, "before"), replace(given_until(50, "odd"), **wrong), given_until(50))
    for seconds in (100, 101, 200):
        world.at(seconds)
    assert faults(world) == [("entry 1", f"InvalidEventError: {field}")]
    assert sorted(ids(world)) == ["before", "g"]
    overdue = {event.finding.key for _, event in world.paper.said if event.finding and event.finding.rule == "overdue"}
    assert overdue == {"before", "g"}
    said = len(world.paper.said)
    again = World(world.paper)  # with what was kept
    again.at(300)
    world.paper.lose()
    again = World(world.paper)  # without
    again.hears_again()
    assert sorted(ids(again)) == ["before", "g"]
    again.at(301)
    assert len(world.paper.said) == said


def test_invalid_events_of_a_source_are_one_finding_per_hour_with_a_count() -> None:
    world = World()
    invalid = [replace(grant("grant.activated", at, f"g{at}"), expiry_source=None) for at in (0, 1, 2, 3600, 3601)]
    world.hears_unchecked(*invalid)
    world.at(4000)
    reported = [event.finding for _, event in world.paper.said if event.finding]
    assert [(one.rule, one.key) for one in reported] == [("watch_fault", "vault/prod")] * 2
    hours = [(one.deadline, json.loads(one.evidence)) for one in reported]
    error = "InvalidEventError: expiry_source"
    assert hours == [
        (NOON, {"error": error, "first": "entry 0", "count": 3}),
        (NOON + timedelta(hours=1), {"error": error, "first": "entry 3", "count": 2}),
    ]
    again = World(world.paper)
    again.hears_again()
    again.at(4001)
    assert len(world.paper.said) == 2


@pytest.mark.parametrize(
    "more",
    [
        {"subject": Subject("al\0ice")},
        {"subject": Subject("")},
        {"resource": Resource("", "db", "")},
        {"request_id": "r" * 100_000},
        {"source": EventSource("vault", "prod", "é" * 10_000, "\0")},
        {"expires_at": NOON - timedelta(days=20_000)},
    ],
    ids=["a NUL", "nobody", "no kind of resource", "a long id", "a long name", "an end long ago"],
)
def test_odd_fields_that_the_rules_allow_are_judged(more: dict[str, Any]) -> None:
    world = World()
    world.hears(replace(given_until(100), **more))
    world.at(200)
    assert world.paper.findings() == [("finding.opened", "overdue"), ("revoke.requested", "overdue")]


def test_a_report_that_cannot_be_encoded_is_one_fault_and_the_others_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where an earlier version has kept an event that the rules forbid."""
    monkeypatch.setattr(decoded_entries, "forbidden", lambda *_: {})
    world = World()
    odd = grant("grant.activated", 0, "odd", expires_at=NOON, expiry_source="native", grant_id_kind="nativ")
    world.hears_unchecked(odd, given_until(100))
    for seconds in (200, 201, 202):
        world.at(seconds)
    assert faults(world) == [(f"grant {key('odd')}", "InvalidEventError: grant_id_kind")]
    assert ("finding.opened", "overdue") in world.paper.findings()
    again = World(world.paper)
    world.hears(replace(removed(210), grant_id="odd", source=EventSource("vault", "prod", "odd:removed", "lease")))
    for one in (world, again):
        one.at(300)
        one.at(301)
    assert len(world.paper.said) == 4, "the resolution of what could not be said is not said either"


@pytest.mark.parametrize("letter", ["x", "\0", "é"])
def test_a_report_that_is_too_large_is_one_fault_and_the_others_are_written(letter: str) -> None:
    world = World()
    name = letter * 1_500_000
    world.hears(given_until(100, name), given_until(100))
    for seconds in (200, 201):
        world.at(seconds)
    [(where, error)] = faults(world)
    assert where.startswith(f"grant {key(letter)}") and len(where) < 1000
    assert error == "InvalidEventError: event"
    assert [event.grant_id for topic, event in world.paper.said if topic == COMMANDS_TOPIC] == ["g"]


@pytest.mark.parametrize(
    ("what", "instead", "wrong"),
    [
        (b"carol", b"\xff\x00\xffol", ""),
        (b"carol", b"\xed\xa0\x80ol", ""),
        (b"approved", b"\xff\xfe\x00roved", "approvals[0].decision"),
        (varint(START + SECOND), varint((1 << 63) - 1), "approvals[0].at"),
        (varint(START + SECOND), varint(-(1 << 63)), "approvals[0].at"),
        (varint(START + 50 * SECOND), varint((1 << 62) + 5), "expires_at"),
    ],
    ids=[
        "a reviewer in no text", "half a letter", "a decision in no text", "after the calendar", "before the calendar",
        "an end after the calendar",
    ],
)  # fmt: skip
def test_an_odd_event_keeps_no_other_back(what: bytes, instead: bytes, wrong: str) -> None:
    approvals = (Approval("carol", "approved", at=NOON + timedelta(seconds=1)),)
    odd = replace(given_until(50, "odd"), approvals=approvals)
    world = World()
    batch = world.batch(odd, given_until(100), change=lambda value: value.replace(what, instead))
    world.take(batch)
    world.at(200)
    grants = {"g"} if wrong else {"odd", "g"}
    assert ids(world) == grants
    assert faults(world) == ([("entry 0", f"InvalidEventError: {wrong}")] if wrong else [])
    overdue = {event.finding.key for _, event in world.paper.said if event.finding and event.finding.rule == "overdue"}
    assert overdue == grants
    assert ids(World(world.paper)) == grants


def test_a_failed_publication_is_not_lost_in_the_snapshot() -> None:
    world = World()
    world.hears(given_until(100))
    world.at(0)
    world.hears_unchecked(replace(given_until(100, "odd"), outcome="perhaps"))
    kept = world.paper.stored
    world.paper.deaf = True
    world.hears(given_until(100, "other"))
    world.hears(given_until(100, "third"))
    with pytest.raises(OSError, match="do not answer"):
        world.at(1)
    assert world.paper.stored == kept
    world.paper.deaf = False
    world.hears(given_until(100, "fourth"))
    assert world.paper.stored == kept, "what was said is not known any more: only a start finds it out"


def test_a_fault_is_on_record_before_it_is_passed_over_for_good() -> None:
    world = World()
    world.hears_unchecked(given_until(100), replace(given_until(100, "odd"), outcome="perhaps"))
    assert world.paper.stored and world.paper.findings() == [("finding.opened", "watch_fault")]
