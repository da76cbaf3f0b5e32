"""Typed constructors for ``request.*``: somebody asks for access, and others decide.

Approved is not active: ``grant_activated`` says that the access is there.
"""

from __future__ import annotations

from datetime import datetime
from typing import Unpack

from ..schemas.event import Approval, Event, Resource, Subject
from .drafting import Common, draft


def request_created(
    *,
    subject: Subject | str,
    resource: Resource,
    entitlement: str,
    request_id: str | None = None,
    requested_seconds: int | None = None,
    expires_at: datetime | None = None,
    **common: Unpack[Common],
) -> Event:
    """Somebody asked for access.

    Args:
        subject: who is to hold the access.
        resource: what is to be accessed.
        entitlement: the role or permission asked for.
        request_id: the request; a fresh id, unless given.
        requested_seconds: for how long, in seconds.
        expires_at: until when, where a moment was asked for.
        common: see :class:`Common`.
    """
    own = {
        "resource": resource,
        "entitlement": entitlement,
        "request_id": request_id,
        "requested_seconds": requested_seconds,
        "expires_at": expires_at,
    }
    return draft("request.created", subject, own, common)


def request_approved(
    *,
    subject: Subject | str,
    resource: Resource,
    entitlement: str,
    request_id: str,
    approvals: tuple[Approval, ...],
    **common: Unpack[Common],
) -> Event:
    """A request was approved. The access is not there yet.

    Args:
        subject: who asked, and is to hold the access.
        resource: what was asked for.
        entitlement: the role or permission asked for.
        request_id: the request.
        approvals: the whole chain of decisions as known now.
        common: see :class:`Common`; ``actor`` is who approved.
    """
    own = {
        "resource": resource,
        "entitlement": entitlement,
        "request_id": request_id,
        "approvals": approvals,
    }
    return draft("request.approved", subject, own, common)


def request_denied(
    *,
    subject: Subject | str,
    resource: Resource,
    entitlement: str,
    request_id: str,
    approvals: tuple[Approval, ...],
    **common: Unpack[Common],
) -> Event:
    """A request was turned down.

    Args:
        subject: who asked.
        resource: what was asked for.
        entitlement: the role or permission asked for.
        request_id: the request.
        approvals: the whole chain of decisions as known now.
        common: see :class:`Common`; ``actor`` is who denied.
    """
    own = {
        "resource": resource,
        "entitlement": entitlement,
        "request_id": request_id,
        "approvals": approvals,
    }
    return draft("request.denied", subject, own, common)


def request_cancelled(
    *, subject: Subject | str, resource: Resource, entitlement: str, request_id: str, **common: Unpack[Common]
) -> Event:
    """A request was withdrawn before it was decided, or deleted.

    Args:
        subject: who asked.
        resource: what was asked for.
        entitlement: the role or permission asked for.
        request_id: the request.
        common: see :class:`Common`; ``actor`` is who withdrew it.
    """
    own = {"resource": resource, "entitlement": entitlement, "request_id": request_id}
    return draft("request.cancelled", subject, own, common)


def request_expired(
    *, subject: Subject | str, resource: Resource, entitlement: str, request_id: str, **common: Unpack[Common]
) -> Event:
    """A request lapsed. This says nothing about a grant: see ``grant_expired``.

    Args:
        subject: who asked.
        resource: what was asked for.
        entitlement: the role or permission asked for.
        request_id: the request.
        common: see :class:`Common`.
    """
    own = {"resource": resource, "entitlement": entitlement, "request_id": request_id}
    return draft("request.expired", subject, own, common)
