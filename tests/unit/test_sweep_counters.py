"""Numbers of senders: which are missing, however they arrive, and what hostile senders may cost."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.processors.access import SECOND, Source
from grantledger.processors.sweep import counters as limits
from grantledger.processors.sweep.counters import Counters, Gap, Numbers, Run, Sender
from grantledger.processors.sweep.gaps import GapFindings, SourceChange, source_event
from grantledger.schemas.codec import EventEncoder

HOUR = 3600 * SECOND
WAIT = 60 * SECOND
VAULT = Source("vault", "prod")
LIFECYCLE, ACTIVITY = "access.lifecycle", "access.activity"


def at(seconds: float) -> int:
    return int(seconds * SECOND)


class Sent:
    """Events with numbers, and the sweeps that see them."""

    def __init__(self, known: dict[tuple[str, int], bool] | None = None) -> None:
        self.counters = Counters(lambda _: WAIT)
        self.findings = GapFindings(known or {})

    def add(
        self,
        numbers: Iterable[int],
        second: float = 0,
        topic: str = LIFECYCLE,
        source: Source = VAULT,
        name: str = "",
        *,
        signed: bool = False,
    ) -> None:
        for number in numbers:
            self.counters.add(Sender(*source, name), source, topic, Run(number, number, at(second)), signed=signed)

    def missing(self) -> list[tuple[int, int]]:
        return [(one.gap.first, one.gap.last) for one in self.counters.missing()]

    def sweep(self, second: float) -> list[SourceChange]:
        return self.findings.judge(self.counters.missing(), self.counters.forgotten, at(second))

    def kinds(self, *seconds: float) -> list[list[str]]:
        return [[change.kind for change in self.sweep(second)] for second in seconds]


def test_a_counter_over_both_topics_has_no_gap() -> None:
    sent = Sent()
    sent.add((1, 3, 4, 7))
    sent.add((2, 5, 6), topic=ACTIVITY)
    assert sent.missing() == []
    sent.add((9,), topic=ACTIVITY)
    assert sent.missing() == [(8, 8)]


def test_a_sender_that_used_a_number_in_two_topics_counts_per_topic() -> None:
    sent = Sent()
    sent.add((1, 2, 3, 4))
    sent.add((1, 2, 4), topic=ACTIVITY)
    assert sent.missing() == [(3, 3)]


def test_a_restart_is_no_gap() -> None:
    sent = Sent()
    sent.add((1, 3, 5), name="one")
    sent.add((2, 4), topic=ACTIVITY, name="one")
    sent.add((1, 2, 3), name="two")
    assert sent.missing() == [], "each process counts for itself"
    unnamed = Sent()
    unnamed.add((1, 3, 5, 1, 2))
    unnamed.add((2, 4, 3), topic=ACTIVITY)
    [counter] = unnamed.counters
    assert counter.is_doubtful
    counter.restarted = counter.asked = True
    assert (unnamed.missing(), counter.is_doubtful) == ([], False)
    unnamed.add((7,))
    assert unnamed.missing() == [(6, 6)]


ARRIVALS = st.lists(st.tuples(st.integers(-9, 30), st.integers(0, 12)), max_size=40)


@given(ARRIVALS, st.randoms(use_true_random=False))
def test_gaps_match_the_definition(arrived: list[tuple[int, int]], draw: random.Random) -> None:
    times: dict[int, int] = {}
    for number, time_ in arrived:
        times[number] = min(time_, times.get(number, time_))
    draw.shuffle(arrived)
    numbers = Numbers()
    for number, time_ in arrived:
        numbers.add(Run(number, number, time_))
    found = {number: gap.since for gap in numbers.gaps() for number in range(gap.first, gap.last + 1)}
    expected = {}
    for number in range(min(times, default=0), max(times, default=0)):
        if number not in times:
            below = min(time_ for other, time_ in times.items() if other < number)
            above = min(time_ for other, time_ in times.items() if other > number)
            expected[number] = max(below, above)
    assert found == expected
    other = Numbers()
    for number in draw.sample(range(-9, 31), 8):
        other.add(Run(number, number, 0))
    covered = {number for run in other.runs for number in range(run.first, run.last + 1)}
    assert numbers.shares(other) == other.shares(numbers) == bool(covered & times.keys())


def test_a_gap_opens_when_two_sweeps_find_it_and_ends_when_its_numbers_arrive() -> None:
    sent = Sent()
    sent.add((5, 6, 9), 10)
    assert sent.kinds(69) == [[]], "it may still arrive"
    [opened] = sent.sweep(71)
    assert opened == SourceChange(
        "opened", ("vault/prod", 0),
        {"count": 1, "missing": 2, "first_missing": 7, "last_missing": 8, "topics": [LIFECYCLE]},
    )  # fmt: skip
    sent.add((7,), 140)
    assert sent.kinds(3700) == [[]], "8 is still missing"
    again = Sent({opened.identity: True})
    again.add((5, 6, 9), 10)
    again.add((7, 8), 3800)
    assert again.kinds(1000, 3900, 4000) == [[], ["resolved"], []], "not before the hour is over"
    again.add((20,), 20)
    assert again.kinds(5000, 5060) == [[], []], "a finding that a person closed, or that is resolved, stays so"


def test_numbers_that_are_late_in_time_are_no_finding() -> None:
    sent = Sent()
    sent.add((1, 3), 0)
    assert sent.kinds(61) == [[]]
    sent.add((2,), 62)
    assert sent.kinds(121, 181) == [[], []]


def test_gaps_that_erased_events_may_explain_open_nothing() -> None:
    sent = Sent()
    sent.add((1, 3), 100)
    sent.add((5,), 900)
    for second in (1000, 1060):
        assert sent.findings.judge(sent.counters.missing(), (), at(second), erased_until=at(1000)) == []
    assert [one.evidence["count"] for one in sent.findings.judge(sent.counters.missing(), (), at(1200), at(901))] == [2]


def test_a_source_has_one_finding_per_hour_and_invented_sources_share_one() -> None:
    sent = Sent()
    sent.add(range(1, 100, 2), 5, name="a")
    sent.add(range(1, 100, 2), 6, name="b")
    sent.add((1, 3), 7, source=Source("signs", "it"), signed=True)
    for number in range(130):
        sent.add((1, 3, 5), 8 + number, source=Source(f"invented-{number}", ""))
    assert sent.sweep(300) == []
    changes = sent.sweep(360)
    counts = {one.identity[0]: one.evidence["count"] for one in changes}
    own = {f"invented-{number}/": 2 for number in range(98)}
    assert counts == {"vault/prod": 98, "signs/it": 1, **own, "*/*": 64}
    assert {one.identity[1] for one in changes} == {0}
    for number in range(50):
        sent.add((2, 4), 400, source=Source(f"invented-{number}", ""))
    assert {one.kind for second in (420, 480, HOUR + 1, HOUR + 61) for one in sent.sweep(second)} == {"resolved"}, (
        "the others do not take the places of those whose gaps are filled"
    )


def test_hostile_numbers_cost_bounded_memory_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_RUNS_IN_ALL", 5_000)
    sent, draw = Sent(), random.Random(1)
    sent.add((1, 3), 1, source=Source("signs", "it"), signed=True)
    sent.add((1, 3), 2)
    assert sent.kinds(100, 160) == [[], ["opened", "opened"]]
    begin = time.process_time()
    huge = (-(1 << 63), (1 << 63) - 1)
    sent.add((*huge, *(draw.randint(*huge) for _ in range(20_000))), 200, source=Source("random", ""))
    for number in range(4_000):
        sent.add((1, 3), 300, source=Source(f"invented-{number}", "x"), name=str(number))
    found = [len(sent.sweep(second)) for second in (5000, 9000)]
    assert time.process_time() - begin < 10
    assert sum(counter.size for counter in sent.counters) <= 5_002
    assert sum(found) < 110 and len(sent.counters.forgotten) < 5_100
    assert {key for key, is_open in sent.findings._known.items() if is_open} >= {("signs/it", 0), ("vault/prod", 0)}, (
        "what is no longer followed stays open"
    )
    sent.add((2,), 9100, source=Source("signs", "it"), signed=True)
    assert [one.identity for one in sent.sweep(9200)] == [("signs/it", 0)]


def test_a_finding_about_any_gap_fits_into_a_record() -> None:
    sent = Sent()
    sent.add((-(1 << 63), (1 << 63) - 1), source=Source("s" * 500, "\0" * 500), name="\0" * 200)
    sent.sweep(100)
    [opened] = sent.sweep(200)
    event = source_event("test", "sequence_gap", opened, at(200), "critical")
    assert len(EventEncoder().encode(event)) < 10_000
    assert Gap(-(1 << 63) + 1, (1 << 63) - 2, 0) == next(sent.counters.missing()).gap
