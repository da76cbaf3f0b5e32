"""Temporary credentials in CloudTrail: each call that issues them activates a grant."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from grantledger.producers.adapters import RecordError
from grantledger.producers.adapters.cloudtrail.credentials import ISSUING
from support.adapters import one, reason, several
from support.cloudtrail import (
    ACCOUNT,
    ALICE,
    AT,
    ISSUED,
    KEY,
    ROLE,
    TAKEN,
    assume,
    call,
)


class TestCredentials:
    def test_an_assumed_role_is_a_grant_with_the_id_of_its_key(self) -> None:
        event = one(assume())
        assert (event.event_type, event.grant_id, event.grant_id_kind) == ("grant.activated", KEY, "native")
        assert (event.expires_at, event.expiry_source) == (AT + timedelta(hours=1), "native")
        assert (event.subject.id, event.entitlement, event.requested_seconds) == (ALICE["arn"], ROLE, 3600)
        assert event.resource is not None and (event.resource.kind, event.resource.id) == ("aws_account", ACCOUNT)
        assert (event.source.instance, event.source.native_type) == (ACCOUNT, "sts.amazonaws.com/AssumeRole")
        assert event.client_ip == "203.0.113.7"

    def test_calls_with_the_credentials_belong_to_the_grant_and_its_session(self) -> None:
        given, done = one(assume()), one(call("ec2", "RunInstances", userIdentity=TAKEN, eventID="e2"))
        assert (done.event_type, done.grant_id, done.session_id) == ("session.command", KEY, given.session_id)
        assert done.entitlement == ROLE

    @pytest.mark.parametrize("key", ["EXAMPLEMASKED", None])
    def test_masked_keys_are_joined_by_principal_and_time(self, key: str | None) -> None:
        answer = copy.deepcopy(ISSUED)
        answer["credentials"]["accessKeyId"] = key
        given = one(assume(responseElements=answer))
        done = one(call("ec2", "RunInstances", userIdentity={**TAKEN, "accessKeyId": key}))
        assert (given.grant_id, given.grant_id_kind) == (done.grant_id, "synthesized")
        assert given.session_id == done.session_id

    def test_a_role_assumed_by_a_service_has_the_same_session(self) -> None:
        service = {"type": "AWSService", "invokedBy": "lambda.amazonaws.com"}
        answer = {"credentials": ISSUED["credentials"]}
        given = one(assume(userIdentity=service, responseElements=answer, sourceIPAddress="lambda.amazonaws.com"))
        assert (given.subject.id, given.subject.kind, given.client_ip) == ("lambda.amazonaws.com", "service", None)
        assert given.session_id == one(call("ec2", "RunInstances", userIdentity=TAKEN)).session_id

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Jul 1, 2026, 11:00:00 AM", AT + timedelta(hours=1)),
            ("Jul 1, 2026 11:00:00 AM", AT + timedelta(hours=1)),
            ("Jul 1, 2026, 12:08:19 PM", datetime(2026, 7, 1, 12, 8, 19, tzinfo=UTC)),
            ("Jul 2, 2026, 12:00:00 AM", datetime(2026, 7, 2, tzinfo=UTC)),
            ("Jul 1, 2026, 9:05:07\u202fPM", datetime(2026, 7, 1, 21, 5, 7, tzinfo=UTC)),
            ("2026-07-01T11:00:00Z", AT + timedelta(hours=1)),
        ],
    )
    def test_formats_of_the_expiration(self, text: str, expected: datetime) -> None:
        event = one(assume(responseElements={"credentials": {"accessKeyId": KEY, "expiration": text}}))
        assert (event.expires_at, event.expiry_source) == (expected, "native")

    @pytest.mark.parametrize(
        "text", ["Jul 32, 2026, 1:00:00 PM", "Foo 1, 2026, 1:00:00 PM", "soon", 7, "Jul 1, 2026, 13:00:00 PM"]
    )
    def test_an_invalid_expiration_fails(self, text: Any) -> None:
        with pytest.raises(RecordError, match=r"^records.jsonl:7: responseElements.credentials.expiration: "):
            assume(responseElements={"credentials": {"accessKeyId": KEY, "expiration": text}})

    def test_without_an_expiration_it_is_derived_from_the_requested_duration(self) -> None:
        event = one(assume(responseElements=None))
        assert (event.expires_at, event.expiry_source) == (AT + timedelta(hours=1), "derived")

    def test_without_a_duration_the_expiration_is_unknown(self) -> None:
        event = one(assume(responseElements=None, requestParameters={"roleArn": ROLE}))
        assert (event.expires_at, event.expiry_source, event.grant_id_kind) == (None, "unknown", "synthesized")

    def test_a_denial_has_the_role_if_aws_names_it(self) -> None:
        words = f"User: {ALICE['arn']} is not authorized to perform: sts:AssumeRole on resource: {ROLE}"
        refused = {"requestParameters": None, "responseElements": None, "errorCode": "AccessDenied"}
        event = one(assume(**refused, errorMessage=words))
        assert (event.event_type, event.outcome, event.entitlement) == ("grant.failed", "denied", ROLE)
        assert one(assume(**refused, errorMessage="no")).entitlement == "unknown"
        assert one(assume(errorCode="ThrottlingException")).outcome == "failure"

    def test_external_federation(self) -> None:
        who = {"type": "SAMLUser", "principalId": "idp:carol", "userName": "carol@example.com"}
        asked = {"roleArn": ROLE, "roleSessionName": "carol@example.com"}
        event = one(
            call("sts", "AssumeRoleWithSAML", userIdentity=who, requestParameters=asked, responseElements=ISSUED)
        )
        assert (event.event_type, event.subject.id, event.subject.email) == (
            "grant.activated",
            "carol@example.com",
            "carol@example.com",
        )
        web = {"type": "WebIdentityUser", "principalId": "oidc:pod", "userName": "system:serviceaccount:a:b"}
        event = one(call("sts", "AssumeRoleWithWebIdentity", userIdentity=web, requestParameters=asked))
        assert (event.subject.id, event.subject.email) == ("system:serviceaccount:a:b", None)

    def test_a_session_token_has_the_rights_of_its_user(self) -> None:
        answer = {"credentials": ISSUED["credentials"]}
        event = one(call("sts", "GetSessionToken", responseElements=answer))
        assert (event.entitlement, event.grant_id) == (ALICE["arn"], KEY)
        who = {**ALICE, "accessKeyId": KEY, "sessionContext": TAKEN["sessionContext"]}
        assert one(call("s3", "GetObject", userIdentity=who)).session_id == event.session_id

    def test_a_federated_user(self) -> None:
        federated = f"arn:aws:sts::{ACCOUNT}:federated-user/bob"
        answer = {"credentials": ISSUED["credentials"], "federatedUser": {"arn": federated}}
        assert one(call("sts", "GetFederationToken", responseElements=answer)).entitlement == federated

    @pytest.mark.parametrize("wrap", [lambda arn: arn, lambda arn: {"arn": arn}])
    def test_root_of_a_member_account(self, wrap: Any) -> None:
        task = "arn:aws:iam::aws:policy/root-task/S3UnlockBucketPolicy"
        asked = {"targetPrincipal": "444455556666", "taskPolicyArn": wrap(task)}
        event = one(call("sts", "AssumeRoot", requestParameters=asked, responseElements=ISSUED))
        assert event.entitlement == task
        assert event.resource is not None and event.resource.id == "444455556666"

    def test_the_resource_is_the_account_of_the_role(self) -> None:
        there = "arn:aws:iam::444455556666:role/x"
        event = one(assume(requestParameters={"roleArn": there, "roleSessionName": "a"}, responseElements=None))
        assert event.resource is not None and event.resource.id == "444455556666"

    @pytest.mark.parametrize("operation", ISSUING)
    def test_every_issuing_call_activates_a_grant_with_its_expiration(self, operation: str) -> None:
        event = one(call("sts", operation, responseElements=ISSUED))
        assert (event.event_type, event.grant_id) == ("grant.activated", KEY)
        assert event.expires_at == AT + timedelta(hours=1)

    def test_service_linked_roles_are_skipped(self) -> None:
        role = f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/rds.amazonaws.com/AWSServiceRoleForRDS"
        assert reason(assume(requestParameters={"roleArn": role})) == "service_linked_role"
        who = copy.deepcopy(TAKEN)
        who["sessionContext"]["sessionIssuer"]["arn"] = role
        assert reason(call("ec2", "DescribeVpcs", userIdentity=who)) == "service_linked_role"

    def test_revoking_the_sessions_of_a_role(self) -> None:
        asked = {"roleName": "breakglass", "policyName": "AWSRevokeOlderSessions", "policyDocument": "{}"}
        changed, event = several(call("iam", "PutRolePolicy", requestParameters=asked))
        assert (changed.event_type, changed.entitlement) == ("policy.changed", "breakglass")
        assert (event.event_type, event.removal_evidence, event.entitlement) == (
            "grant.revoked",
            "api_accepted",
            "breakglass",
        )
        assert (event.subject.id, event.grant_id_kind) == ("unknown", "synthesized")
        failed = call("iam", "PutRolePolicy", requestParameters=asked, errorCode="AccessDenied")
        assert (one(failed).event_type, one(failed).outcome) == ("policy.changed", "denied")
        other = call("iam", "PutRolePolicy", requestParameters={**asked, "policyName": "mine"})
        assert one(other).event_type == "policy.changed"
