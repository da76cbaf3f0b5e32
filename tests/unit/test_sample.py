"""Sample lives: consistent stories, read without loss by the real adapters, at the right time."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from grantledger.processors.watch_policy import load_policy
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import Event
from grantledger.simulator.faults import FAULTS
from grantledger.simulator.generator import GENERATORS, lifecycles
from grantledger.simulator.lifecycle import TOOLS, Ending, Lifecycle, StepKind, Tool
from grantledger.simulator.playback import Playback
from grantledger.simulator.records import WRITERS
from grantledger.simulator.records.program import Program
from grantledger.simulator.scenario import scenarios
from support.command import invoke
from support.simulation import Reader

START = datetime(2030, 1, 1, 12, tzinfo=UTC)


def drawn(count: int, seed: int = 1, tools: tuple[Tool, ...] = TOOLS) -> list[Lifecycle]:
    return list(itertools.islice(lifecycles(random.Random(seed), tools), count))


class FakeTime:
    """Time that passes only by waiting, and stops at a given moment."""

    def __init__(self, stop_at: datetime | None = None) -> None:
        self.moment = START
        self.stop_at = stop_at

    def now(self) -> datetime:
        return self.moment

    def wait(self, seconds: float) -> bool:
        self.moment += timedelta(seconds=seconds)
        return self.stop_at is not None and self.moment >= self.stop_at


class Ledger:
    """A sink that reads every line with its adapter and remembers when it came."""

    def __init__(self, time: FakeTime) -> None:
        self.time = time
        self.lines: list[tuple[Tool, bytes]] = []
        self.events: list[tuple[datetime, Event]] = []
        self.reader = Reader()
        self.encoder = EventEncoder()

    def __call__(self, tool: Tool, line: bytes) -> None:
        self.lines.append((tool, line))
        for event in self.reader.events(tool, line):
            self.encoder.encode(event)
            self.events.append((self.time.now(), event))

    def of_type(self, *types: str) -> Iterator[tuple[datetime, Event]]:
        return ((at, event) for at, event in self.events if event.event_type in types)


def play(
    action: Callable[[Playback], None], stop_at: datetime | None = None, seed: int = 1, share: float = 0.0
) -> Ledger:
    time = FakeTime(stop_at)
    ledger = Ledger(time)
    action(Playback(scenarios(random.Random(seed), TOOLS, share), ledger, time, random.Random(seed)))
    return ledger


@pytest.fixture(scope="module")
def at_once() -> Ledger:
    return play(lambda player: player.all_at_once(300))


@pytest.fixture(scope="module")
def in_real_time() -> Ledger:
    return play(lambda player: player.in_real_time(5.0, 200))


@pytest.fixture(scope="module")
def stopped_halfway() -> Ledger:
    return play(lambda player: player.in_real_time(5.0, 200), START + timedelta(seconds=25))


def test_the_same_seed_imagines_the_same_lives() -> None:
    assert drawn(50, seed=3) == drawn(50, seed=3)
    assert drawn(50, seed=3) != drawn(50, seed=4)


def test_steps_are_in_order_and_every_ending_happens() -> None:
    many = drawn(400)
    assert {life.ending for life in many} == set(Ending)
    assert {life.tool for life in many} == set(TOOLS)
    for life in many:
        times = [step.after for step in life.steps]
        assert times == sorted(times)
        assert times[0] == 0.0
        if life.has(StepKind.GRANTED) and life.target.kind != "role":  # credentials of STS end without a word
            assert life.steps[-1].kind in (StepKind.REVOKED, StepKind.EXPIRED, StepKind.CHECKED)


def test_every_line_is_read_and_ids_are_unique(at_once: Ledger) -> None:
    ids = [event.event_id for _, event in at_once.events]
    assert len(ids) == len(set(ids))
    types = {event.event_type for _, event in at_once.events}
    assert types >= {
        "request.created",
        "request.approved",
        "request.denied",
        "request.cancelled",
        "request.expired",
        "grant.activated",
        "grant.extended",
        "grant.failed",
        "grant.revoked",
        "grant.expired",
        "session.started",
        "session.query",
        "session.command",
        "session.denied",
        "session.ended",
    }


def ends_by_itself(event: Event) -> bool:
    """Return whether these are STS credentials, which end without a record."""
    return event.source.native_type.startswith("sts.")


@pytest.mark.parametrize("how", ["at_once", "in_real_time", "stopped_halfway"])
def test_every_grant_that_is_given_is_taken_away_in_time(how: str, request: pytest.FixtureRequest) -> None:
    ledger: Ledger = request.getfixturevalue(how)
    removed = {event.grant_id: at for at, event in ledger.of_type("grant.revoked", "grant.expired")}
    given = {event.grant_id: event for _, event in ledger.of_type("grant.activated") if not ends_by_itself(event)}
    assert len(given) > 20
    assert set(given) == set(removed)
    for grant_id, event in given.items():
        if event.expires_at is not None:
            assert removed[grant_id] <= event.expires_at + timedelta(seconds=5)


def test_sessions_end_and_their_activity_names_the_grant(at_once: Ledger) -> None:
    ledger = at_once
    started = {
        event.session_id
        for _, event in ledger.of_type("session.started")
        if event.source.native_type != "sso.amazonaws.com/GetRoleCredentials"  # a visit to the portal has no end
    }
    ended = {event.session_id for _, event in ledger.of_type("session.ended")}
    assert started == ended
    granted = {event.grant_id for _, event in ledger.of_type("grant.activated")}
    used = list(ledger.of_type("session.started", "session.query", "session.command", "session.ended"))
    for _, event in used:
        # hoop's records of sessions name no review, those of AWS the credentials wherever there are some.
        if event.source.system in ("teleport", "vault"):
            assert event.grant_id in granted
        assert event.grant_id is None or event.grant_id in granted
    assert {event.source.system for _, event in used} == set(TOOLS)


def test_events_of_a_life_come_in_the_order_in_which_they_happened() -> None:
    ledger = play(lambda player: player.in_real_time(10.0, 50))
    by_grant: dict[str | None, list[datetime]] = defaultdict(list)
    for _, event in ledger.events:
        by_grant[event.grant_id or event.request_id or event.session_id].append(event.occurred_at)
    for times in by_grant.values():
        assert times == sorted(times)


def test_live_records_are_sent_at_their_time(in_real_time: Ledger) -> None:
    for at, event in in_real_time.events:
        written = 1.0 if event.source.system == "cloudtrail" else 0.01  # CloudTrail's times are whole seconds
        assert abs((at - event.occurred_at).total_seconds()) < written


def test_the_rate_is_kept() -> None:
    ledger = play(lambda player: player.in_real_time(4.0, 40))
    first = [at for at, event in ledger.of_type("request.created")]
    assert max(first) <= START + timedelta(seconds=10)


def test_lives_sent_at_once_have_just_ended(at_once: Ledger) -> None:
    assert max(event.occurred_at for _, event in at_once.events) <= START
    assert min(event.occurred_at for _, event in at_once.events) > START - timedelta(minutes=10)


def test_a_stop_before_the_first_life_sends_nothing() -> None:
    assert play(lambda player: player.all_at_once(5), stop_at=START).lines == []


@pytest.mark.parametrize("tool", GENERATORS)
def test_wind_down_ends_a_life_from_every_point(tool: Tool) -> None:
    for life in drawn(40, tools=(tool,)):
        for stop in range(len(life.steps) + 1):
            writer = WRITERS[tool](life, START, random.Random(1), Program())
            for step in life.steps[:stop]:
                writer.write(step)
            writer.close(START + timedelta(minutes=1))
            assert writer.open_ends() == []


@pytest.mark.parametrize("how", ["at once", "as time goes by", "stopped halfway"])
def test_faults_are_sent_in_real_time(how: str) -> None:
    planted: dict[str, int] = {}

    def act(player: Playback) -> None:
        if how == "at once":
            player.all_at_once(120)
        else:
            player.in_real_time(2.0, 120)
        planted.update(player.planted)

    ledger = play(act, START + timedelta(seconds=60) if how == "stopped halfway" else None, share=0.5)
    assert sum(planted.values()) > 20 and set(planted) <= set(FAULTS)
    assert len({event.event_id for _, event in ledger.events}) > 500


def test_late_records_are_sent_late_with_their_own_time() -> None:
    time = FakeTime()
    ledger = Ledger(time)
    told = scenarios(random.Random(1), TOOLS, 1.0, {"removal_reported_late": FAULTS["removal_reported_late"]})
    Playback(told, ledger, time, random.Random(1)).in_real_time(1.0, 3)
    late = [(at - event.occurred_at).total_seconds() for at, event in ledger.of_type("grant.revoked")]
    assert len(late) == 3 and min(late) > 29


def run(*arguments: str) -> str:
    result = invoke("demo", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_lists_its_faults(tmp_path: Path) -> None:
    said = run("--lives", "60", "--seed", "5", "--faults", "0.5", "--write", str(tmp_path / "s.jsonl"))
    assert "60 lives (seed 5)" in said
    planted = dict(reversed(one.split(" ")) for one in said.partition("; planted: ")[2].strip().split(", "))
    assert len(planted) > 5 and set(planted) <= set(FAULTS)
    reader = Reader()
    for tool in GENERATORS:
        lines = (tmp_path / f"s.{tool}.jsonl").read_bytes().splitlines()
        assert any(reader.events(tool, line) for line in lines)
    assert "planted" not in run("--lives", "5", "--write", str(tmp_path / "none.jsonl"))
    assert "--faults" in run("--help")


def test_the_command_prints_a_policy_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(run("--policy"))
    assert len(load_policy(path).rule) > 5
