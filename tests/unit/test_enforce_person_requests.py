"""Revocations that a person requests: which the enforcer accepts, and that each is carried out once."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from grantledger.enforcers.command_rules import SealedActivation
from grantledger.enforcers.contract import InvalidCommandError, RevokeCommand
from grantledger.enforcers.events import COMMANDERS
from grantledger.schemas.event import Actor, EventSource, Finding
from support.sources import Registrar, record_of

from .test_enforce_command_rules import HOUR, NOON, command_event
from .test_enforce_command_rules import command as command_about
from .test_enforce_history_reader import HERE, Log, reader, record
from .test_enforce_revoker import Clock, Ledger, World, run, start
from .test_enforce_running_grants import AFTER, BEFORE, BOT, LATER, given, running


def asked(at: datetime = NOON, **fields: Any) -> dict[str, Any]:
    """Return the fields of a person's request at some time, about grant g1, whose deadline was an hour before."""
    return {
        "grant_source": BOT,
        "source": EventSource("grantledger-operator", HERE, f"g1:{at}", "decision"),
        "actor": Actor("dana", "human"),
        "reason": "laptop stolen",
        "expires_at": NOON - HOUR,
        "finding": Finding("person_request", "g1", "critical", at),
        **fields,
    }


def command(at: datetime = NOON, **fields: Any) -> RevokeCommand:
    return command_about(**asked(at, **fields))


def test_it_names_the_person_and_the_deadline_of_the_grant() -> None:
    found = command()
    assert (found.requested_by, found.reason, found.due, found.key.deadline) == (
        "dana", "laptop stolen", NOON - HOUR, NOON,
    )  # fmt: skip
    data = found.as_json()
    assert data["deadline"] == "2026-03-01T11:00:00.000000Z" and data["requested_by"] == "dana"
    assert "requested_by" not in command_about().as_json() and command_about().requested_by == ""


@pytest.mark.parametrize("fields", [{"actor": Actor("job", "service")}, {"actor": Actor("", "human")}, {"reason": ""}])
def test_a_request_without_a_person_or_a_reason_is_invalid(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidCommandError, match="names both"):
        command(**fields)


def test_only_a_request_in_the_sealed_log_that_the_operator_signed_counts() -> None:
    registrar = Registrar(HERE)
    signers = registrar.init("grantledger-watch")
    event = command_event(**asked())
    signed = {
        system: record_of(event, signers.get(system), HERE, int(NOON.timestamp() * 1000))
        for system in (*COMMANDERS, "nobody")
    }
    for system, one in signed.items():
        log = Log()
        found = reader(log)
        found._sources = registrar.keys
        log.sealed = [one]
        found.update()
        believed = found.requested(one.value or b"") is not None
        assert believed == (system == "grantledger-operator"), system
    log = Log()
    other = record(command_event(**asked(source=EventSource("grantledger-operator", "other.example", "x", "decision"))))
    log.sealed = [other]
    assert reader(log).requested(other.value or b"") is None


def test_each_request_is_carried_out_once_also_after_crashes_and_a_new_one_again() -> None:
    ledger, world = Ledger(), World({"g1"})
    ledger.crashes = ["", "after", "before", "after"]
    run(ledger, world, [command(), command()])
    assert world.calls.count("g1") == 1 and world.there == set() and ledger.kinds().count("revoke.confirmed") == 1
    removal = ledger.events[-1]
    assert (removal.event_type, removal.reason) == ("grant.revoked", "requested by dana: laptop stolen")
    world.there.add("g1")  # somebody gave it back: another request is another command
    run(ledger, world, [command(), command(), command(NOON + timedelta(seconds=1))])
    assert world.calls.count("g1") == 2 and world.there == set()


def test_a_grant_that_runs_is_revoked_on_request_and_one_extended_since_is_not() -> None:
    for events, done in (
        ([(given("g1", LATER), BEFORE)], True),
        ([(given("g1", LATER), AFTER)], False),  # since the request
        ([(given("g1", LATER), BEFORE), (given("g2", LATER), BEFORE)], False),  # another grant keeps the access
    ):
        ledger, world, clock = Ledger(), World({"g1"}), Clock()
        clock.at = AFTER
        revoker = start(ledger, world, clock, running=running(*events))
        revoker.take(command(), 0, NOON)
        revoker.step()
        assert (world.calls == ["g1"]) == done, events
    ledger, world, clock = Ledger(), World({"g1"}), Clock()
    revoker = start(ledger, world, clock, running=running((given("g1", LATER), BEFORE)))
    revoker.take(command_about(grant_source=BOT), 0, NOON)
    assert revoker.step() and world.calls == [], "what the watch requests waits"


def test_the_watch_and_a_person_cause_one_attempt_where_nothing_can_be_read_back() -> None:
    ledger, world, clock = Ledger(), World({"g1"}, readable=False), Clock()
    clock.at = AFTER
    revoker = start(ledger, world, clock)
    revoker.take(command_about(grant_source=BOT, deadline=NOON - HOUR), 0, BEFORE)
    revoker.take(command(), 1, NOON)
    while revoker.step():
        pass
    assert world.calls == ["g1"] and ledger.kinds()[-1] == "revoke.failed" and ledger.position == 2
    assert "accepted another command" in (ledger.events[-1].error or "")
    clock.at += timedelta(seconds=1)
    revoker.take(command(clock.at), 2, clock.at)
    revoker.step()
    assert world.calls == ["g1", "g1"], "who asks later, because the tool does not confirm it, gets another attempt"


def test_the_limits_of_other_commands_hold() -> None:
    late = SealedActivation(
        NOON + timedelta(seconds=1), signed=True
    )  # more than an hour after the deadline of the grant
    ledger, world, clock = Ledger(), World({"g1"}), Clock()
    revoker = start(ledger, world, clock, activations={"g1": late})
    revoker.take(command(), 0, NOON)
    assert world.calls == [] and "historical" in (ledger.events[0].error or "")
    for limits, taken in (({"limit": 0}, NOON), ({}, NOON - 2 * HOUR)):
        ledger, world, clock = Ledger(), World({"g1"}), Clock()
        revoker = start(ledger, world, clock, **limits)
        revoker.take(command(), 0, taken)
        revoker.step()
        assert world.calls == [] and ledger.kinds() in (["finding.opened"], ["revoke.failed"])
