"""CloudTrail: who called and with which credentials, from ``userIdentity``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from ....schemas.event import Actor, Subject
from ..contract import synthesized
from ..reading import Fields

UNKNOWN = "unknown"
"""Stands where a rule of ours asks for a text that the record does not hold."""
HIDDEN = "HIDDEN_DUE_TO_SECURITY_REASONS"
"""What CloudTrail writes in the place of a secret, or of a user name that may be a mistyped password."""
TEMPORARY_KEY = re.compile(r"ASIA[A-Z0-9]{12,124}")
"""Access key ids of temporary credentials begin so; those of lasting keys with AKIA ("IAM identifiers")."""
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
    """Who made a call, with which credentials.

    ``grant_id`` names the temporary credentials, ``session_id`` what is done with them; ``role`` what they allow.
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
    """Return the identity in a record's ``userIdentity``.

    Raises:
        RecordError: a member has the wrong type.
    """
    kind = who.text("type") or ""
    invoked_by = who.text("invokedBy")
    context = who.object("sessionContext")
    issuer = context.object("sessionIssuer")
    created = context.object("attributes").time("creationDate")
    key = who.text("accessKeyId")
    arn = who.text("arn")
    role = issuer.text("arn") or (_role_name(arn) if kind == "AssumedRole" else None)
    # In another account's trail a caller is its account and its id; ids of roles begin with AROA.
    foreign_role = kind == "AWSAccount" and (who.text("principalId") or "").startswith("AROA")
    service = kind == "AWSService" or (kind in ("", "Unknown") and invoked_by is not None)
    temporary = bool(
        kind in _ALWAYS_TEMPORARY or created or foreign_role or (key is not None and TEMPORARY_KEY.fullmatch(key))
    )
    subject = Subject(_name(kind, who), _kind(kind, who), _email(kind, who))
    grant_id, grant_id_kind = grant_of(key, arn, created)
    return Identity(
        subject=subject,
        # What a service does in somebody's name is done by the service.
        actor=Actor(invoked_by, "service") if invoked_by and not service else Actor(subject.id, subject.kind),
        temporary=temporary and not service,
        standing=not temporary and kind in _STANDING,
        service=service,
        service_linked=is_service_linked(role),
        grant_id=grant_id if temporary else None,
        grant_id_kind=grant_id_kind if temporary else None,
        session_id=who.text("credentialId") or session_of(key, arn, created),
        role=role,
    )


def grant_of(key: str | None, arn: str | None, created: datetime | None) -> tuple[str | None, str | None]:
    """Return the id of temporary credentials and its kind.

    The key id, by which AWS names them; where the record has none, or a masked one, the principal and the second in
    which the credentials were made.
    """
    if key is not None and TEMPORARY_KEY.fullmatch(key):
        return key, "native"
    if arn is None or created is None:
        return None, None
    return synthesized("credentials", arn, created.isoformat()), "synthesized"


def session_of(key: str | None, arn: str | None, created: datetime | None) -> str | None:
    """Return the session: one principal since one second. The console and Identity Center change keys within it."""
    if arn is not None and created is not None:
        return synthesized("session", arn, created.isoformat())
    return key if key is not None and TEMPORARY_KEY.fullmatch(key) else None


def is_service_linked(role: str | None) -> bool:
    """Whether a role's ARN is of a service-linked role, which its one service alone can take."""
    return role is not None and ":role/aws-service-role/" in role


def _role_name(arn: str | None) -> str | None:
    """``arn:aws:sts::<account>:assumed-role/<role>/<session>``: sign-ins name the role nowhere else."""
    parts = (arn or "").split("/")
    return parts[1] or None if len(parts) == 3 and parts[0].endswith(":assumed-role") else None


def _name(kind: str, who: Fields) -> str:
    names = _NAMES.get(kind, ("arn", "userName", "principalId", "invokedBy", "accountId"))
    person = who.object("onBehalfOf").text("userId") if kind == "IdentityCenterUser" else None
    found = person or next((name for name in (who.text(member) for member in names) if name), None)
    return UNKNOWN if found is None or HIDDEN in found else found


def _kind(kind: str, who: Fields) -> str:
    """A second factor or a sign-in to Identity Center is a person's; other principals may be anything."""
    if kind == "AWSService":
        return "service"
    context = who.object("sessionContext")
    issuer = context.object("sessionIssuer").text("userName") or ""
    factor = (context.object("attributes").compact("mfaAuthenticated") or "").strip('"')
    people = kind == "IdentityCenterUser" or issuer.startswith(IDENTITY_CENTER_ROLE) or factor == "true"
    return "human" if people else UNKNOWN


def _email(kind: str, who: Fields) -> str | None:
    """A user name that is an email. Of role sessions only Identity Center's: others take any name they like."""
    name = who.text("userName")
    if kind == "AssumedRole":
        arn = who.text("arn") or ""
        name = arn.rpartition("/")[2] if f"/{IDENTITY_CENTER_ROLE}" in arn else None
    return name if name and "@" in name else None
