"""CloudTrail: IAM Identity Center: account assignments, and roles fetched in the access portal."""

from __future__ import annotations

from typing import Any

from ....schemas.event import Event, Resource, Subject
from ...json_fields import Fields
from ..contract import Mapped, Skipped
from ..values import UNKNOWN, grant_ids, synthesized
from .call import Call

SIGNING_IN = (
    "Authenticate",
    "CreateToken",
    "CreateTokenWithIAM",
    "CredentialChallenge",
    "CredentialVerification",
    "Logout",
    "RegisterClient",
    "StartDeviceAuthorization",
    "UserAuthentication",
)
ROLE_TAKEN = ("Federate", "GetRoleCredentials")
ROLE_SEARCH = ("ListAccountRoles", "ListAccounts", "ListApplications", "ListProfilesForApplication")
_SERVICES = ("sso", "sso-oauth", "sso-directory", "signin")


def map_center(call: Call) -> Mapped | Skipped | None:
    """Return the event of an Identity Center record, or None for any other record.

    A failed deletion removes nothing: it is not a revocation but an ordinary call.
    """
    if call.is_one("sso", "CreateAccountAssignment"):
        return (_assigned(call),)
    if call.is_one("sso", "DeleteAccountAssignment"):
        status = call.answer.object("accountAssignmentDeletionStatus").text("status")
        return None if call.error_code or status == "FAILED" else (_unassigned(call, status),)
    if any(call.is_one(service, *ROLE_TAKEN) for service in _SERVICES):
        return (_role_taken(call),)
    if any(call.is_one(service, *SIGNING_IN) for service in _SERVICES):
        return Skipped("authentication", call.name)
    if call.is_one("sso", *ROLE_SEARCH) and call.event_type == "AwsServiceEvent":
        return Skipped("role_search", call.name)
    return None


def _assignment(call: Call) -> dict[str, Any]:
    """Return the fields of an assignment. It has no native id: instance, role, account and principal identify it."""
    asked = call.asked
    instance, account = asked.text("instanceArn") or UNKNOWN, asked.text("targetId") or UNKNOWN
    role, holder = asked.text("permissionSetArn") or UNKNOWN, asked.text("principalId") or UNKNOWN
    return {
        "subject": Subject(holder, "human" if asked.text("principalType") == "USER" else UNKNOWN),
        "resource": Resource("aws_account", account),
        "entitlement": role,
        **grant_ids(None, "assignment", instance, role, account, holder),
        "session_id": call.identity.session_id,
    }


def _assigned(call: Call) -> Event:
    """Map the creation of an assignment, which has no end."""
    status = call.answer.object("accountAssignmentCreationStatus")
    state = status.text("status")
    if call.error_code or state == "FAILED":
        fields = {**_assignment(call), "grant_id": synthesized("assignment_refused", call.native_id)}
        outcome = call.outcome if call.error_code else "failure"
        return call.event("grant.failed", **fields, outcome=outcome, error=call.error or status.text("failureReason"))
    return call.event("grant.activated", **_assignment(call), expiry_source="unknown", outcome=_progress(state))


def _unassigned(call: Call, status: str | None) -> Event:
    """Map a deletion. Records only show that Identity Center accepted it, never that the access is gone."""
    return call.event("grant.revoked", **_assignment(call), removal_evidence="api_accepted", outcome=_progress(status))


def _progress(status: str | None) -> str:
    return {"SUCCEEDED": "success", "IN_PROGRESS": "pending"}.get(status or "", "unknown")


def _role_taken(call: Call) -> Event:
    """Map a role fetched in the portal. STS issues the credentials; their record is in the trail of that account."""
    account, role = (_either(call.details, call.asked, *names) for names in (_ACCOUNT, _ROLE))
    failed = call.error_code is not None or call.details.text(call.operation) == "Failure"
    return call.event(
        "session.denied" if failed else "session.started",
        resource=call.resource_of(account or call.account or UNKNOWN),
        entitlement=role,
        session_id=synthesized("session", call.native_id),
        outcome="denied" if failed and call.error_code is None else call.outcome,
    )


_ACCOUNT = ("account_id", "accountId")
_ROLE = ("role_name", "roleName")


def _either(details: Fields, asked: Fields, written: str, also: str) -> str | None:
    """Return a member from ``serviceEventDetails``, where the portal usually puts it, or from ``requestParameters``."""
    return details.text(written) or asked.text(also) or asked.text(written)
