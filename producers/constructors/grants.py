"""Constructors for ``grant.*``: active access and its end."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Unpack

from ...schemas.event import Event, Resource, Subject
from .draft import GrantFields, draft

ExpirySource = Literal["native", "derived", "policy", "unknown"]
"""The origin of ``expires_at``: stated by the tool, computed from its record, set by our policy, or unknown."""
RemovalEvidence = Literal["none", "deadline", "api_accepted", "confirmed"]
"""Proof that access is gone: none, its deadline passed, the tool accepted the removal, or a check confirmed it."""


def grant_activated(
    *,
    subject: Subject | str,
    resource: Resource,
    entitlement: str,
    expires_at: datetime | None,
    grant_id: str | None = None,
    expiry_source: ExpirySource | None = None,
    starts_at: datetime | None = None,
    **common: Unpack[GrantFields],
) -> Event:
    """Access is active from now on.

    Args:
        subject: who holds the access.
        resource: the resource that can be accessed.
        entitlement: the role or permission.
        expires_at: the time by which the access must end. None if unknown; such a grant is never found overdue.
        grant_id: default: a new id. Every later event about this grant must carry it.
        expiry_source: default: ``native`` if ``expires_at`` is given, else ``unknown``.
        starts_at: the start of the access, if it is later than this event.
        common: see :class:`GrantFields`.
    """
    access = {"resource": resource, "entitlement": entitlement, "grant_id": grant_id}
    end = {"expires_at": expires_at, "expiry_source": expiry_source}
    return draft("grant.activated", common, subject=subject, starts_at=starts_at, **access, **end)


def grant_extended(
    *,
    subject: Subject | str,
    resource: Resource,
    entitlement: str,
    grant_id: str,
    expires_at: datetime | None,
    expiry_source: ExpirySource | None = None,
    **common: Unpack[GrantFields],
) -> Event:
    """A grant has a new end, which replaces the previous one.

    Args:
        subject: who holds the access.
        resource: the resource that can be accessed.
        entitlement: the role or permission.
        grant_id: the grant.
        expires_at: the new end.
        expiry_source: default: ``native`` if ``expires_at`` is given, else ``unknown``.
        common: see :class:`GrantFields`.
    """
    access = {"resource": resource, "entitlement": entitlement, "grant_id": grant_id}
    end = {"expires_at": expires_at, "expiry_source": expiry_source}
    return draft("grant.extended", common, subject=subject, **access, **end)


def grant_revoked(
    *,
    subject: Subject | str,
    resource: Resource,
    entitlement: str,
    grant_id: str,
    removal_evidence: RemovalEvidence,
    **common: Unpack[GrantFields],
) -> Event:
    """A grant was removed.

    Args:
        subject: who held the access.
        resource: the resource that could be accessed.
        entitlement: the role or permission.
        grant_id: the grant.
        removal_evidence: ``api_accepted`` if the tool accepted the removal, ``confirmed`` if a check found it gone.
        common: see :class:`GrantFields`; ``actor`` is who removed it.
    """
    access = {"resource": resource, "entitlement": entitlement, "grant_id": grant_id}
    return draft("grant.revoked", common, subject=subject, removal_evidence=removal_evidence, **access)


def grant_expired(
    *,
    subject: Subject | str,
    resource: Resource,
    entitlement: str,
    grant_id: str,
    removal_evidence: RemovalEvidence,
    **common: Unpack[GrantFields],
) -> Event:
    """A grant reached its end.

    Args:
        subject: who held the access.
        resource: the resource that could be accessed.
        entitlement: the role or permission.
        grant_id: the grant.
        removal_evidence: ``deadline`` if only the time has passed, ``confirmed`` if a check found it gone.
        common: see :class:`GrantFields`.
    """
    access = {"resource": resource, "entitlement": entitlement, "grant_id": grant_id}
    return draft("grant.expired", common, subject=subject, removal_evidence=removal_evidence, **access)


def grant_failed(
    *,
    subject: Subject | str,
    resource: Resource,
    entitlement: str,
    grant_id: str | None = None,
    **common: Unpack[GrantFields],
) -> Event:
    """The tool could not activate a grant.

    Args:
        subject: who would have held the access.
        resource: the requested resource.
        entitlement: the requested role or permission.
        grant_id: default: a new id.
        common: see :class:`GrantFields`; ``error`` gives the reason.
    """
    access = {"resource": resource, "entitlement": entitlement, "grant_id": grant_id}
    return draft("grant.failed", common, subject=subject, **access)
