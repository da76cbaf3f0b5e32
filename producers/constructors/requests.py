"""Constructors for ``request.*``: requests for access and the decisions on them.

An approved request is not active access: send ``grant_activated`` when the access exists.
"""

from __future__ import annotations

from datetime import datetime
from typing import Unpack

from ...schemas.event import Approval, Event, Resource, Subject
from .draft import CommonFields, draft


def request_created(
    *,
    subject: Subject | str,
    resource: Resource,
    entitlement: str,
    request_id: str | None = None,
    requested_seconds: int | None = None,
    expires_at: datetime | None = None,
    **common: Unpack[CommonFields],
) -> Event:
    """Someone requested access.

    Args:
        subject: who would hold the access.
        resource: the requested resource.
        entitlement: the requested role or permission.
        request_id: default: a new id.
        requested_seconds: the requested duration in seconds.
        expires_at: the requested end, if a fixed time was requested.
        common: see :class:`CommonFields`.
    """
    request = {"resource": resource, "entitlement": entitlement, "request_id": request_id}
    duration = {"requested_seconds": requested_seconds, "expires_at": expires_at}
    return draft("request.created", common, subject=subject, **request, **duration)


def request_approved(
    *,
    subject: Subject | str,
    resource: Resource,
    entitlement: str,
    request_id: str,
    approvals: tuple[Approval, ...],
    **common: Unpack[CommonFields],
) -> Event:
    """A request was approved. The access is not active yet.

    Args:
        subject: who requested the access and would hold it.
        resource: the requested resource.
        entitlement: the requested role or permission.
        request_id: the request.
        approvals: all decisions known so far.
        common: see :class:`CommonFields`; ``actor`` is who approved.
    """
    request = {"resource": resource, "entitlement": entitlement, "request_id": request_id}
    return draft("request.approved", common, subject=subject, approvals=approvals, **request)


def request_denied(
    *,
    subject: Subject | str,
    resource: Resource,
    entitlement: str,
    request_id: str,
    approvals: tuple[Approval, ...],
    **common: Unpack[CommonFields],
) -> Event:
    """A request was denied.

    Args:
        subject: who requested the access.
        resource: the requested resource.
        entitlement: the requested role or permission.
        request_id: the request.
        approvals: all decisions known so far.
        common: see :class:`CommonFields`; ``actor`` is who denied.
    """
    request = {"resource": resource, "entitlement": entitlement, "request_id": request_id}
    return draft("request.denied", common, subject=subject, approvals=approvals, **request)


def request_cancelled(
    *, subject: Subject | str, resource: Resource, entitlement: str, request_id: str, **common: Unpack[CommonFields]
) -> Event:
    """A request was withdrawn or deleted before a decision.

    Args:
        subject: who requested the access.
        resource: the requested resource.
        entitlement: the requested role or permission.
        request_id: the request.
        common: see :class:`CommonFields`; ``actor`` is who withdrew it.
    """
    request = {"resource": resource, "entitlement": entitlement, "request_id": request_id}
    return draft("request.cancelled", common, subject=subject, **request)


def request_expired(
    *, subject: Subject | str, resource: Resource, entitlement: str, request_id: str, **common: Unpack[CommonFields]
) -> Event:
    """A request expired. This does not end a grant: see ``grant_expired``.

    Args:
        subject: who requested the access.
        resource: the requested resource.
        entitlement: the requested role or permission.
        request_id: the request.
        common: see :class:`CommonFields`.
    """
    request = {"resource": resource, "entitlement": entitlement, "request_id": request_id}
    return draft("request.expired", common, subject=subject, **request)
