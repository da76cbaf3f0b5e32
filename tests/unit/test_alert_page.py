"""What a page tells the person who is paged, from the event of the watch to the text of each channel."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from grantledger.base.toml import load_toml
from grantledger.kafka.sealed_log import SealedLogProblem
from grantledger.schemas.event import Approval, IssuingSource, Resource, Subject
from grantledger.sinks.alerts.alertmanager import annotations_of
from grantledger.sinks.alerts.channel_builder import build_channels
from grantledger.sinks.alerts.config import AlertConfig
from grantledger.sinks.alerts.finding import FindingEvent
from grantledger.sinks.alerts.page import LONGEST_TEXT, description, late_seconds, next_command
from grantledger.sinks.alerts.reading import finding_of_problem
from support.alerting import DEPLOYMENT, NOON, event, webhook_toml
from support.receiver import SECRET

from .test_alert_finding import read

ROOT = IssuingSource("teleport", "root.example.com")
ACCESS: dict[str, Any] = {
    "grant_source": ROOT,
    "tenant": "acme",
    "subject": Subject("00u17", "human", "alice@example.com"),
    "reason": "INC-4711: stuck migration",
    "approvals": (
        Approval("bob", "approved", forced=True), Approval("carol", "approved"), Approval("dave", "denied"),
        Approval("erin", "approved"), Approval("erin", "denied"),
    ),
}  # fmt: skip


def opened(key: str = "g-1", **fields: Any) -> FindingEvent:
    (found,) = read(event("opened", key, at=NOON + timedelta(minutes=10), **ACCESS | fields)).findings
    return found


def test_a_page_has_everything_that_the_engineer_needs_and_the_next_command(tmp_path: Path) -> None:
    found = opened()
    assert description(found, "https://git.example.com").splitlines() == [
        "person: alice@example.com",
        "tool: teleport/root.example.com",
        "resource: database orders",
        "environment: production",
        "entitlement: readwrite",
        "grant: g-1",
        "deadline: 2026-03-01 12:00:00 UTC",
        "late: 0:10:00 when the finding opened",
        "approved by: bob (forced), carol",
        "reason: INC-4711: stuck migration",
        "next: grantledger grants show g-1 --source teleport/root.example.com --tenant acme",
        "runbook: https://git.example.com/docs/runbooks/overdue.md",
    ]
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "alerts.toml").write_text(webhook_toml("hook", "http://127.0.0.1:1/", str(tmp_path / "secret")))
    (named,) = build_channels(load_toml(tmp_path / "alerts.toml", AlertConfig))
    data = json.loads(named.channel.message(found, ""))["data"]
    expected = {
        "person": "alice@example.com", "subject": "00u17", "tool": "teleport/root.example.com", "resource": "orders",
        "environment": "production", "entitlement": "readwrite", "late_seconds": 600.0,
        "approved_by": "bob (forced), carol",
        "reason": "INC-4711: stuck migration", "finding_id": found.finding_id,
    }  # fmt: skip
    assert {name: data[name] for name in expected} == expected
    notes = annotations_of(found)
    assert notes["description"] == data["description"] == description(found, "")
    assert notes["next_command"] == data["next_command"] == next_command(found)
    assert notes["person"] == "alice@example.com" and notes["approved_by"] == "bob (forced), carol"


def test_of_each_reviewer_the_last_decision_by_its_own_time_counts() -> None:
    decisions = (
        Approval("Bob ", "denied", at=NOON), Approval("bob", "approved", at=NOON - timedelta(hours=1)),
        Approval("carol", "denied", at=NOON - timedelta(hours=1)), Approval("Carol", "approved", at=NOON),
        Approval("carol", "denied"),
        Approval("dave", "denied", at=NOON), Approval("dave", "approved", at=NOON), Approval("erin", "pending"),
    )  # fmt: skip
    assert opened(approvals=decisions).facts["approved_by"] == "Carol"


def test_the_page_of_a_session_names_the_person_and_the_grant() -> None:
    found = opened("s-1", rule="session_outlived_grant", session_id="s-1", session_source=ROOT, grant_id="g-1")
    lines = description(found, "").splitlines()
    assert lines[0] == "person: alice@example.com" and "session: s-1" in lines and "grant: g-1" in lines
    assert next_command(found) == "grantledger grants show g-1 --source teleport/root.example.com --tenant acme"
    alone = opened("s-1", rule="used_without_grant", session_id="s-1", grant_id=None, grant_id_kind=None)
    assert next_command(alone) == f"grantledger findings show {alone.finding_id}"


def test_what_is_not_known_is_said() -> None:
    found = opened(reason=None, approvals=(), resource=Resource("database", "orders"), subject=Subject(""))
    lines = description(found, "").splitlines()
    assert lines[0] == "person: not known" and "environment: not known" in lines
    assert "approved by: no approval on record" in lines and "reason: none on record" in lines


@pytest.mark.parametrize("grant", ["-rf", "g\n1", "g\x1b[31m", "x" * 400, "g\u202e1"])
def test_an_id_that_a_terminal_cannot_show_is_not_in_the_command(grant: str) -> None:
    found = opened(grant)
    assert next_command(found) == f"grantledger findings show {found.finding_id}"
    text = description(found, "")
    assert all(line.isprintable() and len(line) < LONGEST_TEXT + 20 for line in text.split("\n"))


def test_a_shell_gets_an_id_with_spaces_and_quotes_as_one_argument() -> None:
    assert next_command(opened("a b'c; rm -rf /")).startswith(
        """grantledger grants show 'a b'"'"'c; rm -rf /' --source"""
    )


def test_only_a_deadline_that_is_the_end_of_an_access_gives_a_lateness() -> None:
    assert late_seconds(opened(rule="no_approval")) is None and late_seconds(opened()) == 600
    assert "deadline" not in description(opened(rule="no_approval"), "")


def test_a_finding_about_the_pipeline_names_no_person() -> None:
    problem = SealedLogProblem("sealed_record_invalid", "access.findings", 0, 17, 1, "no signature")
    found = finding_of_problem(DEPLOYMENT, problem)
    text = description(found, "")
    assert "person" not in text and f"next: grantledger findings show {found.finding_id}" in text
