"""Sources: silence, fast clocks, and what invented sources may cause."""

from __future__ import annotations

import json
from typing import Any

import pytest

from grantledger.processors.access import SECOND, Access, Source
from grantledger.processors.watch.core.judge import Judge
from grantledger.processors.watch.faults import Faults
from grantledger.processors.watch.findings import FindingEvents, WatchFault
from grantledger.processors.watch_policy import AccessLimits, SourceLimits, WatchPolicy
from grantledger.schemas.codec import EventEncoder
from support.watching import Story, at

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


def test_a_fast_clock_is_one_finding_per_hour_with_a_count() -> None:
    story = Story()
    for number, ahead in enumerate((400, 900, 500)):
        when = number * 10
        story.say(when, "request.created", request_id=f"r{number}", occurred=at(when + ahead))
    [opened, resolved] = story.watched(2 * HOUR, PLAIN).judge(at(2 * HOUR))
    assert (opened.finding.rule, opened.finding.deadline) == ("clock_skew", at(0))
    evidence = opened.finding.evidence
    assert (evidence["count"], evidence["ahead_seconds"], resolved.at) == (3, 900, at(HOUR))


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
        assert counts == {**{f"default/invented-{number}/": 1 for number in range(100)}, "*/*/*": 30}, rule
    again = Judge(PLAIN, judge.known)
    again.state.restore_sources(judge.state.size, json.loads(json.dumps(judge.state.sources.to_json())))
    assert again.judge(at(201)) == []
    later = story.removed(201, "g", source=Source("invented-999", ""), grant_source=None)
    again.state.restore(story.facts[0])
    again.state.size = later.index
    again.add(later)
    assert again.judge(at(202)) == [], "it is one of the others"


@pytest.mark.parametrize("signed", [True, False])
def test_no_tenants_finding_tells_of_another_tenant(signed: bool) -> None:
    """And invented tenants cause few findings, also of a source that signs."""
    story = Story()
    for number in range(130):
        about: dict[str, Any] = {
            "access": Access(f"tenant-{number}", "bob", "database", "db", "admin"),
            "signed": signed,
        }
        for event_type in ("request.created", "request.denied"):
            when = 10 + number
            story.say(when, event_type, request_id="r", occurred=at(when + 900), **about)
    judge = story.watched(200, PLAIN)
    found = [one for one in judge.judge(at(200)) if one.finding.rule == "clock_skew"]
    assert {one.finding.key: one.finding.evidence["count"] for one in found} == {
        **{f"tenant-{number}/vault/prod": 2 for number in range(100)}, "*/*/*": 60
    }  # fmt: skip
    events = FindingEvents("test", judge.policy, EventEncoder())
    told = [one.event for change in found for one in events.of_change(change, judge.state, {})]
    assert sorted(one.tenant for one in told) == sorted(["*", *(f"tenant-{number}" for number in range(100))])
    for one in told:
        assert one.finding is not None
        assert one.finding.key == one.subject.id == ("*/*" if one.tenant == "*" else "vault/prod")
        assert "tenant-" not in one.finding.evidence.replace(f"{one.tenant}/", "") or one.tenant == "*"


def test_invented_sources_cause_few_findings_about_faults() -> None:
    faults = Faults()
    faults.restore([("watch_fault", "default/known/", at(0) // (HOUR * SECOND) * HOUR * SECOND)])
    for number in range(130):
        faults.add(WatchFault(f"entry {number}", ValueError(), Source(f"invented-{number}", ""), at(number)))
    faults.add(WatchFault("entry 41", ValueError(), Source("known", ""), at(41)))
    faults.add(WatchFault("a grant", ValueError()))
    found = faults.take()
    assert {key: len(faults) for (_, key, _), faults in found.items()} == {
        **{f"default/invented-{number}/": 1 for number in range(99)}, "*/*/*": 31, "default/a grant": 1
    }  # fmt: skip
