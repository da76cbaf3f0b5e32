"""CloudTrail: the issue of temporary credentials by STS, and their revocation, as ``grant.*``."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ....schemas.event import Actor, Event, Resource, Subject
from ....schemas.rules import EARLIEST_YEAR, LATEST_YEAR
from ...json_fields import Fields
from ..contract import Mapped
from ..values import UNKNOWN, customer_in, grant_ids, time_after
from .call import ANY_ACCOUNT, Call
from .identity import TEMPORARY_KEY, grant_of, session_of

ISSUING = (
    "AssumeRole",
    "AssumeRoleWithSAML",
    "AssumeRoleWithWebIdentity",
    "AssumeRoot",
    "GetFederationToken",
    "GetSessionToken",
)
REVOKE_POLICY = "AWSRevokeOlderSessions"
"""The policy that the console attaches to a role to revoke all credentials issued so far."""
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_EXPIRATION = re.compile(r"([A-Za-z]{3}) (\d{1,2}), (\d{4}),? (\d{1,2}):(\d{2}):(\d{2})\s([AP]M)")
_REFUSED_RESOURCE = re.compile(r" on resource: (arn:\S+)")


def map_credentials(call: Call) -> Mapped | None:
    """Return the event of a record that issues, refuses or revokes credentials, or None for any other record."""
    if call.is_one("sts", *ISSUING) or call.is_one("eks-auth", "AssumeRoleForPodIdentity") or _gives_key(call):
        return (_refused(call),) if call.error_code else (_issued(call, call.answer),)
    if call.is_one("rolesanywhere", "CreateSession"):
        return _anywhere(call)
    if call.is_one("iam", "PutRolePolicy") and call.asked.text("policyName") == REVOKE_POLICY:
        return None if call.error_code else (_sessions_revoked(call),)
    return None


def _anywhere(call: Call) -> Mapped:
    """Map credentials for the owner of an X.509 certificate, who has no IAM identity."""
    holder = Subject(call.answer.text("subjectArn") or call.asked.text("trustAnchorArn") or UNKNOWN, "service")
    actor = Actor(holder.id, holder.kind)
    if call.error_code:
        return (replace(_refused(call), subject=holder, actor=actor),)
    given = call.answer.objects("credentialSet") or (call.answer,)
    return tuple(
        replace(_issued(call, one), subject=holder, actor=actor, ordinal=number, event_id="")
        for number, one in enumerate(given)
    )


def _gives_key(call: Call) -> bool:
    """Return whether the response to any other call has temporary credentials, as those of Cognito and S3 do."""
    given = call.answer.values.get("credentials")
    key = given.get("accessKeyId") if isinstance(given, dict) else None
    return isinstance(key, str) and TEMPORARY_KEY.fullmatch(key) is not None


def _issued(call: Call, answer: Fields) -> Event:
    credentials = answer.object("credentials")
    principal = _principal(call, answer)
    ids = grant_of(credentials.text("accessKeyId"), principal, call.occurred_at)
    if ids["grant_id"] is None:
        ids = grant_ids(None, "credentials", call.native_id)
    until, source = _end(call, credentials)
    session = session_of(None, principal, call.occurred_at)
    return _credentials(
        call, "grant.activated", **ids, grant_source=ANY_ACCOUNT, session_id=session, expires_at=until,
        expiry_source=source, ends_by_itself=True if until else None, outcome="success",
    )  # fmt: skip


def _refused(call: Call) -> Event:
    ids = grant_ids(None, "credentials", call.native_id)
    return _credentials(call, "grant.failed", **ids, session_id=call.identity.session_id)


def _credentials(call: Call, event_type: str, **own: Any) -> Event:
    asked = {"resource": _account(call), "entitlement": _entitlement(call), "requested_seconds": _seconds(call)}
    return call.event(event_type, **asked, customer=_customer(call), **own)


def _customer(call: Call) -> str | None:
    """Return the customer that a session tag names: of the call, or of the identity provider."""
    given = call.asked.values.get("tags")
    tags = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    named = {one["key"]: one.get("value") for one in tags if isinstance(one.get("key"), str)}
    of_provider = call.asked.values.get("principalTags")
    return customer_in(named, of_provider if isinstance(of_provider, dict) else {})


def _principal(call: Call, answer: Fields) -> str | None:
    """Return the ARN that calls with the new credentials have in ``userIdentity``."""
    given = answer.object("assumedRoleUser").text("arn") or answer.object("federatedUser").text("arn")
    if given is not None or call.operation == "GetSessionToken":
        return given or call.record.object("userIdentity").text("arn")
    role, session = call.asked.text("roleArn"), call.asked.text("roleSessionName")
    parts = (role or "").split(":")
    if session is None or len(parts) < 6:
        return None
    # The response to a service has no session ARN. The ARN omits the path of the role.
    return f"{parts[0]}:{parts[1]}:sts::{parts[4]}:assumed-role/{parts[5].rpartition('/')[2]}/{session}"


def _entitlement(call: Call) -> str:
    """Return the role; the user for a user session; the role in the error message for a refused call."""
    task = call.asked.values.get("taskPolicyArn")
    policy = (
        call.asked.object("taskPolicyArn").text("arn") if isinstance(task, dict) else call.asked.text("taskPolicyArn")
    )
    federated = call.answer.object("federatedUser").text("arn")
    assumed = _role_of(call.answer.object("assumedRoleUser").text("arn"))
    named = call.asked.text("roleArn") or policy or federated or assumed
    if named is None and call.error_code is not None:
        found = _REFUSED_RESOURCE.search(call.error or "")
        named = found[1] if found else None
    if named is None and call.operation == "GetSessionToken":
        named = call.record.object("userIdentity").text("arn")
    return named or UNKNOWN


def _role_of(arn: str | None) -> str | None:
    """Return the role of ``arn:aws:sts::<account>:assumed-role/<role>/<session>``, without the path of the role."""
    parts = (arn or "").split(":")
    steps = parts[5].split("/") if len(parts) == 6 else []
    return f"{parts[0]}:{parts[1]}:iam::{parts[4]}:role/{steps[1]}" if len(steps) > 1 else None


def _account(call: Call) -> Resource:
    if call.operation == "AssumeRoot":
        return call.resource_of(call.asked.text("targetPrincipal") or call.account or UNKNOWN)
    parts = _entitlement(call).split(":")
    return call.resource_of((parts[4] if len(parts) > 5 else None) or call.account or UNKNOWN)


def _seconds(call: Call) -> int | None:
    seconds = call.asked.integer("durationSeconds")
    return seconds if seconds is not None and seconds >= 0 else None


def _end(call: Call, credentials: Fields) -> tuple[datetime | None, str]:
    """Return the end of the credentials and the origin of that time."""
    text = credentials.text("expiration")
    if text is not None:
        return expiration(credentials, text), "native"
    until = time_after(call.occurred_at, _seconds(call))
    return until, "derived" if until else "unknown"


def expiration(credentials: Fields, text: str) -> datetime:
    """Parse ``Jul 10, 2023, 12:09:47 PM`` (UTC) or RFC 3339."""
    found = _EXPIRATION.fullmatch(text.strip())
    if found is None or found[1].lower() not in _MONTHS:
        return credentials.required_time("expiration")
    month = _MONTHS.index(found[1].lower()) + 1
    hour = int(found[4]) % 12 + (12 if found[7] == "PM" else 0)
    try:
        if not 1 <= int(found[4]) <= 12 or not EARLIEST_YEAR <= int(found[3]) <= LATEST_YEAR:
            raise ValueError
        return datetime(int(found[3]), month, int(found[2]), hour, int(found[5]), int(found[6]), tzinfo=UTC)
    except ValueError:
        credentials.fail("expiration", f"{text[:64]!r} is not a time")


def _sessions_revoked(call: Call) -> Event:
    """Map the revocation of all sessions of a role. The record does not name the users."""
    role = call.asked.required_text("roleName")
    return call.event(
        "grant.revoked",
        subject=Subject(UNKNOWN),
        resource=call.resource_of(call.account or UNKNOWN),
        entitlement=role,
        **grant_ids(None, "role_sessions", call.account or UNKNOWN, role),
        session_id=call.identity.session_id,
        removal_evidence="api_accepted",
    )
