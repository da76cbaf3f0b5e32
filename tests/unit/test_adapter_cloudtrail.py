"""The CloudTrail adapter: every real record, record shapes, and damaged records."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from grantledger.producers.adapters import RecordError, Skipped
from grantledger.producers.adapters.cloudtrail.credentials import ISSUING, REVOKE_POLICY
from grantledger.producers.adapters.cloudtrail.identity_center import ROLE_SEARCH, ROLE_TAKEN, SIGNING_IN
from support.adapters import Result, assert_maps_or_fails, one, reason
from support.cloudtrail import (
    ASSIGNMENT,
    ISSUED,
    PORTAL_USER,
    ROLE,
    TAKEN,
    read,
    read_samples,
    record,
)
from support.mangling import mangled

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def results(samples: Path) -> list[tuple[dict[str, Any], Result]]:
    return read_samples(samples)


class TestRealRecords:
    """A recorded attack on a test account, with the key ids replaced."""

    def test_results_by_kind(self, results: list[tuple[dict[str, Any], Result]]) -> None:
        counts: Counter[str] = Counter()
        for _, outcome in results:
            counts[outcome.reason if isinstance(outcome, Skipped) else one(outcome).event_type] += 1
        assert counts == {
            "standing_access": 2060,
            "session.command": 668,
            "policy.changed": 64,
            "aws_service": 50,
            "service_linked_role": 26,
            "grant.activated": 16,
            "grant.failed": 13,
            "session.started": 2,
            "authentication": 1,
        }

    def test_every_call_of_assume_role_has_a_result(self, results: list[tuple[dict[str, Any], Result]]) -> None:
        """The 49 calls: granted, denied, or by a service for its own role."""
        calls = [(found, outcome) for found, outcome in results if found["eventName"] == "AssumeRole"]
        assert len(calls) == 49
        for found, outcome in calls:
            role = (found["requestParameters"] or {}).get("roleArn", "")
            if "/aws-service-role/" in role:
                assert reason(outcome) == "service_linked_role"
            elif "errorCode" in found:
                assert (one(outcome).event_type, one(outcome).outcome) == ("grant.failed", "denied")
                assert one(outcome).entitlement in found["errorMessage"]
            else:
                event = one(outcome)
                assert (event.event_type, event.entitlement, event.expiry_source) == ("grant.activated", role, "native")
                seconds = found["requestParameters"].get("durationSeconds")
                assert event.expires_at is not None
                if seconds is not None:
                    assert event.expires_at == event.occurred_at + timedelta(seconds=seconds)

    def test_calls_lead_to_the_credentials_they_used(self, results: list[tuple[dict[str, Any], Result]]) -> None:
        """The sample's key ids are all the same, so principal and time must do: they do, for every role session."""
        given: dict[str | None, str | None] = {}
        used: defaultdict[str | None, set[str | None]] = defaultdict(set)
        for found, outcome in results:
            for event in () if isinstance(outcome, Skipped) else outcome:
                if event.event_type == "grant.activated":
                    given[event.grant_id] = event.session_id
                elif event.event_type == "session.command" and found["userIdentity"]["type"] == "AssumedRole":
                    used[event.grant_id].add(event.session_id)
        assert len(used) == 7
        for grant, sessions in used.items():
            assert sessions == {given[grant]}

    def test_console_calls_lead_to_the_sign_in(self, results: list[tuple[dict[str, Any], Result]]) -> None:
        events = [event for _, found in results if not isinstance(found, Skipped) for event in found]
        signed_in = {event.session_id for event in events if event.event_type == "session.started"}
        done = Counter(event.session_id for event in events if event.event_type == "session.command")
        assert [done[session] for session in signed_in if done[session]] == [217]

    def test_no_record_is_a_removal(self, results: list[tuple[dict[str, Any], Result]]) -> None:
        for _, outcome in results:
            for event in () if isinstance(outcome, Skipped) else outcome:
                assert event.removal_evidence is None


def test_every_call_named_in_the_code_is_documented() -> None:
    text = (REPOSITORY / "docs" / "sources" / "cloudtrail.md").read_text("utf-8")
    for name in (*ISSUING, *ROLE_TAKEN, *ROLE_SEARCH, *SIGNING_IN, REVOKE_POLICY):
        assert f"`{name}`" in text, name


class TestShapes:
    @pytest.mark.parametrize("name", ["eventName", "eventSource", "eventTime", "eventID"])
    def test_a_missing_member_is_reported(self, name: str) -> None:
        with pytest.raises(RecordError, match=rf"^records.jsonl:7: {name}: is missing$"):
            read({**record("ec2", "RunInstances"), name: None})

    def test_instance_and_tenant(self) -> None:
        event = one(read(record("ec2", "RunInstances", userIdentity=TAKEN), instance="org", tenant="acme"))
        assert (event.source.instance, event.tenant) == ("org", "acme")


WHOLE = [
    record("sts", "AssumeRole", requestParameters={"roleArn": ROLE, "roleSessionName": "a"}, responseElements=ISSUED),
    record("sts", "AssumeRoot", requestParameters={"taskPolicyArn": {"arn": "a"}, "targetPrincipal": "1"}),
    record("sso", "CreateAccountAssignment", requestParameters=ASSIGNMENT, userIdentity=TAKEN),
    record("sso", "Federate", userIdentity=PORTAL_USER, serviceEventDetails={"account_id": "1", "role_name": "r"}),
    record("signin", "SwitchRole", userIdentity=TAKEN, additionalEventData={"SwitchFrom": "a"}),
    record("ssm", "StartSession", requestParameters={"target": "i"}, responseElements={"sessionId": "s"}),
    record("ec2", "RunInstances", userIdentity=TAKEN, requestParameters={"a": [1]}, resources=[{"ARN": "a"}]),
]


@given(mangled(WHOLE))
def test_a_mangled_record_raises_only_record_errors(found: dict[str, Any]) -> None:
    assert_maps_or_fails("cloudtrail", found)
