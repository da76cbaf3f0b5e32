"""The time of each event does not grow with the events before it, although one sender can send many about one grant."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.processors.watch.core import grants, reports, sessions
from grantledger.processors.watch.core.facts import Decision, Fact
from grantledger.processors.watch.core.judge import Judge
from grantledger.processors.watch_policy import AccessLimits, WatchPolicy
from support.examples import SLOW
from support.watching import CHECKERS, VAULT, Story, at, lives

LAST = 10**7
MOST = 2000 if SLOW else 1000
POLICY = WatchPolicy(default=AccessLimits(grace_seconds=10, max_seconds=100), reporter=CHECKERS)
APPROVED = WatchPolicy(default=AccessLimits(grace_seconds=10, approvals=2, approval_wait_seconds=5), reporter=CHECKERS)


def extended(story: Story, now: int) -> None:
    story.say(now, "grant.extended" if now else "grant.activated", "g", ends=LAST + now)


def extended_shortly(story: Story, now: int) -> None:
    story.say(now * 30, "grant.extended" if now else "grant.activated", "g", ends=now * 30 + 1)


def removed(story: Story, now: int) -> None:
    extended(story, now) if now % 2 == 0 else story.removed(now, "g", "api_accepted", signed=True)


def removed_before_the_same_end(story: Story, now: int) -> None:
    story.granted(now, "g", LAST) if now % 2 == 0 else story.removed(now, "g", "api_accepted")


def decided(story: Story, now: int) -> None:
    decisions = tuple(Decision(f"{now}-{number}", "approved") for number in range(5))
    story.say(now, "grant.extended" if now else "grant.activated", "g", ends=LAST + now, decisions=decisions)


def decided_by_one(story: Story, now: int) -> None:
    kind = "request.approved" if now else "request.created"
    story.say(now, kind, request_id="r", decisions=(Decision("carol", "approved"),))
    if now == 0:
        story.granted(now, "g", LAST, request_id="r")


def disputed(story: Story, now: int) -> None:
    extended(story, now)
    story.say(now, "grant.extended", "g", ends=LAST - now, event_id=f"e{now}")


def contradicted(story: Story, now: int) -> None:
    story.granted(now, f"g{now % 20}", LAST + now, event_id="e")


def used(story: Story, now: int) -> None:
    extended(story, now)
    story.say(now, "session.started", "g", session_id=f"s{now}")


def seconds(tell: Callable[[Story, int], None], count: int, policy: WatchPolicy) -> float:
    """Return the processor time of adding and judging events, judged ten times in all."""
    story = Story()
    for now in range(count):
        tell(story, now)
    watch = Judge(policy)
    gc.collect()
    gc.disable()
    begin = time.process_time()
    for number, fact in enumerate(story.facts, 1):
        watch.add(fact)
        if number % (len(story.facts) // 10) == 0:
            watch.judge(fact.append)
    spent = time.process_time() - begin
    gc.enable()
    return spent


@pytest.mark.parametrize("policy", [POLICY, APPROVED], ids=["longest", "approved"])
@pytest.mark.parametrize(
    "tell",
    [extended, extended_shortly, removed, removed_before_the_same_end, decided, decided_by_one, disputed, contradicted,
     used],
)  # fmt: skip
def test_the_cost_of_an_event_does_not_grow(tell: Callable[[Story, int], None], policy: WatchPolicy) -> None:
    ratios = []
    for _ in range(3):  # other programs use the same processor
        ratios.append(seconds(tell, MOST, policy) / seconds(tell, MOST // 4, policy))
        if ratios[-1] < 6:
            return
    pytest.fail(f"four times as many events take {ratios} times as long")


@pytest.mark.parametrize("late", [False, True], ids=["grants first", "grants last"])
@pytest.mark.parametrize("kind", ["grant.revoked", "grant.extended"])
def test_the_work_for_events_that_name_only_a_request_is_linear(
    kind: str, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = 0

    def counted(grant: grants.Grant, added: Fact | Iterable[Fact], *rest: int) -> None:
        nonlocal reports
        found = [added] if isinstance(added, Fact) else list(added)
        reports += len(found)
        (add_earlier if rest else add)(grant, found if rest else found[0], *rest)  # type: ignore[operator]

    add, add_earlier = grants.Grant.add, grants.Grant.add_earlier
    monkeypatch.setattr(grants.Grant, "add", counted)
    monkeypatch.setattr(grants.Grant, "add_earlier", counted)
    most, count = 100 * 5, 500
    monkeypatch.setattr(sessions, "MOST_SEARCHED", most)
    story, refused = Story(), 0
    about = [{"event_type": kind, "request_id": "r", "ends": LAST - number} for number in range(count)]
    given = [{"event_type": "grant.activated", "grant": f"g{number}", "request_id": "r", "ends": LAST} for number in
             range(count)]  # fmt: skip
    for now, one in enumerate([*about, *given] if late else [*given, *about]):
        story.say(now, **one)
    watch = Judge(POLICY)
    for fact in story.facts:
        try:
            watch.add(fact)
        except sessions.TooManyReportsError:
            refused += 1
    assert reports <= most + 8 * count + 2 * count + (sessions.MOST_EARLIER * count if late else 0)
    assert refused == (0 if late else count - 8)
    assert watch.state.sources.of(str(VAULT)).last == at(2 * count - 1), "what is refused was still received"
    assert all(one.activations for one in watch.state.grants.values())


def test_a_judgement_looks_only_at_the_periods_that_can_still_matter() -> None:
    story = Story()
    for now in range(3000):
        extended(story, now)
    watch = story.watched(3000)
    [grant] = watch.state.grants.values()
    watch.judge(at(3000))
    limits = watch.state.limits_of(grant)
    assert (len(grant.periods(limits)), len(grant.unsettled(limits))) == (3000, 2)


def changes(facts: list[Fact], policy: WatchPolicy, looks: int) -> list[tuple[object, ...]]:
    watch, found = Judge(policy), []
    for number, fact in enumerate(facts, 1):
        watch.add(fact)
        if number % looks == 0 or number == len(facts):
            now = fact.append if number < len(facts) else at(5000)
            found += [(one.kind, *one.finding[:5], dict(one.finding.evidence)) for one in watch.judge(now)]
    return found


@given(st.randoms(use_true_random=False), st.sampled_from([POLICY, APPROVED]))
def test_what_is_indexed_and_settled_finds_the_same(draw: random.Random, policy: WatchPolicy) -> None:
    facts = lives(draw, 60)
    facts = [replace(one, signed=draw.random() < 0.2) for one in facts]
    looks = draw.choice([1, 3, len(facts) or 1])
    plain = changes(facts, policy, looks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grants, "FEW", 0)
        patch.setattr(reports, "FEW", 0)
        assert changes(facts, policy, looks) == plain
