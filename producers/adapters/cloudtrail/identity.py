"""CloudTrail: the caller and the credentials, from ``userIdentity``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ....schemas.event import Actor, Subject
from ...json_fields import Fields
from ..values import UNKNOWN, email_in, grant_ids, synthesized

HIDDEN = "HIDDEN_DUE_TO_SECURITY_REASONS"
"""CloudTrail's replacement for a secret, or for a user name that may be a mistyped password."""
TEMPORARY_KEY = re.compile(r"ASIA[A-Z0-9]{12,124}")
"""The access key ids of temporary credentials; those of long-term keys start with AKIA ("IAM identifiers")."""
IDENTITY_CENTER_ROLE = "AWSReservedSSO_"
_NAMES: dict[str, tuple[str, ...]] = {
    "AWSService": ("invokedBy",),
    "SAMLUser": ("userName", "principalId"),
    "WebIdentityUser": ("userName", "principalId"),
}
_ALWAYS_TEMPORARY = frozenset({"AssumedRole", "FederatedUser", "IdentityCenterUser", "SAMLUser", "WebIdentityUser"})
_STANDING = frozenset({"IAMUser", "Root", "AWSAccount", "Role"})


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller and the credentials of a call.

    ``grant_id`` identifies the temporary credentials, ``session_id`` their use and ``role`` their permissions.
    """

    subject: Subject
    actor: Actor
    temporary: bool
    standing: bool
    service: bool
    service_linked: bool
    grant_id: str | None
    grant_id_kind: str | None
    session_id: str | None
    role: str | None


def read_identity(who: Fields) -> Identity:
    """Return the identity in a record's ``userIdentity``."""
    kind = who.text("type") or ""
    invoked_by = who.text("invokedBy")
    context = who.object("sessionContext")
    issuer = context.object("sessionIssuer")
    created = context.object("attributes").time("creationDate")
    key = who.text("accessKeyId")
    arn = who.text("arn")
    role = issuer.text("arn") or (_role_name(arn) if kind == "AssumedRole" else None)
    # The trail of another account shows only the caller's account and id. Ids of roles start with AROA.
    foreign_role = kind == "AWSAccount" and (who.text("principalId") or "").startswith("AROA")
    service = kind == "AWSService" or (kind in ("", "Unknown") and invoked_by is not None)
    temporary = bool(
        kind in _ALWAYS_TEMPORARY or created or foreign_role or (key is not None and TEMPORARY_KEY.fullmatch(key))
    )
    subject = Subject(_name(kind, who), _kind(kind, who), _email(kind, who))
    ids = grant_of(key if temporary else None, arn if temporary else None, created)
    return Identity(
        subject=subject,
        # A service that acts on behalf of the subject is the actor.
        actor=Actor(invoked_by, "service") if invoked_by and not service else Actor(subject.id, subject.kind),
        temporary=temporary and not service,
        standing=not temporary and kind in _STANDING,
        service=service,
        service_linked=is_service_linked(role),
        **ids,
        session_id=who.text("credentialId") or session_of(key, arn, created),
        role=role,
    )


def grant_of(key: str | None, arn: str | None, created: datetime | None) -> dict[str, Any]:
    """Return the ``grant_id`` of temporary credentials and its kind, both None if the record has no usable id.

    It is AWS's access key id. If that is missing or masked, it is made from the principal and the creation time.
    """
    if key is not None and TEMPORARY_KEY.fullmatch(key):
        return grant_ids(key, "credentials")
    if arn is None or created is None:
        return {"grant_id": None, "grant_id_kind": None}
    return grant_ids(None, "credentials", arn, created.isoformat())


def session_of(key: str | None, arn: str | None, created: datetime | None) -> str | None:
    """Return the session id: principal and creation time. The console and the portal change keys within a session."""
    if arn is not None and created is not None:
        return synthesized("session", arn, created.isoformat())
    return key if key is not None and TEMPORARY_KEY.fullmatch(key) else None


def is_service_linked(role: str | None) -> bool:
    """Return whether the ARN is of a service-linked role, which only its service can assume."""
    return role is not None and ":role/aws-service-role/" in role


def _role_name(arn: str | None) -> str | None:
    """Return the role in ``arn:aws:sts::<account>:assumed-role/<role>/<session>``; sign-ins name it nowhere else."""
    parts = (arn or "").split("/")
    return parts[1] or None if len(parts) == 3 and parts[0].endswith(":assumed-role") else None


def _name(kind: str, who: Fields) -> str:
    names = _NAMES.get(kind, ("arn", "userName", "principalId", "invokedBy", "accountId"))
    person = who.object("onBehalfOf").text("userId") if kind == "IdentityCenterUser" else None
    found = person or who.first_text(*names)
    return UNKNOWN if found is None or HIDDEN in found else found


def _kind(kind: str, who: Fields) -> str:
    """Return ``human`` for callers with a second factor or from Identity Center, who are certainly people."""
    if kind == "AWSService":
        return "service"
    context = who.object("sessionContext")
    issuer = context.object("sessionIssuer").text("userName") or ""
    factor = (context.object("attributes").compact("mfaAuthenticated") or "").strip('"')
    people = kind == "IdentityCenterUser" or issuer.startswith(IDENTITY_CENTER_ROLE) or factor == "true"
    return "human" if people else UNKNOWN


def _email(kind: str, who: Fields) -> str | None:
    """Return an email used as user name. In role sessions only Identity Center's names are reliable."""
    name = who.text("userName")
    if kind == "AssumedRole":
        arn = who.text("arn") or ""
        name = arn.rpartition("/")[2] if f"/{IDENTITY_CENTER_ROLE}" in arn else None
    return email_in(name)
