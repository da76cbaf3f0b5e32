"""Sample lives: consistent stories, read without loss by the real adapters, at the right time."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from grantledger.producers.adapters import Place, Skipped, make_adapter
from grantledger.producers.sample.life import TOOLS, Deed, Ending, Life, Tool, imagine
from grantledger.producers.sample.player import TELLERS, Player
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import Event

START = datetime(2030, 1, 1, 12, tzinfo=UTC)


def lives(count: int, seed: int = 1, tools: tuple[Tool, ...] = TOOLS) -> list[Life]:
    return list(itertools.islice(imagine(random.Random(seed), tools), count))


class FakeTime:
    """Time that passes only by waiting, and stops where told."""

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
        self.adapters = {tool: make_adapter(tool) for tool in TOOLS}
        self.encoder = EventEncoder()

    def __call__(self, tool: Tool, line: bytes) -> None:
        self.lines.append((tool, line))
        outcome = self.adapters[tool].read(line, Place("sample", len(self.lines)))
        if isinstance(outcome, Skipped):
            assert outcome.reason == "request_half"
            return
        for event in outcome:
            self.encoder.encode(event)
            self.events.append((self.time.now(), event))

    def of_type(self, *types: str) -> Iterator[tuple[datetime, Event]]:
        return ((at, event) for at, event in self.events if event.event_type in types)


def play(action: Callable[[Player], None], stop_at: datetime | None = None, seed: int = 1) -> Ledger:
    time = FakeTime(stop_at)
    ledger = Ledger(time)
    action(Player(imagine(random.Random(seed)), ledger, time, random.Random(seed)))
    return ledger


def test_the_same_seed_imagines_the_same_lives() -> None:
    assert lives(50, seed=3) == lives(50, seed=3)
    assert lives(50, seed=3) != lives(50, seed=4)


def test_steps_are_in_order_and_every_ending_happens() -> None:
    many = lives(400)
    assert {life.ending for life in many} == set(Ending)
    assert {life.tool for life in many} == set(TOOLS)
    for life in many:
        times = [step.after for step in life.steps]
        assert times == sorted(times)
        assert times[0] == 0.0
        if any(step.deed is Deed.GRANTED for step in life.steps):
            assert life.steps[-1].deed in (Deed.REVOKED, Deed.EXPIRED)


def test_every_line_is_read_and_ids_are_unique() -> None:
    ledger = play(lambda player: player.at_once(300))
    ids = [event.event_id for _, event in ledger.events]
    assert len(ids) == len(set(ids))
    types = {event.event_type for _, event in ledger.events}
    assert types >= {
        "request.created",
        "request.approved",
        "request.denied",
        "request.cancelled",
        "request.expired",
        "grant.activated",
        "grant.revoked",
        "grant.expired",
        "session.started",
        "session.query",
        "session.command",
        "session.denied",
        "session.ended",
    }


@pytest.mark.parametrize("how", ["at once", "as time goes by", "stopped halfway"])
def test_every_grant_that_is_given_is_taken_away_in_time(how: str) -> None:
    if how == "at once":
        ledger = play(lambda player: player.at_once(200))
    else:
        stop_at = START + timedelta(seconds=25) if how == "stopped halfway" else None
        ledger = play(lambda player: player.as_time_goes_by(5.0, 200), stop_at)
    removed = {event.grant_id: at for at, event in ledger.of_type("grant.revoked", "grant.expired")}
    given = {event.grant_id: event for _, event in ledger.of_type("grant.activated")}
    assert len(given) > 20
    assert set(given) == set(removed)
    for grant_id, event in given.items():
        if event.expires_at is not None:
            assert removed[grant_id] <= event.expires_at + timedelta(seconds=5)


def test_sessions_end_and_what_is_done_in_them_names_the_grant() -> None:
    ledger = play(lambda player: player.at_once(200))
    started = {event.session_id: event for _, event in ledger.of_type("session.started")}
    ended = {event.session_id for _, event in ledger.of_type("session.ended")}
    assert set(started) == ended
    granted = {event.grant_id for _, event in ledger.of_type("grant.activated")}
    for _, event in ledger.of_type("session.started", "session.query", "session.command", "session.ended"):
        assert event.grant_id in granted


def test_events_of_a_life_come_in_the_order_in_which_they_happened() -> None:
    ledger = play(lambda player: player.as_time_goes_by(10.0, 50))
    by_grant: dict[str | None, list[datetime]] = defaultdict(list)
    for _, event in ledger.events:
        by_grant[event.grant_id or event.request_id].append(event.occurred_at)
    for times in by_grant.values():
        assert times == sorted(times)


def test_live_records_are_told_at_their_time() -> None:
    ledger = play(lambda player: player.as_time_goes_by(2.0, 30))
    for at, event in ledger.events:
        assert abs((at - event.occurred_at).total_seconds()) < 0.01


def test_the_rate_is_kept() -> None:
    ledger = play(lambda player: player.as_time_goes_by(4.0, 40))
    first = [at for at, event in ledger.of_type("request.created")]
    assert max(first) <= START + timedelta(seconds=10)


def test_every_life_told_at_once_has_just_ended() -> None:
    ledger = play(lambda player: player.at_once(50))
    assert max(event.occurred_at for _, event in ledger.events) <= START
    assert min(event.occurred_at for _, event in ledger.events) > START - timedelta(minutes=10)


def test_a_stop_before_the_first_life_tells_nothing() -> None:
    assert play(lambda player: player.at_once(5), stop_at=START).lines == []


@pytest.mark.parametrize("tool", TOOLS)
def test_wind_down_ends_a_life_from_every_point(tool: Tool) -> None:
    for life in lives(40, tools=(tool,)):
        for stop in range(len(life.steps) + 1):
            teller = TELLERS[tool](life, START, random.Random(1))
            for step in life.steps[:stop]:
                teller.tell(step)
            teller.wind_down(START + timedelta(minutes=1))
            assert teller.open_ends() == []
