"""AWS CloudTrail: every real record, what the adapter makes of particular ones, and whole log files."""

from __future__ import annotations

import copy
import gzip
import json
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.producers.adapters import Location, RecordError, Skipped, make_adapter
from grantledger.producers.adapters.cloudtrail.credentials import ISSUING, REVOKE_POLICY
from grantledger.producers.adapters.cloudtrail.identity_center import ROLE_SEARCH, ROLE_TAKEN, SIGNING_IN
from grantledger.producers.importer import Importer, Report
from grantledger.producers.input_files import InputFile
from grantledger.producers.record_list import RawRecord, RecordList, is_record_list
from grantledger.schemas.event import Event
from support.adapters import Result, assert_maps_or_fails, one, reason
from support.adapters import read as read_record
from support.mangling import mangled

REPOSITORY = Path(__file__).resolve().parents[2]
AT = datetime(2026, 7, 1, 10, 0, tzinfo=UTC)
ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/ops/breakglass"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/breakglass/alice"
KEY = "ASIAEXAMPLEEXAMPLE01"
ALICE = {
    "type": "IAMUser",
    "arn": f"arn:aws:iam::{ACCOUNT}:user/alice",
    "accessKeyId": "AKIAEXAMPLEEXAMPLE01",
    "userName": "alice",
}
TAKEN = {
    "type": "AssumedRole",
    "arn": SESSION,
    "accessKeyId": KEY,
    "sessionContext": {
        "sessionIssuer": {"type": "Role", "arn": ROLE, "userName": "breakglass"},
        "attributes": {"creationDate": "2026-07-01T10:00:00Z", "mfaAuthenticated": "false"},
    },
}
ISSUED = {
    "credentials": {"accessKeyId": KEY, "expiration": "Jul 1, 2026, 11:00:00 AM"},
    "assumedRoleUser": {"arn": SESSION},
}


def record(service: str, operation: str, **members: Any) -> dict[str, Any]:
    return {
        "eventVersion": "1.11",
        "eventSource": f"{service}.amazonaws.com",
        "eventName": operation,
        "eventTime": "2026-07-01T10:00:00Z",
        "eventID": "e1",
        "eventType": "AwsApiCall",
        "recipientAccountId": ACCOUNT,
        "sourceIPAddress": "203.0.113.7",
        "userIdentity": ALICE,
        "requestParameters": None,
        "responseElements": None,
        **members,
    }


def read(found: dict[str, Any], **options: Any) -> Result:
    return read_record("cloudtrail", found, **options)


def call(service: str, operation: str, **members: Any) -> Result:
    return read(record(service, operation, **members))


def assume(**members: Any) -> Result:
    asked = {"roleArn": ROLE, "roleSessionName": "alice", "durationSeconds": 3600}
    return call("sts", "AssumeRole", **{"requestParameters": asked, "responseElements": ISSUED, **members})


@pytest.fixture(scope="module")
def outcomes(samples: Path) -> list[tuple[dict[str, Any], Result]]:
    lines = (samples / "aws_cloudtrail" / "cloudtrail.jsonl").read_bytes().splitlines()
    adapter = make_adapter("cloudtrail")
    return [(json.loads(line), adapter.read(line, Location("s", number))) for number, line in enumerate(lines, 1)]


class TestRealRecords:
    """A recorded attack on an account of its own, with the key ids replaced."""

    def test_what_becomes_of_them(self, outcomes: list[tuple[dict[str, Any], Result]]) -> None:
        counts: Counter[str] = Counter()
        for _, outcome in outcomes:
            counts[outcome.reason if isinstance(outcome, Skipped) else one(outcome).event_type] += 1
        assert counts == {
            "standing_access": 2124,
            "session.command": 668,
            "aws_service": 50,
            "service_linked_role": 26,
            "grant.activated": 16,
            "grant.failed": 13,
            "session.started": 2,
            "authentication": 1,
        }

    def test_the_documentation_gives_these_counts(self, outcomes: list[tuple[dict[str, Any], Result]]) -> None:
        counts: Counter[str] = Counter()
        for _, outcome in outcomes:
            counts["mapped" if not isinstance(outcome, Skipped) else outcome.reason] += 1
        skipped = sum(counts.values()) - counts["mapped"]
        text = (REPOSITORY / "docs" / "adapters.md").read_text("utf-8")
        line = next(line for line in text.splitlines() if line.startswith(f"The {len(outcomes):,} records"))
        assert f"{counts['mapped']} mapped" in line and f"{skipped:,} skipped" in line
        for word in counts.keys() - {"mapped"}:
            assert f"{counts[word]:,} `{word}`" in line

    def test_every_issue_of_credentials_is_accounted_for(self, outcomes: list[tuple[dict[str, Any], Result]]) -> None:
        """The 49 calls of AssumeRole: given, refused, or taken by a service for its own role."""
        calls = [(found, outcome) for found, outcome in outcomes if found["eventName"] == "AssumeRole"]
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

    def test_what_is_done_with_credentials_leads_back_to_their_issue(
        self, outcomes: list[tuple[dict[str, Any], Result]]
    ) -> None:
        """The sample's key ids are all the same, so principal and time must do: they do, for every role session."""
        given: dict[str | None, str | None] = {}
        used: defaultdict[str | None, set[str | None]] = defaultdict(set)
        for found, outcome in outcomes:
            for event in () if isinstance(outcome, Skipped) else outcome:
                if event.event_type == "grant.activated":
                    given[event.grant_id] = event.session_id
                elif event.event_type == "session.command" and found["userIdentity"]["type"] == "AssumedRole":
                    used[event.grant_id].add(event.session_id)
        assert len(used) == 7
        for grant, sessions in used.items():
            assert sessions == {given[grant]}

    def test_what_is_done_in_the_console_leads_back_to_the_sign_in(
        self, outcomes: list[tuple[dict[str, Any], Result]]
    ) -> None:
        events = [event for _, found in outcomes if not isinstance(found, Skipped) for event in found]
        signed_in = {event.session_id for event in events if event.event_type == "session.started"}
        done = Counter(event.session_id for event in events if event.event_type == "session.command")
        assert [done[session] for session in signed_in if done[session]] == [217]

    def test_nothing_is_said_to_be_removed(self, outcomes: list[tuple[dict[str, Any], Result]]) -> None:
        for _, outcome in outcomes:
            for event in () if isinstance(outcome, Skipped) else outcome:
                assert event.removal_evidence is None


def test_every_call_that_is_named_in_the_code_is_documented() -> None:
    text = (REPOSITORY / "docs" / "adapters.md").read_text("utf-8")
    for name in (*ISSUING, *ROLE_TAKEN, *ROLE_SEARCH, *SIGNING_IN, REVOKE_POLICY):
        assert f"`{name}`" in text, name


class TestCredentials:
    def test_an_assumed_role_is_a_grant_named_by_its_key(self) -> None:
        event = one(assume())
        assert (event.event_type, event.grant_id, event.grant_id_kind) == ("grant.activated", KEY, "native")
        assert (event.expires_at, event.expiry_source) == (AT + timedelta(hours=1), "native")
        assert (event.subject.id, event.entitlement, event.requested_seconds) == (ALICE["arn"], ROLE, 3600)
        assert event.resource is not None and (event.resource.kind, event.resource.id) == ("aws_account", ACCOUNT)
        assert (event.source.instance, event.source.native_type) == (ACCOUNT, "sts.amazonaws.com/AssumeRole")
        assert event.client_ip == "203.0.113.7"

    def test_what_is_done_with_it_names_grant_and_session(self) -> None:
        given, done = one(assume()), one(call("ec2", "RunInstances", userIdentity=TAKEN, eventID="e2"))
        assert (done.event_type, done.grant_id, done.session_id) == ("session.command", KEY, given.session_id)
        assert done.entitlement == ROLE

    @pytest.mark.parametrize("key", ["EXAMPLEMASKED", None])
    def test_where_keys_are_masked_principal_and_time_join(self, key: str | None) -> None:
        answer = copy.deepcopy(ISSUED)
        answer["credentials"]["accessKeyId"] = key
        given = one(assume(responseElements=answer))
        done = one(call("ec2", "RunInstances", userIdentity={**TAKEN, "accessKeyId": key}))
        assert (given.grant_id, given.grant_id_kind) == (done.grant_id, "synthesized")
        assert given.session_id == done.session_id

    def test_a_service_that_takes_a_role_names_the_session_all_the_same(self) -> None:
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
    def test_the_ways_of_writing_the_end(self, text: str, expected: datetime) -> None:
        event = one(assume(responseElements={"credentials": {"accessKeyId": KEY, "expiration": text}}))
        assert (event.expires_at, event.expiry_source) == (expected, "native")

    @pytest.mark.parametrize(
        "text", ["Jul 32, 2026, 1:00:00 PM", "Foo 1, 2026, 1:00:00 PM", "soon", 7, "Jul 1, 2026, 13:00:00 PM"]
    )
    def test_an_end_that_is_no_time_fails(self, text: Any) -> None:
        with pytest.raises(RecordError, match=r"^records.jsonl:7: responseElements.credentials.expiration: "):
            assume(responseElements={"credentials": {"accessKeyId": KEY, "expiration": text}})

    def test_without_an_end_it_is_reckoned_from_what_was_asked(self) -> None:
        event = one(assume(responseElements=None))
        assert (event.expires_at, event.expiry_source) == (AT + timedelta(hours=1), "derived")

    def test_where_nothing_says_the_end_it_is_unknown(self) -> None:
        event = one(assume(responseElements=None, requestParameters={"roleArn": ROLE}))
        assert (event.expires_at, event.expiry_source, event.grant_id_kind) == (None, "unknown", "synthesized")

    def test_a_refusal_names_the_role_where_aws_does(self) -> None:
        words = f"User: {ALICE['arn']} is not authorized to perform: sts:AssumeRole on resource: {ROLE}"
        refused = {"requestParameters": None, "responseElements": None, "errorCode": "AccessDenied"}
        event = one(assume(**refused, errorMessage=words))
        assert (event.event_type, event.outcome, event.entitlement) == ("grant.failed", "denied", ROLE)
        assert one(assume(**refused, errorMessage="no")).entitlement == "unknown"
        assert one(assume(errorCode="ThrottlingException")).outcome == "failure"

    def test_federation_from_outside(self) -> None:
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

    def test_a_session_of_a_user_is_of_what_the_user_may(self) -> None:
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

    def test_another_accounts_role_is_of_that_account(self) -> None:
        there = "arn:aws:iam::444455556666:role/x"
        event = one(assume(requestParameters={"roleArn": there, "roleSessionName": "a"}, responseElements=None))
        assert event.resource is not None and event.resource.id == "444455556666"

    @pytest.mark.parametrize("operation", ISSUING)
    def test_every_issuing_call_gives_a_grant_with_its_end(self, operation: str) -> None:
        event = one(call("sts", operation, responseElements=ISSUED))
        assert (event.event_type, event.grant_id) == ("grant.activated", KEY)
        assert event.expires_at == AT + timedelta(hours=1)

    def test_a_role_that_only_a_service_can_take_is_left_out(self) -> None:
        role = f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/rds.amazonaws.com/AWSServiceRoleForRDS"
        assert reason(assume(requestParameters={"roleArn": role})) == "service_linked_role"
        who = copy.deepcopy(TAKEN)
        who["sessionContext"]["sessionIssuer"]["arn"] = role
        assert reason(call("ec2", "DescribeVpcs", userIdentity=who)) == "service_linked_role"

    def test_revoking_the_sessions_of_a_role(self) -> None:
        asked = {"roleName": "breakglass", "policyName": "AWSRevokeOlderSessions", "policyDocument": "{}"}
        event = one(call("iam", "PutRolePolicy", requestParameters=asked))
        assert (event.event_type, event.removal_evidence, event.entitlement) == (
            "grant.revoked",
            "api_accepted",
            "breakglass",
        )
        assert (event.subject.id, event.grant_id_kind) == ("unknown", "synthesized")
        failed = call("iam", "PutRolePolicy", requestParameters=asked, errorCode="AccessDenied")
        assert reason(failed) == "standing_access"
        other = call("iam", "PutRolePolicy", requestParameters={**asked, "policyName": "mine"})
        assert reason(other) == "standing_access"


ASSIGNMENT = {
    "instanceArn": "arn:aws:sso:::instance/ssoins-1",
    "targetId": "444455556666",
    "targetType": "AWS_ACCOUNT",
    "permissionSetArn": "arn:aws:sso:::permissionSet/ssoins-1/ps-1",
    "principalType": "USER",
    "principalId": "u-1",
}
PORTAL_USER = {
    "type": "IdentityCenterUser",
    "accountId": ACCOUNT,
    "credentialId": "cred-1",
    "onBehalfOf": {"userId": "u-1", "identityStoreArn": "arn:aws:identitystore::1:identitystore/d-1"},
}


def assignment(verb: str, status: str | None, **members: Any) -> Result:
    word = {"Create": "Creation", "Delete": "Deletion"}[verb]
    answer = {f"accountAssignment{word}Status": {"status": status}}
    more = {"requestParameters": ASSIGNMENT, "responseElements": answer, "userIdentity": TAKEN, **members}
    return call("sso", f"{verb}AccountAssignment", **more)


class TestIdentityCenter:
    def test_an_assignment_is_a_grant_without_an_end(self) -> None:
        event = one(assignment("Create", "IN_PROGRESS"))
        assert (event.event_type, event.outcome) == ("grant.activated", "pending")
        assert (event.expires_at, event.expiry_source) == (None, "unknown")
        assert (event.subject.id, event.subject.kind, event.actor.id) == ("u-1", "human", SESSION)
        assert event.entitlement == ASSIGNMENT["permissionSetArn"]
        assert event.resource is not None and event.resource.id == "444455556666"

    @pytest.mark.parametrize(
        ("status", "outcome"), [("IN_PROGRESS", "pending"), ("SUCCEEDED", "success"), (None, "unknown")]
    )
    def test_a_deletion_is_accepted_and_never_confirmed(self, status: str | None, outcome: str) -> None:
        event = one(assignment("Delete", status))
        assert (event.event_type, event.removal_evidence, event.outcome) == ("grant.revoked", "api_accepted", outcome)

    def test_creation_and_deletion_are_of_one_grant(self) -> None:
        made, gone = one(assignment("Create", "IN_PROGRESS")), one(assignment("Delete", "IN_PROGRESS"))
        assert made.grant_id == gone.grant_id
        other = {**ASSIGNMENT, "principalId": "u-2"}
        assert one(assignment("Delete", None, requestParameters=other)).grant_id != made.grant_id

    def test_a_group_is_not_a_person(self) -> None:
        group = {**ASSIGNMENT, "principalType": "GROUP", "principalId": "g-1"}
        assert one(assignment("Create", "SUCCEEDED", requestParameters=group)).subject.kind == "unknown"

    @pytest.mark.parametrize(
        ("members", "outcome"),
        [({"errorCode": "AccessDenied"}, "denied"), ({"errorCode": "ConflictException"}, "failure"), ({}, "failure")],
    )
    def test_a_creation_that_failed_leaves_an_assignment_as_it_was(self, members: dict[str, str], outcome: str) -> None:
        event = one(assignment("Create", "FAILED", **members))
        assert (event.event_type, event.outcome) == ("grant.failed", outcome)
        assert event.grant_id != one(assignment("Create", "IN_PROGRESS")).grant_id

    @pytest.mark.parametrize("members", [{}, {"errorCode": "AccessDeniedException"}])
    def test_a_deletion_that_failed_takes_nothing_away(self, members: dict[str, str]) -> None:
        event = one(assignment("Delete", "FAILED", **members))
        assert (event.event_type, event.removal_evidence) == ("session.command", None)

    @pytest.mark.parametrize("operation", ["GetRoleCredentials", "Federate"])
    def test_a_role_taken_in_the_portal(self, operation: str) -> None:
        details = {"account_id": "444455556666", "role_name": "AdministratorAccess"}
        event = one(
            call(
                "sso",
                operation,
                eventType="AwsServiceEvent",
                userIdentity=PORTAL_USER,
                serviceEventDetails=details,
            )
        )
        assert (event.event_type, event.subject.id, event.subject.kind) == ("session.started", "u-1", "human")
        assert (event.entitlement, event.grant_id) == ("AdministratorAccess", None)
        assert event.resource is not None and event.resource.id == "444455556666"

    def test_a_role_refused_in_the_portal(self) -> None:
        asked = {"accountId": "444455556666", "roleName": "Admin"}
        more = {"eventType": "AwsServiceEvent", "userIdentity": PORTAL_USER, "requestParameters": asked}
        event = one(call("sso", "GetRoleCredentials", **more, errorCode="UnauthorizedException"))
        assert (event.event_type, event.outcome, event.entitlement) == ("session.denied", "denied", "Admin")

    @pytest.mark.parametrize(
        ("service", "operation", "expected"),
        [
            ("sso", "Authenticate", "authentication"),
            ("signin", "UserAuthentication", "authentication"),
            ("sso-oauth", "CreateToken", "authentication"),
            ("sso", "ListAccountRoles", "role_search"),
        ],
    )
    def test_the_rest_of_the_portal(self, service: str, operation: str, expected: str) -> None:
        assert reason(call(service, operation, eventType="AwsServiceEvent", userIdentity=PORTAL_USER)) == expected

    def test_people_of_identity_center_are_named_by_their_session(self) -> None:
        who = copy.deepcopy(TAKEN)
        who["arn"] = f"arn:aws:sts::{ACCOUNT}:assumed-role/AWSReservedSSO_Admin_1/carol@example.com"
        who["sessionContext"]["sessionIssuer"]["userName"] = "AWSReservedSSO_Admin_1"
        event = one(call("ec2", "RunInstances", userIdentity=who))
        assert (event.subject.kind, event.subject.email) == ("human", "carol@example.com")
        # Anybody may call the session of another role by any name.
        who["arn"] = f"arn:aws:sts::{ACCOUNT}:assumed-role/any/carol@example.com"
        assert one(call("ec2", "RunInstances", userIdentity=who)).subject.email is None


class TestSessions:
    def console(self, operation: str, answer: str, **members: Any) -> Result:
        more = {"eventType": "AwsConsoleSignIn", "responseElements": {operation: answer}, **members}
        return call("signin", operation, **more)

    def test_a_sign_in_and_what_is_done_after_it(self) -> None:
        begun = one(self.console("ConsoleLogin", "Success"))
        assert (begun.event_type, begun.outcome) == ("session.started", "success")
        who = {**ALICE, "accessKeyId": KEY, "sessionContext": TAKEN["sessionContext"]}
        assert one(call("s3", "ListBuckets", userIdentity=who)).session_id == begun.session_id

    def test_a_sign_in_with_a_role_names_the_role(self) -> None:
        who = {"type": "AssumedRole", "arn": SESSION, "accountId": ACCOUNT}
        assert one(self.console("ConsoleLogin", "Success", userIdentity=who)).entitlement == "breakglass"

    def test_a_failed_sign_in_is_refused_and_a_hidden_name_stays_hidden(self) -> None:
        who = {"type": "IAMUser", "userName": "HIDDEN_DUE_TO_SECURITY_REASONS", "accountId": ACCOUNT}
        event = one(self.console("ConsoleLogin", "Failure", userIdentity=who, errorMessage="Failed authentication"))
        assert (event.event_type, event.outcome, event.subject.id) == ("session.denied", "denied", "unknown")
        assert event.error == "Failed authentication"

    def test_a_role_switched_to_and_left(self) -> None:
        who = {"type": "AssumedRole", "arn": SESSION, "accountId": ACCOUNT}
        before = {"SwitchFrom": ALICE["arn"]}
        taken = one(self.console("SwitchRole", "Success", userIdentity=who, additionalEventData=before))
        assert (taken.event_type, taken.subject.id, taken.actor.id) == ("session.started", SESSION, ALICE["arn"])
        left = one(self.console("ExitRole", "Success", userIdentity=who))
        assert (left.event_type, left.session_id) == ("session.ended", taken.session_id)
        assert one(self.console("SwitchRole", "Failure", userIdentity=who)).event_type == "session.denied"

    @pytest.mark.parametrize("operation", ["CheckMfa", "PasswordUpdated"])
    def test_other_sign_in_records_are_about_who_somebody_is(self, operation: str) -> None:
        assert reason(self.console(operation, "Success")) == "authentication"

    def test_a_shell_on_an_instance(self) -> None:
        asked = {"target": "i-1", "documentName": "SSM-SessionManagerRunShell", "reason": "INC-7"}
        answer = {"sessionId": "alice-0a", "tokenValue": "Value hidden due to security reasons."}
        begun = one(call("ssm", "StartSession", requestParameters=asked, responseElements=answer, userIdentity=TAKEN))
        assert (begun.event_type, begun.session_id, begun.grant_id) == ("session.started", "alice-0a", KEY)
        assert (begun.reason, begun.resource and begun.resource.id) == ("INC-7", "i-1")
        ended = one(call("ssm", "TerminateSession", requestParameters={"sessionId": "alice-0a"}))
        assert (ended.event_type, ended.session_id, ended.subject.id) == ("session.ended", "alice-0a", "unknown")

    def test_a_shell_is_on_record_whatever_key_opened_it(self) -> None:
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

    def test_what_cloudtrail_masks_or_leaves_out_is_marked(self) -> None:
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
    def test_the_error_code_tells_the_outcome(self, code: str | None, outcome: str) -> None:
        event = one(call("ec2", "StopInstances", userIdentity=TAKEN, errorCode=code))
        assert (event.outcome, event.error) == (outcome, code)

    def test_a_service_that_acts_in_somebodys_name_is_the_actor(self) -> None:
        who = {**TAKEN, "invokedBy": "cloudformation.amazonaws.com"}
        event = one(call("iam", "CreateUser", userIdentity=who))
        assert (event.subject.id, event.actor.id, event.actor.kind) == (
            SESSION,
            "cloudformation.amazonaws.com",
            "service",
        )

    def test_a_second_factor_is_a_persons(self) -> None:
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
    def test_calls_that_are_nobodys_temporary_access(self, who: dict[str, Any] | None, expected: str) -> None:
        assert reason(call("s3", "GetObject", userIdentity=who)) == expected

    def test_cloudtrails_own_findings(self) -> None:
        assert reason(call("ec2", "RunInstances", eventType="AwsCloudTrailInsight")) == "insight"


class TestShapes:
    def test_an_envelope_of_eventbridge(self) -> None:
        inner = record("ec2", "RunInstances", userIdentity=TAKEN)
        event = one(read({"version": "0", "id": "x", "detail-type": "AWS API Call via CloudTrail", "detail": inner}))
        assert (event.event_type, event.source.native_id) == ("session.command", "e1")

    def test_a_whole_file_among_lines_is_named(self) -> None:
        with pytest.raises(RecordError, match=r"^records.jsonl:7: Records: this is a whole log file"):
            read({"Records": [record("ec2", "RunInstances")]})

    @pytest.mark.parametrize("name", ["eventName", "eventSource", "eventTime", "eventID"])
    def test_what_is_missing_is_named(self, name: str) -> None:
        with pytest.raises(RecordError, match=rf"^records.jsonl:7: {name}: is missing$"):
            read({**record("ec2", "RunInstances"), name: None})

    def test_instance_and_tenant(self) -> None:
        event = one(read(record("ec2", "RunInstances", userIdentity=TAKEN), instance="org", tenant="acme"))
        assert (event.source.instance, event.tenant) == ("org", "acme")


def feed(path: Path, **more: Any) -> tuple[Report, list[Event]]:
    sent: list[Event] = []
    importer = Importer(make_adapter("cloudtrail"), sent.append, **more)
    with InputFile(str(path)) as source:
        importer.run(source)
    return importer.report, sent


def calls(count: int) -> list[dict[str, Any]]:
    return [record("ec2", "RunInstances", userIdentity=TAKEN, eventID=f"e{number}") for number in range(count)]


class TestFiles:
    """Log files as CloudTrail puts them into S3."""

    def test_every_shape_gives_the_same_events(self, tmp_path: Path) -> None:
        records = calls(5)
        lines = b"".join(json.dumps(found).encode() + b"\n" for found in records)
        whole = json.dumps({"Records": records}).encode()
        shapes = {
            "lines": lines,
            "whole": whole,
            "gzip": gzip.compress(whole),
            "pretty": json.dumps({"Records": records}, indent=2).encode(),
            "joined": b"".join(json.dumps({"Records": [found]}).encode() for found in records),
            "joined_lines": b"".join(b"\n" + json.dumps({"Records": [found]}).encode() for found in records),
            "more_members": b'{"Records":' + json.dumps(records).encode() + b',"x":[{}]}\n',
        }
        ids = {}
        for name, content in shapes.items():
            path = tmp_path / name
            path.write_bytes(content)
            report, sent = feed(path)
            assert (report.mapped, report.failed, report.records) == (5, 0, 5), name
            ids[name] = [event.event_id for event in sent]
        assert all(found == ids["lines"] for found in ids.values())

    def test_a_record_keeps_its_own_bytes(self, tmp_path: Path) -> None:
        records = [json.dumps(found).encode() for found in calls(3)]
        (tmp_path / "a").write_bytes(b'{"Records": [' + b" ,\n".join(records) + b"]}")
        _, sent = feed(tmp_path / "a")
        assert [event.raw for event in sent] == records

    def test_a_bad_record_is_named_and_the_others_are_read(self, tmp_path: Path) -> None:
        records: list[Any] = calls(3)
        records[1]["eventTime"] = "yesterday"
        path = tmp_path / "a.json"
        path.write_text(json.dumps({"Records": records}))
        rejected: list[bytes] = []
        report, _ = feed(path, reject=rejected.append)
        assert (report.mapped, report.failed) == (2, 1)
        assert str(report.failures[0].location) == f"{path}:1 (record 2)"
        assert report.failures[0].problem == "eventTime: 'yesterday' is not an RFC 3339 time"
        assert b"".join(rejected) == json.dumps(records[1]).encode() + b"\n"

    def test_lines_are_counted_within_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        path.write_text('\n{"Records": [\n{"eventName": 1},\n\n{"eventName": 2}\n]}')
        report, _ = feed(path)
        assert [str(failure.location) for failure in report.failures] == [
            f"{path}:3 (record 1)",
            f"{path}:5 (record 2)",
        ]

    def test_a_record_that_is_too_long_is_passed_over(self, tmp_path: Path) -> None:
        records = calls(3)
        records[1]["requestParameters"] = {"padding": '\\"]}' * 100_000}
        path = tmp_path / "a.json"
        path.write_text(json.dumps({"Records": records}))
        rejected: list[bytes] = []
        report, _ = feed(path, reject=rejected.append, max_record_bytes=2000)
        assert (report.mapped, report.failed) == (2, 1)
        assert report.failures[0].problem == "longer than 2000 bytes"
        assert b"".join(rejected) == json.dumps(records[1]).encode() + b"\n"

    @pytest.mark.parametrize(
        ("end", "problem"),
        [
            (b"", "the file ends inside Records; the rest of the file was not read"),
            (b',{"eventName": "x', "the file ends inside Records; the rest of the file was not read"),
            (b" 7]}", "not JSON: expected a comma or ]; the rest of the file was not read"),
            (b",7]}", "not JSON: expected a record; the rest of the file was not read"),
            (b"]} rubbish", 'not JSON: expected {"Records": [; the rest of the file was not read'),
        ],
    )
    def test_a_damaged_file_fails_after_what_could_be_read(self, tmp_path: Path, end: bytes, problem: str) -> None:
        path = tmp_path / "a.json"
        path.write_bytes(b'{"Records":[' + json.dumps(calls(1)[0]).encode() + end)
        report, sent = feed(path)
        assert (len(sent), report.failed, report.records) == (1, 1, 2)
        assert report.failures[0].problem == problem
        assert report.failures[0].location.record == 2

    @pytest.mark.parametrize("content", [b"", b"\n\n", b"{", b'{"Rec', b'{"records": []}', b"[]", b"{\n}\n", b"\xff"])
    def test_what_is_no_log_file_is_read_by_line(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a"
        path.write_bytes(content)
        report, sent = feed(path)
        assert not sent
        assert report.records == len(content.removesuffix(b"\n").split(b"\n") if content else [])
        assert all(failure.location.record is None for failure in report.failures)

    def test_blank_lines_before_lines_are_counted(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_bytes(b"\n\r\n" + json.dumps(calls(1)[0]).encode() + b"\nbad")
        report, sent = feed(path)
        assert (len(sent), report.skipped["blank_line"]) == (1, 2)
        assert [str(failure.location) for failure in report.failures] == [f"{path}:4"]

    def test_an_empty_list_is_no_record(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_bytes(b'{"Records":[]}')
        report, _ = feed(path)
        assert report.records == 0

    def test_the_real_records_in_one_file_are_the_real_records(
        self, tmp_path: Path, samples: Path, outcomes: list[tuple[dict[str, Any], Result]]
    ) -> None:
        lines = (samples / "aws_cloudtrail" / "cloudtrail.jsonl").read_bytes().splitlines()
        path = tmp_path / "whole.json.gz"
        path.write_bytes(gzip.compress(b'{"Records":[' + b",".join(lines) + b"]}", 1))
        report, sent = feed(path)
        by_line = [outcome for _, outcome in outcomes]
        skipped = Counter(outcome.reason for outcome in by_line if isinstance(outcome, Skipped))
        assert (report.mapped, report.skipped, report.failed) == (699, skipped, 0)
        mapped = (outcome for outcome in by_line if not isinstance(outcome, Skipped))
        assert [event.event_id for event in sent] == [event.event_id for events in mapped for event in events]


def pieces(content: bytes, size: int) -> tuple[bytes, Any]:
    """Return the beginning of a file, and a reader that gives so many bytes of the rest at a time."""
    at = size

    def more(limit: int) -> bytes:
        nonlocal at
        piece = content[at : at + min(size, limit)]
        at += len(piece)
        return piece

    return content[:size], more


def cut(content: bytes, size: int, limit: int = 10_000) -> tuple[list[RawRecord], bytes]:
    rejected: list[bytes] = []
    head, more = pieces(content, size)
    records = RecordList("trail.json", head, more, member="Records", limit=limit, reject=rejected.append)
    return list(records), b"".join(rejected)


OBJECTS = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.none() | st.integers() | st.text(st.sampled_from('"\\{}[],:\n aé'), max_size=12),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@given(st.lists(OBJECTS, max_size=5), st.integers(1, 200), st.booleans(), st.sampled_from([None, 1]))
def test_records_are_cut_whole_whatever_the_pieces(
    objects: list[dict[str, Any]], size: int, ascii_only: bool, indent: int | None
) -> None:
    content = json.dumps({"Records": objects}, ensure_ascii=ascii_only, indent=indent).encode()
    found, rejected = cut(content, size)
    assert [json.loads(each.raw or b"") for each in found] == objects
    assert [each.location.record for each in found] == list(range(1, len(objects) + 1))
    assert rejected == b""
    for each in found:
        raw = each.raw or b""
        if indent is None:
            assert each.location.line == 1
        else:
            assert content.split(b"\n")[each.location.line - 1].lstrip().startswith(raw.split(b"\n")[0])


@given(st.lists(OBJECTS, min_size=1, max_size=4), st.integers(1, 100), st.integers(0, 30))
def test_a_long_record_hides_no_other(objects: list[dict[str, Any]], size: int, limit: int) -> None:
    texts = [json.dumps(each).encode() for each in objects]
    found, rejected = cut(b'{"Records":[' + b",".join(texts) + b"]}", size, limit)
    assert [each.raw for each in found] == [text if len(text) <= limit else None for text in texts]
    assert rejected == b"".join(text + b"\n" for text in texts if len(text) > limit)


@given(st.lists(OBJECTS, max_size=3), st.integers(1, 50), st.data())
def test_a_file_cut_off_anywhere_says_so(objects: list[dict[str, Any]], size: int, data: st.DataObject) -> None:
    content = json.dumps({"Records": objects}).encode()
    length = data.draw(st.integers(1, len(content) - 1))
    found, _ = cut(content[:length], size)
    whole = [each for each in found if not each.problem]
    assert [json.loads(each.raw or b"") for each in whole] == objects[: len(whole)]
    assert [bool(each.problem) for each in found[len(whole) :]] == [True]


@given(st.binary(max_size=60) | st.text(st.sampled_from('{}[]",:\\ Records'), max_size=60).map(str.encode))
def test_any_bytes_are_cut_or_said_to_be_damaged(content: bytes) -> None:
    for whole in (content, b'{"Records":[' + content):
        found, rejected = cut(whole, 7)
        assert not any(each.problem for each in found[:-1])
        assert len(rejected) <= len(whole) + 1


@given(st.binary(max_size=40))
def test_telling_the_shape_never_fails(head: bytes) -> None:
    assert is_record_list(head, "Records") in (True, False, None)
    assert is_record_list(b' {\n"Records" : [' + head, "Records") is True


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
def test_a_mangled_record_raises_nothing_but_a_record_error(found: dict[str, Any]) -> None:
    assert_maps_or_fails("cloudtrail", found)
