"""The twenty questions of an auditor in docs/queries.md: each query gives the right answer on a planted story."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from grantledger.processors.naming import Environment, Person
from grantledger.processors.policy import WatchPolicy
from grantledger.processors.watch.findings import config_event
from grantledger.schemas.event import Action, Actor, Approval, Resource, Subject
from support.access_store import DEPLOYMENT, Story, fill, opened_elsewhere
from support.command import invoke

PAGE = Path(__file__).resolve().parents[2] / "docs" / "queries.md"
NOON = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)  # a Wednesday, 13:00 in Berlin
DAY = 24 * 60
POLICY = WatchPolicy(
    person=(Person(name="alice@example.com", identities=("alice", "corp/alice")),),
    environment=(Environment(environment="production", resource="*-prod"),),
)


def planted() -> Story:
    story = Story(now=NOON)

    def resource(name: str) -> dict[str, Any]:
        return {"resource": Resource("database", name)}

    def approval(reviewer: str, minutes: float, **more: Any) -> dict[str, Any]:
        return {"approvals": (Approval(reviewer, "approved", at=story.at(minutes), **more),)}

    story.add(replace(config_event(DEPLOYMENT, POLICY, NOON), occurred_at=story.at(-100 * DAY)), -100 * DAY)
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
    night = -4 * DAY + 12 * 60 + 60
    forced = approval("carol", night, forced=True)
    story.give("night", night, night + 60, subject="corp/alice", **resource("orders-prod"), **forced)
    story.remove("night", night + 50, "api_accepted", subject="corp/alice", **resource("orders-prod"))
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


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("questions")
    fill(folder, planted().records)
    found = {}
    with opened_elsewhere(folder):
        for number, sql in questions():
            asked_format = () if "FORMAT" in sql else ("--format", "JSONEachRow")
            done = invoke("query", sql, *asked_format, "--data", str(folder))
            assert done.exit_code == 0, f"{number}\n{done.stderr[:1000]}"
            lines = done.stdout.splitlines()
            found[number] = (
                list(csv.DictReader(io.StringIO(done.stdout))) if "FORMAT" in sql else [*map(json.loads, lines)]
            )
    return found


def questions() -> Iterator[tuple[int, str]]:
    """Yield the number and the query of each question on the page."""
    text = PAGE.read_text("utf-8").partition("## Twenty questions")[2]
    for number, sql in re.findall(r"^### (\d+)\. .*?^```sql\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield int(number), sql


EXPECTED: dict[int, list[tuple[Any, ...]]] = {
    1: [("alice@example.com", "orders-prod")],
    3: [("alice@example.com", "billing-prod")],
    5: [("alice@example.com", "orders-prod")],
    6: [("carol", 2), ("alice@example.com", 1)],
    7: [("alice@example.com", "orders-prod")],
    8: [("alice@example.com", "orders-prod")],
    9: [("ci-agent", 0)],
    10: [("loose", "dave")],
    11: [("bot", 0), ("vault", 2400)],
    13: [("mallory", "curious")],
    14: [("dpo", "GDPR art. 17")],
    16: [("2026-08-31", 1), ("2026-11-09", 1), ("2026-11-16", 2)],
    17: [(["alice", "corp/alice"], 2)],
    18: [("alice", "psql"), ("alice", "")],
    19: [("bot", 0, 3), ("vault", 1, 0)],
    20: [("alice@example.com", "api_accepted")],
}
COLUMNS = {
    1: ("person", "resource_id"), 3: ("person", "resource_id"), 5: ("person", "resource_id"), 6: ("approver", "grants"),
    7: ("person", "resource_id"), 8: ("person", "resource_id"), 9: ("subject_id", "commands"),
    10: ("session_id", "subject_id"), 11: ("source_system", "mean_seconds_late"), 13: ("requested_by", "reason"),
    14: ("actor_id", "reason"), 16: ("week", "grants"), 17: ("identities", "grants"), 18: ("subject_id", "command"),
    19: ("source_system", "third_quarter", "fourth_quarter"), 20: ("person", "removal_evidence"),
}  # fmt: skip


@pytest.mark.parametrize("number", sorted(EXPECTED))
def test_the_answer_is_right(number: int, answers: dict[int, list[dict[str, Any]]]) -> None:
    found = [tuple(_plain(row[column]) for column in COLUMNS[number]) for row in answers[number]]
    assert found == EXPECTED[number]


def _plain(value: Any) -> Any:
    """64-bit integers are text in JSON."""
    return int(value) if isinstance(value, str) and value.isdigit() else value


def test_all_twenty_have_a_query_and_the_others_are_right_too(answers: dict[int, list[dict[str, Any]]]) -> None:
    assert sorted(answers) == list(range(1, 21))
    assert [row["event_type"] for row in answers[2]] == [
        "request.created", "grant.activated", "session.started", *["session.command", "session.query", "session.query"],
        "grant.revoked",
    ]  # fmt: skip
    assert [row["resource_id"] for row in answers[4]][-1] == "orders-staging"
    assert answers[4][0]["state"] != "removed", "access without a confirmed end lasts"
    assert {row["grant_id"] for row in answers[12]} == {"g-1", "night", "agent"}
    assert [(row["event_type"], row["person_or_tool"]) for row in answers[15]] == [
        ("access given", "alice@example.com")
    ]
