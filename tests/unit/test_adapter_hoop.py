"""hoop.dev: every real record, and what the adapter makes of particular ones."""

from __future__ import annotations

import base64
import copy
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from grantledger.producers.adapters import Location, RecordError, Skipped, make_adapter
from grantledger.schemas.event import Event
from support.adapters import HERE, Result, assert_maps_or_fails, one, reason, several
from support.adapters import read as read_record
from support.mangling import mangled

REPOSITORY = Path(__file__).resolve().parents[2]
TIME = "2026-05-04T15:30:00Z"
AT = datetime(2026, 5, 4, 15, 30, tzinfo=UTC)


def read(record: dict[str, Any], **options: Any) -> Result:
    return read_record("hoop", record, **options)


def event(event_type: str, **payload: Any) -> dict[str, Any]:
    base = {"session_id": "s1", "user": "drew@example.com", "connection": "pg-prod", "occurred_at": TIME}
    return {"event_type": event_type, "payload": {**base, **payload}}


class TestRealRecords:
    """The samples that hoop's own gateway ships."""

    def test_result_of_each_sample(self, samples: Path) -> None:
        lines = (samples / "hoop" / "events.jsonl").read_bytes().splitlines()
        found = []
        for number, line in enumerate(lines, 1):
            outcome = make_adapter("hoop").read(line, Location("events.jsonl", number))
            word = outcome.reason if isinstance(outcome, Skipped) else "+".join(one.event_type for one in outcome)
            found.append((json.loads(line)["event_type"], word))
        assert found == [
            ("alert.sensitive_data_detected", "assessment"),
            ("alert.data_masked", "assessment"),
            ("access.jit_approved", "request.approved"),
            ("access.jit_denied", "request.denied"),
            ("session.guardrail_violation", "session.denied"),
            ("session.pci_scope_entered", "assessment"),
            ("session.anomaly_detected", "assessment"),
            ("session.started", "session.started"),
            ("session.closed", "session.ended"),
            ("session.open", "no_time"),
            ("microsoftteams.review.create.json", "chat_message"),
            ("runbook_hook", "hook_input"),
        ]

    def test_nothing_in_them_is_a_grant_or_its_end(self, samples: Path) -> None:
        """No sample reports the start, end or removal of access."""
        kinds: Counter[str] = Counter()
        for line in (samples / "hoop" / "events.jsonl").read_bytes().splitlines():
            outcome = make_adapter("hoop").read(line, HERE)
            for found in () if isinstance(outcome, Skipped) else outcome:
                kinds[found.event_type.partition(".")[0]] += 1
                assert (found.grant_id, found.expires_at, found.removal_evidence) == (None, None, None)
        assert kinds == {"request": 2, "session": 3}

    def test_the_webhook_is_readable_once_its_time_is_recorded(self, samples: Path) -> None:
        lines = (samples / "hoop" / "events.jsonl").read_bytes().splitlines()
        webhook = next(json.loads(line) for line in lines if json.loads(line)["event_type"] == "session.open")
        opened, command = several(read({**webhook, "timestamp": TIME}))
        assert (opened.event_type, opened.subject.id) == ("session.started", "john.doe@hoop.dev")
        assert command.action is not None
        assert (command.event_type, command.action.command, command.action.args) == (
            "session.command",
            "bash",
            ("echo foobar",),
        )
        assert opened.session_id == command.session_id == webhook["payload"]["id"]
        assert (opened.occurred_at, command.outcome) == (AT, "unknown")


class TestDecisions:
    def test_an_approval_is_neither_grant_nor_revocation(self) -> None:
        found = one(read(event("access.jit_approved", reviewer="alex@example.com", review_id="r1")))
        assert (found.event_type, found.request_id, found.session_id) == ("request.approved", "r1", "s1")
        assert (found.grant_id, found.expires_at, found.removal_evidence) == (None, None, None)
        assert (found.subject.id, found.actor.id) == ("drew@example.com", "alex@example.com")
        assert [(each.reviewer, each.decision, each.at) for each in found.approvals] == [
            ("alex@example.com", "approved", AT)
        ]
        assert found.resource is not None and (found.resource.kind, found.resource.id) == ("connection", "pg-prod")

    def test_a_rejection_keeps_its_reason(self) -> None:
        found = one(read(event("access.jit_denied", reviewer="a@b", review_id="r1", reason="not in production")))
        assert (found.event_type, found.outcome, found.reason) == ("request.denied", "denied", "not in production")
        assert found.approvals[0].decision == "denied"

    def test_without_a_reviewer_the_actor_is_unknown(self) -> None:
        found = one(read(event("access.jit_approved", reviewer="", review_id="r1")))
        assert (found.actor.id, found.approvals[0].reviewer) == ("unknown", "unknown")

    @pytest.mark.parametrize("name", ["review_id", "occurred_at"])
    def test_what_is_missing_is_named(self, name: str) -> None:
        with pytest.raises(RecordError, match=rf"^records.jsonl:7: payload.{name}: is missing$"):
            read(event("access.jit_approved", **{"reviewer": "a", "review_id": "r1", name: None}))


class TestSessions:
    def test_start_and_end_share_the_session(self) -> None:
        started = one(read(event("session.started", verb="exec")))
        ended = one(read(event("session.closed", exit_code="0", duration_ms=45200)))
        assert (started.event_type, ended.event_type) == ("session.started", "session.ended")
        assert started.session_id == ended.session_id == "s1"
        assert ended.outcome == "success"

    @pytest.mark.parametrize(("code", "outcome"), [("0", "success"), ("1", "failure"), ("", "unknown")])
    def test_the_outcome_follows_from_the_exit_code(self, code: str, outcome: str) -> None:
        assert one(read(event("session.closed", exit_code=code))).outcome == outcome

    def test_a_guardrail_is_a_denial_with_the_matched_text(self) -> None:
        found = one(read(event("session.guardrail_violation", rule="no-truncate", query_excerpt="TRUNCATE, DROP")))
        assert (found.event_type, found.outcome, found.error) == ("session.denied", "denied", "no-truncate")
        assert found.action is not None
        assert (found.action.query, found.action.args, found.action.truncated) == (None, ("TRUNCATE, DROP",), True)

    def test_two_rules_of_one_session_are_two_events(self) -> None:
        first, second = (one(read(event("session.guardrail_violation", rule=rule))) for rule in ("a", "b"))
        assert first.event_id != second.event_id
        assert first.action is None

    def test_the_same_event_twice_has_one_id(self) -> None:
        record = event("session.started", verb="exec")
        assert one(read(record)).event_id == one(read(copy.deepcopy(record))).event_id


class TestWebhooks:
    def test_a_record_without_a_time_is_skipped_with_a_reason(self) -> None:
        for event_type in ("session.open", "session.close"):
            payload = {"event_type": event_type, "id": "s1", "exit_code": 0}
            assert reason(read({"event_type": event_type, "payload": payload})) == "no_time"
            assert reason(read(payload)) == "no_time"

    def webhook(self, text: str = "", **payload: Any) -> Result:
        base = {
            "event_type": "session.open",
            "id": "s1",
            "connection": "pg",
            "connection_type": "database",
            "user_email": "joe@example.com",
            "input": base64.b64encode(text.encode()).decode(),
            "command": ["psql"],
            "review": None,
        }
        return read({"event_type": "session.open", "timestamp": TIME, "payload": {**base, **payload}})

    def test_a_database_is_asked(self) -> None:
        opened, asked = several(self.webhook("SELECT 1", is_input_truncated=True))
        assert opened.event_type == "session.started"
        assert asked.action is not None
        assert (asked.event_type, asked.action.query, asked.action.truncated) == ("session.query", "SELECT 1", True)

    def test_without_input_it_is_a_start_alone(self) -> None:
        assert one(self.webhook()).event_type == "session.started"

    def test_waiting_for_a_review_is_a_request(self) -> None:
        found = one(self.webhook("DROP TABLE t", review={"status": "PENDING", "type": "jit"}))
        assert (found.event_type, found.request_id, found.outcome) == ("request.created", "s1", "pending")
        assert found.grant_id is None

    def test_the_two_webhooks_of_a_reviewed_session_are_two_records(self) -> None:
        waits = one(self.webhook("x", review={"status": "PENDING"}))
        runs, _ = several(self.webhook("x", review={"status": "PROCESSING"}))
        assert (runs.event_type, waits.source.native_type) == ("session.started", "session.open/PENDING")
        assert waits.event_id != runs.event_id

    @pytest.mark.parametrize("status", ["REJECTED", "REVOKED", "EXPIRED"])
    def test_a_refused_review_starts_nothing(self, status: str) -> None:
        assert one(self.webhook("x", review={"status": status})).event_type == "session.denied"

    def test_input_that_is_no_text_stays_readable(self) -> None:
        _, asked = several(self.webhook(input=base64.b64encode(b"a\xff").decode()))
        assert asked.action is not None and asked.action.query == "a\\xff"

    def test_input_that_is_not_base64_fails(self) -> None:
        with pytest.raises(RecordError, match=r"^records.jsonl:7: payload.input: is not base64$"):
            self.webhook(input="%%%")

    def test_a_close_has_no_actor(self) -> None:
        payload = {"event_type": "session.close", "id": "s1", "exit_code": -100, "exit_err": "stream closed"}
        found = one(read({"event_type": "session.close", "timestamp": TIME, "payload": payload}))
        assert (found.event_type, found.subject.id, found.outcome) == ("session.ended", "unknown", "unknown")
        assert (found.error, found.resource) == ("stream closed", None)


def review(status: str, **members: Any) -> dict[str, Any]:
    group = {
        "group": "sre",
        "status": status,
        "reviewed_by": {"id": "u2", "email": "alex@example.com"},
        "review_date": TIME,
    }
    return {
        "id": "r1",
        "session": "s1",
        "type": "jit",
        "access_duration": 1_800_000_000_000,
        "status": status,
        "created_at": "2026-05-04T15:00:00Z",
        "review_owner": {"id": "u1", "email": "drew@example.com"},
        "review_connection": {"name": "pg-prod"},
        "review_groups_data": [group],
        **members,
    }


class TestReviews:
    def test_revoke_at_of_an_approved_review_is_the_planned_end(self) -> None:
        """It is set at the approval: read as a revocation it would hide every access that follows."""
        approved, given = several(read(review("APPROVED", revoke_at="2026-05-04T16:00:00Z")))
        assert (approved.event_type, approved.actor.id) == ("request.approved", "alex@example.com")
        assert approved.approvals[0].group == "sre"
        assert (given.event_type, given.grant_id, given.grant_id_kind) == ("grant.activated", "r1", "native")
        assert (given.expires_at, given.expiry_source) == (AT + timedelta(minutes=30), "native")
        assert given.removal_evidence is None
        assert given.subject.id == "drew@example.com"

    def test_a_revoke_at_that_has_long_passed_is_still_no_revocation(self) -> None:
        record = review("APPROVED", revoke_at="2026-05-04T15:30:01Z")
        assert [each.event_type for each in several(read(record))] == ["request.approved", "grant.activated"]

    def test_without_revoke_at_the_end_is_reckoned_from_the_approval(self) -> None:
        _, given = several(read(review("APPROVED")))
        assert (given.expires_at, given.expiry_source) == (AT + timedelta(minutes=30), "derived")

    def test_without_either_the_end_is_unknown(self) -> None:
        _, given = several(read(review("APPROVED", access_duration=0)))
        assert (given.expires_at, given.expiry_source) == (None, "unknown")

    def test_an_approved_statement_is_no_grant(self) -> None:
        assert one(read(review("APPROVED", type="onetime"))).event_type == "request.approved"

    def test_a_revoked_review_has_the_evidence_api_accepted(self) -> None:
        found = one(read(review("REVOKED", revoke_at="2026-05-04T16:00:00Z")))
        assert (found.event_type, found.grant_id, found.removal_evidence) == ("grant.revoked", "r1", "api_accepted")
        assert (found.occurred_at, found.actor.id) == (AT, "alex@example.com")

    def test_a_pending_review_is_a_request_of_its_owner(self) -> None:
        found = one(read(review("PENDING")))
        assert (found.event_type, found.actor.id, found.requested_seconds) == (
            "request.created",
            "drew@example.com",
            1800,
        )
        assert found.occurred_at == AT - timedelta(minutes=30)

    def test_rejected_and_expired(self) -> None:
        denied = one(read(review("REJECTED", rejection_reason="no ticket")))
        assert (denied.event_type, denied.reason) == ("request.denied", "no ticket")
        lapsed = one(read(review("EXPIRED", expires_at=TIME)))
        assert (lapsed.event_type, lapsed.actor.id, lapsed.grant_id) == ("request.expired", "hoop", None)

    def test_a_forced_decision_is_marked(self) -> None:
        record = review("APPROVED", type="onetime")
        record["review_groups_data"][0]["forced_review"] = True
        assert one(read(record)).approvals[0].forced is True

    @pytest.mark.parametrize("status", ["PROCESSING", "EXECUTED", "UNKNOWN"])
    def test_a_review_that_ran_has_sessions(self, status: str) -> None:
        assert reason(read(review(status))) == "review_ran"

    def test_a_decision_without_a_time_is_left_out(self) -> None:
        assert reason(read(review("APPROVED", review_groups_data=[]))) == "no_time"

    def test_states_have_events_of_their_own(self) -> None:
        ids = [each.event_id for status in ("PENDING", "APPROVED", "REVOKED") for each in several(read(review(status)))]
        assert len(set(ids)) == len(ids) == 4


def test_a_type_of_a_later_version_is_counted() -> None:
    assert reason(read(event("session.something_new"))) == "event_unknown"


def test_a_record_without_a_type_is_reported() -> None:
    with pytest.raises(RecordError, match=r"^records.jsonl:7: event_type: is missing$"):
        read({"payload": {}})


class TestToolCalls:
    """Events of mcpproxy 0.1.0, which hoop embeds. ``hoop_mcp.jsonl`` is what its daemon wrote (``wal_dir``)."""

    def read(self, *lines: bytes) -> list[Event]:
        adapter = make_adapter("hoop")
        results = [adapter.read(line, HERE) for line in lines]
        return [event for result in results if not isinstance(result, Skipped) for event in result]

    def events(self) -> list[Event]:
        return self.read(*(REPOSITORY / "tests" / "support" / "hoop_mcp.jsonl").read_bytes().splitlines())

    def test_results_by_kind(self) -> None:
        assert Counter((one.event_type, one.outcome) for one in self.events()) == {
            ("session.command", "unknown"): 5, ("session.command", "failure"): 1, ("session.denied", "denied"): 4,
            ("request.created", "pending"): 2, ("request.approved", "success"): 1, ("request.expired", "success"): 1,
            ("session.started", "success"): 1, ("session.ended", "success"): 1,
        }  # fmt: skip

    def test_the_agent_acts_for_the_person_in_every_event_of_the_session(self) -> None:
        assert {one.subject.id for one in self.events()} == {"root"}
        acting = {(one.actor.id, one.actor.kind, one.actor.on_behalf_of) for one in self.events()
                  if one.event_type.startswith("session.")}  # fmt: skip
        assert acting == {("ops-agent", "agent", "root")}

    def test_a_held_call_runs_when_it_is_approved(self) -> None:
        asked = [one.request_id for one in self.events() if one.event_type == "request.created"]
        ran, refused = (one for one in self.events() if one.request_id and one.event_type.startswith("session."))
        assert [ran.request_id, refused.request_id] == asked
        assert ran.action and (ran.event_type, ran.action.command) == ("session.command", "restart_service")
        assert refused.event_type == "session.denied"

    def test_arguments_are_a_digest(self) -> None:
        call = next(one for one in self.events() if one.event_type == "session.command")
        assert call.action and call.action.redacted and call.action.args[0] == "args_bytes=46"
        assert call.resource and (call.resource.kind, call.resource.id) == ("connection", "ops")

    def test_a_killed_session_and_an_unknown_event(self) -> None:
        base = {"time": TIME, "sid": "s", "user": "drew@example.com"}
        killed = one(read({**base, "event": "mcp.session_killed", "reason": "rug pull"}))
        assert (killed.event_type, killed.outcome, killed.error) == ("session.ended", "failure", "rug pull")
        assert reason(read({**base, "event": "mcp.brand_new"})) == "event_unknown"
        nobody = one(read({**base, "user": "anonymous", "event": "mcp.tool_call", "tool": "x"}))
        assert (nobody.subject.id, nobody.actor.id, nobody.actor.on_behalf_of) == ("unknown", "unknown", None)


def test_instance_and_tenant() -> None:
    found = one(read(event("session.started"), instance="eu", tenant="acme"))
    assert (found.source.instance, found.tenant) == ("eu", "acme")
    assert one(read(event("session.started"))).source.instance == "hoop"


WHOLE = [
    event("access.jit_approved", reviewer="a@b", review_id="r"),
    event("session.guardrail_violation", rule="r", query_excerpt="x"),
    event("session.closed", exit_code="0"),
    {
        "event_type": "session.open",
        "timestamp": TIME,
        "payload": {"id": "s", "input": "eA==", "command": ["a"], "review": {"status": "PENDING"}},
    },
    review("APPROVED", revoke_at=TIME),
    review("PENDING"),
]


@given(mangled(WHOLE))
def test_a_mangled_record_raises_nothing_but_a_record_error(record: dict[str, Any]) -> None:
    assert_maps_or_fails("hoop", record)
