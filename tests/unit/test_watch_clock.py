"""The time that deadlines are judged by, and the gate before a judgement."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.processors.access import SECOND
from grantledger.processors.watch.clock import TOLERANCE, WatchClock
from grantledger.processors.watch.lag_gate import LagGate

HOUR = 3600 * SECOND


class Machine:
    """A machine with clocks set by hand. ``brokers`` is the correct time."""

    def __init__(self) -> None:
        self.wall, self.boot, self.awake, self.brokers = 1000 * HOUR, HOUR, HOUR, 1000 * HOUR
        self.clock = WatchClock(lambda: self.wall, lambda: self.boot, lambda: self.awake)

    def passes(self, micros: int, *, slew: int = 0, asleep: bool = False) -> None:
        self.wall += micros + slew
        self.boot += micros
        self.brokers += micros
        self.awake += 0 if asleep else micros


def test_time_goes_with_the_wall_while_nothing_jumps() -> None:
    machine = Machine()
    for _ in range(100):
        machine.passes(SECOND // 10, slew=SECOND // 200)
        assert machine.clock.now() == machine.wall
    assert not machine.clock.jumps and not machine.clock.unsure


@pytest.mark.parametrize("held_up", ["before the wall", "after the wall"])
@pytest.mark.parametrize("first", [True, False])
def test_a_process_that_is_held_up_while_it_looks_sees_no_step(held_up: str, first: bool) -> None:
    """On a busy machine seconds may pass between the reading of one clock and of the next."""
    machine = Machine()
    waits: list[int] = []

    def wall() -> int:
        if held_up == "before the wall":
            machine.passes(waits.pop() if waits else 0)
        now = machine.wall
        if held_up == "after the wall":
            machine.passes(waits.pop() if waits else 0)
        return now

    def made() -> WatchClock:
        return WatchClock(wall, lambda: machine.boot, lambda: machine.awake)

    if first:
        waits = [3 * SECOND, SECOND]
        clock = made()
    else:
        clock = made()
        waits = [3 * SECOND, SECOND]
    for _ in range(3):
        machine.passes(SECOND // 10)
        assert clock.now() == machine.wall
    assert not waits and not clock.jumps and not clock.unsure


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_after_a_step_nothing_is_early_and_the_brokers_decide(step: int) -> None:
    machine = Machine()
    machine.wall += step
    machine.passes(SECOND)
    assert machine.clock.now() == machine.brokers + min(step, 0)
    assert [(jump.kind, jump.seconds) for jump in machine.clock.jumps] == [("step", step / SECOND)]
    machine.clock.confirm(machine.brokers)
    machine.passes(SECOND)
    assert machine.clock.now() == machine.brokers
    machine.wall -= step  # set right again
    machine.passes(SECOND)
    assert machine.clock.now() <= machine.brokers
    assert len(machine.clock.jumps) == 2
    machine.clock.confirm(machine.brokers)
    assert machine.clock.now() == machine.brokers


def test_a_step_back_that_was_right_waits_for_nothing_once_the_brokers_say_so() -> None:
    machine = Machine()
    machine.wall = machine.wall + HOUR  # fast from the start: the watch begins with a wrong time
    machine.clock = WatchClock(lambda: machine.wall, lambda: machine.boot, lambda: machine.awake)
    machine.passes(SECOND)
    assert machine.clock.now() == machine.brokers + HOUR
    machine.clock.confirm(machine.brokers)
    assert machine.clock.now() == machine.brokers


def test_a_small_difference_to_the_brokers_is_their_way_here() -> None:
    machine = Machine()
    machine.clock.confirm(machine.brokers - TOLERANCE // 2)
    machine.passes(SECOND)
    assert machine.clock.now() == machine.wall


def test_a_suspend_is_noticed_and_is_no_step() -> None:
    machine = Machine()
    machine.passes(HOUR, asleep=True)
    assert machine.clock.now() == machine.wall
    assert [(jump.kind, jump.seconds) for jump in machine.clock.jumps] == [("suspend", 3600.0)]


@given(
    st.lists(st.tuples(st.integers(0, 10 * SECOND), st.sampled_from([0, 0, 0, HOUR, -HOUR, 17 * SECOND])), max_size=30)
)
def test_never_ahead_of_the_brokers_until_they_have_spoken(moves: list[tuple[int, int]]) -> None:
    machine = Machine()
    for micros, step in moves:
        machine.wall += step
        machine.passes(micros)
        assert machine.clock.now() <= machine.brokers


@pytest.mark.parametrize("off", [0, HOUR, -HOUR])
@pytest.mark.parametrize("said", [0, 2 * SECOND, 5 * SECOND])
def test_late_answers_of_brokers_cause_neither_findings_nor_early_judgement(off: int, said: int) -> None:
    """5 s pass between the request and the answer; it was stamped at an unknown time in between."""
    machine = Machine()
    machine.wall += off
    clock = WatchClock(lambda: machine.wall, lambda: machine.boot, lambda: machine.awake)
    asked = machine.boot
    machine.passes(said)
    stamp = machine.brokers
    machine.passes(5 * SECOND - said)
    clock.start_from(stamp, asked)
    assert [jump.kind for jump in clock.jumps] == (["step"] if off else [])
    machine.passes(SECOND)
    assert machine.brokers - 5 * SECOND <= clock.now() <= machine.brokers
    assert off or clock.now() == machine.wall
    clock.confirm(machine.brokers, machine.boot)  # the next word, at once
    assert abs(clock.now() - machine.brokers) <= TOLERANCE


def test_the_gate_opens_when_everything_is_applied() -> None:
    gate = LagGate(bound=5 * SECOND)
    assert gate.answer(0) is None
    gate.ask(100, 10, 0)
    gate.advance(9)
    assert gate.answer(10 * SECOND) is None and gate.lag == 1  # never live yet: the past is still being read
    gate.advance(10)
    assert gate.answer(10 * SECOND) == (100, 0)
    assert gate.answer(10 * SECOND) is None  # asked and answered


def test_the_gate_gives_up_at_its_bound_once_it_was_live() -> None:
    gate = LagGate(bound=5 * SECOND)
    gate.ask(1, 0, 0)
    assert gate.answer(0) == (1, 0)
    gate.ask(2, 7, SECOND)
    gate.advance(4)
    assert gate.answer(6 * SECOND - 1) is None
    assert gate.answer(6 * SECOND) == (2, 3)
