"""CloudTrail: access that other services than STS and Identity Center give: EC2 Instance Connect, EKS and Redshift."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import unquote

from ....schemas.event import Event, Resource, Subject
from ..contract import Mapped
from ..values import UNKNOWN, grant_ids, synthesized, time_after
from .call import Call
from .credentials import expiration

KEY_LIFETIME = timedelta(seconds=60)
"""How long EC2 Instance Connect leaves a pushed SSH public key on the instance."""
_PUSHES = ("SendSSHPublicKey", "SendSerialConsoleSSHPublicKey")
_PASSWORDS = ("GetClusterCredentials", "GetClusterCredentialsWithIAM", "GetCredentials")
_ENTRY_GIVEN = ("CreateAccessEntry", "UpdateAccessEntry", "AssociateAccessPolicy")
_ENTRY_TAKEN = ("DeleteAccessEntry", "DisassociateAccessPolicy")


def map_ephemeral(call: Call) -> Mapped | None:
    """Return the events of a record that gives, refuses or takes such access, or None for any other record."""
    if call.is_one("ec2-instance-connect", *_PUSHES):
        return (_key_pushed(call),)
    if call.is_one("ec2-instance-connect", "OpenTunnel"):
        return (_tunnel(call),)
    if call.is_one("redshift", *_PASSWORDS) or call.is_one("redshift-serverless", *_PASSWORDS):
        return (_password(call),)
    if call.is_one("eks", *_ENTRY_GIVEN) and (call.asked.text("type") or "STANDARD") == "STANDARD":
        return (_entry(call),)
    if call.is_one("eks", *_ENTRY_TAKEN) and call.error_code is None:
        return (_entry_removed(call),)
    return None


def _instance(call: Call) -> Resource:
    return Resource(
        "ec2_instance", call.asked.first_text("instanceId", "remoteHost", "instanceConnectEndpointId") or UNKNOWN
    )


def _key_pushed(call: Call) -> Event:
    """Map a public key that lets its owner log in to one instance for a minute. It does not end a running login."""
    refused = call.error_code is not None or call.answer.flag("success") is False
    own: dict[str, Any] = {
        "resource": _instance(call),
        "entitlement": call.asked.text("instanceOSUser")
        or ("serial console" if "Serial" in call.operation else UNKNOWN),
        **grant_ids(None, "ssh_key", call.native_id),
        "session_id": call.identity.session_id,
    }
    if refused:
        return call.event("grant.failed", **own, **_refusal(call))
    until = call.occurred_at + KEY_LIFETIME
    return call.event(
        "grant.activated", **own, expires_at=until, expiry_source="derived", ends_by_itself=True, requested_seconds=60
    )


def _password(call: Call) -> Event:
    """Map a temporary password of a database user."""
    cluster = call.asked.first_text("clusterIdentifier", "workgroupName", "customDomainName") or UNKNOWN
    own: dict[str, Any] = {
        "resource": Resource("redshift_cluster", cluster),
        "entitlement": call.answer.text("dbUser") or call.asked.text("dbUser") or UNKNOWN,
        **grant_ids(None, "database_password", call.native_id),
        "session_id": call.identity.session_id,
    }
    if call.error_code is not None:
        return call.event("grant.failed", **own)
    text, seconds = call.answer.text("expiration"), call.asked.integer("durationSeconds")
    until = expiration(call.answer, text) if text else time_after(call.occurred_at, seconds)
    source = ("native" if text else "derived") if until else "unknown"
    ends = True if until else None
    return call.event("grant.activated", **own, expires_at=until, expiry_source=source, ends_by_itself=ends)


def _refusal(call: Call) -> dict[str, Any]:
    return {} if call.error_code else {"outcome": "failure"}


def _tunnel(call: Call) -> Event:
    """Map a tunnel to an instance. No record reports its end."""
    failed = call.error_code is not None
    return call.event(
        "session.denied" if failed else "session.started",
        resource=_instance(call),
        entitlement=f"port {call.asked.compact('remotePort') or UNKNOWN}".replace('"', ""),
        **call.credential_ids(synthesized("tunnel", call.native_id)),
    )


def _cluster_entry(call: Call) -> tuple[str, str, str | None, str | None]:
    """Return cluster, principal, policy and scope of an access entry. Members of the path are URL-encoded."""
    asked = call.asked
    cluster = asked.first_text("name", "clusterName") or UNKNOWN
    principal = unquote(asked.text("principalArn") or UNKNOWN, errors="backslashreplace")
    policy = asked.text("policyArn")
    scope = ",".join(asked.object("accessScope").texts("namespaces"))
    return cluster, principal, unquote(policy, errors="backslashreplace") if policy else None, scope or None


def _entry_fields(call: Call) -> dict[str, Any]:
    """Return the fields of one entry or of one policy on it: neither has a native id."""
    cluster, principal, policy, scope = _cluster_entry(call)
    groups = ",".join(call.asked.texts("kubernetesGroups"))
    role = policy or groups or "access entry"
    entry = (call.account or UNKNOWN, call.record.text("awsRegion") or UNKNOWN, cluster, principal)
    return {
        "subject": Subject(principal),
        "resource": Resource("kubernetes_cluster", cluster),
        "entitlement": f"{role} in {scope}" if scope else role,
        **grant_ids(None, "access_entry", *entry, *([policy] if policy else [])),
        # The entry stands as the request of its policies: its deletion takes all of them away.
        "request_id": synthesized("access_entry_of", *entry),
        "session_id": call.identity.session_id,
    }


def _entry(call: Call) -> Event:
    fields = _entry_fields(call)
    if call.error_code:
        return call.event("grant.failed", **{**fields, "grant_id": synthesized("access_entry_refused", call.native_id)})
    return call.event("grant.activated", **fields, expiry_source="unknown")


def _entry_removed(call: Call) -> Event:
    fields = _entry_fields(call)
    if call.operation == "DeleteAccessEntry":
        fields |= {"grant_id": None, "grant_id_kind": None}
    return call.event("grant.revoked", **fields, removal_evidence="api_accepted")
