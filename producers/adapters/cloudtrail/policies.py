"""CloudTrail: changes of what decides who may get access, as ``policy.changed``: IAM, Identity Center, Organizations.

Sources: the API references of IAM, IAM Identity Center (``sso-admin``), the identity store and Organizations.
CloudTrail writes their parameters with a small first letter.
"""

from __future__ import annotations

import re

from ....schemas.event import Event, Subject
from ..values import UNKNOWN
from .call import Call
from .sessions import action_of

_IAM = re.compile(
    r"(Create|Delete)(Role|Group|Policy|PolicyVersion|SAMLProvider|OpenIDConnectProvider)"
    r"|(Attach|Detach|Put|Delete)(Role|User|Group)Policy|(Put|Delete)(Role|User)PermissionsBoundary"
    r"|SetDefaultPolicyVersion|Update(AssumeRolePolicy|Role|SAMLProvider|OpenIDConnectProviderThumbprint)|DeleteUser"
    r"|AddUserToGroup|RemoveUserFromGroup|AddClientIDToOpenIDConnectProvider"
    r"|RemoveClientIDFromOpenIDConnectProvider|(AddRoleTo|RemoveRoleFrom)InstanceProfile"
)
_CENTER = re.compile(r"(?!List|Get|Describe)[A-Z][A-Za-z]*PermissionSet")
"""``CreatePermissionSet``, ``PutInlinePolicyToPermissionSet``, ``ProvisionPermissionSet`` …"""
_GROUPS = re.compile(r"(Create|Delete)GroupMembership|AddMemberToGroup|RemoveMemberFromGroup")
_ORGANIZATION = re.compile(r"(Create|Update|Delete|Attach|Detach)Policy")
CHANGES = {
    "iam.amazonaws.com": _IAM,
    "identitystore.amazonaws.com": _GROUPS,
    "organizations.amazonaws.com": _ORGANIZATION,
    "sso-directory.amazonaws.com": _GROUPS,
    "sso.amazonaws.com": _CENTER,
}
"""The calls of each service that change who may get access."""
_RULE = (
    "permissionSetArn", "roleName", "groupName", "groupId", "policyArn", "policyId", "userName", "sAMLProviderArn",
    "openIDConnectProviderArn", "instanceProfileName", "policyName", "name", "url",
)  # fmt: skip
"""The parameter that names the changed rule, in the order in which one call may have several."""


def map_policy(call: Call) -> tuple[Event, ...]:
    """Return the event of a call that changes who may get access, or was to; none for any other call."""
    calls = CHANGES.get(call.service)
    if calls is None or calls.fullmatch(call.operation) is None or call.identity.service:
        return ()
    own = {
        "subject": _person(call),
        "resource": call.resource_of(call.account or UNKNOWN),
        "entitlement": _created(call) or call.asked.first_text(*_RULE) or UNKNOWN,
        "action": action_of(call),
        "session_id": call.identity.session_id,
    }
    return (call.event("policy.changed", **own),)


def _created(call: Call) -> str | None:
    """Return the ARN of a new permission set or role, as grants name it."""
    made = call.answer.object("permissionSet").text("permissionSetArn")
    return made or call.answer.object("role").text("arn")


def _person(call: Call) -> Subject:
    """Return whom the rule is about, if it is about one person: a user of IAM, or a member of a group."""
    asked = call.asked
    # The identity store's own API names a member in one way, the console in another.
    member = (
        asked.object("memberId").text("userId") if asked.has("memberId") else asked.object("member").text("memberId")
    )
    return Subject(asked.text("userName") or member or UNKNOWN)
