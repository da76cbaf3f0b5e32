"""What ``grants show`` says about a grant past its end: exactly one state; and about requested revocations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer

from grantledger.cli.finding_conflict import undecided_note
from grantledger.cli.grant_revocations import revocations_of
from grantledger.cli.grant_revoke import _revocable
from grantledger.cli.grant_state import limit_text, limits_in, next_step, past_end, state_text
from grantledger.cli.output import Output
from grantledger.processors.watch_policy import AccessRule, WatchPolicy
from grantledger.runtime.watch_liveness import WatchLiveness

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
POLICY = WatchPolicy(rule=(AccessRule(resource="certs", removal=frozenset({"api_accepted", "confirmed"})),))
DOWN, RUNS = WatchLiveness("down", NOON - 60 * SECOND), WatchLiveness("judges")
SENTENCES = ("inside the grace", "not judged", "closed its finding")


def row(**fields: Any) -> dict[str, Any]:
    return {
        "grant_id": "g 1", "state": "past its end", "finding": "none", "deadline": NOON, "policy_deadline": None,
        "removed_at": None, "deadline_recorded_at": NOON - 600 * SECOND, "removal_evidence": "none", "tenant": "acme",
        "subject_id": "alice", "resource_kind": "database", "resource_id": "orders", "resource_environment": "",
        "entitlement": "rw", "source_system": "vault", "source_instance": "prod", **fields,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "policy", "watch", "seconds", "text"),
    [
        ({}, POLICY, RUNS, 60, "past its end, inside the grace: overdue after 2026-03-01 12:01:00"),
        (
            {"deadline_recorded_at": NOON + 30 * SECOND},
            POLICY,
            DOWN,
            61,
            "inside the grace: overdue after 2026-03-01 12:01:30",
        ),
        ({"deadline": None, "policy_deadline": NOON}, POLICY, RUNS, 60, "the grace: overdue after 2026-03-01 12:01:00"),
        ({"finding": "closed"}, POLICY, DOWN, 61, "past its end, and a person closed its finding"),
        (
            {"removal_evidence": "api_accepted"},
            POLICY,
            DOWN,
            61,
            "the watch is down since 2026-03-01 11:59:00 or later",
        ),
        ({}, POLICY, WatchLiveness("down"), 61, "not judged: the watch is down and has written no state"),
        (
            {},
            POLICY,
            WatchLiveness("hangs", NOON - 60 * SECOND),
            61,
            "not judged: the watch runs, and has judged nothing since 2026-03-01 11:59:00; `grantledger status`",
        ),
        ({}, POLICY, WatchLiveness("hangs"), 61, "not judged: the watch runs, and has judged nothing yet"),
        ({}, POLICY, WatchLiveness("unknown"), 61, "not judged, and Kafka does not answer: the watch may be down; no"),
        (
            {},
            POLICY,
            WatchLiveness("unknown", NOON - 60 * SECOND),
            61,
            "the watch may be down; as far as known here, it has judged nothing since 2026-03-01 11:59:00",
        ),
        ({}, POLICY, RUNS, 61, "not judged yet: the watch runs"),
        ({}, None, RUNS, 61, "not judged: no watch policy is on record"),
    ],
)
def test_a_grant_past_its_end_has_one_of_several_states(
    fields: dict[str, Any], policy: WatchPolicy | None, watch: WatchLiveness | None, seconds: int, text: str
) -> None:
    grant = row(**fields)
    limits = limits_in(policy.model_dump_json() if policy else "", grant)
    ended = past_end(grant, limits, watch, NOON + seconds * SECOND)
    found = state_text(Output(), grant, ended)
    assert text in found and sum(sentence in found for sentence in SENTENCES) == 1
    advice = next_step(Output(), grant, ended, (), NOON)
    open_question = ("not judged" in found and "not judged yet" not in found) or "closed its finding" in found
    command = "grantledger grants revoke 'g 1' --source vault/prod --tenant acme --reason '…'"
    assert advice.startswith("wait ") != open_question and advice.endswith(command) == open_question
    assert ("start the watch; " in advice) == ("the watch is down" in found)
    assert ("end the watch and start it again; " in advice) == ("the watch runs, and" in found)


@pytest.mark.parametrize(
    ("fields", "state", "step"),
    [
        ({}, "unresolved: nothing of it was received until long after its end, so", "check in the tool"),
        (
            {"deadline": None},
            "unresolved: nothing of it was received until long after its newest event, and it gives no end, so",
            "check in the tool",
        ),
        ({"state": "active"}, "active", ""),
        ({"state": "covered"}, "past its deadline, but another open grant covers", ""),
        ({"state": "removed", "removed_at": NOON}, "removed 2026-03-01 12:00:00, confirmed", ""),
        (
            {"state": "overdue", "removed_at": NOON, "removal_evidence": "confirmed"},
            "overdue: the finding is not resolved yet; removed",
            "wait some seconds: the watch resolves the finding",
        ),
    ],
)
def test_a_state_has_its_words_and_its_next_step(fields: dict[str, Any], state: str, step: str) -> None:
    grant = row(**{"state": "unresolved", **fields})
    assert state_text(Output(), grant, None).startswith(state)
    advice = next_step(Output(), grant, None, (), NOON)
    assert advice.startswith(step) and bool(advice) == bool(step)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "5 min by the watch policy (max_seconds), until 2026-03-01 11:55:00: the deadline is later"),
        ({"deadline": NOON - 400 * SECOND}, "5 min by the watch policy (max_seconds), until 2026-03-01 11:55:00"),
        ({"deadline": None}, "until 2026-03-01 11:55:00: the deadline, because the tool gives none"),
        ({"starts_at": NOON - 660 * SECOND}, "until 2026-03-01 11:54:00: the deadline is later"),
        ({"resource_id": "certs"}, ""),
        ({"stretch_recorded_at": None}, ""),
    ],
)
def test_the_longest_access_of_the_policy_is_shown(fields: dict[str, Any], text: str) -> None:
    policy = WatchPolicy(rule=(AccessRule(resource="orders", max_seconds=300),))
    given = row(**({"stretch_recorded_at": NOON - 600 * SECOND, "starts_at": None} | fields))
    shown = limit_text(Output(), given, limits_in(policy.model_dump_json(), given))
    assert shown.endswith(text) and bool(shown) == bool(text)


def test_a_policy_of_another_version_is_none() -> None:
    assert limits_in('{"unknown": 1}', row()) is None and limits_in("{", row()) is None
    assert past_end(row(state="overdue"), None, None, NOON) is None


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"state": "unresolved"}, "was reported long after its end: no enforcer revokes historical access"),
        ({"state": "unresolved", "deadline": None}, "was reported long after its newest event: no enforcer revokes"),
        ({"state": "removed", "removed_at": NOON}, "is removed already, at 2026-03-01 12:00:00 UTC"),
        ({"entitlement": ""}, "names no entitlement or resource"),
        ({"activated_at": None}, "has no activation on record"),
    ],
)
def test_a_request_that_no_enforcer_would_carry_out_is_refused(
    fields: dict[str, Any], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"activated_at": NOON, "state": "overdue", "deadline": NOON, "policy_deadline": None, **fields}
    with pytest.raises(typer.Exit) as ended:
        _revocable(Output(), lambda _sql, **_values: [row(**found)], "acme/vault/prod/g 1", NOON)
    assert ended.value.exit_code == 1 and f"grant g 1 {problem}" in capsys.readouterr().err


def event(kind: str, seconds: int, asked: int = 0, **fields: Any) -> dict[str, Any]:
    return {
        "append_time": NOON + seconds * SECOND, "event_type": f"revoke.{kind}", "outcome": "pending", "error": "",
        "actor_id": "dana", "reason": "stolen", "finding_rule": "person_request",
        "finding_deadline": NOON + asked * SECOND, **fields,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "after", "text", "pending"),
    [
        ([], 60, "waiting for an enforcer", True),
        ([], 61, "no enforcer has attempted it", True),
        ([], 86_400, "no enforcer has attempted it", False),
        ([event("attempted", 2)], 90, "an attempt began at 2026-03-01 12:00:02 and has no result yet", True),
        (
            [event("attempted", 3, outcome="failure", error="busy")],
            90,
            "an attempt failed at 2026-03-01 12:00:03: busy",
            True,
        ),
        ([event("attempted", 3, outcome="success")], 90, "the target accepted it at 2026-03-01 12:00:03", False),
        (
            [event("failed", 4, outcome="failure", error="no route")],
            90,
            "given up at 2026-03-01 12:00:04: no route",
            False,
        ),
        ([event("attempted", 2), event("confirmed", 4)], 90, "confirmed at 2026-03-01 12:00:04", False),
        (
            [event("dry_run", 2, outcome="success", finding_evidence='{"target": "db"}')],
            9,
            "an enforcer in dry run answered at 2026-03-01 12:00:02: would revoke at the target db; only `run enforce",
            True,
        ),
        ([event("attempted", 3, outcome="success"), event("dry_run", 4)], 90, "the target accepted it", False),
        ([event("confirmed", 4, asked=-9)], 90, "no enforcer has attempted it", True),
    ],
)
def test_a_request_and_its_answer(answers: list[dict[str, Any]], after: int, text: str, pending: bool) -> None:
    rows = [*reversed(answers), event("requested", 0)]
    (found,) = revocations_of(rows)
    now = NOON + after * SECOND
    shown = found.text(Output(), now)
    assert shown.startswith("asked for by dana (stolen) at 2026-03-01 12:00:00: ") and text in shown
    assert found.is_pending(now) == pending
    advice = next_step(Output(), row(state="overdue"), None, (found,), now)
    unattempted = pending and ("no enforcer" in text or "dry run" in text)
    assert advice.startswith("no enforcer acts") == unattempted and ("To have it revoked" in advice) == (not pending)
    if text == "waiting for an enforcer":
        assert advice.startswith("wait for an enforcer until 2026-03-01 12:01:00; after that, check in the tool")
    if "busy" in text:
        assert advice.startswith("wait for the next attempt, or check in the tool")


def test_the_next_step_is_about_the_newest_request_also_of_a_grant_that_runs() -> None:
    (mine,) = revocations_of([event("requested", 50)])
    (old,) = revocations_of([event("requested", -600, asked=-600)])
    for state in ("overdue", "active"):
        advice = next_step(Output(), row(state=state), None, (mine, old), NOON + 60 * SECOND)
        assert advice.startswith("wait for an enforcer until 2026-03-01 12:01:50")
    (begun,) = revocations_of([event("attempted", 55, asked=50), event("requested", 50, asked=50)])
    for seconds, step in ((100, "wait for its result until 2026-03-01 12:01:55"), (116, "check in the tool")):
        assert next_step(Output(), row(state="overdue"), None, (begun,), NOON + seconds * SECOND).startswith(step)


def test_the_newest_request_comes_first_and_each_has_its_own_answer() -> None:
    watch = {"finding_rule": "overdue", "actor_id": "grantledger-watch", "reason": ""}
    rows = [
        event("confirmed", 9, asked=8), event("requested", 8, asked=8),
        event("failed", 3, asked=-60, outcome="failure", error="no route", **watch),
        event("requested", 1, asked=-60, **watch),
    ]  # fmt: skip
    first, second = revocations_of(rows)
    assert "by dana" in first.text(Output(), NOON) and "confirmed" in first.text(Output(), NOON)
    assert second.text(Output(), NOON) == (
        "asked for by the watch at 2026-03-01 12:00:01: given up at 2026-03-01 12:00:03: no route"
    )


@pytest.mark.parametrize(
    ("rule", "key", "noted"),
    [
        ("event_conflict", "vault/prod", True),
        ("event_conflict", "vault/prod#mapping#shard-1", False),
        ("overdue", "g", False),
    ],
)
def test_a_conflict_closed_without_a_decision_leaves_the_stricter_reading(rule: str, key: str, noted: bool) -> None:
    note = undecided_note({"rule": rule, "key": key, "id": "1234"})
    assert ("the stricter reading still counts" in note and "close 1234 --accept INDEX" in note) == noted == bool(note)
