"""Assignments and portal sessions of IAM Identity Center in CloudTrail."""

from __future__ import annotations

import copy

import pytest

from support.adapters import one, reason
from support.cloudtrail import (
    ACCOUNT,
    ASSIGNMENT,
    PORTAL_USER,
    SESSION,
    TAKEN,
    assignment,
    call,
)


class TestIdentityCenter:
    def test_an_assignment_is_a_grant_without_a_deadline(self) -> None:
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

    def test_creation_and_deletion_have_one_grant_id(self) -> None:
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
    def test_a_failed_creation_leaves_an_assignment_unchanged(self, members: dict[str, str], outcome: str) -> None:
        event = one(assignment("Create", "FAILED", **members))
        assert (event.event_type, event.outcome) == ("grant.failed", outcome)
        assert event.grant_id != one(assignment("Create", "IN_PROGRESS")).grant_id

    @pytest.mark.parametrize("members", [{}, {"errorCode": "AccessDeniedException"}])
    def test_a_failed_deletion_removes_nothing(self, members: dict[str, str]) -> None:
        event = one(assignment("Delete", "FAILED", **members))
        assert (event.event_type, event.removal_evidence) == ("session.command", None)

    @pytest.mark.parametrize("operation", ["GetRoleCredentials", "Federate"])
    def test_a_role_chosen_in_the_portal(self, operation: str) -> None:
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

    def test_a_role_denied_in_the_portal(self) -> None:
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
    def test_other_portal_records_are_skipped(self, service: str, operation: str, expected: str) -> None:
        assert reason(call(service, operation, eventType="AwsServiceEvent", userIdentity=PORTAL_USER)) == expected

    def test_users_of_identity_center_are_named_by_their_session(self) -> None:
        who = copy.deepcopy(TAKEN)
        who["arn"] = f"arn:aws:sts::{ACCOUNT}:assumed-role/AWSReservedSSO_Admin_1/carol@example.com"
        who["sessionContext"]["sessionIssuer"]["userName"] = "AWSReservedSSO_Admin_1"
        event = one(call("ec2", "RunInstances", userIdentity=who))
        assert (event.subject.kind, event.subject.email) == ("human", "carol@example.com")
        # The session of any other role can have any name.
        who["arn"] = f"arn:aws:sts::{ACCOUNT}:assumed-role/any/carol@example.com"
        assert one(call("ec2", "RunInstances", userIdentity=who)).subject.email is None
