"""The enforcer's work, with a crash at any point."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.enforcers.command_rules import Backoff, Breaker, Circuit, CommandHistory, Limits, SealedActivation
from grantledger.enforcers.context import Context
from grantledger.enforcers.contract import Attempt, AttemptStatus, Observation, Presence, RevokeCommand
from grantledger.enforcers.enforcement_policy import EnforcementPolicy
from grantledger.enforcers.events import Recorder, apply
from grantledger.enforcers.revoker import Revoker
from grantledger.enforcers.running_grants import RunningGrants
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import Event, IssuingSource, Resource
from support.events import read_datum

from .test_enforce_command_rules import HOUR, NOON, command

POLICY = EnforcementPolicy.model_validate(
    {
        "targets": {"here": {"plugin": "exec", "command": ["/bin/true"]}},
        "routes": [{"target": "here", "resource_kind": "database", "sources": ["/", "bot/*"]}],
    }
)


class Crash(BaseException):
    """kill -9."""


class Ledger:
    """A writer that survives: events and position go in together, or a crash comes before or after."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.position = 0
        self.crashes: list[str] = []

    def write(self, events: Sequence[Event], position: int) -> None:
        crash = self.crashes.pop(0) if self.crashes else ""
        if crash == "before":
            raise Crash
        self.events += events
        self.position = max(self.position, position)
        if crash == "after":
            raise Crash

    def kinds(self) -> list[str]:
        return [event.event_type for event in self.events]


class World:
    """What there is to take away, and a plug-in over it."""

    kind = "world"

    def __init__(self, there: set[str], *, readable: bool = True, crash_at: Sequence[int] = ()) -> None:
        self.there, self.readable, self.crash_at = there, readable, set(crash_at)
        self.calls: list[str] = []
        self.answers: list[Attempt] = []

    def revoke(self, command: RevokeCommand) -> Attempt:
        self.calls.append(command.key.grant_id)
        answer = self.answers.pop(0) if self.answers else Attempt(AttemptStatus.accepted, "done")
        if answer.status is AttemptStatus.accepted:
            self.there.discard(command.key.grant_id)
        if len(self.calls) in self.crash_at:
            raise Crash
        return answer

    def read_back(self, command: RevokeCommand) -> Observation:
        if not self.readable:
            return Observation(Presence.unreadable, "cannot be read")
        return Observation(Presence.present if command.key.grant_id in self.there else Presence.absent, "looked")


class Clock:
    def __init__(self) -> None:
        self.at = NOON

    def __call__(self) -> datetime:
        return self.at


GIVEN_BEFORE = SealedActivation(NOON - HOUR, signed=False)


class Lifecycle:
    """Grants that are all activated, or some of them, and those that run."""

    def __init__(
        self, running: RunningGrants | None = None, activations: dict[str, SealedActivation | None] | None = None
    ):
        self._running, self._activations = running or RunningGrants(), activations or {}

    def running(self) -> RunningGrants:
        return self._running

    def activation(self, command: RevokeCommand) -> SealedActivation | None:
        return self._activations.get(command.key.grant_id, GIVEN_BEFORE)


def start(
    ledger: Ledger,
    world: World,
    clock: Clock,
    *,
    limit: int = 1000,
    attempts: int = 3,
    running: RunningGrants | None = None,
    activations: dict[str, SealedActivation | None] | None = None,
    policy: EnforcementPolicy = POLICY,
    history: CommandHistory | None = None,
) -> Revoker:
    """Return a revoker as it is after a start: it has only what is on record."""
    history = history or CommandHistory()
    for event in ledger.events:
        apply(history, "test.example", read_datum(EventEncoder().encode(event)))
    limits = Limits(attempts, Breaker(limit, HOUR), Backoff(1, 60), HOUR)
    plugins, grants = dict.fromkeys(policy.targets, world), Lifecycle(running, activations)
    context = Context(Recorder("test.example"), policy, plugins, grants, limits, history, clock)
    return Revoker(context, ledger, ledger.position)


def run(
    ledger: Ledger, world: World, commands: Sequence[RevokeCommand], clock: Clock | None = None, **limits: int
) -> int:
    """Work until everything has ended, starting again after each crash; return how many starts it took."""
    clock = clock or Clock()
    for starts in range(1, 100):
        revoker = start(ledger, world, clock, **limits)
        try:
            for offset in range(ledger.position, len(commands)):
                revoker.take(commands[offset], offset, NOON)
            while ledger.position < len(commands):
                if not revoker.step():
                    clock.at += timedelta(seconds=1)
                revoker.settle()
        except Crash:
            continue
        return starts
    raise AssertionError("it never comes to an end")


@given(
    st.lists(st.sampled_from(["g0", "g1", "g2"]), min_size=1, max_size=6),
    st.lists(st.sampled_from(["", "before", "after"]), max_size=12),
    st.sets(st.integers(1, 4)),
    st.booleans(),
)
def test_after_crashes_at_any_point_each_command_ends_once(
    grants: list[str], crashes: list[str], crash_at: set[int], readable: bool
) -> None:
    ledger, world = Ledger(), World(set(grants), readable=readable, crash_at=sorted(crash_at))
    ledger.crashes = list(crashes)
    run(ledger, world, [command(grant) for grant in grants], attempts=50)
    assert not world.there
    ends = [event for event in ledger.events if event.event_type in ("revoke.confirmed", "revoke.failed")]
    final = [e for e in ledger.events if e.event_type == "revoke.attempted" and '"final": true' in e.finding.evidence]  # type: ignore[union-attr]
    assert sorted(event.grant_id or "" for event in (ends if readable else final)) == sorted(set(grants))
    assert not (final if readable else ends)
    removals = [event.grant_id for event in ledger.events if event.event_type == "grant.revoked"]
    assert sorted(removals) == (sorted(set(grants)) if readable else [])  # type: ignore[type-var]
    # Whatever was done is on record, and no two events share an id.
    begun = [event for event in ledger.events if event.outcome == "pending"]
    assert len(begun) >= len(world.calls)
    assert len({event.event_id for event in ledger.events}) == len(ledger.events)
    if readable:  # looked first: nothing is taken away twice
        assert sorted(world.calls) == sorted(set(grants))


def test_one_command_leaves_four_events() -> None:
    ledger = Ledger()
    run(ledger, World({"g1"}), [command()])
    assert ledger.kinds() == ["revoke.attempted", "revoke.attempted", "revoke.confirmed", "grant.revoked"]
    assert [event.outcome for event in ledger.events] == ["pending", "success", "success", "success"]
    assert [event.topic for event in ledger.events] == ["access.findings"] * 3 + ["access.lifecycle"]
    removal = ledger.events[-1]
    assert (removal.source.system, removal.removal_evidence) == ("grantledger-enforcer", "confirmed")
    assert (removal.grant_id, removal.entitlement, removal.key) == ("g1", "readwrite", "g1")


def test_without_a_read_back_a_removal_is_accepted_and_not_confirmed() -> None:
    ledger = Ledger()
    run(ledger, World({"g1"}, readable=False), [command(), command()])
    assert ledger.kinds() == ["revoke.attempted", "revoke.attempted"]
    assert (ledger.events[1].outcome, ledger.events[1].removal_evidence) == ("success", "api_accepted")


def test_a_look_that_fails_is_no_answer_and_is_taken_again() -> None:
    class Blinking(World):
        looks = 0

        def read_back(self, command: RevokeCommand) -> Observation:
            self.looks += 1
            return super().read_back(command) if self.looks > 2 else Observation(Presence.unknown, "no answer")

    ledger, world = Ledger(), Blinking({"g1"})
    run(ledger, world, [command()])
    assert ledger.kinds() == ["revoke.attempted", "revoke.attempted", "revoke.confirmed", "grant.revoked"]
    assert (world.calls, world.looks) == (["g1"], 3)  # the third look saw that nothing was left to do


def test_access_that_is_gone_already_is_confirmed_without_an_attempt() -> None:
    ledger, world = Ledger(), World(set())
    run(ledger, world, [command()])
    assert ledger.kinds() == ["revoke.confirmed", "grant.revoked"] and world.calls == []


def test_tries_again_waits_and_gives_up() -> None:
    ledger, world, clock = Ledger(), World({"g1"}), Clock()
    world.answers = [Attempt(AttemptStatus.retry, "busy", retry_after=30.0)] * 3
    run(ledger, world, [command()], clock)
    assert len(world.calls) == 3 and clock.at >= NOON + timedelta(seconds=60)
    assert ledger.kinds() == ["revoke.attempted"] * 6 + ["revoke.failed"]
    assert "busy" in (ledger.events[-1].error or "")


def test_a_refusal_is_not_tried_again() -> None:
    ledger, world = Ledger(), World({"g1"})
    world.answers = [Attempt(AttemptStatus.failed, "no such role")]
    run(ledger, world, [command()])
    assert world.calls == ["g1"] and ledger.kinds()[-1] == "revoke.failed"


def test_a_command_without_a_route_and_one_too_old_fail_on_record() -> None:
    ledger, world, clock = Ledger(), World({"g1", "g2"}), Clock()
    clock.at = NOON + 2 * HOUR
    elsewhere = command("g2", resource=Resource("cluster", "k8s"))
    revoker = start(ledger, world, clock)
    revoker.take(command("g1"), 0, NOON)
    revoker.take(elsewhere, 1, clock.at)
    assert ledger.kinds() == ["revoke.failed"] * 2 and ledger.position == 2 and world.calls == []
    assert "too old" in (ledger.events[0].error or "") and "route" in (ledger.events[1].error or "")


def test_a_command_that_grew_old_behind_others_is_not_begun() -> None:
    ledger, clock = Ledger(), Clock()

    class Slow(World):
        def revoke(self, command: RevokeCommand) -> Attempt:
            clock.at += 2 * HOUR
            return super().revoke(command)

    world = Slow({"g1", "g2"})
    revoker = start(ledger, world, clock)
    for offset, grant in enumerate(("g1", "g2")):
        revoker.take(command(grant), offset, NOON)
    assert revoker.step() and revoker.step() and ledger.position == 2
    assert (world.calls, ledger.kinds()[-1]) == (["g1"], "revoke.failed") and "too old" in (
        ledger.events[-1].error or ""
    )


@pytest.mark.parametrize("seconds", [10, 3600, 86_400])
def test_a_clock_that_is_set_back_delays_nothing(seconds: int) -> None:
    ledger, world, clock = Ledger(), World({"g1"}), Clock()
    world.answers = [Attempt(AttemptStatus.retry, "busy")]
    revoker = start(ledger, world, clock)
    revoker.take(command(), 0, NOON)
    assert revoker.step() and not revoker.step() and revoker.wait(9.0) > 0
    clock.at -= timedelta(seconds=seconds)
    assert revoker.wait(9.0) == 0
    assert revoker.step() and world.calls == ["g1", "g1"] and ledger.kinds()[-1] == "grant.revoked"


class Told(Ledger):
    """A writer that records each offset it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[int] = []

    def write(self, events: Sequence[Event], position: int) -> None:
        super().write(events, position)
        self.told.append(position)


def test_a_marker_after_the_last_command_is_passed_once_nothing_is_open() -> None:
    ledger, world, clock = Told(), World({"g1"}), Clock()
    world.answers = [Attempt(AttemptStatus.retry, "busy")]
    revoker = start(ledger, world, clock)
    revoker.take(command(), 0, NOON)
    revoker.step()
    revoker.reached(2)  # offset 1 is a transaction's marker
    revoker.settle()
    assert ledger.position == 0 and world.there == {"g1"}
    clock.at += timedelta(minutes=2)
    revoker.step()
    revoker.settle()
    assert ledger.position == 2 and not world.there
    revoker.reached(1)  # said late
    revoker.take(command(), 2, NOON)
    revoker.settle()
    assert ledger.position == 3


def test_a_marker_that_shows_after_the_end_of_the_last_command_is_passed_too() -> None:
    ledger, clock = Told(), Clock()
    revoker = start(ledger, World({"g1"}), clock)
    revoker.take(command(), 0, NOON)
    revoker.step()
    revoker.settle()
    assert ledger.position == 1
    revoker.reached(2)
    revoker.settle()
    assert ledger.position == 2


def test_an_unchanged_offset_is_committed_at_the_start_and_every_day() -> None:
    ledger, clock = Told(), Clock()
    ledger.position = 7
    revoker = start(ledger, World(set()), clock)
    revoker.settle()
    for hours, times in ((1, 1), (22, 1), (1, 2), (23, 2), (1, 3)):
        clock.at += hours * HOUR
        revoker.settle()
        assert ledger.told == [7] * times, hours
    clock.at -= 24 * HOUR  # set back: nobody knows how long ago it was
    revoker.settle()
    revoker.settle()
    assert ledger.told == [7] * 4 and ledger.events == []


def test_the_offset_is_committed_every_day_while_a_command_is_retried() -> None:
    ledger, world, clock = Told(), World({"g1"}), Clock()
    world.answers = [Attempt(AttemptStatus.retry, "busy")] * 2
    revoker = start(ledger, world, clock)
    revoker.take(command(), 0, NOON)
    revoker.settle()
    for hours, told in ((0, 3), (23, 5)):  # at the start, and with what is begun and what comes of it
        clock.at += hours * HOUR
        revoker.step()
        revoker.settle()
        assert ledger.told == [0] * told
    for hours, told in ((23, 5), (1, 6)):  # every event commits the position, so a day counts from the last one
        clock.at += hours * HOUR
        revoker.settle()
        assert ledger.told == [0] * told


def of(source: str, grant: str) -> RevokeCommand:
    return command(grant, grant_source=IssuingSource("bot", source))


def test_a_breaker_stops_one_source_and_target_and_no_other() -> None:
    grants = [f"fake{number}" for number in range(50)] + ["g1", "g2", "cluster"]
    ledger, world, clock = Ledger(), World(set(grants)), Clock()
    policy = EnforcementPolicy.model_validate(
        {
            "targets": {name: {"plugin": "exec", "command": ["/bin/true"]} for name in ("here", "there")},
            "routes": [
                {"target": "there", "resource_kind": "kubernetes", "sources": ["*"]},
                {"target": "here", "sources": ["*"]},
            ],
        }
    )
    flood = [of("evil", grant) for grant in grants[:50]]
    elsewhere = command("cluster", grant_source=IssuingSource("bot", "evil"), resource=Resource("kubernetes", "eu"))
    commands = [*flood, of("eu-1", "g1"), of("eu-1", "g2"), elsewhere]

    def restart() -> Revoker:
        revoker = start(ledger, world, clock, limit=20, policy=policy)
        for offset in range(ledger.position, len(commands)):
            revoker.take(commands[offset], offset, NOON)
        while revoker.step():
            pass
        revoker.settle()
        return revoker

    restart()
    assert world.there == set(grants[20:50]), "20 of the flood; all of the others"
    [opened] = [event for event in ledger.events if event.event_type == "finding.opened"]
    circuit = Circuit("bot", "evil", "here")
    assert opened.finding is not None and opened.finding.key == str(circuit) == "bot/evil/here"
    assert json.loads(opened.finding.evidence) | {"source": "bot/evil", "target": "here"} == json.loads(
        opened.finding.evidence
    )
    clock.at += timedelta(minutes=1)
    restart()
    assert world.there == set(grants[20:50]) and ledger.position == 20, "it stays open after a restart"
    clock.at += timedelta(minutes=1)
    closing = Recorder("test.example").breaker_closed(clock.at, circuit, "carol", "looked")
    ledger.events.append(closing)
    restart()
    assert world.there == set(grants[40:50]), "counting began again"
    # A copy of what the person decided closes nothing.
    ledger.events.append(closing)
    clock.at += timedelta(minutes=1)
    restart()
    assert world.there == set(grants[40:50])


def test_a_breaker_that_a_person_closes_lets_the_running_enforcer_continue() -> None:
    ledger, world, clock = Ledger(), World({"g0", "g1"}), Clock()
    history = CommandHistory()
    revoker = start(ledger, world, clock, limit=1, history=history)
    for number in range(2):
        revoker.take(command(f"g{number}"), number, NOON)
    while revoker.step():
        pass
    assert world.there == {"g1"} and revoker.wait(9.0) == 9.0
    closing = Recorder("test.example").breaker_closed(clock.at, Circuit("", "", "here"), "carol", "looked")
    apply(history, "test.example", read_datum(EventEncoder().encode(closing)))
    assert revoker.wait(9.0) == 0 and revoker.step() and not world.there


def test_a_source_with_many_commands_delays_only_its_own() -> None:
    ledger, world, clock = Ledger(), World(set()), Clock()  # everything is gone already: no breaker opens
    revoker = start(ledger, world, clock)
    for number in range(50):
        revoker.take(of("evil", f"fake{number}"), number, NOON)
    clock.at += timedelta(seconds=1)
    revoker.take(of("eu-1", "g1"), 50, NOON)
    assert revoker.step() and revoker.step()
    assert [event.grant_id for event in ledger.events if event.event_type == "grant.revoked"] == ["fake0", "g1"]


@pytest.mark.parametrize(
    ("activation", "reason"),
    [
        (None, "no activation"),
        (SealedActivation(NOON + HOUR + timedelta(seconds=1), signed=True), "historical"),
    ],
)
def test_a_request_without_an_activation_and_one_about_a_historical_grant_fail(
    activation: SealedActivation | None, reason: str
) -> None:
    ledger, world, clock = Ledger(), World({"g1"}), Clock()
    revoker = start(ledger, world, clock, limit=1, activations={"g1": activation})
    revoker.take(command(), 0, NOON)
    assert not revoker.step() and world.calls == [] and ledger.position == 1
    [event] = ledger.events
    assert event.event_type == "revoke.failed" and reason in (event.error or "")
    revoker.take(command("g2"), 1, NOON)
    assert revoker.step() and ledger.kinds()[-1] == "grant.revoked", "it does not count for the breaker"


def test_a_grant_that_was_first_reported_soon_after_its_deadline_is_not_historical() -> None:
    ledger, world = Ledger(), World({"g1"})
    revoker = start(ledger, world, Clock(), activations={"g1": SealedActivation(NOON + HOUR, signed=False)})
    revoker.take(command(), 0, NOON)
    assert revoker.step() and world.calls == ["g1"]


def test_only_a_source_of_the_route_has_access_removed() -> None:
    policy = EnforcementPolicy.model_validate(
        {
            "targets": {"here": {"plugin": "exec", "command": ["/bin/true"]}},
            "routes": [{"target": "here", "sources": ["bot/eu-*"], "entitlement": "read*"}, {"target": "here"}],
        }
    )
    for source, entitlement, signed, carried_out in (
        ("eu-1", "readwrite", False, True),
        ("us-1", "readwrite", False, False),
        ("us-1", "readwrite", True, True),
        ("eu-1", "admin", False, False),
        ("eu-1", "admin", True, True),
    ):
        ledger, world = Ledger(), World({"g1"})
        revoker = start(
            ledger, world, Clock(), activations={"g1": SealedActivation(NOON, signed=signed)}, policy=policy
        )
        revoker.take(command(grant_source=IssuingSource("bot", source), entitlement=entitlement), 0, NOON)
        assert revoker.step() == carried_out and (world.calls == ["g1"]) == carried_out
        assert carried_out or "source" in (ledger.events[-1].error or "")


def test_invalid_commands_are_on_record_once_per_source_and_hour() -> None:
    ledger, clock = Ledger(), Clock()

    def refuse(*sources: str) -> list[str]:
        before, revoker = len(ledger.events), start(ledger, World(set()), clock)
        for offset, source in enumerate(sources, ledger.position):
            revoker.refuse("is not signed", source, offset)
        revoker.settle()
        return [event.finding.key for event in ledger.events[before:] if event.finding is not None]

    assert refuse("a/1", "a/1", "b/1") == ["a/1", "b/1"]
    assert refuse("a/1", "b/1") == [], "after a restart"
    assert refuse(*(f"evil/{number}" for number in range(1000))) == [*(f"evil/{n}" for n in range(8)), "others"]
    clock.at += HOUR
    assert refuse("a/1", "a/1") == ["a/1"] and ledger.position == 1007
    assert {event.event_type for event in ledger.events} == {"finding.opened"}


def test_a_fault_in_a_plugin_is_an_attempt_that_failed(capfd: pytest.CaptureFixture[str]) -> None:
    class Faulty(World):
        def revoke(self, command: RevokeCommand) -> Attempt:
            super().revoke(command)
            raise RuntimeError("hunter2")

    ledger, world = Ledger(), Faulty({"g1"}, readable=False)
    run(ledger, world, [command()], attempts=2)
    assert ledger.kinds()[-1] == "revoke.failed" and len(world.calls) == 2
    assert "hunter2" not in "".join(capfd.readouterr()) + str(ledger.events)


def test_events_of_another_deployment_are_not_ours() -> None:
    ledger = Ledger()
    run(ledger, World({"g1"}), [command()])
    history = CommandHistory()
    for event in ledger.events:
        apply(history, "other.example", read_datum(EventEncoder().encode(event)))
    assert history == CommandHistory()
