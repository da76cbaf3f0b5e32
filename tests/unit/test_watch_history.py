"""Old records never page or revoke, and nobody hides live access by sending it late."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.ledger import batch as batches
from grantledger.ledger.entry import NO_HEADERS, Genesis, encode_headers
from grantledger.processors.access import SECOND, Source
from grantledger.processors.watch.core.commands import LOOK
from grantledger.processors.watch.core.facts import Decision
from grantledger.processors.watch.core.judge import Judge, KnownFindings
from grantledger.processors.watch_policy import BUILT_IN, AccessLimits, Reporter, SourceLimits, WatchPolicy
from grantledger.producers.history import HistoryMark
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import EventEncoder
from support.decoded import facts_of
from support.watch_world import NOON, SIGNER, World, given_until, grant
from support.watching import START, VAULT, Story, at, bare, ordered, said

HOUR = 3600
POLICY = WatchPolicy(default=AccessLimits(grace_seconds=10, approvals=1, approval_wait_seconds=5))
LATE = 2 * HOUR
"""When the late records of a story arrive that begins at 0, with deadlines in its first minutes."""


def judged(story: Story, until: float, policy: WatchPolicy = POLICY) -> list[tuple[str, str]]:
    return [one[:2] for one in story.findings(until, policy)]


def unresolved(judge: Judge) -> set[str]:
    return {bare(key) for key, one in judge.state.grants.items() if one.is_historical(judge.state.limits_of(one))}


@pytest.mark.parametrize("in_time", [False, True])
def test_two_contents_of_an_old_event_are_a_warning_unless_anything_of_the_grant_came_in_time(in_time: bool) -> None:
    story = Story()
    if in_time:
        story.say(50, "grant.extended", "g", ends=100, event_id="in time")
    for content in (b"a", b"b"):
        story.granted(LATE, "g", 100, occurred=at(0), event_id="given", content=content)
    changes = story.watched(2 * LATE, POLICY).judge(at(2 * LATE))
    [conflict] = [one.finding for one in changes if one.finding.rule == "event_conflict"]
    wanted = ("default/vault/prod", None) if in_time else ("default/vault/prod#history", "warning")
    assert (conflict.key, conflict.severity) == wanted
    accepted = KnownFindings()
    accepted.add("finding.closed", ("event_conflict", conflict.key, 0), accept_index=7)
    assert ("vault/prod", 7) in accepted.accepted


def test_an_old_grant_without_a_removal_is_one_late_record_and_nothing_else() -> None:
    story = Story()
    for number in range(3):
        approval = (Decision("alice", "approved"),)
        story.granted(LATE + number, f"g{number}", 100, occurred=at(0), decisions=approval)
    story.removed(LATE + 3, "g0", occurred=at(90))
    story.removed(LATE + 4, "g1", "api_accepted", occurred=at(90))
    story.say(LATE + 5, "session.started", "g2", session_id="s", occurred=at(5))
    judge = story.watched(10 * LATE, POLICY)
    assert judge.judge(at(LATE + 61)) == []
    changes = [one for one in judge.judge(at(10 * LATE)) if one.finding.rule != LOOK]
    assert [(one.kind, one.finding.rule, one.finding.key) for one in changes] == [
        ("opened", "late_records", "default/vault/prod")
    ]
    assert changes[0].finding.severity is None  # that of the table: warning
    assert changes[0].finding.evidence == {
        "grants": 3, "unresolved": 2, "without_any_removal": 1, "sessions_without_grant": 0,
        "latest_seconds": LATE + 2 - 100
    }  # fmt: skip
    judge.add(story.removed(10 * LATE + 1, "g1"))
    assert judge.judge(at(10 * LATE + 2)) == []
    judge.add(story.removed(10 * LATE + 3, "g2"))
    assert said(judge.judge(at(11 * LATE))) == [("resolved", "late_records", "vault/prod", 11 * LATE)]


def test_a_clean_import_says_nothing() -> None:
    story = Story()
    for number in range(3):
        story.granted(LATE, f"g{number}", 100, occurred=at(0))
        story.removed(LATE, f"g{number}", occurred=at(5000))
    story.granted(2 * LATE, "hours later", 100, occurred=at(0))
    story.removed(2 * LATE, "hours later", occurred=at(5000))
    assert story.watched(9 * LATE, POLICY).judge(at(9 * LATE)) == []


def test_a_marked_import_is_a_remark() -> None:
    story = Story()
    story.granted(LATE, "g", 100, occurred=at(0), imported=True)
    story.granted(LATE, "h", 100, occurred=at(0))
    found = [one.finding for one in story.watched(2 * LATE, POLICY).judge(at(2 * LATE)) if one.finding.rule != LOOK]
    assert {(one.key, one.severity) for one in found} == {
        ("default/vault/prod#import", "info"), ("default/vault/prod", None),
    }  # fmt: skip


@pytest.mark.parametrize("received", [100 + HOUR - 1, 100 + HOUR], ids=["in time", "too late"])
def test_the_first_report_of_a_grant_decides(received: int) -> None:
    story = Story()
    story.granted(received, "g", 100, occurred=at(0))
    judge = story.watched(3 * HOUR, POLICY)
    changes = judge.judge(at(3 * HOUR))
    if received < 100 + HOUR:
        assert "overdue" in {one.finding.rule for one in changes}
        assert ordered(changes) == [("g", received + 10)] or ordered(changes) == [("g", received)]
    else:
        assert {one.finding.rule for one in changes} == {"late_records", LOOK}


def test_the_gateway_received_it_in_time() -> None:
    story = Story()
    story.granted(LATE, "g", 100, occurred=at(0), received_at=at(1))
    assert ("opened", "overdue") in judged(story, 2 * LATE)


def test_without_a_deadline_the_time_of_the_grant_decides() -> None:
    story = Story()
    story.granted(LATE, "old", None, occurred=at(0))
    story.granted(LATE, "new", None, occurred=at(LATE - HOUR + 1), what="host")
    found = {(rule, key) for _, rule, key, _ in story.findings(2 * LATE, POLICY)}
    assert ("no_deadline", "new") in found and ("late_records", "vault/prod") in found
    assert not any(key == "old" for _, key in found)
    longest = WatchPolicy(default=AccessLimits(grace_seconds=10, max_seconds=LATE))
    assert unresolved(story.watched(2 * LATE, longest)) == set()  # the policy lets it last until it was sent


def test_a_late_extension_that_was_past_its_end_resolves_nothing() -> None:
    story = Story()
    story.granted(0, "g", 100)
    story.say(5 * HOUR, "grant.extended", "g", ends=4 * HOUR, occurred=at(90))
    found = [one for one in story.findings(9 * HOUR, WatchPolicy()) if one[1] != "no_approval"]
    assert found == [("opened", "overdue", "g", 160)]


def test_an_extension_that_ends_the_access_now_is_not_too_late() -> None:
    story = Story()
    story.granted(0, "g", HOUR)
    story.say(100, "grant.extended", "g", ends=99)
    assert ("opened", "overdue", "g", 160) in story.findings(200, WatchPolicy())


def test_old_records_do_not_disturb_a_grant_that_is_followed() -> None:
    story = Story()
    story.granted(LATE, "g", 9 * HOUR)
    story.granted(LATE + 60, "g", 100, occurred=at(0))  # from an imported old file
    story.removed(LATE + 61, "g", occurred=at(90))
    assert judged(story, 8 * HOUR, WatchPolicy()) == []


def test_an_extension_of_long_ago_shortens_no_access() -> None:
    story = Story()
    story.granted(LATE, "g", 9 * HOUR)
    story.say(LATE + 60, "grant.extended", "g", ends=100, occurred=at(50))
    assert judged(story, 8 * HOUR, WatchPolicy()) == []


def test_an_older_removal_is_no_proof_that_access_ended_that_a_late_extension_gave_since() -> None:
    story = Story()
    story.granted(0, "g", HOUR, signed=True)
    story.say(HOUR + 200, "grant.extended", "g", ends=HOUR + 100, occurred=at(HOUR - 50), signed=True)
    story.removed(HOUR + 300, "g", occurred=at(HOUR - 100), signed=True)
    assert story.findings(9 * HOUR, WatchPolicy()) == [("opened", "overdue", "g", HOUR + 60)]


def test_an_extension_of_the_request_in_time_extends_a_grant_that_was_reported_late() -> None:
    story = Story()
    story.granted(LATE, "g", 100, occurred=at(0), request_id="r")
    story.say(LATE + 10, "grant.extended", ends=LATE + 500, request_id="r")
    assert unresolved(story.watched(LATE + 9)) == {"g"} and unresolved(story.watched(LATE + 10)) == set()
    assert story.findings(9 * HOUR, WatchPolicy()) == [("opened", "overdue", "g", LATE + 560)]
    story.facts.insert(1, story.removed(LATE + 5, "g"))
    story.facts.pop()
    story.facts = [replace(one, index=index) for index, one in enumerate(story.facts)]
    assert story.findings(9 * HOUR, WatchPolicy()) == []  # it does not bring back a grant with a confirmed removal


def test_a_replayed_extension_does_not_make_an_old_grant_live() -> None:
    story = Story()
    story.granted(LATE, "g", 100, occurred=at(50), signed=True)
    story.say(LATE + 10, "grant.extended", "g", ends=9 * HOUR, occurred=at(10), signed=True)
    judge = story.watched(LATE + 10, WatchPolicy())
    assert unresolved(judge) == {"g"}
    assert {one.finding.rule for one in judge.judge(at(10 * HOUR))} == {"late_records", LOOK}


def test_late_grants_cover_no_overdue_access() -> None:
    story = Story()
    story.granted(0, "g", 100)
    for number in range(40):
        story.granted(2 * HOUR + 50 * number, f"late{number}", 100, occurred=at(0))
    policy = WatchPolicy(default=AccessLimits(grace_seconds=3 * HOUR, revoke="overdue"))
    assert ("opened", "overdue", "g", 3 * HOUR + 100) in story.findings(9 * HOUR, policy)


def test_historical_events_do_not_end_a_silence() -> None:
    policy = POLICY.model_copy(update={"source": (SourceLimits(system="vault", silent_after_seconds=60),)})
    story = Story()
    story.granted(0, "g", 9 * HOUR)
    story.granted(LATE, "h", 100, occurred=at(0))
    silent = [one for one in story.findings(LATE + 10, policy) if one[1] == "source_silent"]
    assert silent == [("opened", "source_silent", "vault/prod", 60)]
    story.say(LATE + 20, "request.created", request_id="r")
    assert ("resolved", "source_silent", "vault/prod", LATE + 20) in story.findings(LATE + 30, policy)


def test_an_old_request_that_its_holder_approved_opens_nothing() -> None:
    story = Story()
    story.say(LATE, "request.approved", request_id="r", occurred=at(0), decisions=(Decision("alice", "approved"),))
    assert judged(story, 2 * LATE) == []
    story.say(3 * LATE, "request.approved", request_id="s", decisions=(Decision("alice", "approved"),))
    assert judged(story, 4 * LATE) == [("opened", "self_approved")]


def test_a_session_lies_inside_its_grant_by_the_clocks_of_the_sources() -> None:
    story = Story()
    story.granted(600, "g", 500, occurred=at(0))
    story.say(601, "session.started", "g", session_id="inside", occurred=at(400))
    story.say(602, "session.ended", "g", session_id="inside", occurred=at(450))
    story.say(603, "session.started", "g", session_id="before", occurred=at(-3))
    story.say(604, "session.ended", "g", session_id="before", occurred=at(3))
    story.say(605, "session.started", "g", session_id="skewed", occurred=at(-2))
    story.say(606, "session.ended", "g", session_id="skewed", occurred=at(3))
    story.removed(607, "g", occurred=at(499))
    found = {one for one in story.findings(2000, WatchPolicy()) if one[1] != "no_approval"}
    assert {(rule, key) for _, rule, key, _ in found} == {("used_without_grant", "before")}


def test_sources_with_delays_are_given_time() -> None:
    slow = Source("cloudtrail", "")
    story = Story()
    story.granted(0, "g", 100, source=slow, grant_source=slow)
    story.granted(0, "fast", 100, what="host")
    story.removed(800, "g", source=slow, grant_source=slow, occurred=at(99))
    found = [one for one in story.findings(5000, BUILT_IN) if one[1] == "overdue"]
    assert found == [("opened", "overdue", "fast", 160)]
    reporter = Reporter(system="checker", source="vault", may=frozenset({"remove"}))
    delayed = WatchPolicy(source=(SourceLimits(system="checker", delivery_seconds=300),), reporter=(reporter,))
    found = [one for one in story.findings(5000, delayed) if one[1] == "overdue" and one[2] == "fast"]
    assert found == [("opened", "overdue", "fast", 460)]


@given(st.randoms(use_true_random=False))
def test_a_grant_of_which_anything_was_received_in_time_is_never_historical(draw: random.Random) -> None:
    """However its reports are ordered: the first one received decides, and one more can only make it live."""
    story, deadlines, given = Story(), list[int](), list[int]()
    when = draw.randint(0, 3 * HOUR)
    for number in range(draw.randint(1, 6)):
        when += draw.choice([0, 1, 1800, 4000])
        occurred = when - draw.choice([0, 10, HOUR, LATE, 9 * HOUR])
        kind = draw.choice(["grant.activated", "grant.extended", "grant.revoked"]) if number else "grant.activated"
        if kind == "grant.revoked":
            story.removed(when, "g", draw.choice(["confirmed", "api_accepted"]), occurred=at(occurred))
            continue
        ends = occurred + draw.choice([-HOUR, 0, 100, HOUR, 12 * HOUR])
        deadlines.append(ends)
        given.append(occurred)
        story.say(when, kind, "g", ends=ends, occurred=at(occurred))
    judge = story.watched(when, POLICY)
    (grant,) = judge.state.grants.values()
    first = min(one.append for one in story.facts) // SECOND - START
    historical = first >= max(*deadlines, *given) + HOUR
    assert grant.is_historical(judge.state.limits_of(grant)) == historical
    changes = judge.judge(at(10**6))
    assert not historical or {one.finding.rule for one in changes} <= {"late_records", LOOK}
    assert grant.source == VAULT


def test_the_mark_of_an_import_is_read_from_its_sealed_header() -> None:
    records = batches.Records()
    event = given_until(100)
    for number, headers in enumerate((NO_HEADERS, encode_headers(HistoryMark().headers("access.lifecycle", b"", b"")))):
        records.flags.append(1)
        records.offsets.append(number)
        records.append_times.append(START * 1000)
        records.keys.append(event.key.encode())
        records.values.append(EventEncoder().encode(event))
        records.headers.append(headers)
    head = batches.Head.at_genesis(Genesis("test/access.lifecycle/0/0", bytes(16), 0))
    batch, _ = batches.seal(head, records, 2, datetime(2026, 3, 1, tzinfo=UTC), SIGNER)
    plain, marked = facts_of(batch, SchemaCatalog((event_schema(),)))
    assert (plain.imported, marked.imported) == (False, True)
    assert (plain.content, plain.received) == (marked.content, marked.append)


def test_late_records_are_published_once_and_survive_a_restart() -> None:
    world = World()
    late = [grant("grant.activated", 0, name, expires_at=NOON, expiry_source="native") for name in ("g", "h")]
    world.at(0)
    world.hears_at(LATE, *late)
    world.at(LATE + 1)
    world.at(LATE + 61)
    opened = ("finding.opened", "late_records")
    assert world.paper.findings() == [opened]
    again = World(world.paper)
    again.head, again.records = world.head, world.records
    again.at(LATE + 100)
    limits = again.watch.judge.state.limits_of
    assert [one.is_historical(limits(one)) for one in again.watch.judge.state.grants.values()] == [True, True]
    confirmed = {"removal_evidence": "confirmed"}
    again.hears_at(LATE + 200, *(grant("grant.revoked", LATE + 200, name, **confirmed) for name in ("g", "h")))
    again.at(LATE + 201)
    assert world.paper.findings() == [opened, ("finding.resolved", "late_records")]


def test_late_sessions_that_no_grant_covers_are_counted() -> None:
    story = Story()
    story.say(LATE, "session.started", "unknown", session_id="s", occurred=at(5))
    story.say(LATE, "session.started", "given later", session_id="g", occurred=at(5))
    story.granted(LATE + 30, "given later", 100, occurred=at(0))
    story.removed(LATE + 31, "given later", occurred=at(60))
    found = story.watched(2 * LATE, POLICY).judge(at(2 * LATE))
    assert [(one.finding.rule, one.finding.evidence["sessions_without_grant"]) for one in found] == [
        ("late_records", 1)
    ]
    story.granted(3 * LATE, "unknown", 100, occurred=at(0))
    story.removed(3 * LATE, "unknown", occurred=at(60))
    assert story.watched(4 * LATE, POLICY).judge(at(4 * LATE)) == []
