"""The event fields that name the access of a finding or command, and the context that the person who is paged needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...schemas.access_key import AccessKey, parse_access_key
from ...schemas.event import Approval, IssuingSource, Resource, Subject
from ..access import Access, shorten, split_tenant_key, to_datetime
from .core.commands import COMMANDS
from .core.facts import names_someone
from .core.grants import Grant
from .core.judge import ABOUT_TENANT, FindingChange, entity_of_finding
from .core.reports import Timed
from .core.sessions import Request, Session
from .core.state import AccessState

MOST_APPROVALS = 10
"""Decisions in a finding: the newest. Senders choose how many there are."""


def fields_of(change: FindingChange, state: AccessState) -> dict[str, Any]:
    """Return the fields that name the access that a change concerns."""
    key, (grant, session, request) = change.identity[1], _entities(change, state)
    if session is not None:
        return _session_fields(session, grant)
    if grant is not None:
        fields = _access_fields(grant.access, grant.person, grant.kinds[0], grant.environment) | _grant_fields(grant)
        return fields | (_request_fields(parse_access_key(grant.request_key)) if grant.request_key else {})
    if request is not None:
        address = request.address
        subject = Subject(next(iter(request.person), ""))
        return _request_fields(address) | {"tenant": address.tenant, "subject": subject}
    if change.finding.rule in ABOUT_TENANT:
        tenant, name = split_tenant_key(key)
        return {"subject": Subject(name, "system"), "tenant": tenant}
    return {"subject": Subject(key, "system")}


def context_of(change: FindingChange, state: AccessState) -> dict[str, Any]:
    """Return why the access was given and who decided about it, as far as is known."""
    grant, session, request = _entities(change, state)
    if request is None and grant is not None:
        request = state.requests.get(grant.request_key)
    reasons = (one.reason for one in (grant, request, session) if one is not None)
    decided = (one.decisions for one in (grant, request) if one is not None)
    return {
        "reason": next(filter(None, reasons), None),
        "approvals": _approvals(one for each in decided for one in each),
    }


def _entities(change: FindingChange, state: AccessState) -> tuple[Grant | None, Session | None, Request | None]:
    """Return the grant, the session and the request that a change is about: of a session, also its grant."""
    rule, key, _ = change.identity
    entity = ("grant", key) if rule in (*COMMANDS, "self_approved") else entity_of_finding(rule, key)
    if entity == ("session", key) and (session := state.sessions.get(key)) is not None:
        return next(iter(state.grants_of(session)), None), session, state.requests.get(session.request_key)
    grant = state.grants.get(key) if entity == ("grant", key) else None
    return grant, None, state.requests.get(key) if grant is None and rule == "self_approved" else None


def _session_fields(session: Session, grant: Grant | None) -> dict[str, Any]:
    """Return the fields of a session. What its own events do not name comes from its grant."""
    address, access = session.address, session.access
    fields = {"session_id": address.id, "session_source": IssuingSource(*address.issuer), "tenant": address.tenant}
    kind, environment = session.subject_kind, session.environment
    if grant is not None:
        fields |= _grant_fields(grant)
        if access is None or not names_someone((access.subject,)):
            access = (access or grant.access)._replace(subject=grant.access.subject)
            kind = grant.kinds[0]
        if not access.resource:
            access = access._replace(resource_kind=grant.access.resource_kind, resource=grant.access.resource)
        if access.resource == grant.access.resource:
            environment = environment or grant.environment
        access = access._replace(entitlement=access.entitlement or grant.access.entitlement)
    if access is None:
        return fields | {"subject": Subject(address.id, "system")}
    person = grant.person if grant is not None and grant.access.subject == access.subject else (access.subject,)
    return fields | _access_fields(access, person, kind, environment)


def _request_fields(address: AccessKey) -> dict[str, Any]:
    return {"request_id": address.id, "request_source": IssuingSource(*address.issuer)}


def _grant_fields(grant: Grant) -> dict[str, Any]:
    address = grant.address
    return {
        "grant_id": address.id, "grant_id_kind": grant.kinds[1], "grant_source": IssuingSource(*address.issuer),
    }  # fmt: skip


def _access_fields(access: Access, person: tuple[str, ...], subject_kind: str, environment: str) -> dict[str, Any]:
    email = next((name for name in person[1:] if "@" in name), None)
    return {
        "tenant": access.tenant,
        "subject": Subject(access.subject, subject_kind, email),
        "resource": Resource(access.resource_kind, access.resource, environment or None),
        "entitlement": access.entitlement or None,
    }


def _approvals(decisions: Iterable[Timed]) -> tuple[Approval, ...]:
    """Return the newest decisions. One that a grant repeats without its time counts once."""
    found: dict[tuple[str, str], tuple[int, bool, bool]] = {}
    for _, append, one in decisions:
        identity = (one.reviewer, one.decision)
        known = found.get(identity)
        if known is None or (one.at is not None, one.at or append) > (known[2], known[0]):
            found[identity] = (append if one.at is None else one.at, one.forced, one.at is not None)
    newest = sorted(found.items(), key=lambda one: one[1][0])[-MOST_APPROVALS:]
    return tuple(
        Approval(shorten(reviewer), decision, at=to_datetime(at) if dated else None, forced=forced)
        for (reviewer, decision), (at, forced, dated) in newest
    )
