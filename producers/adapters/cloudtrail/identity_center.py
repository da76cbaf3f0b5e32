"""CloudTrail: IAM Identity Center: assignments to accounts, and the access portal handing out roles."""

from __future__ import annotations

from typing import Any

from ....schemas.event import Event, Resource, Subject
from ..contract import Mapped, Skipped, synthesized
from ..reading import Fields
from .call import Call
from .identity import UNKNOWN

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
    """Return what a record of Identity Center says, or None for another record.

    A deletion that failed takes nothing away, so it is no revocation: that call is left to whoever made it.
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
    """Return what an assignment is about. It has no id: the same four parts are the same assignment."""
    asked = call.asked
    instance, account = asked.text("instanceArn") or UNKNOWN, asked.text("targetId") or UNKNOWN
    role, holder = asked.text("permissionSetArn") or UNKNOWN, asked.text("principalId") or UNKNOWN
    return {
        "subject": Subject(holder, "human" if asked.text("principalType") == "USER" else UNKNOWN),
        "resource": Resource("aws_account", account),
        "entitlement": role,
        "grant_id": synthesized("assignment", instance, role, account, holder),
        "grant_id_kind": "synthesized",
        "session_id": call.identity.session_id,
    }


def _assigned(call: Call) -> Event:
    """An assignment has no end of its own; whoever made it for a while deletes it."""
    status = call.answer.object("accountAssignmentCreationStatus")
    word = status.text("status")
    if call.error_code or word == "FAILED":
        own = {**_assignment(call), "grant_id": synthesized("assignment_refused", call.native_id), **call.common()}
        reason = call.error or status.text("failureReason")
        return Event(event_type="grant.failed", outcome=_failure(call), **{**own, "error": reason})
    fields = {**_assignment(call), **call.common()}
    return Event(event_type="grant.activated", expiry_source="unknown", outcome=_progress(word), **fields)


def _unassigned(call: Call, status: str | None) -> Event:
    """Identity Center has taken the order. That is all that any record says: never that the access is gone."""
    fields = {**_assignment(call), **call.common()}
    return Event(event_type="grant.revoked", removal_evidence="api_accepted", outcome=_progress(status), **fields)


def _progress(status: str | None) -> str:
    return {"SUCCEEDED": "success", "IN_PROGRESS": "pending"}.get(status or "", "unknown")


def _failure(call: Call) -> str:
    return call.outcome if call.error_code else "failure"


def _role_taken(call: Call) -> Event:
    """Somebody took a role in the portal. Its credentials are STS's: they stand in the trail of that account."""
    account, role = (_either(call.details, call.asked, *names) for names in (_ACCOUNT, _ROLE))
    failed = call.error_code is not None or call.details.text(call.operation) == "Failure"
    return Event(
        event_type="session.denied" if failed else "session.started",
        subject=call.identity.subject,
        resource=call.resource_of(account or call.account or UNKNOWN),
        entitlement=role,
        session_id=synthesized("session", call.native_id),
        outcome=("denied" if call.error_code is None else call.outcome) if failed else "success",
        **call.common(),
    )


_ACCOUNT = ("account_id", "accountId")
_ROLE = ("role_name", "roleName")


def _either(details: Fields, asked: Fields, written: str, also: str) -> str | None:
    """The portal's records have such members in ``serviceEventDetails``, some in ``requestParameters``."""
    return details.text(written) or asked.text(also) or asked.text(written)
