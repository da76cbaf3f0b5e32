"""What is forgotten goes whole, and nothing that was said or is still to be said changes by it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, TypeVar

import pyarrow as pa
import pytest

from grantledger.processors.watch.facts import Access, Decision, Fact, Source
from grantledger.processors.watch.keeper import Keeper
from grantledger.processors.watch.lives import About
from grantledger.processors.watch.memory import SEGMENT_BYTES, SEGMENT_ROWS, Place, Segment
from grantledger.processors.watch.policy import SECOND, Limits, Policy, SourceLimits
from grantledger.processors.watch.reading import nothing
from grantledger.processors.watch.source_memory import forget, kept
from grantledger.processors.watch.sources import DAY
from grantledger.processors.watch.state import Identity, WatchState
from support.shelf import Shelf

Answer = TypeVar("Answer")
VAULT = Source("vault", "prod")
ACCESS = Access("default", "alice", "database", "db", "rw")
LONG = 40 * DAY
POLICY = Policy(default=Limits(grace_seconds=10, revoke="overdue"))


def fact(index: int, seconds: float, event_type: str, **more: Any) -> Fact:
    """Return a fact. Told twice it is the same but for its place."""
    time = int(seconds * SECOND)
    given: dict[str, Any] = {
        "occurred": time, "event_id": f"e{index}", "source": VAULT, "access": ACCESS, "person": ("alice",),
        "content": (index + 1).to_bytes(8, "big"),
    }  # fmt: skip
    return Fact(index=index, append=time, event_type=event_type, **given | more)


def given(index: int, seconds: float, ends: float | None = None, **more: Any) -> Fact:
    expires = None if ends is None else int(ends * SECOND)
    return fact(index, seconds, "grant.activated", **{"grant_id": "g", "expires": expires} | more)


def removed(index: int, seconds: float, **more: Any) -> Fact:
    return fact(index, seconds, "grant.revoked", **{"grant_id": "g", "removal": "confirmed"} | more)


def state_of(*facts: Fact, policy: Policy = POLICY, known: dict[Identity, bool] | None = None) -> WatchState:
    state = WatchState(policy, known)
    for one in facts:
        state.add(one)
    return state


def said(state: WatchState, now: int, *, past: bool = False) -> list[tuple[str, str]]:
    changes = [(change.what, change.finding.rule) for change in state.judge(now, past=past)]
    assert state.faults == []
    return changes


def forgotten(state: WatchState, before: int = LONG, index: int = 1000) -> list[About]:
    return [about for about in state.forget(before, index) if about is not None]


@pytest.mark.parametrize("kind", ["session.denied", "session.recording_failed"])
def test_a_session_that_never_began_keeps_no_grant(kind: str) -> None:
    state = state_of(given(0, 0, 100), fact(1, 5, kind, grant_id="g", session_id="s"), removed(2, 50))
    said(state, LONG)
    assert forgotten(state) == [("session", "s"), ("grant", "g")]


def test_it_stays_for_as_long_as_the_others() -> None:
    state = state_of(fact(1000, 5, "session.denied", session_id="s"))
    said(state, LONG)
    assert forgotten(state) == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_what_is_told_again_keeps_the_whole_life(order: tuple[int, ...]) -> None:
    again = {"content": (1).to_bytes(8, "big"), "occurred": 0}
    told = [given(0, 0, 100), removed(1, 50), given(1000, 900, 100, **again)]
    state = state_of(*(told[at] for at in order))
    said(state, LONG)
    assert forgotten(state) == []  # else the end would go, and what was told again would be overdue after a restart
    assert forgotten(state, index=1001) == [("grant", "g")]
    ids = {"session_id": "s", "grant_id": "x"}
    told = [
        fact(0, 0, "session.started", **ids), fact(1, 9, "session.ended", **ids),
        fact(1000, 900, "session.started", **ids),
    ]  # fmt: skip
    state = state_of(*(told[at] for at in order))
    said(state, LONG)
    assert forgotten(state) == []
    assert forgotten(state, index=1001) == [("session", "s")]


def test_whatever_order_they_came_in_names_that_count_no_more_keep_nothing() -> None:
    other = fact(0, 0, "request.created", request_id="q2")
    facts = [
        other, given(1, 1, 100, request_id="q1"), given(2, 2, 100, request_id="q2"), removed(3, 50),
        fact(4, 4, "session.started", session_id="s", grant_id="a"),
        fact(5, 5, "session.ended", session_id="s", grant_id="g"),
    ]  # fmt: skip
    state = state_of(*reversed(facts))
    said(state, LONG)
    assert set(forgotten(state)) == {("session", "s"), ("grant", "g"), ("request", "q2")}


def test_a_finding_that_lasts_is_not_resolved_when_its_life_is_forgotten() -> None:
    mine = (Decision("alice", "approved"),)
    state = state_of(given(0, 0, 10**9, decisions=mine, expires=80 * DAY), removed(1, 50))
    assert ("opened", "self_approved") in said(state, LONG)
    state._later.append((50 * DAY, "grant", "g"))  # what fell due before it was removed
    assert forgotten(state) == [("grant", "g")]
    assert said(state, 60 * DAY) == []
    state.add(removed(2000, 61 * 86_400))
    assert said(state, 62 * DAY) == []


def test_a_clock_that_is_behind_resolves_nothing() -> None:
    facts = given(0, 0, 100), removed(1, 500)
    state = state_of(facts[0])
    assert ("opened", "overdue") in said(state, 200 * SECOND)
    known = dict.fromkeys(state._known, True)
    behind = state_of(facts[0], known=known)
    assert said(behind, 50 * SECOND) == []
    behind.add(facts[1])
    assert said(behind, 60 * SECOND) == []
    assert said(behind, 600 * SECOND) == [("resolved", "overdue")]


def test_while_the_past_is_read_enforcers_are_told_nothing() -> None:
    state = state_of(given(0, 0, 100), given(1, 0, 100, grant_id="h", access=ACCESS._replace(resource="other")))
    assert said(state, 200 * SECOND, past=True) == [("opened", "overdue")] * 2
    state.add(removed(2, 300))
    assert said(state, 400 * SECOND) == [("opened", "revoke"), ("resolved", "overdue")]  # of "g" it would be in vain


def test_a_source_of_any_name_is_judged_and_kept() -> None:
    state = state_of(given(0, 0, 100, source=Source("a/b", "c/d")), policy=Policy(source=(SILENT,)))
    assert said(state, 51 * SECOND) == [("opened", "source_silent")]
    again = WatchState(Policy(source=(SILENT,)))
    again.resume(1, [kept(*one) for one in state.sources.items()])
    assert [kept(*one) for one in again.sources.items()] == [kept(*one) for one in state.sources.items()]
    assert said(again, 51 * SECOND) == [("opened", "source_silent")]


SILENT = SourceLimits(silent_after_seconds=50)


def test_each_sign_of_a_source_leaves_nothing_behind() -> None:
    state = WatchState(Policy(source=(SILENT,)))
    for index in range(500):
        state.add(fact(index, index, "grant.other", grant_id="g"))
        assert said(state, (index + 1) * SECOND) == []
    assert len(state._later) < 10
    assert said(state, 600 * SECOND) == [("opened", "source_silent")]


def test_when_to_look_at_what_is_gone_goes_with_it() -> None:
    state = state_of(
        *(given(at, 0, 10**9, grant_id=f"g{at}", access=ACCESS._replace(resource=f"{at}")) for at in range(1500))
    )
    said(state, SECOND)
    for at in range(1500):
        state.add(removed(2000 + at, 50, grant_id=f"g{at}"))
    said(state, LONG)
    assert len(forgotten(state, index=9999)) == 1500
    assert state._later == []


def test_old_silences_and_skews_of_a_source_are_forgotten() -> None:
    state = WatchState(Policy(source=(SILENT,)))
    for index in range(60):
        time = index * 86_400
        state.add(fact(index, time, "grant.other", grant_id="g", occurred=(time + 400) * SECOND))
    said(state, 59 * DAY + SECOND)
    life = state.sources[VAULT]
    forget(life, 50 * DAY)
    assert list(life.heard or ()) == [(day * DAY, day * DAY) for day in range(49, 60)]
    assert sorted(life.ahead) == list(range(49, 60))
    state._touch("source", str(VAULT))
    assert said(state, 59 * DAY + SECOND) == []


def test_a_gap_whose_part_of_the_log_is_lost_stays_open() -> None:
    known: dict[Identity, bool] = {("sequence_gap", "vault/prod#5", 0): True}
    state = state_of(fact(0, 0, "grant.other", grant_id="g", seq=9), known=known)
    assert said(state, DAY) == []
    state.add(fact(1, 2 * 86_400, "grant.other", grant_id="g", seq=5))
    assert said(state, 3 * DAY) == [("resolved", "sequence_gap"), ("opened", "sequence_gap")]  # 5; 6 to 8


def test_access_without_an_end_that_comes_back_is_found_again() -> None:
    state = state_of(given(0, 0), removed(1, 50))
    assert said(state, LONG) == [("opened", "no_deadline"), ("resolved", "no_deadline")]
    forgotten(state)
    state.add(given(2000, 41 * 86_400))
    assert said(state, 42 * DAY) == [("opened", "no_deadline")]


def test_what_is_in_conflict_is_forgotten_too() -> None:
    told = {"event_id": "e"}
    state = state_of(given(0, 0, 100, **told), given(1, 1, 100, **told), removed(2, 50))
    assert ("opened", "event_conflict") in said(state, LONG)
    forgotten(state)
    assert not state._conflicts and not state._contents
    assert said(state, LONG + 1) == []


async def at_once(call: Callable[[], Answer]) -> Answer:
    return call()


def test_what_is_not_judged_yet_is_not_over_however_far_the_brokers_clock_jumps() -> None:
    async def go() -> None:
        keeper, state = Keeper(Shelf(), at_once, every=1, days=30), WatchState(POLICY)
        await keeper.recall()
        asked = fact(0, 0, "request.approved", request_id="q", decisions=(Decision("bob", "approved"),))
        for one, seconds in ((asked, 0), (fact(1, 90 * 86_400, "grant.other", grant_id="g"), 90 * 86_400)):
            state.add(one)
            row = dict.fromkeys(nothing().schema.names)
            row |= {"index": one.index, "append": seconds * SECOND, "content": b"12345678"}
            keeper.take(pa.RecordBatch.from_pylist([row], nothing().schema), 0)
            await keeper.write(Place(one.index + 1, 0, 0), state)
        state.judge(DAY)
        await keeper.forget(state)
        assert "q" in state.requests
        keeper._forgot = -1
        state.judge(91 * DAY)
        await keeper.forget(state)
        assert "q" not in state.requests

    asyncio.run(go())


def test_segments_of_few_large_facts_are_not_joined_for_ever() -> None:
    assert Segment("a", 0, SEGMENT_ROWS // 3, SEGMENT_BYTES // 8).is_small
    assert not Segment("a", 0, SEGMENT_ROWS // 3, SEGMENT_BYTES // 2).is_small
    assert not Segment("a", 0, SEGMENT_ROWS // 2, 100).is_small
