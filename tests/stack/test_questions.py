"""The twenty questions of an auditor in docs/queries.md: each query gives the right answer.

The store holds simulated lives with planted faults, and a planted story with what these lack.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pytest import approx

from grantledger.processors.naming import Environment, Person
from grantledger.processors.watch.findings import config_event
from grantledger.processors.watch_policy import WatchPolicy
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import Action, Actor, Approval, Resource, Subject
from grantledger.simulator.faults import FAULTS
from grantledger.simulator.lifecycle import StepKind
from support.access_store import DEPLOYMENT, Record, Story, fill, opened_elsewhere
from support.answers import ANSWERS, Answer, ran, text
from support.command import invoke
from support.expected import Trace
from support.simulation import Reader, policy_in
from support.truth import GrantedAccess, Happening, RejectedRequest, Truth, other_names, truth_of
from support.virtual_time import Simulation

PAGE = Path(__file__).resolve().parents[2] / "docs" / "queries.md"
NOON = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)  # a Wednesday, 13:00 in Berlin
DAY = 24 * 60
NIGHT = -4 * DAY + 12 * 60 + 60
ALICE = "alice@example.com"
PRODUCTION = tuple(
    Environment(environment="production", system=system, resource=resource)
    for system, resource in (("*", "*-prod"), ("hoop", "*-postgres"), ("cloudtrail", "*"))
)
COUNTS = {
    "grants", "people", "resources", "commands", "break_glass", "third_quarter", "fourth_quarter",
    "fourth_quarter_late",
}  # fmt: skip
COMPANY = {name: fault for name, fault in FAULTS.items() if name != "member_forever"}
"""A member of an access list has no request of their own."""
LIVES = (  # in the third quarter, before midnight of the 18th, and around noon
    Simulation(31, 20, share=0.3, faults=COMPANY, rate=0.02, start=NOON - timedelta(days=98, hours=2)),
    Simulation(32, 60, share=0.4, faults=COMPANY, rate=0.005, start=NOON - timedelta(hours=15)),
    Simulation(33, 40, share=0.4, faults=COMPANY, rate=0.05, start=NOON - timedelta(minutes=10)),
)


def planted(policy: WatchPolicy) -> Story:
    story = Story(now=NOON)

    def resource(name: str) -> dict[str, Any]:
        return {"resource": Resource("database", name)}

    def approval(reviewer: str, minutes: float, **more: Any) -> dict[str, Any]:
        return {"approvals": (Approval(reviewer, "approved", at=story.at(minutes), **more),)}

    story.add(replace(config_event(DEPLOYMENT, policy, NOON), occurred_at=story.at(-100 * DAY)), -100 * DAY)
    # In the third quarter, at 11:30 in Berlin; removed 40 minutes late.
    old = -75 * DAY - 90
    story.give("old", old, old + 60, subject="bob", system="vault", reason="CHG-7", **resource("orders-prod"))
    story.remove("old", old + 100, subject="bob", system="vault", **resource("orders-prod"))
    # Alice asks for herself by one name and approves by another one, on Tuesday at 16:00 in Berlin.
    asked = {"request_id": "r-1", "subject": "alice", **resource("billing-prod")}
    story.add(story.event("request.created", -21 * 60 - 10, "r-1", reason="see INC-12", **asked), -21 * 60 - 10)
    story.give("g-1", -21 * 60, 60, **asked, **approval("corp/alice", -21 * 60 - 5))
    session = {"grant_id": "g-1", "session_id": "s-1", "subject": "alice", **resource("billing-prod")}
    story.add(story.event("session.started", -20 * 60, "s-1", **session), -20 * 60)
    for number, action in enumerate((
        Action(command="psql", args=("-c", "DROP TABLE x")), Action(query="select 1"), Action(query="Drop Table y"),
    )):  # fmt: skip
        kind = "session.query" if action.query else "session.command"
        story.add(story.event(kind, -20 * 60 + 1, f"c{number}", action=action, **session), -20 * 60 + 1)
    story.remove("g-1", -30, subject="alice", **resource("billing-prod"))
    # Break-glass on Saturday night, and nobody confirmed its end.
    forced = approval("carol", NIGHT, forced=True)
    story.give("night", NIGHT, NIGHT + 60, subject="corp/alice", **resource("orders-prod"), **forced)
    story.remove("night", NIGHT + 50, "api_accepted", subject="corp/alice", **resource("orders-prod"))
    # An agent in staging at 12:00 in Berlin, removed in time.
    agent = {"subject": Subject("ci-agent", "agent"), **resource("orders-staging")}
    story.give("agent", -60, 60, reason="INC-13", **agent, **approval("carol", -61))
    story.remove("agent", -10, **agent)
    # A session of a tool that names grants, and one of a tool that never does.
    story.add(story.event("session.started", -50, "loose", session_id="loose", subject="dave"), -50)
    story.add(story.event("session.started", -50, "ssh", session_id="ssh", subject="dave", system="sshd"), -50)
    # A rejected request.
    rejected = {"request_id": "r-2", "subject": "mallory", **resource("payroll-prod")}
    story.add(
        story.event("request.created", -45, "r-2", reason="curious", actor=Actor("mallory", "human"), **rejected), -45
    )
    story.add(story.event("request.denied", -44, "r-2-no", actor=Actor("carol", "human"), **rejected), -44)
    erased = {
        "actor": Actor("dpo", "human"),
        "reason": "GDPR art. 17",
        "subject": "test.example/access.lifecycle/0/0#3",
    }
    story.add(story.event("payload.erased", -40, "e-1", session_id=None, **erased), -40)
    return story


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


PLANTED = Truth(
    accesses=[
        GrantedAccess(
            "bob", "bob", "orders-prod", "rw", "vault", at(-75 * DAY - 90), at(-75 * DAY - 30), at(-75 * DAY + 10),
            at(-75 * DAY + 10), "confirmed", environment="production", reason="CHG-7", ticket="CHG-7",
        ),
        GrantedAccess(
            ALICE, "alice", "billing-prod", "rw", "bot", at(-21 * 60), at(60), at(-30), at(-30), "confirmed",
            environment="production", reason="see INC-12", ticket="INC-12", approvers=(ALICE,),
        ),
        GrantedAccess(
            ALICE, "corp/alice", "orders-prod", "rw", "bot", at(NIGHT), at(NIGHT + 60), evidence="api_accepted",
            environment="production", approvers=("carol",), forced=True,
        ),
        GrantedAccess(
            "ci-agent", "ci-agent", "orders-staging", "rw", "bot", at(-60), at(60), at(-10), at(-10), "confirmed",
            reason="INC-13", ticket="INC-13", approvers=("carol",), kind="agent",
        ),
    ],
    rejected=[
        RejectedRequest(
            at(-45), "mallory", "payroll-prod", "rw", "curious", "carol denied 2026-11-18 11:16:00 UTC", "bot"
        )
    ],
    loose_sessions=[Happening(at(-50), "bot", "dave")],
    actions=[
        Happening(at(-20 * 60 + 1), what, "alice", "billing-prod") for what in ("psql -c DROP TABLE x", "Drop Table y")
    ],
    erased=[Happening(at(-40), "", "dpo", reason="GDPR art. 17")],
)  # fmt: skip
"""What the story contains."""


class Asked(NamedTuple):
    """The rows that each query returned, and what truly happened."""

    rows: dict[int, list[dict[str, Any]]]
    timeline: list[dict[str, Any]]
    updates: list[dict[str, Any]]
    truth: Truth
    life: Trace


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    folder = tmp_path_factory.mktemp("questions")
    reader, encoder, records = Reader(), EventEncoder(), list[Record]()
    for lives in LIVES:
        for append, tool, raw in lives:
            for event in reader.events(tool, raw):
                records.append(Record(event.topic, event.key.encode(), encoder.encode(event), append))
    traces = [trace for lives in LIVES for trace in lives.traces]
    policy = policy_in(folder).model_copy(update={"person": tuple(people(traces)), "environment": PRODUCTION})
    records += planted(policy).records
    fill(folder, sorted(records, key=lambda record: record.time_ms))
    life = next(
        one for one in traces if one.writer.lifecycle.tool == "teleport" and one.writer.lifecycle.has(*WHOLE_LIFE)
    )
    queries = dict(questions())
    with opened_elsewhere(folder):
        rows = {number: answered(folder, sql) for number, sql in queries.items()}
        timeline = answered(folder, queries[2].replace("g-1", life.writer.grant_id))
        updates = answered(folder, queries[18].replace("drop table", "update payments"))
        by_agents, unnamed = (answered(folder, sql) for sql in further())
    assert by_agents == []  # no agent of the lives acts for somebody
    assert {row["source_system"] for row in unnamed} >= {"hoop"}
    return Asked(rows, timeline, updates, PLANTED + truth_of(traces), life)


WHOLE_LIFE = (StepKind.GRANTED, StepKind.SESSION_STARTED, StepKind.SESSION_ENDED, StepKind.EXPIRED)


def people(traces: list[Trace]) -> Iterator[Person]:
    names: dict[str, set[str]] = defaultdict(set)
    for trace in traces:
        names[trace.writer.lifecycle.person.email] |= other_names(trace)
    yield Person(name=ALICE, identities=("alice", "corp/alice"))
    for name, others in names.items():
        if others:
            yield Person(name=name, identities=tuple(sorted(others)))


def answered(folder: Path, sql: str) -> list[dict[str, Any]]:
    done = invoke("query", sql, "--format", "JSONEachRow", "--data", str(folder))
    assert done.exit_code == 0, f"{sql}\n{done.stderr[:1000]}"
    return [*map(json.loads, done.stdout.splitlines())]


def questions() -> Iterator[tuple[int, str]]:
    """Yield the number and the query of each question on the page."""
    text = PAGE.read_text("utf-8").partition("## Twenty questions")[2]
    for number, sql in re.findall(r"^### (\d+)\. .*?^```sql\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield int(number), sql


def further() -> Iterator[str]:
    """Yield the other queries of these questions."""
    text = PAGE.read_text("utf-8").partition("## Twenty questions")[2]
    for question in text.split("\n### ")[1:]:
        yield from re.findall(r"^```sql\n(.*?)^```$", question, re.DOTALL | re.MULTILINE)[1:]


def test_all_twenty_have_a_query(asked: Asked) -> None:
    assert sorted(asked.rows) == list(range(1, 21)) == sorted({*ANSWERS, 2, 4})


@pytest.mark.parametrize("number", sorted(ANSWERS))
def test_the_answer_is_the_truth(number: int, asked: Asked) -> None:
    assert_true(asked.rows[number], ANSWERS[number](asked.truth))


def test_the_lives_answer_what_they_can(asked: Asked) -> None:
    lived = truth_of(trace for lives in LIVES for trace in lives.traces)
    assert {number for number in ANSWERS if not ANSWERS[number](lived).rows} == {8, 9, 14, 18}
    assert all(lives.planted for lives in LIVES)


def test_everything_of_one_grant_is_told_in_order(asked: Asked) -> None:
    assert [row["event_type"] for row in asked.rows[2]] == [
        "request.created", "grant.activated", "session.started", *["session.command", "session.query", "session.query"],
        "grant.revoked",
    ]  # fmt: skip
    told = [row["event_type"].partition(".")[2] for row in asked.timeline]
    happened = sorted(asked.life.records, key=lambda times: times.append)
    assert [word for word in told if word in WORDS.values()] == [
        WORDS[times.kind] for times in happened if times.kind in WORDS
    ]


WORDS = {
    StepKind.REQUESTED: "created", StepKind.GRANTED: "activated", StepKind.RENEWED: "activated",
    StepKind.SESSION_STARTED: "started", StepKind.SESSION_ENDED: "ended",
}  # fmt: skip


def test_what_lasted_longest_is_first(asked: Asked) -> None:
    """First comes what lasts until now."""
    lasting = sorted((one for one in asked.truth.accesses if one.ended is None), key=lambda one: one.activated)
    ended = sorted(
        (one for one in asked.truth.accesses if one.ended is not None),
        key=lambda one: (one.ended or one.activated) - one.activated,
        reverse=True,
    )
    rows = asked.rows[4]
    assert [(row["person"], row["resource_id"], row["ended_at"]) for row in rows[: len(lasting)]] == [
        (one.person, one.resource, None) for one in lasting
    ]
    assert len(rows) == 20 and all("days" in row["duration"] for row in rows[: len(lasting)])
    assert [row["ended_at"] for row in rows[len(lasting) :][:2]] == [text(one.ended) for one in ended[:2]]


def test_any_text_that_was_run_is_found(asked: Asked) -> None:
    answer = ran(asked.truth, "update payments")
    assert answer.rows
    of_hoop = [row for row in asked.updates if row["resource_id"].endswith(("-postgres", "-mysql"))]
    assert_true(of_hoop, answer)


def assert_true(found: list[dict[str, Any]], answer: Answer) -> None:
    """Compare the columns of an answer, and their order. A column with a minus sign is in descending order."""
    columns = answer.columns.split()
    rows = [tuple(_value(row, name) for name in columns) for row in found]
    assert [row[: answer.ordered] for row in rows] == sorted(row[: answer.ordered] for row in rows)
    for row, expected in zip(sorted(rows, key=repr), sorted(answer.rows, key=repr), strict=True):
        assert row == tuple(approx(one, abs=0.06) if isinstance(one, float) else one for one in expected)


def _value(row: dict[str, Any], name: str) -> Any:
    """Return a value as Python has it: 64-bit integers are text in JSON."""
    column = name.removeprefix("-")
    value = int(row[column]) if column in COUNTS else row[column]
    return -value if name != column else value
