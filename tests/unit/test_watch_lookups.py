"""Enforcers are asked whether the access of an unresolved historical grant exists; access that exists is overdue."""

from __future__ import annotations

import pytest

from grantledger.processors.access import SECOND, Source
from grantledger.processors.watch.core.commands import LOOK
from grantledger.processors.watch.core.facts import Fact
from grantledger.processors.watch.core.judge import Judge, KnownFindings
from grantledger.processors.watch.findings import FindingEvents
from grantledger.processors.watch_policy import AccessLimits, WatchPolicy
from grantledger.schemas.codec import EventEncoder
from support.watching import VAULT, Story, at, looked_up, ordered, said

LATE = 7200
"""When the records of the grants arrive; they ended at 100."""
WAIT = 900
"""How long late records of a removal may follow."""
POLICY = WatchPolicy(default=AccessLimits(grace_seconds=10))
ENFORCER = Source("grantledger-enforcer", "test")


def late(count: int = 1) -> Story:
    story = Story()
    for number in range(count):
        story.granted(LATE, f"g{number}", 100, occurred=at(0))
    return story


def observed(story: Story, when: float, grant: str = "g0", source: Source = ENFORCER, **fields: object) -> Fact:
    return story.say(when, "grant.observed", grant, source=source, grant_source=VAULT, **fields)


def test_an_unresolved_grant_is_looked_up_once() -> None:
    judge = late().watched(LATE, POLICY)
    assert looked_up(judge.judge(at(LATE + WAIT))) == []
    changes = judge.judge(at(LATE + WAIT + 1))
    assert (looked_up(changes), ordered(changes)) == (["g0"], [])
    assert judge.judge(at(100 * LATE)) == []
    [change] = [one for one in changes if one.finding.rule == LOOK]
    records = FindingEvents("test", judge.policy, EventEncoder()).of_change(change, judge.state, {})
    assert [one.topic for one in records] == ["access.commands", "access.findings"]
    event = records[0].event
    assert (event.event_type, event.grant_id, event.subject.id) == ("lookup.requested", "g0", "alice")
    known = KnownFindings()
    known.add(event.event_type, (LOOK, *change.identity[1:]))
    again = late().watched(LATE, POLICY)
    again.restore(known)
    assert looked_up(again.judge(at(100 * LATE))) == []


def test_access_that_exists_is_overdue_at_once() -> None:
    story, seen = late(), LATE + WAIT + 5
    judge = story.watched(LATE, POLICY)
    judge.judge(at(seen))
    judge.add(observed(story, seen))
    changes = judge.judge(at(seen) + 1)
    assert [one[:3] for one in sorted(said(changes))] == [
        ("opened", "overdue", "g0"), ("resolved", "late_records", "vault/prod"),
    ]  # fmt: skip
    assert ("opened", "overdue", "g0", seen) in said(changes)
    assert ordered(changes) == [("g0", seen)]
    judge.add(story.removed(seen + 60, "g0", source=ENFORCER, grant_source=VAULT))
    assert said(judge.judge(at(seen + 61))) == [("resolved", "overdue", "g0", seen + 60)]


def test_access_that_is_gone_is_resolved() -> None:
    story, seen = late(), LATE + WAIT + 5
    judge = story.watched(LATE, POLICY)
    judge.judge(at(seen))
    judge.add(story.removed(seen, "g0", source=ENFORCER, grant_source=VAULT))
    assert said(judge.judge(at(seen + 60)))[0][:3] == ("resolved", "late_records", "vault/prod")
    assert judge.judge(at(100 * LATE)) == []


@pytest.mark.parametrize("source", [VAULT, Source("evil", "prod")])
def test_only_enforcers_and_checkers_report_that_access_exists(source: Source) -> None:
    story = late()
    observed(story, LATE + 1, source=source)
    assert "overdue" not in {rule for _, rule, _, _ in story.findings(100 * LATE, POLICY)}


def test_a_report_about_another_access_changes_nothing() -> None:
    story = late()
    observed(story, LATE + 1, what="host")
    assert "overdue" not in {rule for _, rule, _, _ in story.findings(100 * LATE, POLICY)}


def test_a_report_about_a_grant_of_today_changes_nothing() -> None:
    def changes(*, with_report: bool) -> list[tuple[str, str, str, float]]:
        story = Story()
        story.granted(0, "g0", 100)
        if with_report:
            observed(story, 500)
        return story.findings(LATE, POLICY)

    assert changes(with_report=True) == changes(with_report=False)


def test_a_removal_that_follows_within_the_wait_is_enough() -> None:
    story = late()
    story.removed(LATE + WAIT - 1, "g0", occurred=at(90))
    assert looked_up(story.watched(LATE + WAIT, POLICY).judge(at(100 * LATE))) == []


def test_disputed_grants_and_access_that_ends_by_itself_are_not_looked_up() -> None:
    story = Story()
    for content in (b"a", b"b"):
        story.granted(LATE, "disputed", 100, occurred=at(0), event_id="given", content=content)
    story.granted(LATE, "endless", None, occurred=at(0), what="host")
    assert looked_up(story.watched(LATE, POLICY).judge(at(100 * LATE))) == []


def test_an_import_of_many_grants_is_looked_up_bit_by_bit() -> None:
    count = 600
    judge = late(count).watched(LATE, POLICY)

    def until(seconds: float) -> int:
        return len(looked_up(judge.judge(at(LATE + WAIT + seconds))))

    assert until(0.5) == 1
    counts = [until(60 * minute + 0.5) for minute in range(1, 11)]
    assert set(counts[:9]) <= {59, 60} and sum(counts) == count - 1
    assert until(10_000) == 0


def test_no_lookups_by_the_policy() -> None:
    policy = POLICY.model_copy(update={"lookups_per_minute": 0})
    assert looked_up(late().watched(LATE, policy).judge(at(100 * LATE))) == []


def test_while_the_past_is_read_nothing_is_looked_up() -> None:
    judge = Judge(POLICY)
    for fact in late().facts:
        judge.add(fact)
    assert looked_up(judge.judge(at(100 * LATE), past=True)) == []
    assert looked_up(judge.judge(at(100 * LATE) + SECOND)) == ["g0"]
