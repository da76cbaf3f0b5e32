"""Sign-ins, shells and API calls in CloudTrail."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from support.adapters import Result, one, reason
from support.cloudtrail import (
    ACCOUNT,
    ALICE,
    KEY,
    SESSION,
    TAKEN,
    call,
)


class TestSessions:
    def console(self, operation: str, answer: str, **members: Any) -> Result:
        more = {"eventType": "AwsConsoleSignIn", "responseElements": {operation: answer}, **members}
        return call("signin", operation, **more)

    def test_a_sign_in_and_the_calls_after_it_have_one_session(self) -> None:
        begun = one(self.console("ConsoleLogin", "Success"))
        assert (begun.event_type, begun.outcome) == ("session.started", "success")
        who = {**ALICE, "accessKeyId": KEY, "sessionContext": TAKEN["sessionContext"]}
        assert one(call("s3", "ListBuckets", userIdentity=who)).session_id == begun.session_id

    def test_a_sign_in_with_a_role_has_the_role_as_entitlement(self) -> None:
        who = {"type": "AssumedRole", "arn": SESSION, "accountId": ACCOUNT}
        assert one(self.console("ConsoleLogin", "Success", userIdentity=who)).entitlement == "breakglass"

    def test_a_failed_sign_in_is_denied_and_a_hidden_name_stays_hidden(self) -> None:
        who = {"type": "IAMUser", "userName": "HIDDEN_DUE_TO_SECURITY_REASONS", "accountId": ACCOUNT}
        event = one(self.console("ConsoleLogin", "Failure", userIdentity=who, errorMessage="Failed authentication"))
        assert (event.event_type, event.outcome, event.subject.id) == ("session.denied", "denied", "unknown")
        assert event.error == "Failed authentication"

    def test_switching_to_a_role_and_back(self) -> None:
        who = {"type": "AssumedRole", "arn": SESSION, "accountId": ACCOUNT}
        before = {"SwitchFrom": ALICE["arn"]}
        taken = one(self.console("SwitchRole", "Success", userIdentity=who, additionalEventData=before))
        assert (taken.event_type, taken.subject.id, taken.actor.id) == ("session.started", SESSION, ALICE["arn"])
        left = one(self.console("ExitRole", "Success", userIdentity=who))
        assert (left.event_type, left.session_id) == ("session.ended", taken.session_id)
        assert one(self.console("SwitchRole", "Failure", userIdentity=who)).event_type == "session.denied"

    @pytest.mark.parametrize("operation", ["CheckMfa", "PasswordUpdated"])
    def test_other_sign_in_records_are_authentication(self, operation: str) -> None:
        assert reason(self.console(operation, "Success")) == "authentication"

    def test_a_shell_on_an_instance(self) -> None:
        asked = {"target": "i-1", "documentName": "SSM-SessionManagerRunShell", "reason": "INC-7"}
        answer = {"sessionId": "alice-0a", "tokenValue": "Value hidden due to security reasons."}
        begun = one(call("ssm", "StartSession", requestParameters=asked, responseElements=answer, userIdentity=TAKEN))
        assert (begun.event_type, begun.session_id, begun.grant_id) == ("session.started", "alice-0a", KEY)
        assert (begun.reason, begun.resource and begun.resource.id) == ("INC-7", "i-1")
        ended = one(call("ssm", "TerminateSession", requestParameters={"sessionId": "alice-0a"}))
        assert (ended.event_type, ended.session_id, ended.subject.id) == ("session.ended", "alice-0a", "unknown")

    def test_a_shell_is_recorded_whatever_key_opened_it(self) -> None:
        refused = one(call("ssm", "StartSession", requestParameters={"target": "i-1"}, errorCode="AccessDenied"))
        assert (refused.event_type, refused.outcome, refused.subject.id) == ("session.denied", "denied", ALICE["arn"])


class TestCommands:
    def test_a_call_with_its_parameters(self) -> None:
        asked = {"instanceId": "i-1", "count": 2, "filters": {"a": [1]}, "none": None}
        items = [{"ARN": f"arn:aws:ec2:::{ACCOUNT}/i-1", "type": "AWS::EC2::Instance"}]
        event = one(call("ec2", "StopInstances", userIdentity=TAKEN, requestParameters=asked, resources=items))
        assert event.action is not None
        assert (event.action.command, event.action.args) == (
            "ec2:StopInstances",
            ("instanceId=i-1", "count=2", 'filters={"a":[1]}'),
        )
        assert event.resource is not None and event.resource.kind == "AWS::EC2::Instance"
        assert (event.outcome, event.action.redacted, event.action.truncated) == ("success", False, False)

    def test_masked_and_omitted_parameters_are_marked(self) -> None:
        masked = {"secretString": "HIDDEN_DUE_TO_SECURITY_REASONS"}
        event = one(call("secretsmanager", "CreateSecret", userIdentity=TAKEN, requestParameters=masked))
        assert event.action is not None and event.action.redacted
        event = one(call("ec2", "RunInstances", userIdentity=TAKEN, requestParameters={"omitted": True}))
        assert event.action is not None and event.action.truncated

    @pytest.mark.parametrize(
        ("code", "outcome"),
        [
            (None, "success"),
            ("AccessDenied", "denied"),
            ("Client.UnauthorizedOperation", "denied"),
            ("UnauthorizedException", "denied"),
            ("ExpiredToken", "denied"),
            ("ThrottlingException", "failure"),
            ("NoSuchBucketPolicy", "failure"),
        ],
    )
    def test_the_outcome_follows_from_the_error_code(self, code: str | None, outcome: str) -> None:
        event = one(call("ec2", "StopInstances", userIdentity=TAKEN, errorCode=code))
        assert (event.outcome, event.error) == (outcome, code)

    def test_a_service_acting_for_a_user_is_the_actor(self) -> None:
        who = {**TAKEN, "invokedBy": "cloudformation.amazonaws.com"}
        event = one(call("iam", "CreateUser", userIdentity=who))
        assert (event.subject.id, event.actor.id, event.actor.kind) == (
            SESSION,
            "cloudformation.amazonaws.com",
            "service",
        )

    def test_a_second_factor_means_a_human(self) -> None:
        who = copy.deepcopy(TAKEN)
        who["sessionContext"]["attributes"]["mfaAuthenticated"] = "true"
        assert one(call("s3", "ListBuckets", userIdentity=who)).subject.kind == "human"
        assert one(call("s3", "ListBuckets", userIdentity=TAKEN)).subject.kind == "unknown"

    def test_a_role_of_another_account(self) -> None:
        who = {"type": "AWSAccount", "principalId": "AROAEXAMPLE:bob", "accountId": "444455556666"}
        event = one(call("s3", "GetObject", userIdentity=who))
        assert (event.event_type, event.subject.id) == ("session.command", "AROAEXAMPLE:bob")

    @pytest.mark.parametrize(
        ("who", "expected"),
        [
            (ALICE, "standing_access"),
            ({"type": "Root", "arn": f"arn:aws:iam::{ACCOUNT}:root"}, "standing_access"),
            ({"type": "AWSAccount", "principalId": "AIDAEXAMPLE", "accountId": "1"}, "standing_access"),
            ({"type": "AWSService", "invokedBy": "config.amazonaws.com"}, "aws_service"),
            ({"accountId": ACCOUNT, "invokedBy": "ec2.amazonaws.com"}, "aws_service"),
            ({"type": "Unknown"}, "no_subject"),
            (None, "no_subject"),
        ],
    )
    def test_calls_without_temporary_access_are_skipped(self, who: dict[str, Any] | None, expected: str) -> None:
        assert reason(call("s3", "GetObject", userIdentity=who)) == expected

    def test_cloudtrails_own_findings(self) -> None:
        assert reason(call("ec2", "RunInstances", eventType="AwsCloudTrailInsight")) == "insight"
