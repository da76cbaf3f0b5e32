"""What a command is, and the rules about it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.enforcers.command_rules import (
    Admission,
    Backoff,
    Breaker,
    Circuit,
    CommandHistory,
    FinalStatus,
    Offsets,
    admit,
    final_status,
)
from grantledger.enforcers.contract import (
    Attempt,
    AttemptStatus,
    InvalidCommandError,
    Key,
    Observation,
    Presence,
    RevokeCommand,
)
from grantledger.enforcers.events import command_of
from grantledger.processors.watch.core.commands import REVOKE
from grantledger.processors.watch.findings import FindingEvents
from grantledger.schemas.catalog import event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import Actor, Event, EventSource, Finding, Resource, Subject
from grantledger.schemas.topics import COMMANDS_TOPIC
from support.events import read_datum, written
from support.watching import START, Story, at

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def command_event(grant: str = "g1", deadline: datetime = NOON, **fields: object) -> Event:
    given: dict[str, object] = {
        "event_type": "revoke.requested",
        "occurred_at": NOON,
        "source": EventSource("grantledger", "test.example", f"{grant}:{deadline}", "command"),
        "subject": Subject("alice", "human", "alice@example.com"),
        "actor": Actor("grantledger-watch", "system"),
        "resource": Resource("database", "orders", "production"),
        "entitlement": "readwrite",
        "grant_id": grant,
        "grant_id_kind": "native",
        "finding": Finding("overdue", grant, "critical", deadline),
    }
    return Event(**(given | fields))  # type: ignore[arg-type]


def command(grant: str = "g1", deadline: datetime = NOON, **fields: object) -> RevokeCommand:
    # As another program may write it: without a look at our rules.
    schema = event_schema()
    return command_of(
        read_datum(written(command_event(grant, deadline, **fields).to_datum(), schema.definition, schema.prefix))
    )


# --- the command


def test_a_command_names_the_access_to_revoke() -> None:
    found = command(deadline=NOON + timedelta(microseconds=7))
    assert found.key == Key("g1", NOON + timedelta(microseconds=7))
    assert (found.subject, found.resource) == (
        Subject("alice", "human", "alice@example.com"),
        Resource("database", "orders", "production"),
    )
    assert found.as_json()["deadline"] == "2026-03-01T12:00:00.000007Z"


def test_events_of_the_watch_are_commands() -> None:
    story = Story()
    story.granted(0, "g1", 60, grant_id_kind="native")
    state = story.watched(10_000)
    [change] = [change for change in state.judge(at(10_000)) if change.finding.rule == REVOKE]
    said = FindingEvents("test.example", state.policy, EventEncoder()).of_change(change, state.state, {})
    [event] = [event for topic, event, _ in said if topic == COMMANDS_TOPIC]
    found = command_of(read_datum(EventEncoder().encode(event)))
    assert found.key == Key("g1", datetime.fromtimestamp(START + 60, UTC), issuer=("vault", "prod"))
    assert (found.rule, found.subject.id, found.resource.id, found.entitlement) == ("overdue", "alice", "db", "admin")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"event_type": "revoke.attempted"}, "event_type"),
        ({"resource": None}, "resource"),
        ({"entitlement": None}, "entitlement"),
        ({"grant_id": None, "grant_id_kind": None}, "grant_id"),
        ({"finding": Finding("overdue", "another", "critical", NOON)}, "finding.key"),
        ({"finding": Finding("overdue", "g1", "critical", None)}, "deadline"),
        ({"subject": Subject("")}, "subject"),
        ({"subject": Subject("alice", "robot")}, "subject.kind"),
        ({"finding": Finding("overdue", "g1", "terrible", NOON)}, "finding.severity"),
        ({"tenant": ""}, "tenant"),
        ({"occurred_at": datetime(1900, 1, 1, tzinfo=UTC)}, "occurred_at"),
    ],
)
def test_invalid_commands_are_reported(change: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidCommandError, match=named):
        command(**change)


def test_a_command_of_another_schema_with_a_number_for_a_text_is_none() -> None:
    schema = event_schema()
    datum = read_datum(written(command_event().to_datum(), schema.definition, schema.prefix))
    with pytest.raises(InvalidCommandError, match="event"):
        command_of({**datum, "tenant": 7})


def test_the_id_of_a_command_follows_from_grant_and_deadline_alone() -> None:
    one = command(occurred_at=NOON + HOUR, source=EventSource("other", "x", "y", "z"))
    assert one.command_id == command().command_id
    assert len({one.command_id, command("g2").command_id, command(deadline=NOON + HOUR).command_id}) == 3


# --- idempotency, backoff, breaker

HERE = Circuit("bot", "eu-1", "here")


@given(st.integers(1, 10**9), st.floats(0.01, 100), st.floats(0.01, 10_000), st.text(max_size=20))
def test_backoff_stays_within_its_bounds_and_is_repeatable(number: int, base: float, cap: float, grant: str) -> None:
    backoff, key = Backoff(base, cap), Key(grant, NOON)
    delay = backoff.delay(key, number)
    full = min(cap, base * 2.0 ** min(number - 1, 60))
    assert full / 2 <= delay <= full <= cap
    assert delay == backoff.delay(key, number)


def test_backoff_spreads_commands_that_failed_together() -> None:
    delays = {Backoff(8, 300).delay(Key(f"g{number}", NOON), 1) for number in range(100)}
    assert len(delays) == 100 and max(delays) - min(delays) > 2


@given(st.floats(0, 1e9), st.integers(1, 20))
def test_a_wait_asked_for_is_kept_up_to_the_cap(asked: float, number: int) -> None:
    delay = Backoff(1, 60).delay(Key("g", NOON), number, asked)
    assert min(asked, 60) <= delay <= 60


@given(st.lists(st.integers(0, 5000), max_size=60), st.integers(1, 10), st.integers(1, 600))
def test_never_more_begin_in_a_window_than_the_breaker_allows(seconds: list[int], limit: int, window: int) -> None:
    breaker, history = Breaker(limit, timedelta(seconds=window)), CommandHistory()
    begun: list[int] = []
    for number, second in enumerate(sorted(seconds)):
        now, key = NOON + timedelta(seconds=second), Key(f"g{number}", NOON)
        before = sum(1 for other in begun if other > second - window)
        assert breaker.allows(history, HERE, key, now) == (before < limit)
        if before < limit:
            history.add_attempt(HERE, key, 1, now)
            begun.append(second)
            assert breaker.allows(history, HERE, key, now)  # going on is no new beginning
    assert all(sum(1 for other in begun if one - window < other <= one) <= limit for one in begun)


def test_an_open_breaker_stays_open_until_a_person_closes_it() -> None:
    breaker, history = Breaker(1, HOUR), CommandHistory()
    history.add_attempt(HERE, Key("g0", NOON), 1, NOON)
    history.open_since[HERE] = NOON
    later = NOON + timedelta(days=30)
    assert not breaker.allows(history, HERE, Key("g1", NOON), later)
    assert not breaker.allows(history, HERE, Key("g0", NOON), later)  # not even what was begun
    history.close_breaker(HERE)
    assert breaker.allows(history, HERE, Key("g1", NOON), later)


def test_attempts_before_the_breaker_was_closed_no_longer_count() -> None:
    breaker, history = Breaker(1, HOUR), CommandHistory()
    history.add_attempt(HERE, Key("g0", NOON), 1, NOON)
    history.open_since[HERE] = NOON
    history.close_breaker(HERE)
    assert breaker.allows(history, HERE, Key("g1", NOON), NOON + timedelta(minutes=2))


def test_attempts_by_a_fast_clock_no_longer_count_once_the_breaker_was_closed() -> None:
    breaker, history = Breaker(1, HOUR), CommandHistory()
    history.add_attempt(HERE, Key("g0", NOON), 1, NOON + 2 * HOUR)
    history.open_since[HERE] = NOON + 2 * HOUR  # then the clock is set right
    assert not breaker.allows(history, HERE, Key("g1", NOON), NOON)
    history.close_breaker(HERE)
    history.add_attempt(HERE, Key("g0", NOON), 2, NOON)  # going on
    assert breaker.allows(history, HERE, Key("g1", NOON), NOON)
    history.add_attempt(HERE, Key("g1", NOON), 1, NOON)
    assert not breaker.allows(history, HERE, Key("g2", NOON), NOON)


@pytest.mark.parametrize("outcome", FinalStatus)
def test_an_ended_command_is_done_for_ever(outcome: FinalStatus) -> None:
    history, key = CommandHistory(), Key("g1", NOON)
    history.add_end(key, outcome)
    assert admit(history, [], key, age=10 * HOUR, max_age=HOUR) is Admission.done
    assert admit(history, [], Key("g1", NOON + HOUR), age=HOUR, max_age=HOUR) is Admission.work


def test_a_command_too_old_is_not_begun_but_finished_if_it_was() -> None:
    history, key = CommandHistory(), Key("g1", NOON)
    assert admit(history, [], key, age=2 * HOUR, max_age=HOUR) is Admission.stale
    assert admit(history, [key], key, age=2 * HOUR, max_age=HOUR) is Admission.joined
    history.add_attempt(HERE, key, 1, NOON)
    assert admit(history, [], key, age=2 * HOUR, max_age=HOUR) is Admission.work


@given(st.sampled_from(AttemptStatus), st.sampled_from(Presence), st.integers(1, 9), st.integers(1, 9))
def test_only_reading_back_confirms(result: AttemptStatus, presence: Presence, number: int, limit: int) -> None:
    verdict = final_status(Attempt(result, ""), Observation(presence, ""), number, limit)
    assert (verdict is FinalStatus.confirmed) == (presence is Presence.absent)
    if verdict is FinalStatus.accepted:
        assert (result, presence) == (AttemptStatus.accepted, Presence.unreadable)
    if verdict is None:
        assert number < limit and result is not AttemptStatus.failed


def test_the_end_that_was_reached_is_committed_once_nothing_is_open() -> None:
    offsets = Offsets(5)
    offsets.add(5, Key("g1", NOON))
    offsets.reached(7)
    assert offsets.committable() == 5
    offsets.ended(Key("g1", NOON))
    assert offsets.committable() == 7
    offsets.reached(6)
    assert offsets.committable() == 7


@given(st.lists(st.sampled_from(["g0", "g1", "g2", None]), max_size=20), st.data())
def test_no_offset_is_committed_before_its_command_has_ended(keys: list[str | None], data: st.DataObject) -> None:
    offsets, waiting = Offsets(100), set[str]()
    for number, grant in enumerate(keys):
        offsets.add(100 + number, Key(grant, NOON) if grant else None)
        waiting |= {grant} if grant else set()
        if waiting and data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(sorted(waiting)))
            waiting.remove(gone)
            offsets.ended(Key(gone, NOON))
        still = set(offsets.open)
        assert offsets.committable() == min(still, default=100 + number + 1)
        assert {key.grant_id for key in offsets.open.values()} == waiting
