"""Sources: silence, and gaps in their counters, including gaps that are filled later."""

from __future__ import annotations

import json
import random

from hypothesis import given
from hypothesis import strategies as st

from grantledger.processors.access import NEVER, SECOND, Source
from grantledger.processors.policy import AccessLimits, SourceLimits, WatchPolicy
from grantledger.processors.watch.core.judge import Judge
from grantledger.processors.watch.core.sequences import Gap, NumberSequence
from grantledger.processors.watch.faults import Faults
from grantledger.processors.watch.findings import Fault
from support.watching import Story, at, said

GRACE = AccessLimits(grace_seconds=10)
PLAIN = WatchPolicy(default=GRACE)
HOUR = 3600


def test_a_source_that_falls_silent() -> None:
    policy = WatchPolicy(default=GRACE, source=(SourceLimits(system="vault", silent_after_seconds=50),))
    story = Story()
    for when in (0, 40, 90, 300):
        story.say(when, "request.created", request_id=f"r{when}")
    found = story.findings(320, policy)
    assert found == [("opened", "source_silent", "vault/prod", 140), ("resolved", "source_silent", "vault/prod", 300)]
    assert story.findings(351, policy)[-1] == ("opened", "source_silent", "vault/prod", 350)


def test_a_missing_number() -> None:
    story = Story()
    for when, seq in ((0, 5), (1, 6), (2, 9), (3, 10)):
        story.say(when, "request.created", request_id=f"r{seq}", seq=seq)
    judge = story.watched(30, PLAIN)
    assert judge.judge(at(30)) == []
    [gap] = judge.judge(at(63))
    assert (gap.finding.key, gap.finding.evidence) == ("vault/prod#7", {"first_missing": 7, "last_missing": 8})
    for when, seq in ((70, 7), (71, 8)):
        judge.add(story.say(when, "request.created", request_id=f"r{seq}", seq=seq))
    assert judge.judge(at(72)) == [], "another gap of the hour belongs to the same finding"
    assert said(judge.judge(at(3601))) == [("resolved", "sequence_gap", "vault/prod#7", HOUR)]


def test_a_finding_has_all_gaps_of_an_hour_and_lasts_as_long_as_any() -> None:
    story = Story()
    for number in range(0, 2000, 2):
        story.say(number / 4, "request.created", request_id=f"r{number}", seq=number)
    for when, number in ((HOUR + 5, 2000), (HOUR + 6, 2002)):
        story.say(when, "request.created", request_id=f"r{number}", seq=number)
    changes = story.watched(3 * HOUR, PLAIN).judge(at(3 * HOUR))
    assert said(changes) == [
        ("opened", "sequence_gap", "vault/prod#1", 60.5), ("opened", "sequence_gap", "vault/prod#1999", HOUR + 65)
    ]  # fmt: skip
    assert changes[0].finding.evidence == {"first_missing": 1, "last_missing": 1, "gaps": 999}


def test_a_fast_clock_is_one_finding_per_hour_with_a_count() -> None:
    story = Story()
    for number, ahead in enumerate((400, 900, 500)):
        when = number * 10
        story.say(when, "request.created", request_id=f"r{number}", occurred=at(when + ahead))
    [opened, resolved] = story.watched(2 * HOUR, PLAIN).judge(at(2 * HOUR))
    assert (opened.finding.rule, opened.finding.deadline) == ("clock_skew", at(0))
    evidence = opened.finding.evidence
    assert (evidence["count"], evidence["ahead_seconds"], resolved.at) == (3, 900, at(HOUR))


def numbered(*told: tuple[float, int]) -> Story:
    story = Story()
    for when, seq in told:
        story.say(when, "request.created", request_id=f"r{seq}", seq=seq)
    return story


def test_a_gap_that_was_filled_before_judging_is_found() -> None:
    found = [("opened", "sequence_gap", "vault/prod#2", 62), ("resolved", "sequence_gap", "vault/prod#2", HOUR)]
    assert numbered((0, 1), (2, 3), (100, 2)).findings(HOUR + 1, PLAIN) == found
    assert numbered((0, 1), (2, 3), (62, 2)).findings(HOUR + 1, PLAIN) == []


def test_numbers_that_come_late_together_are_one_finding() -> None:
    gap = "vault/prod#2"
    late = numbered((0, 1), (2, 9), *((100 + number, number) for number in range(2, 9)))
    found = [("opened", "sequence_gap", gap, 62), ("resolved", "sequence_gap", gap, HOUR)]
    assert late.findings(2 * HOUR, PLAIN) == found
    halting = numbered((0, 1), (2, 9), (100, 2), (101, 3), (102, 4), (200, 5), (201, 6), (202, 7), (203, 8))
    assert halting.findings(2 * HOUR, PLAIN) == found, "5 to 8 are missing so long after the ones before them"
    [gap_told, *_] = halting.watched(500, PLAIN).judge(at(500))
    assert gap_told.finding.evidence == {"first_missing": 2, "last_missing": 8, "gaps": 2}


def test_a_counter_that_begins_anywhere_misses_nothing_before() -> None:
    assert numbered((0, 500), (70, 499), (200, 501)).findings(900, PLAIN) == []
    early = numbered((0, 500), (100, 3))
    assert early.findings(900, PLAIN) == [("opened", "sequence_gap", "vault/prod#4", 160)]


def gaps_by_definition(times: dict[int, int], wait: int) -> dict[int, tuple[int, int]]:
    """First missing number to (opens, ends), looked at number by number."""
    found = {}
    for number, before in ((known + 1, times[known]) for known in times):
        higher = [time for other, time in times.items() if other > number]
        if higher or number in times:
            opens, ends = max(min(higher, default=NEVER), before) + wait, times.get(number, NEVER)
            if opens < ends:
                found[number] = opens, ends
    return found


ARRIVALS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), max_size=40)


@given(ARRIVALS, st.integers(0, 15), st.randoms(use_true_random=False))
def test_gaps_match_the_definition(told: list[tuple[int, int]], wait: int, draw: random.Random) -> None:
    times: dict[int, int] = {}
    sequence, now = NumberSequence(wait), 0
    for number, pause in told:
        now += pause
        times.setdefault(number, now)
        sequence.add(number, now)
        if draw.random() < 0.3:
            sequence.gaps()  # looking changes nothing
        if draw.random() < 0.3:
            sequence = NumberSequence(wait, json.loads(json.dumps(sequence.to_json())))
    assert {gap.first: (gap.opens, gap.ends) for gap in sequence.gaps()} == gaps_by_definition(times, wait)
    assert {number for number in range(-1, 32) if number in sequence} == times.keys()
    for gap in sequence.gaps():
        there = [number for number, time in times.items() if number > gap.first and time <= gap.opens]
        assert gap.last == min(there) - 1


def test_pauses_and_filled_gaps_do_not_pile_up() -> None:
    """A program that sends an event every two minutes; sometimes a number arrives late."""
    sequence, times, now = NumberSequence(60), {}, 0
    order = list(range(3000))
    for late in range(100, 3000, 700):
        order.insert(late + 2, order.pop(late))
    for number in order:
        now += 120
        sequence.add(number, now)
        times[number] = now
    expected = [Gap(number, number, times[number + 1] + 60, times[number]) for number in range(100, 3000, 700)]
    assert sequence.gaps() == expected
    sequence.forget(times[1500])
    assert sequence.gaps() == expected[2:] and len(json.dumps(sequence.to_json())) < 200


def test_invented_sources_cause_few_findings() -> None:
    story = Story()
    story.granted(0, "g", 9000)
    for number in range(130):
        source, when = Source(f"invented-{number}", ""), 10 + number
        story.removed(when, "g", source=source, grant_source=None)  # an id of another source
        story.say(when, "request.created", request_id="r", source=source, occurred=at(when + 900))
        story.say(when, "request.created", request_id="x", source=source, event_id=f"e{number}")
        story.say(when, "request.created", request_id="y", source=source, event_id=f"e{number}")
    judge = story.watched(200, PLAIN)
    found = [one.finding for one in judge.judge(at(200))]
    for rule in ("foreign_claim", "clock_skew", "event_conflict"):
        counts = {one.key: one.evidence["count"] for one in found if one.rule == rule}
        assert counts == {**{f"invented-{number}/": 1 for number in range(100)}, "*/*": 30}, rule
    again = Judge(PLAIN, judge.known)
    again.state.restore_sources(judge.state.size, json.loads(json.dumps(judge.state.sources.to_json())))
    assert again.judge(at(201)) == []
    later = story.removed(201, "g", source=Source("invented-999", ""), grant_source=None)
    again.state.restore(story.facts[0])
    again.state.size = later.index
    again.add(later)
    assert again.judge(at(202)) == [], "it is one of the others"


def test_gaps_of_invented_sources_are_few_findings_and_never_hide_one_of_a_source_that_signs() -> None:
    story = Story()
    for number in range(130):
        for seq in (1, 3):
            source = Source(f"invented-{number}", "")
            story.say(number, "request.created", request_id="r", source=source, seq=seq)
    for seq in (1, 3):
        story.say(140, "request.created", request_id="r", seq=seq, signed=True)
    judge = story.watched(300, PLAIN)
    found = [one.finding for one in judge.judge(at(300)) if one.finding.rule == "sequence_gap"]
    assert {one.key for one in found} == {
        *(f"invented-{number}/#2" for number in range(100)), "vault/prod#2", "*/*#0"
    }  # fmt: skip
    assert [one.evidence["count"] for one in found if one.key == "*/*#0"] == [30]
    again = Judge(PLAIN, judge.known)
    again.state.restore_sources(judge.state.size, json.loads(json.dumps(judge.state.sources.to_json())))
    for seq in (1, 3, 2):
        again.add(story.say(301, "request.created", request_id="r", source=Source("late", ""), seq=seq))
    again.add(story.say(301, "request.created", request_id="r", source=Source("invented-1", ""), seq=2))
    assert again.judge(at(400)) == [], "of a further source, and of one whose gap is filled"
    assert {change.kind for change in again.judge(at(2 * HOUR))} == {"resolved"}


def test_invented_sources_cause_few_findings_about_faults() -> None:
    faults = Faults()
    faults.restore([("watch_fault", "known/", at(0) // (HOUR * SECOND) * HOUR * SECOND)])
    for number in range(130):
        faults.add(Fault(f"entry {number}", ValueError(), Source(f"invented-{number}", ""), at(number)))
    faults.add(Fault("entry 41", ValueError(), Source("known", ""), at(41)))
    faults.add(Fault("a grant", ValueError()))
    found = faults.take()
    assert {key: len(faults) for (_, key, _), faults in found.items()} == {
        **{f"invented-{number}/": 1 for number in range(99)}, "*/*": 31, "a grant": 1
    }  # fmt: skip
