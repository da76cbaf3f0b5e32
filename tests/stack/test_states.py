"""The stored states of requests, grants and findings: those that the entries give, and verify names each other row."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from grantledger.schemas.event import Action, EventSource, Finding, IssuingSource
from grantledger.sinks import states
from grantledger.sinks.clickhouse import StoreAddress, connect
from grantledger.sinks.state_statements import LOOKUPS
from grantledger.sinks.states import TABLES, States
from grantledger.verifier.report import VerifyReport
from grantledger.verifier.stored_states import check_states
from support.access_store import DEPLOYMENT, Story, fill
from support.lives import KEYS, POLICIES, SIGNERS, lives, policy_record
from support.plain_views import COMPARED


def report_of(client: Client) -> VerifyReport:
    report = VerifyReport("clickhouse", DEPLOYMENT)
    check_states(client, report, 0.0)
    return report


def refresh(client: Client) -> None:
    refresher = States(client)
    while refresher.refresh():
        pass
    refresher.refresh()  # drops former generations


def add_sessions(story: Story, rng: random.Random) -> None:
    """Add sessions in the middle of the log: their events name a grant, a request, both, or neither of them."""
    for number in range(40):
        grant, request = {"grant_id": f"g{rng.randrange(40)}"}, {"request_id": f"q{rng.randrange(60)}"}
        for event_type in ("session.started", "session.command", "session.command"):
            named = rng.choice(({}, {}, grant, request, grant | request))
            native_id = f"{event_type}-{number}-{rng.randrange(4)}"
            action = Action("psql", ("-c", "select 1")) if event_type == "session.command" else None
            event = story.event(event_type, -50, native_id, session_id=f"s{number}", action=action, **named)
            story.add(event, -4)
            story.records.insert(rng.randrange(len(story.records)), story.records.pop())
    for number in range(20):
        story.give(f"asked-{number}", -4, 30, request_id=f"q{number}")
        story.records.insert(rng.randrange(len(story.records)), story.records.pop())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of lives that was refreshed in many steps, and then got a watch policy."""
    story = lives(random.Random(4711), 160)
    for number in range(60):
        story.add(story.event("request.created", -190, f"q{number}", request_id=f"q{number}"), -4)
    add_sessions(story, random.Random(4712))
    first = tmp_path_factory.mktemp("lives")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(states, "MAX_ENTRIES", 120)
        filled = fill(first, story.records, cuts=(97, 5), sources=KEYS, states=False)
        with connect(StoreAddress(filled)) as client:
            # All states of a part of the entries, then those that each step of the rest concerns.
            with pytest.MonkeyPatch.context() as shorter:
                sizes = States(client).sizes()
                shorter.setattr(States, "sizes", lambda _: {origin: size // 2 for origin, size in sizes.items()})
                refresh(client)
            refresh(client)
            assert client.query("SELECT count() FROM state_refreshes FINAL").result_rows[0][0] == 2
            report = report_of(client)
            assert (report.problems, report.unchecked_states) == ([], "") and report.states > 600
    found = Story(story.now, [policy_record(story, POLICIES["lenient"])], SIGNERS)
    finding = Finding("overdue", "g-1", "critical", story.at(-20))
    event = found.event("finding.opened", -5, "g-1", finding=finding, grant_source=IssuingSource("bot", "eu-1"))
    found.add(replace(event, source=EventSource("grantledger-watch", DEPLOYMENT, "g-1", "finding")), -5)
    return fill(tmp_path_factory.mktemp("policy"), found.records, sources=KEYS, onto=filled)


@pytest.fixture
def client(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(states, "KEEP_SECONDS", 0.0)
    with connect(StoreAddress(folder)) as client:
        yield client


def test_another_policy_is_another_generation(client: Client) -> None:
    refresh(client)
    kept = {table: client.query(f"SELECT DISTINCT generation FROM {table}").result_rows for table in TABLES}
    assert kept == {table: [(2,)] for table in TABLES}
    report = report_of(client)
    assert (report.problems, report.unchecked_states) == ([], "")
    assert client.query("SELECT count() FROM grants").result_rows[0][0] > 120


@pytest.mark.parametrize("name", COMPARED)
def test_what_happened_under_each_grant_is_what_all_events_say(client: Client, name: str) -> None:
    shown, computed = (sorted(client.query(text, settings=dict(LOOKUPS)).result_rows) for text in COMPARED[name])
    assert shown == computed and len(shown) > 2


def test_a_grant_that_ends_with_time_leaves_the_live_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "RETIRE_SECONDS", 0.0)
    monkeypatch.setattr(states, "LEFT_ROWS", 0)
    story = Story(datetime.now(UTC))
    story.records.append(policy_record(story, POLICIES["endless"]))
    story.give("g-short", -2, -1, ends_by_itself=True)
    story.give("g-long", -1, 30)
    live = "SELECT grant_id FROM live_grants FINAL ORDER BY grant_id"
    with connect(StoreAddress(fill(tmp_path, story.records))) as client:
        assert client.query(live).result_rows == [("g-long",)]
        # As it was before its end.
        client.command(
            "INSERT INTO live_grants SELECT * REPLACE (2 * version AS version, 0 AS over) FROM stored_grants"
        )
        assert client.query(live).result_rows == [("g-long",), ("g-short",)]
        States(client).refresh()
        assert client.query("SELECT grant_id FROM live_grants").result_rows == [("g-long",)], "its row is deleted"
        assert client.query(live).result_rows == client.query("SELECT grant_id FROM active_grants").result_rows
        assert client.query("SELECT state FROM grants WHERE grant_id = 'g-short'").result_rows == [("removed",)]
        report = report_of(client)
        assert (report.problems, report.unchecked_states) == ([], "")
        # A later event brings it back.
        client.command("INSERT INTO live_grants SELECT * REPLACE (99 AS version, 0 AS over) FROM stored_grants")
        assert client.query(live).result_rows == [("g-long",), ("g-short",)]


CHANGES = {
    "stored_grants: the row of": (
        "ALTER TABLE stored_grants UPDATE subject_id = 'somebody' WHERE cityHash64(grant_key) % 97 = 3"
    ),
    "stored_requests: the row of": "ALTER TABLE stored_requests DELETE WHERE cityHash64(request_key) % 7 = 3",
    "stored_findings: the row of overdue g-1": "ALTER TABLE stored_findings DELETE WHERE key = 'g-1'",
    "access_events: the row of": "ALTER TABLE access_events DELETE WHERE cityHash64(access_key) % 97 = 5",
    "stored_grants: the row of default/made/up/g": (
        "INSERT INTO stored_grants (generation, version, grant_key, grant_id) "
        "SELECT max(generation), 9999999, 'default/made/up/g', 'g' FROM state_refreshes"
    ),
}


def test_changed_rows_are_named(client: Client) -> None:
    for statement in CHANGES.values():
        client.command(statement, settings={"mutations_sync": 2})
    report = report_of(client)
    for message in CHANGES:
        assert any(problem.message.startswith(message) for problem in report.problems), message
    assert {problem.check for problem in report.problems} == {"state"} and not report.sound
    # The views show the old rows until all are computed again.
    States(client).begin_again()
    assert client.query("SELECT count() FROM grants WHERE grant_id = 'g'").result_rows == [(1,)]
    refresh(client)
    assert report_of(client).problems == []
    assert client.query("SELECT count() FROM grants WHERE grant_id = 'g'").result_rows == [(0,)]


def test_states_that_were_not_refreshed_are_not_called_right(client: Client, folder: Path) -> None:
    client.command("TRUNCATE TABLE state_refreshes")
    assert report_of(client).unchecked_states == "the store has not computed any yet"
    assert client.query("SELECT count() FROM grants").result_rows == [(0,)]
    refresher = States(client)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(states, "MAX_ENTRIES", 500)
        assert refresher.refresh()
        assert client.query("SELECT count() FROM grants").result_rows == [(0,)], "an incomplete generation is shown"
        assert "has not computed those of its latest entries" in report_of(client).unchecked_states
