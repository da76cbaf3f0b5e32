"""Forgetting removes a grant completely and changes no past or future finding."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest

from grantledger.processors.access import DAY, SECOND, Access, Source
from grantledger.processors.watch.core.entities import Entity
from grantledger.processors.watch.core.facts import Decision, Fact
from grantledger.processors.watch.core.judge import Identity, Judge
from grantledger.processors.watch_policy import AccessLimits, SourceLimits, WatchPolicy
from support.watching import bare, key

Answer = TypeVar("Answer")
VAULT = Source("vault", "prod")
ACCESS = Access("default", "alice", "database", "db", "rw")
LONG = 40 * DAY
LATER = LONG // SECOND + 900
POLICY = WatchPolicy(default=AccessLimits(grace_seconds=10, revoke="overdue"))


def fact(index: int, seconds: float, event_type: str, **more: Any) -> Fact:
    """Return a fact. Told twice it is the same but for its place."""
    time = int(seconds * SECOND)
    given: dict[str, Any] = {
        "occurred": time, "event_id": f"e{index}", "source": VAULT, "access": ACCESS, "person": ("alice",),
        "content": (index + 1).to_bytes(8, "big"),
    }  # fmt: skip
    return Fact(index=index, entry=index, append=time, event_type=event_type, **given | more)


def given(index: int, seconds: float, ends: float | None = None, **more: Any) -> Fact:
    expires = None if ends is None else int(ends * SECOND)
    return fact(index, seconds, "grant.activated", **{"grant_id": "g", "expires": expires} | more)


def removed(index: int, seconds: float, **more: Any) -> Fact:
    return fact(index, seconds, "grant.revoked", **{"grant_id": "g", "removal": "confirmed"} | more)


def state_of(*facts: Fact, policy: WatchPolicy = POLICY, known: dict[Identity, bool] | None = None) -> Judge:
    judge = Judge(policy, known)
    for one in facts:
        judge.add(one)
    return judge


def said(judge: Judge, now: int, *, past: bool = False) -> list[tuple[str, str]]:
    changes = [(change.kind, change.finding.rule) for change in judge.judge(now, past=past)]
    assert judge.faults == []
    return changes


def forgotten(judge: Judge, before: int = LONG) -> list[Entity]:
    return [(one[0], bare(one[1])) for one in judge.forget(before) if one is not None]


@pytest.mark.parametrize("kind", ["session.denied", "session.recording_failed"])
def test_a_session_that_never_began_keeps_no_grant(kind: str) -> None:
    judge = state_of(given(0, 0, 100), fact(1, 5, kind, grant_id="g", session_id="s"), removed(2, 50))
    said(judge, LONG)
    assert forgotten(judge) == [("session", "s"), ("grant", "g")]


def test_it_stays_for_as_long_as_the_others() -> None:
    judge = state_of(fact(0, LATER, "session.denied", session_id="s"))
    said(judge, 2 * LONG)
    assert forgotten(judge) == []


def test_a_repeated_event_keeps_the_whole_life() -> None:
    again = {"content": (1).to_bytes(8, "big"), "occurred": 0}
    judge = state_of(given(0, 0, 100), removed(1, 50), given(1000, LATER, 100, **again))
    said(judge, 2 * LONG)
    assert forgotten(judge) == []  # else the end would go, and what was told again would be overdue after a restart
    assert forgotten(judge, LONG + DAY) == [("grant", "g")]
    ids = {"session_id": "s", "grant_id": "x"}
    begun, ended = fact(0, 0, "session.started", **ids), fact(1, 9, "session.ended", **ids)
    judge = state_of(begun, ended, fact(1000, LATER, "session.started", **ids))
    said(judge, 2 * LONG)
    assert forgotten(judge) == []
    assert forgotten(judge, LONG + DAY) == [("session", "s")]


def test_names_that_do_not_count_keep_nothing() -> None:
    other = fact(0, 0, "request.created", request_id="q2")
    facts = [
        other, given(1, 1, 100, request_id="q1"), given(2, 2, 100, request_id="q2"), removed(3, 50),
        fact(4, 4, "session.started", session_id="s", grant_id="a"),
        fact(5, 5, "session.ended", session_id="s", grant_id="g"),
    ]  # fmt: skip
    judge = state_of(*facts)
    said(judge, LONG)
    assert set(forgotten(judge)) == {("session", "s"), ("grant", "g"), ("request", "q2")}


def test_a_finding_that_lasts_is_not_resolved_when_its_life_is_forgotten() -> None:
    mine = (Decision("alice", "approved"),)
    judge = state_of(given(0, 0, 10**9, decisions=mine, expires=80 * DAY), removed(1, 50))
    assert ("opened", "self_approved") in said(judge, LONG)
    judge._schedule.append((50 * DAY, "grant", key("g")))  # what fell due before it was removed
    assert forgotten(judge) == [("grant", "g")]
    assert said(judge, 60 * DAY) == []
    judge.add(removed(2000, 61 * 86_400))
    assert said(judge, 62 * DAY) == []


def test_a_clock_that_is_behind_resolves_nothing() -> None:
    facts = given(0, 0, 100), removed(1, 500)
    judge = state_of(facts[0])
    assert ("opened", "overdue") in said(judge, 200 * SECOND)
    known = dict.fromkeys(judge.known, True)
    behind = state_of(facts[0], known=known)
    assert said(behind, 50 * SECOND) == []
    behind.add(facts[1])
    assert said(behind, 60 * SECOND) == []
    assert said(behind, 600 * SECOND) == [("resolved", "overdue")]


def test_no_revoke_command_during_a_replay() -> None:
    judge = state_of(given(0, 0, 100), given(1, 0, 100, grant_id="h", access=ACCESS._replace(resource="other")))
    assert said(judge, 200 * SECOND, past=True) == [("opened", "overdue")] * 2
    judge.add(removed(2, 300))
    assert said(judge, 400 * SECOND) == [("opened", "revoke"), ("resolved", "overdue")]  # of "g" it would be in vain


def test_a_source_of_any_name_is_judged_and_kept() -> None:
    judge = state_of(given(0, 0, 100, source=Source("a/b", "c/d")), policy=WatchPolicy(source=(SILENT,)))
    assert said(judge, 51 * SECOND) == [("opened", "source_silent")]
    again = Judge(WatchPolicy(source=(SILENT,)))
    again.state.restore_sources(1, judge.state.sources.to_json())
    assert again.state.sources.to_json() == judge.state.sources.to_json()
    assert said(again, 51 * SECOND) == [("opened", "source_silent")]


SILENT = SourceLimits(silent_after_seconds=50)


def test_each_sign_of_a_source_leaves_nothing_behind() -> None:
    judge = Judge(WatchPolicy(source=(SILENT,)))
    for index in range(500):
        judge.add(fact(index, index, "grant.other", grant_id="g"))
        assert said(judge, (index + 1) * SECOND) == []
    assert len(judge._schedule) < 10
    assert said(judge, 600 * SECOND) == [("opened", "source_silent")]


def test_forgotten_grants_leave_no_wakeups() -> None:
    judge = state_of(
        *(given(at, 0, 10**9, grant_id=f"g{at}", access=ACCESS._replace(resource=f"{at}")) for at in range(1500))
    )
    said(judge, SECOND)
    for at in range(1500):
        judge.add(removed(2000 + at, 50, grant_id=f"g{at}"))
    said(judge, LONG)
    assert len(forgotten(judge)) == 1500
    assert judge._schedule == []


def test_old_silences_and_skews_of_a_source_are_forgotten() -> None:
    judge = Judge(WatchPolicy(source=(SILENT,)))
    for index in range(60):
        time = index * 86_400
        judge.add(fact(index, time, "grant.other", grant_id="g", occurred=(time + 400) * SECOND))
    said(judge, 59 * DAY + SECOND)
    life = judge.state.sources.of(str(VAULT))
    life.forget(50 * DAY)
    assert list(life.active or ()) == [(day * DAY, day * DAY) for day in range(49, 60)]
    assert sorted(hour // 24 for _, hour, _ in life.violations) == list(range(50, 60))
    judge.state.mark("source", str(VAULT))
    assert said(judge, 59 * DAY + SECOND) == []


def test_access_without_an_end_that_comes_back_is_found_again() -> None:
    judge = state_of(given(0, 0), removed(1, 50))
    assert said(judge, LONG) == [("opened", "no_deadline"), ("resolved", "no_deadline")]
    forgotten(judge)
    judge.add(given(2000, 41 * 86_400))
    assert said(judge, 42 * DAY) == [("opened", "no_deadline")]


def test_conflicts_are_forgotten() -> None:
    told = {"event_id": "e"}
    judge = state_of(given(0, 0, 100, **told), given(1, 1, 100, **told), removed(2, 50))
    assert ("opened", "event_conflict") in said(judge, LONG)
    forgotten(judge)
    assert len(judge.state.events) == 0 and not judge.state.events.conflicts
    assert said(judge, LONG + 1) == []
