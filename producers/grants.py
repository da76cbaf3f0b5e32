"""Typed constructors for ``grant.*``: access that is there, and how it ends."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Unpack

from ..schemas.event import Event, Resource, Subject
from .drafting import GrantCommon, draft

ExpirySource = Literal["native", "derived", "policy", "unknown"]
"""Where ``expires_at`` comes from: the tool said it, computed from what it said, a rule of ours, nobody."""
RemovalEvidence = Literal["none", "deadline", "api_accepted", "confirmed"]
"""How sure it is that the access is gone: not at all, its time passed, the tool took the order, it was seen."""


def grant_activated(
    *,
    subject: Subject | str,
    resource: Resource,
    entitlement: str,
    expires_at: datetime | None,
    grant_id: str | None = None,
    expiry_source: ExpirySource | None = None,
    starts_at: datetime | None = None,
    **common: Unpack[GrantCommon],
) -> Event:
    """Access is there from now on.

    Args:
        subject: who holds the access.
        resource: what can be accessed.
        entitlement: with which role or permission.
        expires_at: when the access must have ended. None where nobody knows: then it cannot be found overdue.
        grant_id: the grant; a fresh id, unless given. Everything later about this grant must carry the same.
        expiry_source: ``native`` where ``expires_at`` is given and ``unknown`` otherwise, unless given.
        starts_at: where the access begins later than this event.
        common: see :class:`GrantCommon`.
    """
    own = {
        "resource": resource,
        "entitlement": entitlement,
        "grant_id": grant_id,
        "expires_at": expires_at,
        "expiry_source": expiry_source or ("native" if expires_at else "unknown"),
        "starts_at": starts_at,
    }
    return draft("grant.activated", subject, own, common)


def grant_extended(
    *,
    subject: Subject | str,
    resource: Resource,
    entitlement: str,
    grant_id: str,
    expires_at: datetime | None,
    expiry_source: ExpirySource | None = None,
    **common: Unpack[GrantCommon],
) -> Event:
    """A grant was given a new end.

    Args:
        subject: who holds the access.
        resource: what can be accessed.
        entitlement: with which role or permission.
        grant_id: the grant.
        expires_at: the new end.
        expiry_source: ``native`` where ``expires_at`` is given and ``unknown`` otherwise, unless given.
        common: see :class:`GrantCommon`.
    """
    own = {
        "resource": resource,
        "entitlement": entitlement,
        "grant_id": grant_id,
        "expires_at": expires_at,
        "expiry_source": expiry_source or ("native" if expires_at else "unknown"),
    }
    return draft("grant.extended", subject, own, common)


def grant_revoked(
    *,
    subject: Subject | str,
    resource: Resource,
    entitlement: str,
    grant_id: str,
    removal_evidence: RemovalEvidence,
    **common: Unpack[GrantCommon],
) -> Event:
    """A grant was taken away before its end.

    Args:
        subject: who held the access.
        resource: what could be accessed.
        entitlement: with which role or permission.
        grant_id: the grant.
        removal_evidence: ``api_accepted`` where the tool took the order, ``confirmed`` where it was seen to be gone.
        common: see :class:`GrantCommon`; ``actor`` is who took it away.
    """
    own = {
        "resource": resource,
        "entitlement": entitlement,
        "grant_id": grant_id,
        "removal_evidence": removal_evidence,
    }
    return draft("grant.revoked", subject, own, common)


def grant_expired(
    *,
    subject: Subject | str,
    resource: Resource,
    entitlement: str,
    grant_id: str,
    removal_evidence: RemovalEvidence,
    **common: Unpack[GrantCommon],
) -> Event:
    """A grant reached its end.

    Args:
        subject: who held the access.
        resource: what could be accessed.
        entitlement: with which role or permission.
        grant_id: the grant.
        removal_evidence: ``deadline`` where only the time has passed, ``confirmed`` where the access was seen to be
            gone.
        common: see :class:`GrantCommon`.
    """
    own = {
        "resource": resource,
        "entitlement": entitlement,
        "grant_id": grant_id,
        "removal_evidence": removal_evidence,
    }
    return draft("grant.expired", subject, own, common)


def grant_failed(
    *,
    subject: Subject | str,
    resource: Resource,
    entitlement: str,
    grant_id: str | None = None,
    **common: Unpack[GrantCommon],
) -> Event:
    """Access was to be given, and the tool could not.

    Args:
        subject: who was to hold the access.
        resource: what was to be accessed.
        entitlement: with which role or permission.
        grant_id: the grant; a fresh id, unless given.
        common: see :class:`GrantCommon`; ``error`` says why.
    """
    own = {
        "resource": resource,
        "entitlement": entitlement,
        "grant_id": grant_id,
    }
    return draft("grant.failed", subject, own, common)
