"""The history of a grant reports the results of revocations, lookups and findings."""

from __future__ import annotations

from typing import Any

import pytest

from grantledger.cli.grant_event_text import finding_text
from grantledger.schemas.finding_rules import FINDING_RULES

TARGET = '"attempt": 2, "target": "orders-db"'


@pytest.mark.parametrize(
    ("kind", "outcome", "evidence", "text"),
    [
        ("revoke.attempted", "pending", f"{{{TARGET}}}", "attempt 2 at the target orders-db begins"),
        (
            "revoke.attempted",
            "success",
            f'{{{TARGET}, "answer": "removed from role rw", "observed": "no member"}}',
            "attempt 2 at the target orders-db was accepted: removed from role rw; read back: no member",
        ),
        (
            "revoke.attempted",
            "failure",
            f'{{{TARGET}, "answer": "timeout", "observed": "still there"}}',
            "attempt 2 at the target orders-db failed; read back: still there",
        ),
        (
            "revoke.confirmed",
            "success",
            f'{{{TARGET}, "observed": "no member"}}',
            "the access is gone after attempt 2, as read back at the target orders-db: no member",
        ),
        (
            "revoke.confirmed",
            "success",
            '{"attempt": 0, "target": "orders-db", "observed": ""}',
            "the access is gone before any attempt, as read back at the target orders-db",
        ),
        ("revoke.failed", "failure", f"{{{TARGET}}}", "given up after attempt 2 at the target orders-db"),
        (
            "lookup.answered",
            "success",
            f'{{{TARGET}, "observed": "member"}}',
            "the access exists, as read back at the target orders-db: member",
        ),
        ("revoke.dry_run", "success", '{"target": "db", "obstacle": ""}', "dry run: would revoke at the target db"),
        ("revoke.dry_run", "success", '{"obstacle": "no route"}', "dry run: would not revoke: no route"),
        ("lookup.answered", "failure", f"{{{TARGET}}}", "no answer at the target orders-db"),
        (
            "finding.resolved",
            "success",
            '{"removal": "confirmed"}',
            "overdue is resolved: a removal is on record (confirmed)",
        ),
        (
            "finding.resolved",
            "success",
            '{"removal": "not reported"}',
            "overdue is resolved: its condition no longer holds",
        ),
        ("finding.resolved", "success", "", "overdue is resolved: its condition no longer holds"),
        ("revoke.confirmed", "success", "[1]", "the access is gone, as read back"),
        ("revoke.attempted", "pending", "not JSON", "attempt begins"),
        ("finding.opened", "failure", "{}", f"overdue: {FINDING_RULES['overdue'].summary}"),
        ("revoke.requested", "pending", "{}", f"overdue: {FINDING_RULES['overdue'].summary}"),
    ],
)
def test_an_event_reports_its_result(kind: str, outcome: str, evidence: str, text: str) -> None:
    event: dict[str, Any] = {
        "event_type": kind, "outcome": outcome, "finding_rule": "overdue", "finding_evidence": evidence,
        "removal_evidence": "none",
    }  # fmt: skip
    assert finding_text(event) == text


def test_a_lookup_reports_that_the_access_is_gone() -> None:
    event = {
        "event_type": "lookup.answered", "outcome": "success", "finding_rule": "late_record", "finding_evidence": "{}",
        "removal_evidence": "confirmed",
    }  # fmt: skip
    assert finding_text(event) == "the access is gone, as read back"
