"""The views that people ask: planted cases for every rule, a second opinion on random ones, and that neither parts of
the table nor records read twice change an answer."""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from grantledger.cli.grant_history import read_history
from grantledger.schemas.event import ACTIVITY_TOPIC, Actor, Approval, Finding, IssuingSource, Report, Resource
from grantledger.schemas.finding_rules import FINDING_RULES
from grantledger.sinks.migrate import available
from support.access_store import DEPLOYMENT, Story, fill, opened_elsewhere, stored
from support.command import invoke
from support.tamper import TamperedStore

VIEWS = (
    "grant_states", "grants", "overdue_grants", "past_deadline_grants", "access_review", "removal_latency",
    "findings",
)  # fmt: skip
REDACTION = Path(__file__).resolve().parents[2] / "docs" / "redaction.md"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "queries.md"
LIFECYCLE = f"{DEPLOYMENT}/access.lifecycle/0/0"


def planted() -> Story:
    """One grant for each rule; the names are looked up below."""
    story = Story()
    give, remove = story.give, story.remove
    give("on-time", -120, -60)
    remove("on-time", -70)
    give("late", -120, -60)
    remove("late", -50, seen=-65)  # the source says earlier than the broker took it
    remove("late", -40)  # the first one counts
    give("silent", -120, -60)
    give("accepted", -120, -60)
    remove("accepted", -61, "api_accepted")
    give("accepted-then-gone", -120, -60)
    remove("accepted-then-gone", -61, "api_accepted")
    remove("accepted-then-gone", -55)
    give("time-passed", -120, -60)
    remove("time-passed", -60, "deadline")
    give("open", -120, 60)
    give("covered", -120, -60, subject="zoe")
    give("covering", -120, 60, subject="zoe")
    give("both-passed-1", -120, -60, subject="yuri")
    give("both-passed-2", -120, -30, subject="yuri")
    give("cover-gone", -120, -60, subject="xena")
    give("gone", -120, 60, subject="xena")
    remove("gone", -90)
    give("cover-to-come", -120, -60, subject="will")
    give("to-come", -120, 90, subject="will", starts_at=story.at(30))
    give("other-role", -120, -60, subject="vera")
    give("role", -120, 60, subject="vera", entitlement="ro")
    give("other-tenant", -120, -60, subject="uma")
    give("tenant", -120, 60, subject="uma", tenant="blue")
    give("cover-without-end", -120, -60, subject="tom")
    give("without-end", -120, None, subject="tom")
    give("extended", -120, -60)
    give("extended", -70, 60, again=True)
    give("backwards", -120, 60)
    give("backwards", -70, -30, again=True)
    give("no-longer-ending", -120, -60)
    give("no-longer-ending", -70, None, again=True)
    give("fast-clock", -10, 2, seen=-5)  # 5 minutes ahead: its deadline is 3 minutes ago
    give("slow-clock", -10, 60, seen=-60)
    give("sender-timed", 10, 5, seen=10, by_broker=False)  # sealed long before that time
    give("reactivated", -120, -60)
    remove("reactivated", -70)
    give("reactivated", -65, -20)
    give("extended-after-removal", -120, -60)
    remove("extended-after-removal", -70)
    give("extended-after-removal", -65, 20, again=True)
    first = give("read-twice", -120, -60)
    remove("read-twice", -70)
    story.add(first, -65)
    give("wrong-log", -120, -60)
    remove("wrong-log", -70, topic=ACTIVITY_TOPIC)
    remove("never-given", -70)
    give("without-end-gone", -120, None)
    remove("without-end-gone", -20)
    unread = story.event("source.report", -5, "unread", report=Report("failed", 1, "time: missing"), raw=b'{"new": 1}')
    story.add(unread, -5)
    reviewed(story)
    found(story)
    for second in range(1, 101):
        give(f"slow-{second}", -120, -60, system="slow")
        remove(f"slow-{second}", -60 + second / 60, system="slow")
    give("slow-accepted", -120, -60, system="slow")
    remove("slow-accepted", -59, "api_accepted", system="slow")
    give("slow-without-end", -120, None, system="slow")
    remove("slow-without-end", -59, system="slow")
    return story


def reviewed(story: Story) -> None:
    """A grant with a request, approvals told in three ways, and sessions linked in three ways."""
    alice = {"subject": "alice", "actor": Actor("alice", "human")}
    ask = {"request_id": "r-1", **alice}
    story.add(story.event("request.created", -130, "r-1", reason="INC-1", **ask), -130)
    bob = story.event("request.approved", -129, "r-1", request_id="r-1", subject="unknown", actor=Actor("bob", "human"))
    story.add(bob, -128)
    approvals = (
        Approval("carol", "approved", at=story.at(-127), forced=True),
        Approval("carol", "pending"),
        Approval("dave", "pending"),
    )
    story.add(story.event("request.approved", -127, "r-2", request_id="r-1", approvals=approvals), -127)
    told = (Approval("bob", "approved"), *approvals[:1])
    story.give("reviewed", -120, -60, request_id="r-1", approvals=told, ticket="T-1", **alice)
    story.add(story.event("session.started", -119, "s-1", session_id="s-1", grant_id="reviewed", **alice), -119)
    story.add(story.event("session.started", -119, "s-2", session_id="s-2", **ask), -119)
    story.add(story.event("session.started", -119, "s-3", session_id="s-3", **alice), -119)
    for number in range(3):
        story.act("s-1", -118 + number, f"command {number}")
    twice = story.act("s-2", -110, "rm -rf /")
    story.add(twice, -109)
    story.act("elsewhere", -110, "ls", grant_id="reviewed")
    story.act("s-3", -110, "of nobody's grant")
    story.remove("reviewed", -65, **alice)


def found(story: Story) -> None:
    """Findings: open, resolved, reopened, resolved only, recorded twice, and one that an access system made up."""
    story.find("overdue", "silent", -59, deadline=-60, severity="critical", evidence='{"n": 1}', grant_id="silent")
    story.find("overdue", "late", -59, deadline=-60)
    story.find("overdue", "late", -50, deadline=-60, resolved=True, evidence='{"late_seconds": 600}')
    story.find("overdue", "late", -20, deadline=-30, severity="info")  # another deadline, another finding
    opened = story.find("source_silent", "bot", -59)
    resolved = story.find("source_silent", "bot", -50, resolved=True)
    story.find("source_silent", "bot", -40, severity="critical")
    story.add(opened, -39)
    story.add(resolved, -38)
    story.find("only", "resolved", -10, resolved=True)
    story.find("overdue", "silent", -58, deadline=-60, resolved=True, topic=ACTIVITY_TOPIC)
    story.find("overdue", "time-passed", -59, deadline=-60, topic=ACTIVITY_TOPIC)
    story.find("no_approval", "other-role", -59, deadline=-60)
    story.find("overdue", "accepted", -59, deadline=-60)
    story.find("overdue", "accepted", -58, deadline=-60, resolved=True)
    story.find("overdue", "reactivated", -69, deadline=-70)
    story.find("overdue", "reactivated", -65, deadline=-70, resolved=True)  # as it was given again
    story.find("overdue", "no-longer-ending", -14, deadline=-15)  # an end that only the policy knows
    story.find("overdue", "both-passed-2", -29, deadline=-30)
    place: dict[str, Any] = {
        "grant_source": IssuingSource("teleport", "root"), "resource": Resource("database", "ledger", "production"),
        "entitlement": "admin",
    }  # fmt: skip
    story.find("overdue", "nowhere", -59, deadline=-60, grant_id="nowhere", subject="ghost", tenant="blue", **place)
    story.find("self_approved", "closed", -50, grant_id="closed", session_id="s-1", subject="mallory", **place)
    story.decide(
        "finding.acknowledged",
        "self_approved",
        "closed",
        -49,
        "carol",
        "looking into it",
        grant_source=place["grant_source"],
    )
    story.decide(
        "finding.closed",
        "self_approved",
        "closed",
        -48,
        "dave",
        "reviewed by the team lead",
        grant_source=place["grant_source"],
    )
    story.decide("finding.closed", "self_approved", "closed", -47, "eve", "the same id in another source")
    story.find("clock_skew", "same", -50, tenant="blue")
    story.find("clock_skew", "same", -50, tenant="red")
    story.find("clock_skew", "same", -49, tenant="red", resolved=True)
    story.find("watch_fault", "again", -50)
    story.decide("finding.acknowledged", "watch_fault", "again", -49, "carol", "known")
    story.decide("finding.closed", "watch_fault", "again", -48, "carol", "repaired")
    story.find("watch_fault", "again", -47)
    story.find("event_conflict", "seen", -50)
    story.decide("finding.acknowledged", "event_conflict", "seen", -49, "carol", "asked the vendor")
    story.decide("finding.closed", "event_conflict", "never-opened", -48, "carol", "by mistake")


Answers = dict[str, list[dict[str, Any]]]


def rows_of_views(store_folder: Path) -> Answers:
    """Return the rows of every view, sorted by their content."""
    with TamperedStore(store_folder, DEPLOYMENT, b"", None) as store:
        found = {view: store.rows(f"SELECT * FROM {view}") for view in VIEWS}
    return {view: sorted(rows, key=lambda row: str(sorted(row.items(), key=str))) for view, rows in found.items()}


@pytest.fixture(scope="module")
def story() -> Story:
    return planted()


@pytest.fixture(scope="module")
def data_dir(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the story in its store."""
    folder = tmp_path_factory.mktemp("views")
    fill(folder, story.records)
    return folder


@pytest.fixture(scope="module")
def views(data_dir: Path) -> Answers:
    return rows_of_views(data_dir / "clickhouse")


def by_grant(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {row["grant_id"]: row for row in rows}
    assert len(found) == len(rows), "a grant has more than one row"
    return found


def time_of(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_overdue_grants_are_those_with_an_open_finding(story: Story, views: Answers) -> None:
    overdue = by_grant(views["overdue_grants"])
    told = {
        name: (time_of(row["deadline"]), time_of(row["found_at"]), row["removal_evidence"], row["subject_id"])
        for name, row in overdue.items()
    }
    expected = {
        "silent": (-60, -59, "none", "user-silent"),
        "late": (-30, -20, "confirmed", "user-late"),
        "no-longer-ending": (-15, -14, "none", "user-no-longer-ending"),
        "both-passed-2": (-30, -29, "none", "yuri"),
        "nowhere": (-60, -59, "none", "ghost"),
    }
    assert told == {name: (story.at(due), story.at(found), *rest) for name, (due, found, *rest) in expected.items()}
    unknown = overdue["nowhere"]
    assert (unknown["tenant"], unknown["resource_id"], unknown["origin"]) == ("blue", "ledger", "")
    assert (unknown["entitlement"], unknown["source_system"], unknown["source_instance"]) == (
        "admin",
        "teleport",
        "root",
    )
    for row in overdue.values():
        since = (story.now - (time_of(row["deadline"]) or story.now)).total_seconds()
        assert since <= row["late_seconds"] <= since + 120


def test_past_deadline_grants_do_not_depend_on_the_policy(story: Story, views: Answers) -> None:
    past = by_grant(views["past_deadline_grants"])
    expected = {
        "silent": (-60, "none", "open"),
        "accepted": (-60, "api_accepted", "resolved"),
        "time-passed": (-60, "deadline", "none"),
        "both-passed-1": (-60, "none", "none"),
        "both-passed-2": (-30, "none", "open"),
        "cover-gone": (-60, "none", "none"),
        "cover-to-come": (-60, "none", "none"),
        "other-role": (-60, "none", "none"),
        "other-tenant": (-60, "none", "none"),
        "backwards": (-30, "none", "none"),
        "fast-clock": (-3, "none", "none"),
        "reactivated": (-20, "none", "none"),
        "wrong-log": (-60, "none", "none"),
        "slow-accepted": (-60, "api_accepted", "none"),
    }
    told = {
        name: (time_of(row["deadline"]), row["removal_evidence"], row["finding"])
        for name, row in past.items()
        if name != "sender-timed"
    }
    assert told == {name: (story.at(minutes), *rest) for name, (minutes, *rest) in expected.items()}
    timed = time_of(past["sender-timed"]["deadline"])
    assert timed is not None and timed < story.at(-1), "a time that the sender set has moved a deadline"
    for row in past.values():
        since = (story.now - (time_of(row["deadline"]) or story.now)).total_seconds()
        assert since <= row["past_seconds"] <= since + 120


def test_every_grant_is_judged_once(story: Story, views: Answers) -> None:
    judged, states = by_grant(views["grants"]), by_grant(views["grant_states"])
    assert set(judged) == {*states, "nowhere"}
    for name, row in states.items():
        from_request = {column for column in ("reason", "ticket", "customer") if not row[column]}
        same = row.keys() - from_request - {"decisions", "ended"}  # `approvals` has them; a finding may be resolved
        assert {column: judged[name][column] for column in same} == {column: row[column] for column in same}
    overdue = set(by_grant(views["overdue_grants"]))
    past = set(by_grant(views["past_deadline_grants"])) - {"accepted"}  # its finding is resolved
    named = {
        "on-time": "removed",
        "without-end-gone": "removed",
        "open": "active",
        "extended": "active",
        "covered": "covered",
        "cover-without-end": "covered",
        "without-end": "no deadline",
        "accepted": "ended",
        **dict.fromkeys(past, "past its end"),
        **dict.fromkeys(overdue, "overdue"),
    }
    assert {name: judged[name]["state"] for name in named} == named
    for name, row in judged.items():
        assert (row["state"] == "overdue") == (name in overdue), name
        if name not in overdue:
            assert (row["state"] == "past its end") == (name in past), name
    unknown = judged["nowhere"]
    times = [name for name in unknown if name.endswith(("_at", "deadline")) and not name.startswith("found")]
    assert [unknown[name] for name in times] == [None] * len(times), "a time that nobody said"


def test_removed_grants_and_their_lateness(story: Story, views: Answers) -> None:
    states = by_grant(views["grant_states"])
    assert "never-given" not in states
    gone = {
        "on-time": (-70, 0.0),
        "late": (-65, 600.0),
        "accepted-then-gone": (-55, 300.0),
        "gone": (-90, 0.0),
        "read-twice": (-70, 0.0),
        "without-end-gone": (-20, None),
        "reviewed": (-65, 0.0),
    }
    told = {
        name: (time_of(row["removed_at"]), row["late_seconds"])
        for name, row in states.items()
        if row["removal_evidence"] == "confirmed" and not name.startswith("slow-")
    }
    assert told == {name: (story.at(minutes), late) for name, (minutes, late) in gone.items()}
    assert time_of(states["late"]["removal_recorded_at"]) == story.at(-50)
    for name, row in states.items():
        if name not in gone and not name.startswith("slow-"):
            assert (row["removed_at"], row["removal_recorded_at"], row["late_seconds"]) == (None, None, None), name
    assert states["reactivated"]["removal_evidence"] == "none", "a removal before the activation counts"
    assert time_of(states["reactivated"]["activated_at"]) == story.at(-120)
    assert time_of(states["extended"]["deadline"]) == story.at(60)
    assert time_of(states["slow-clock"]["deadline"]) == story.at(60)
    assert states["no-longer-ending"]["deadline"] is None


def test_the_review_has_request_approvals_and_activity(story: Story, views: Answers) -> None:
    review = by_grant(views["access_review"])
    assert set(review) == set(by_grant(views["grant_states"]))
    row = review["reviewed"]
    assert (row["subject_id"], row["request_id"], row["requested_by"], row["ticket"]) == (
        "alice",
        "r-1",
        "alice",
        "T-1",
    )
    assert time_of(row["requested_at"]) == story.at(-130)
    bob, carol = (f"{story.at(minutes):%Y-%m-%d %H:%M:%S} UTC" for minutes in (-129, -127))
    assert row["approvals"] == f"bob approved {bob}; carol approved (forced) {carol}; dave pending"
    assert (row["sessions"], row["commands"]) == (3, 5)
    assert (row["removal_evidence"], row["late_seconds"]) == ("confirmed", 0.0)
    entries = [record for record in story.records if record.topic == "access.lifecycle"]
    assert row["origin"] == LIFECYCLE and b"reviewed" in (entries[row["index"]].key or b"")
    bare = review["silent"]
    assert (bare["requested_at"], bare["requested_by"], bare["approvals"]) == (None, "", "")
    assert (bare["sessions"], bare["commands"]) == (0, 0)


def test_latencies_are_exact(views: Answers) -> None:
    [row] = [row for row in views["removal_latency"] if row["source_system"] == "slow"]
    counts = (row["confirmed"], row["late"], row["accepted_only"], row["confirmed_without_deadline"])
    assert counts == (100, 100, 1, 1)
    assert row["p50_seconds"] == pytest.approx(50.5, abs=1e-3)
    assert row["p95_seconds"] == pytest.approx(95.05, abs=1e-3)
    assert row["p99_seconds"] == pytest.approx(99.01, abs=1e-3)
    [bot] = [row for row in views["removal_latency"] if row["source_system"] == "bot"]
    assert (bot["confirmed"], bot["late"], bot["accepted_only"]) == (6, 2, 1)
    assert bot["p50_seconds"] == -300 - 300 / 2  # -1800 … -9000: what was taken away early counts as early


def test_findings_are_one_row_each(story: Story, views: Answers) -> None:
    found = {(row["rule"], row["key"], time_of(row["deadline"])): row for row in views["findings"]}
    assert len(views["findings"]) == 18
    tenants = {row["tenant"]: row["open"] for row in views["findings"] if row["key"] == "same"}
    assert tenants == {"blue": True, "red": False}
    silent = found["overdue", "silent", story.at(-60)]
    assert (silent["open"], silent["severity"], silent["evidence"]) == (True, "critical", '{"n": 1}')
    assert (silent["resolved_at"], silent["grant_id"]) == (None, "silent"), "an access system resolved a finding"
    late = found["overdue", "late", story.at(-60)]
    assert (late["open"], time_of(late["opened_at"]), time_of(late["resolved_at"])) == (
        False,
        story.at(-59),
        story.at(-50),
    )
    assert (late["evidence"], late["severity"]) == ('{"late_seconds": 600}', "warning")
    assert found["overdue", "late", story.at(-30)]["open"]
    again = found["source_silent", "bot", None]
    assert (again["open"], again["times_opened"], again["severity"]) == (True, 2, "critical")
    assert (time_of(again["opened_at"]), again["resolved_at"]) == (story.at(-59), None)
    only = found["only", "resolved", None]
    assert (only["open"], only["opened_at"], time_of(only["resolved_at"])) == (False, None, story.at(-10))
    assert (only["summary"], silent["summary"]) == ("only", FINDING_RULES["overdue"].summary)


def test_people_acknowledge_and_close_findings(story: Story, views: Answers) -> None:
    found = {(row["rule"], row["key"]): row for row in views["findings"] if row["closed_by"] != "eve"}
    decisions = ("open", "acknowledged_by", "acknowledged_at", "closed_by", "closed_at", "closed_reason", "resolved_at")

    def decided(rule: str, key: str) -> tuple[Any, ...]:
        row = found[rule, key]
        return tuple(time_of(row[name]) if name.endswith("_at") else row[name] for name in decisions)

    reason = "reviewed by the team lead"
    assert decided("self_approved", "closed") == (
        False, "carol", story.at(-49), "dave", story.at(-48), reason, None
    )  # fmt: skip
    again = found["watch_fault", "again"]
    assert decided("watch_fault", "again") == (True, "", None, "", None, "", None), "a decision outlived a new opening"
    assert again["times_opened"] == 2
    assert decided("event_conflict", "seen") == (True, "carol", story.at(-49), "", None, "", None)
    assert decided("event_conflict", "never-opened")[0] is False


def test_the_object_of_a_finding_is_in_columns(views: Answers) -> None:
    [row] = [row for row in views["findings"] if row["key"] == "closed" and row["grant_source_system"]]
    named = ("grant", "resource_", "subject", "session", "entitlement")
    assert {name: row[name] for name in row if name.startswith(named)} == {
        "grant_source_system": "teleport", "grant_source_instance": "root", "grant_id": "closed", "session_id": "s-1",
        "grant_key": "default/teleport/root/closed", "session_source_system": "", "session_source_instance": "",
        "subject_id": "mallory", "resource_kind": "database", "resource_id": "ledger",
        "resource_environment": "production", "entitlement": "admin",
    }  # fmt: skip
    assert row["severity"] == "warning", "the person who closed it changed its severity"


def test_a_session_setting_for_joins_changes_no_answer(views: Answers, data_dir: Path) -> None:
    with TamperedStore(data_dir / "clickhouse", DEPLOYMENT, b"", None) as store:
        for view in ("grants", "overdue_grants", "past_deadline_grants", "access_review"):
            rows = store.rows(f"SELECT * FROM {view} SETTINGS join_use_nulls = 1")
            assert set(by_grant(rows)) == set(by_grant(views[view]))


@pytest.mark.parametrize("how", ["small parts", pytest.param("one part", marks=pytest.mark.slow), "read twice"])
def test_neither_parts_nor_records_read_twice_change_an_answer(
    how: str, story: Story, views: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "read twice":
        later = max(record.time_ms for record in story.records if record.by_broker) + 1000
        told = Story(
            story.now, [*story.records, *(replace(one, time_ms=later) for one in story.records if one.by_broker)]
        )
        folder = fill(tmp_path, told.records, cuts=(97,))
    else:
        cuts = (1, 17, 3) if how == "small parts" else (40,)
        if how == "small parts":
            monkeypatch.setattr("grantledger.sinks.states.MAX_ENTRIES", 150)
        folder = fill(tmp_path, story.records, cuts=cuts, merge=how == "one part")
    found = rows_of_views(folder)

    def settled(rows: list[dict[str, Any]], view: str) -> list[dict[str, Any]]:
        moving = {"overdue_grants": "late_seconds", "past_deadline_grants": "past_seconds"}.get(view)
        kept = [row for row in rows if row.get("grant_id") != "sender-timed"]  # its time is that of the batch
        return [{name: value for name, value in row.items() if name != moving} for row in kept]

    for view in VIEWS:
        assert settled(found[view], view) == settled(views[view], view), view


@dataclass
class Taken:
    """An event in its place: the broker took it ``at``."""

    place: int
    at: datetime
    event: Any

    def tells_of_before(self, removal: Taken) -> bool:
        """Whether it stands after a removal and happened before it, by the clock of the one source of both."""
        return removal.place < self.place and self.event.occurred_at < min(removal.event.occurred_at, removal.at)


class Opinion:
    """What the views should say of random grants of one source, worked out in plain Python."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.given: dict[str, list[Taken]] = {}
        self.removals: defaultdict[str, list[Taken]] = defaultdict(list)

    def take(self, event: Any, at: datetime) -> None:
        if event.event_id in self.seen:
            return
        self.seen.add(event.event_id)
        gives = event.event_type in ("grant.activated", "grant.extended")
        if event.outcome in ("failure", "denied"):
            if gives:
                return
            event = replace(event, removal_evidence="none")
        elif event.outcome != "success" and event.removal_evidence == "confirmed":
            event = replace(event, removal_evidence="api_accepted")
        kept = self.given.setdefault(event.grant_id, []) if gives else self.removals[event.grant_id]
        kept.append(Taken(len(self.seen), at, event))

    def latest(self, grant: str) -> Taken:
        """Return what gave the access last. What came before its confirmed removal gives nothing."""
        gone = [one for one in self.removals[grant] if one.event.removal_evidence == "confirmed"]
        live = [one for one in self.given[grant] if not any(map(one.tells_of_before, gone))]
        return (live or self.given[grant])[-1]

    def deadline(self, grant: str) -> datetime | None:
        latest = self.latest(grant)
        skew = max(timedelta(0), latest.event.occurred_at - latest.at)
        return None if latest.event.expires_at is None else latest.event.expires_at - skew

    def after(self, grant: str) -> list[Taken]:
        """Return the removals of what was given last."""
        latest = self.latest(grant)
        return [one for one in self.removals[grant] if one.place > latest.place or latest.tells_of_before(one)]

    def gone(self, grant: str) -> datetime | None:
        return next((one.at for one in self.after(grant) if one.event.removal_evidence == "confirmed"), None)

    def past(self, now: datetime) -> set[str]:
        access = {grant: (one[0].event.subject.id, one[0].event.entitlement) for grant, one in self.given.items()}
        opened = {grant for grant in self.given if self.gone(grant) is None}
        covered = {access[grant] for grant in opened if (self.deadline(grant) or now) >= now}
        return {grant for grant in opened if access[grant] not in covered}


def test_random_grants_are_judged_as_a_second_opinion_does(tmp_path: Path) -> None:
    rng, story, opinion = random.Random(4711), Story(), Opinion()
    sent: list[tuple[Any, float]] = []
    far = [-90, -60, -30, -15, 15, 30, 60, None]
    for step in range(1200):
        taken = -200 + step / 10
        grant = f"g{rng.randrange(150)}"
        outcome = rng.choice([*["success"] * 12, "failure", "denied", "pending", "unknown"])
        who = {"subject": f"user{int(grant[1:]) % 40}", "entitlement": rng.choice(["rw", "ro"]), "outcome": outcome}
        kind = rng.random()
        if kind < 0.15 and sent:
            event = story.add(rng.choice(sent)[0], taken)
        elif kind < 0.55:
            seen = taken + rng.choice([0, 0, 5, -5])
            event = story.give(grant, taken, rng.choice(far), seen=seen, again=rng.random() < 0.4, **who)
        else:
            event = story.remove(grant, taken, rng.choice(["none", "deadline", "api_accepted", "confirmed"]), **who)
        sent.append((event, taken))
        opinion.take(event, story.at(taken))
    found = rows_of_views(fill(tmp_path, story.records, cuts=(3, 50)))
    states = by_grant(found["grant_states"])
    assert set(states) == set(opinion.given)
    strength = ["none", "deadline", "api_accepted", "confirmed"]
    for grant, row in states.items():
        best = max((one.event.removal_evidence for one in opinion.after(grant)), key=strength.index, default="none")
        told = (time_of(row["deadline"]), row["removal_evidence"], time_of(row["removal_recorded_at"]))
        assert told == (opinion.deadline(grant), best, opinion.gone(grant)), grant
    past = opinion.past(story.now)
    assert set(by_grant(found["past_deadline_grants"])) == past
    assert 10 < len(past) < len(states) - 10, "the random cases show nothing"


def test_every_column_of_the_new_views_is_explained() -> None:
    text = "".join(migration.text for migration in available() if migration.version >= 3)
    made = re.findall(r"CREATE (?:OR REPLACE )?VIEW (\w+)\n\((.*?)\n\)\nAS", text, re.DOTALL)
    others = {
        "active_grants", "grant_sessions", "grant_timeline", "finding_rules", "finding_events", "reporters", "people",
        "requests", "environments", "removal_rules", "query_log", "computed_requests", "computed_grants",
            "computed_access", "computed_activity", "sessions_of_grants", "recorded_grants", "unknown_grants",
        "added_sources", "never_heard_sources", "source_health", "unmapped_records",
        "computed_findings",
    }  # fmt: skip
    assert {view for view, _ in made} == {*VIEWS, *others}
    for view, columns in made:
        for line in columns.strip().splitlines():
            assert re.fullmatch(r" *`?\w+`? .* COMMENT '.+',?", line), f"{view}: {line}"


def blocks() -> Iterator[str]:
    """Yield the SQL blocks of the page, without the twenty questions of ``test_questions``."""
    text = PAGE.read_text("utf-8").partition("## Twenty questions")[0]
    yield from re.findall(r"^```sql\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_every_query_of_the_page_returns_rows(data_dir: Path) -> None:
    """Each runs as a user runs it: through the SQL gate of ``grantledger query``."""
    found = list(blocks())
    of_the_page = (
        "active_grants", "grant_sessions", "grant_timeline", "finding_rules", "source_health", "unmapped_records",
    )  # fmt: skip
    for view in (*VIEWS, *of_the_page):
        assert any(re.search(rf"\b(?:FROM|JOIN) {view}\b", sql) for sql in found), f"the page has no query of {view}"
    with opened_elsewhere(data_dir):
        for sql in found:
            done = invoke("query", sql, "--format", "TSV", "--data", str(data_dir))
            assert done.exit_code == 0, f"{sql}\n{done.stderr}"
            assert done.stdout.strip(), f"no rows:\n{sql}"
        [of_redaction] = re.findall(r"^```sql\n(.*?)^```$", REDACTION.read_text("utf-8"), re.DOTALL | re.MULTILINE)
        done = invoke("query", of_redaction, "--format", "TSV", "--data", str(data_dir))
        assert done.exit_code == 0, done.stderr


TELEPORT = IssuingSource("teleport", "root")
PLAIN = {"grant_id": "g-1", "subject": "unknown"}


@pytest.fixture(scope="module")
def shared_ids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which two tenants, and two sources, use one id for a grant, a request and a session."""
    story = Story()
    for tenant in ("acme", "globex"):
        who: dict[str, Any] = {"tenant": tenant, "subject": f"user@{tenant}", "request_id": "r-1"}
        story.add(story.event("request.created", -130, f"r-1-{tenant}", **who), -130)
        approval = Approval(f"boss@{tenant}", "approved")
        story.add(story.event("request.approved", -129, f"a-{tenant}", approvals=(approval,), **who), -129)
        story.give("g-1", -120, -60, **who)
        about = who | {"grant_id": "g-1", "session_id": "s-1"}
        story.add(story.event("session.started", -119, f"s-1-{tenant}", **about), -119)
        for number in range(2 if tenant == "acme" else 3):
            story.act("s-1", -118, f"{tenant} {number}", tenant=tenant)
    story.remove("g-1", -70, tenant="globex", subject="user@globex")
    story.remove("g-1", -69, tenant="acme", subject="user@acme", system="evil")
    story.remove(
        "g-1", -68, tenant="acme", system="evil", subject="user@acme", grant_source=IssuingSource("bot", "eu-1")
    )
    for name in ("two-versions", "old-versions", "undecided"):
        fields = {"grant_id": name, "subject": name, "expiry_source": "native"}
        for ends, taken in ((-60, -100), (60, -99)):
            story.add(story.event("grant.activated", -100, name, expires_at=story.at(ends), **fields), taken)
            accept = len([one for one in story.records if one.topic == "access.lifecycle"]) - 1
        if name != "undecided":
            key = "bot/eu-1#history" if name == "old-versions" else "bot/eu-1"
            decision = Finding("event_conflict", key, "critical", accept_index=accept)
            who = {"finding": decision, "actor": Actor("carol", "human"), "reason": "the vendor confirmed it"}
            story.add(story.event("finding.closed", -50, f"decision-{name}", **who), -50)
    story.find("overdue", "g-1", -59, deadline=-60, tenant="acme", grant_id="g-1")
    for instance in ("a", "b"):
        session = {"session_id": "s-9", "session_source": IssuingSource("bastion", instance)}
        story.find("used_without_grant", "s-9", -50, **session)
    # At its resolution more is known of the session than at its opening.
    late = {"session_id": "s-9", "session_source": IssuingSource("bastion", "b"), **PLAIN, "grant_source": TELEPORT}
    story.find("used_without_grant", "s-9", -40, resolved=True, **late)
    folder = tmp_path_factory.mktemp("shared-ids")
    fill(folder, story.records)
    return folder


@pytest.fixture(scope="module")
def shared_views(shared_ids: Path) -> Answers:
    return rows_of_views(shared_ids / "clickhouse")


def test_one_id_of_two_tenants_is_two_grants_in_every_view(shared_views: Answers) -> None:
    """Cases 01 and 03."""
    found = {view: [row for row in rows if row.get("grant_id") == "g-1"] for view, rows in shared_views.items()}
    for view in ("grant_states", "grants", "access_review"):
        rows = {row["grant_key"]: row for row in found[view]}
        assert set(rows) == {"acme/bot/eu-1/g-1", "globex/bot/eu-1/g-1"}, view
        for tenant in ("acme", "globex"):
            assert rows[f"{tenant}/bot/eu-1/g-1"]["subject_id"] == f"user@{tenant}", view
        evidence = {row["tenant"]: row["removal_evidence"] for row in found[view]}
        assert evidence == {"acme": "none", "globex": "confirmed"}, "another source removed a grant"
    assert {row["tenant"]: row["state"] for row in found["grants"]} == {"acme": "overdue", "globex": "removed"}
    assert [row["grant_key"] for row in found["overdue_grants"]] == ["acme/bot/eu-1/g-1"]
    review = {row["tenant"]: row for row in found["access_review"]}
    for tenant, commands in (("acme", 2), ("globex", 3)):
        row = review[tenant]
        assert (row["requested_by"], row["approvals"]) == ("robot", f"boss@{tenant} approved")
        assert (row["sessions"], row["commands"]) == (1, commands)


def test_the_story_of_a_grant_has_nothing_of_another_one_with_its_id(shared_ids: Path) -> None:
    with TamperedStore(shared_ids / "clickhouse", DEPLOYMENT, b"", None) as store:
        rows = store.rows("SELECT * FROM grant_timeline WHERE grant_id = 'g-1'")
        active = store.rows("SELECT tenant, state FROM active_grants WHERE grant_id = 'g-1'")
    of_acme = [row for row in rows if row["grant_key"] == "acme/bot/eu-1/g-1"]
    assert sorted(row["what"] for row in of_acme if row["event_type"] == "session.command") == ["acme 0", "acme 1"]
    kinds = {"request.created", "request.approved", "grant.activated", "session.started", "finding.opened"}
    assert {row["event_type"] for row in of_acme} == {*kinds, "session.command", "grant.revoked"}
    assert active == [{"tenant": "acme", "state": "overdue"}], "active_grants contradicts `grantledger grants`"


def test_sessions_that_a_grant_or_its_request_names_belong_to_the_grant(tmp_path: Path) -> None:
    """A grant of hoop names the session, which names nothing. In Teleport only its start names the request.

    Each event is in the timeline once, even if it names both.
    """
    story = Story()
    names = {"request_id": "r-1", "session_id": "s-1"}
    story.add(story.event("request.created", -20, "r-1", **names), -20)
    story.give("g-1", -19, 10, **names)
    story.give("g-2", -19, 10, request_id="r-2")
    story.give("unused", -19, 10, session_id="never begun")
    for session, named in (("s-1", {}), ("s-2", {"request_id": "r-2"})):
        environment = Resource("database", "orders", "staging")
        started = story.event("session.started", -18, session, session_id=session, resource=environment, **named)
        story.add(started, -18)
        story.act(session, -17, "whoami")
    expected = {
        "g-1": ["request.created", "grant.activated", "session.started", "session.command"],
        "g-2": ["grant.activated", "session.started", "session.command"],
        "unused": ["grant.activated"],
    }
    with stored(tmp_path, story.records) as ask:
        for grant, events in expected.items():
            rows = ask(
                "SELECT event_type, origin FROM grant_timeline WHERE grant_id = {id:String} ORDER BY append_time",
                id=grant,
            )
            assert [row["event_type"] for row in rows] == events
            history = read_history(ask, f"default/bot/eu-1/{grant}")
            assert [session.first for session in history.sessions.values()] == [["whoami"]] * events.count(
                "session.started"
            )
        review = {row["grant_id"]: (row["sessions"], row["commands"]) for row in ask("SELECT * FROM access_review")}
    assert review == {"g-1": (1, 1), "g-2": (1, 1), "unused": (0, 0)}


def test_findings_of_sessions_with_one_id_are_apart_and_end_apart(shared_views: Answers) -> None:
    found = shared_views["findings"]
    assert {row["issuer_instance"]: row["open"] for row in found if row["key"] == "s-9"} == {"a": True, "b": False}


def test_the_version_of_an_event_that_a_person_accepted_counts(shared_views: Answers) -> None:
    """Until a person decides, the earliest end counts."""
    states = {row["grant_id"]: row["state"] for row in shared_views["grants"]}
    decided = {states["two-versions"], states["old-versions"]}
    assert (decided, states["undecided"]) == ({"active"}, "past its end")


def test_shared_ids_are_listed_and_chosen_by_source_or_tenant(shared_ids: Path) -> None:
    def run(*arguments: str) -> Any:
        return invoke(*arguments, "--data", str(shared_ids))

    with opened_elsewhere(shared_ids):
        both = run("grants", "show", "g-1")
        assert both.exit_code == 1 and "2 grants have the id 'g-1'; give --source or --tenant:" in both.stderr
        assert "--source bot/eu-1 --tenant acme" in both.stderr and "evil" not in both.stderr, (
            "a false claim is a candidate"
        )
        one = run("grants", "show", "g-1", "--tenant", "globex", "-o", "json")
        assert json.loads(one.stdout)["grant_key"] == "globex/bot/eu-1/g-1"
        assert {event["subject_id"] for event in json.loads(one.stdout)["events"]} == {"user@globex"}
        none = run("grants", "show", "g-1", "--source", "bot/eu-2")
        assert none.exit_code == 1 and "no grant id begins" in none.stderr
        assert "bot/eu-1, tenant acme" in run("grants", "list", "--all").stdout
        shown = json.loads(run("grants", "list", "--all", "--tenant", "acme", "-o", "json").stdout)
        assert [row["grant_key"] for row in shown] == ["acme/bot/eu-1/g-1"]
        findings = json.loads(run("findings", "list", "--all", "--source", "bastion/a", "-o", "json").stdout)
        assert [row["issuer_instance"] for row in findings] == ["a"]
        every = json.loads(run("findings", "list", "--all", "-o", "json").stdout)
        assert len({row["id"] for row in every}) == len(every) == 5
        events = {row["id"]: json.loads(run("findings", "show", row["id"], "-o", "json").stdout) for row in every}
        assert sorted(len(one["events"]) for one in events.values()) == [1, 1, 1, 1, 2]
