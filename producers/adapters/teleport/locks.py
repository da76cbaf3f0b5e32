"""Teleport: locks. A lock takes access away at once; its end gives the access back."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from ....schemas.event import Event, Subject
from ...json_fields import Fields
from ..contract import Mapped
from ..values import UNKNOWN, ordinal_of
from .identity import actor_of, cluster_of
from .seen import Seen


def map_lock(event: str, record: Fields, base: dict[str, Any], seen: Seen) -> Mapped:
    """Return the grants that a lock takes or gives back, none for another type; ``base`` are their common fields."""
    if event == "lock.created":
        return _created(record, base, seen)
    if event == "lock.deleted":
        return _deleted(record, base, seen)
    return ()


def _created(record: Fields, base: dict[str, Any], seen: Seen) -> Mapped:
    name = record.text("name") or ""
    if not record.has("target"):
        return ()
    target = record.object("target")
    cluster, at = base["source"].instance, base["occurred_at"]
    concerned = _concerned(target)
    taken = seen.active(cluster, at, concerned) if concerned else ()
    named = _named(record, target, base)
    if taken:
        seen.locks.put((cluster, name), taken)
    removed = tuple(
        _again(grant, base, record, "grant.revoked", removal_evidence="api_accepted")
        for grant in taken
        if named is None or grant.grant_id != named.grant_id
    )
    lapses = record.time("expires")
    returned = _given_back(taken, base, record, lapses) if lapses is not None and lapses > at else ()
    return (*((named,) if named else ()), *removed, *returned)


def _concerned(target: Fields) -> Callable[[Event], bool] | None:
    request, user, role = target.text("access_request"), target.text("user"), target.text("role")
    if request:
        return lambda grant: grant.request_id == request
    if user:
        return lambda grant: grant.subject.id == user
    return (lambda grant: role in (grant.entitlement or "").split(",")) if role else None


def _named(record: Fields, target: Fields, base: dict[str, Any]) -> Event | None:
    """Return the revocation of what the lock names, seen or not."""
    request, user = target.text("access_request"), target.text("user")
    if request is None and user is None:
        return None
    return Event(
        event_type="grant.revoked",
        subject=Subject(user) if user else Subject(UNKNOWN),
        actor=actor_of(record),
        resource=cluster_of(record),
        entitlement=UNKNOWN if request else "*",
        grant_id=request or f"user:{user}",
        grant_id_kind="native" if request else "synthesized",
        request_id=request,
        removal_evidence="api_accepted",
        outcome="success",
        **base,
    )


def _deleted(record: Fields, base: dict[str, Any], seen: Seen) -> Mapped:
    """Map the end of a lock. The record names only the lock, so the grants must have been seen in this run."""
    taken = seen.locks.pop((base["source"].instance, record.text("name") or ""), ())
    return _given_back(taken, base, record, None)


def _given_back(taken: tuple[Event, ...], base: dict[str, Any], record: Fields, start: datetime | None) -> Mapped:
    """Return the activations of the grants that outlast a lock, from its end (``start``, if that is to come)."""
    end = start or base["occurred_at"]
    return tuple(
        _again(
            grant, base, record, "grant.activated", starts_at=start or grant.starts_at, expires_at=grant.expires_at,
            expiry_source=grant.expiry_source, ends_by_itself=grant.ends_by_itself,
        )
        for grant in taken
        if grant.expires_at is None or grant.expires_at > end
    )  # fmt: skip


def _again(grant: Event, base: dict[str, Any], record: Fields, event_type: str, **own: Any) -> Event:
    """Return an event about a grant that an earlier record gave."""
    ended = {"starts_at": None, "expires_at": None, "expiry_source": None, "ends_by_itself": None}
    fields = {**ended, **base, **own, "actor": actor_of(record), "event_type": event_type, "outcome": "success"}
    return replace(grant, ordinal=ordinal_of(grant.grant_id), event_id="", salt=secrets.token_bytes(16), **fields)
