"""Changes of who may get access, in CloudTrail.

The samples have those of IAM. The parameters of the others are those of AWS's API references (`sso-admin`,
`identitystore`, Organizations); `CreatePermissionSet` and `AddMemberToGroup` have the members of published records.
"""

from __future__ import annotations

from typing import Any

import pytest

from support.adapters import one, reason, several
from support.cloudtrail import ACCOUNT, ASSIGNMENT, ROLE, SESSION, TAKEN, assignment, call

SET = ASSIGNMENT["permissionSetArn"]
INSTANCE = ASSIGNMENT["instanceArn"]


def test_a_policy_of_a_role_by_a_long_term_key() -> None:
    asked = {"roleName": "breakglass", "policyArn": "arn:aws:iam::aws:policy/AdministratorAccess"}
    event = one(call("iam", "AttachRolePolicy", requestParameters=asked))
    assert (event.event_type, event.entitlement, event.subject.id, event.outcome) == (
        "policy.changed", "breakglass", "unknown", "success",
    )  # fmt: skip
    assert event.actor.id == f"arn:aws:iam::{ACCOUNT}:user/alice"
    assert event.resource and (event.resource.kind, event.resource.id) == ("aws_account", ACCOUNT)
    assert event.action and (event.action.command, event.action.args) == (
        "iam:AttachRolePolicy", ("roleName=breakglass", f"policyArn={asked['policyArn']}"),
    )  # fmt: skip


def test_a_new_role_is_named_as_grants_name_it() -> None:
    event = one(
        call("iam", "CreateRole", requestParameters={"roleName": "x"}, responseElements={"role": {"arn": ROLE}})
    )
    assert event.entitlement == ROLE


def test_with_temporary_credentials_it_is_also_a_command_of_the_session() -> None:
    asked = {"userName": "mallory", "policyName": "all", "policyDocument": "{}"}
    changed, command = several(call("iam", "PutUserPolicy", userIdentity=TAKEN, requestParameters=asked))
    assert (changed.event_type, command.event_type) == ("policy.changed", "session.command")
    assert (changed.subject.id, changed.entitlement, changed.actor.id) == ("mallory", "mallory", SESSION)
    assert changed.session_id == command.session_id and (changed.grant_id, changed.event_id) != (None, command.event_id)


def test_a_refused_change_is_on_record() -> None:
    event = one(call("iam", "CreatePolicyVersion", errorCode="AccessDenied", errorMessage="no"))
    assert (event.outcome, event.error, event.entitlement) == ("denied", "no", "unknown")


@pytest.mark.parametrize(
    ("operation", "asked", "answer"),
    [
        (
            "CreatePermissionSet",
            {"name": "Admin", "instanceArn": INSTANCE},
            {"permissionSet": {"permissionSetArn": SET}},
        ),
        ("PutInlinePolicyToPermissionSet", {"permissionSetArn": SET, "inlinePolicy": "{}"}, None),
        ("AttachManagedPolicyToPermissionSet", {"permissionSetArn": SET, "managedPolicyArn": "arn:x"}, None),
        ("DetachCustomerManagedPolicyReferenceFromPermissionSet", {"permissionSetArn": SET}, None),
        ("PutPermissionsBoundaryToPermissionSet", {"permissionSetArn": SET}, None),
        ("ProvisionPermissionSet", {"permissionSetArn": SET, "targetType": "ALL_PROVISIONED_ACCOUNTS"}, None),
        ("DeletePermissionSet", {"permissionSetArn": SET}, None),
    ],
)
def test_permission_sets_are_named_as_assignments_name_them(operation: str, asked: Any, answer: Any) -> None:
    event = one(call("sso", operation, requestParameters=asked, responseElements=answer))
    assert (event.event_type, event.entitlement) == ("policy.changed", one(assignment("Create", None)).entitlement)


@pytest.mark.parametrize(
    ("service", "operation", "asked"),
    [
        ("sso-directory", "AddMemberToGroup", {"groupId": "g-1", "member": {"memberId": "u-1"}}),
        ("identitystore", "CreateGroupMembership", {"groupId": "g-1", "memberId": {"userId": "u-1"}}),
        ("iam", "AddUserToGroup", {"groupName": "g-1", "userName": "u-1"}),
    ],
)
def test_members_of_groups(service: str, operation: str, asked: Any) -> None:
    event = one(call(service, operation, requestParameters=asked))
    assert (event.event_type, event.subject.id, event.entitlement) == ("policy.changed", "u-1", "g-1")


def test_policies_of_an_organization() -> None:
    asked = {"policyId": "p-1", "targetId": ACCOUNT}
    assert one(call("organizations", "DetachPolicy", requestParameters=asked)).entitlement == "p-1"


@pytest.mark.parametrize(
    ("service", "operation"),
    [
        ("sso", "DescribePermissionSet"),
        ("sso", "ListAccountsForProvisionedPermissionSet"),
        ("sso", "GetInlinePolicyForPermissionSet"),
        ("iam", "GetRolePolicy"),
        ("iam", "UpdateRoleDescription"),
        ("iam", "CreateAccessKey"),
        ("identitystore", "IsMemberInGroups"),
    ],
)
def test_what_changes_no_rule(service: str, operation: str) -> None:
    assert reason(call(service, operation)) == "standing_access"


def test_a_service_on_its_own_behalf_is_skipped() -> None:
    by_service = {"type": "AWSService", "invokedBy": "sso.amazonaws.com"}
    assert reason(call("iam", "CreateRole", userIdentity=by_service)) == "aws_service"
