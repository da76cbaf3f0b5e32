"""The enforcer looks whether the access of a historical grant exists, and records what it found."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import count

import pytest
from structlog.testing import capture_logs

from grantledger.enforcers.command_rules import Backoff, Breaker, CommandHistory, Limits, SealedActivation, refusal
from grantledger.enforcers.context import Context
from grantledger.enforcers.contract import InvalidCommandError, Observation, Presence, RevokeCommand
from grantledger.enforcers.dry_run import DryRun
from grantledger.enforcers.events import Recorder, apply, command_of
from grantledger.enforcers.running_grants import GrantEvent, RunningGrants, SealedActivations
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import Event, EventSource, IssuingSource, Resource
from support.events import read_datum

from .test_enforce_command_rules import HOUR, NOON, command, command_event
from .test_enforce_revoker import POLICY, Clock, Ledger, Lifecycle, World, start
from .test_enforce_running_grants import given

BOT = IssuingSource("bot", "eu-1")


def lookup(grant: str = "g1", **fields: object) -> RevokeCommand:
    event = command_event(grant, event_type="lookup.requested", **({"grant_source": BOT} | fields))
    return command_of(read_datum(EventEncoder().encode(event)))


def looked(ledger: Ledger, world: World, *commands: RevokeCommand, clock: Clock | None = None, **more: object) -> None:
    """Take commands and work until nothing is left that can be done now."""
    revoker = start(ledger, world, clock or Clock(), **more)  # type: ignore[arg-type]
    for offset, one in enumerate(commands):
        revoker.expect(offset)
        revoker.look(one, offset, NOON)
    for _ in range(10):
        revoker.step()
    revoker.settle()


def lifecycle(ledger: Ledger) -> list[Event]:
    return [one for one in ledger.events if one.topic == "access.lifecycle"]


def test_access_that_is_gone_is_a_confirmed_removal() -> None:
    ledger, world = Ledger(), World(set())
    looked(ledger, world, lookup())
    assert ledger.kinds() == ["lookup.answered", "grant.revoked"]
    [removal] = lifecycle(ledger)
    assert (removal.removal_evidence, removal.outcome, removal.grant_source) == ("confirmed", "success", BOT)
    assert (ledger.position, world.calls) == (1, [])


def test_access_that_exists_is_reported_and_then_revoked() -> None:
    ledger, world = Ledger(), World({"g1"})
    looked(ledger, world, lookup())
    assert ledger.kinds() == ["lookup.answered", "grant.observed"]
    [report] = lifecycle(ledger)
    assert (report.grant_id, report.subject.id, report.resource) == (
        "g1", "alice", Resource("database", "orders", "production"),
    )  # fmt: skip
    assert (ledger.position, world.calls, world.there) == (1, [], {"g1"})
    late = SealedActivation(NOON + 9 * HOUR, signed=False)
    assert refusal(lookup(), late, HOUR) is not None
    assert refusal(lookup(), SealedActivation(NOON + 9 * HOUR, signed=False, observed=True), HOUR) is None


def test_the_sealed_log_shows_that_the_access_exists() -> None:
    def event_of(event: Event) -> GrantEvent:
        found = GrantEvent.of(read_datum(EventEncoder().encode(event)), NOON, signed=True)
        assert found is not None
        return found

    activations, ledger = SealedActivations(), Ledger()
    looked(ledger, World({"g1"}), lookup())
    [report] = lifecycle(ledger)
    activations.add(event_of(report), NOON)  # of no activation
    activations.add(event_of(given("g1", NOON, "grant.activated")), NOON)
    before = activations.find(lookup())
    activations.add(event_of(report), NOON)
    after = activations.find(lookup())
    assert before is not None and after is not None
    assert (before.observed, after.observed, after.received) == (False, True, NOON)
    other = activations.find(lookup(entitlement="readonly"))
    assert other is None
    evil = EventSource("evil", "eu-1", "n", "record")
    unbelieved = Event(**{name: getattr(report, name) for name in report.__slots__ if name != "source"}, source=evil)
    assert GrantEvent.of(read_datum(EventEncoder().encode(unbelieved)), NOON, signed=True) is None


def test_a_lookup_is_answered_once() -> None:
    ledger = Ledger()
    for _ in range(2):
        looked(ledger, World(set()), lookup(), lookup())
        assert ledger.kinds() == ["lookup.answered", "grant.revoked"]
    history = CommandHistory()
    for event in ledger.events:
        apply(history, "test.example", read_datum(EventEncoder().encode(event)))
    assert (history.looked, history.ended) == ({lookup().key}, {})


def test_an_interrupted_lookup_is_repeated() -> None:
    ledger, clock = Ledger(), Clock()
    revoker = start(ledger, World(set()), clock)
    revoker.expect(0)
    revoker.look(lookup(), 0, NOON)
    revoker.settle()
    assert ledger.position == 0


def test_a_target_that_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, world, clock = Ledger(), World(set()), Clock()
    monkeypatch.setattr(world, "read_back", lambda command: Observation(Presence.unknown, "no answer"))
    revoker = start(ledger, world, clock, attempts=3)
    revoker.expect(0)
    revoker.look(lookup(), 0, NOON)
    for _ in range(3):
        assert ledger.kinds() == []
        revoker.step()
        assert revoker.wait(1000) > 0
        clock.at += timedelta(seconds=60)
    assert ledger.kinds() == ["lookup.answered"]
    assert (ledger.events[0].outcome, ledger.events[0].error) == ("failure", "no answer")
    assert ledger.position == 1


def test_what_cannot_be_answered_leaves_no_record() -> None:
    running = RunningGrants()
    other = GrantEvent.of(
        read_datum(EventEncoder().encode(given("other", NOON + 9 * HOUR, "grant.activated"))), NOON, signed=False
    )
    assert other is not None
    running.add(other, NOON)
    for world, asked, more in (
        (World(set(), readable=False), lookup(), {}),
        (World(set()), lookup(resource=Resource("host", "h")), {}),
        (World(set()), lookup(), {"activations": {"g1": None}}),
        (World({"g1"}), lookup(), {"running": running}),
    ):
        ledger = Ledger()
        looked(ledger, world, asked, **more)
        assert (ledger.kinds(), ledger.position) == ([], 1)
    clock, ledger = Clock(), Ledger()
    clock.at += 2 * HOUR
    looked(ledger, World(set()), lookup(), clock=clock)
    assert (ledger.kinds(), ledger.position) == ([], 1)


def test_skipped_lookups_are_logged_once_per_reason_and_minute() -> None:
    clock, ledger = Clock(), Ledger()
    activations = {f"g{number}": None for number in range(40)}
    revoker = start(ledger, World(set()), clock, activations=activations)
    offsets = count()

    def skipped(*commands: RevokeCommand, after: float) -> list[tuple[str, str, int]]:
        clock.at += timedelta(seconds=after)
        with capture_logs() as logs:
            for command in commands:
                offset = next(offsets)
                revoker.expect(offset)
                revoker.look(command, offset, NOON)
            revoker.step()
        return [(one["reason"], one["grant"], one["count"]) for one in logs if one["event"] == "lookup_skipped"]

    unknown, elsewhere = "no activation in the sealed log", "no route of the policy matches"
    many = [lookup(f"g{number}") for number in range(40)]
    assert skipped(*many, after=0) == [(unknown, "g0", 1)]
    assert skipped(lookup("other", resource=Resource("host", "h")), after=30) == [(elsewhere, "other", 1)]
    assert skipped(after=31) == [(unknown, "g39", 39)], "without another skipped lookup"
    assert skipped(after=61) == []


def test_an_open_breaker_stops_the_lookups_of_its_circuit() -> None:
    ledger, world, clock = Ledger(), World(set()), Clock()
    revoker = start(ledger, world, clock, limit=0)
    revoker.take(command_of(read_datum(EventEncoder().encode(command_event("g0", grant_source=BOT)))), 0, NOON)
    world.there = {"g0"}
    revoker.step()
    revoker.expect(1)
    revoker.look(lookup(), 1, NOON)
    for _ in range(5):
        revoker.step()
    assert ledger.kinds() == ["finding.opened"]


def dry_run(history: CommandHistory, answers: list[Event]) -> DryRun:
    limits = Limits(3, Breaker(9, HOUR), Backoff(1, 60), HOUR)
    context = Context(Recorder("test.example"), POLICY, {}, Lifecycle(), limits, history, Clock())
    return DryRun(context, answers.append)


def test_a_dry_run_only_reports_what_it_would_look_up() -> None:
    answers: list[Event] = []
    dry = dry_run(CommandHistory(), answers)
    with capture_logs() as logs:
        dry.look(lookup(), 0, NOON)
        dry.look(lookup(resource=Resource("host", "h")), 1, NOON)
    assert [(one["event"], one["grant"], one["target"]) for one in logs] == [("would_look", "g1", "here")]
    assert answers == []


def test_a_dry_run_answers_each_command_once() -> None:
    history, answers = CommandHistory(), list[Event]()
    commands = [command(), command("g2", resource=Resource("host", "h"))]
    for _ in range(2):  # each start reads the commands again
        dry = dry_run(history, answers)
        for offset, one in enumerate(commands):
            dry.take(one, offset, NOON)
    evidence = [json.loads(one.finding.evidence) for one in answers if one.finding and one.finding.evidence]
    assert evidence == [
        {"target": "here", "obstacle": ""},
        {"target": "", "obstacle": "no route of the policy matches"},
    ]
    assert {one.event_type for one in answers} == {"revoke.dry_run"}
    known = CommandHistory()
    for one in answers:
        apply(known, "test.example", read_datum(EventEncoder().encode(one)))
    assert known.rehearsed == history.rehearsed and not known.attempts and not known.ended


def test_only_the_watch_asks() -> None:
    with pytest.raises(InvalidCommandError, match="only the watch"):
        lookup(source=EventSource("grantledger-operator", "test.example", "g1", "command"))
