"""Events that people cause by command: a finding acknowledged or closed, a revocation requested, a payload erased."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from ..kafka.publisher import Record
from ..schemas.access_key import parse_access_key
from ..schemas.codec import EventEncoder
from ..schemas.event import (
    FINDINGS_TOPIC,
    Actor,
    Event,
    EventSource,
    Finding,
    IssuingSource,
    OpenedEpoch,
    Resource,
    Subject,
)
from ..schemas.finding_event import PERSON_REQUEST
from ..schemas.own_sources import OPERATOR
from ..schemas.topics import COMMANDS_TOPIC
from .settings import Settings
from .source_keys import operator_event, operator_publisher, publish_as_operator


def settle_finding(
    settings: Settings,
    finding: Mapping[str, Any],
    status: Literal["acknowledged", "closed"],
    *,
    person: str,
    reason: str,
    accept_index: int | None = None,
) -> None:
    """Publish that a person has acknowledged or closed a finding.

    Args:
        finding: its row of the view ``findings``; the event gets the same fields.
        accept_index: on an ``event_conflict``: index of the entry with the accepted version.
    """
    now = datetime.now(UTC)
    rule, key, deadline = finding["rule"], finding["key"], finding["deadline"]

    def text(name: str) -> str | None:
        return finding.get(name) or None

    def issuer(name: str) -> IssuingSource | None:
        system = finding[f"{name}_system"]
        return IssuingSource(system, finding[f"{name}_instance"]) if system else None

    resource = Resource(finding["resource_kind"], finding["resource_id"], text("resource_environment"))
    event = Event(
        event_type=f"finding.{status}",
        occurred_at=now,
        source=EventSource(
            OPERATOR, settings.require_deployment(), f"{rule}:{key}:{deadline}:{now.isoformat()}", "decision"
        ),
        subject=Subject(finding["subject_id"] or key),
        actor=Actor(person, "human"),
        tenant=finding["tenant"],
        grant_id=text("grant_id"),
        grant_id_kind="native" if finding["grant_id"] else None,
        grant_source=issuer("grant_source"),
        request_id=text("request_id"),
        request_source=issuer("request_source"),
        session_id=text("session_id"),
        session_source=issuer("session_source"),
        resource=resource if resource.id else None,
        entitlement=text("entitlement"),
        outcome="success",
        reason=reason,
        finding=Finding(rule, key, finding["severity"], deadline, accept_index=accept_index),
    )
    publish_as_operator(settings, [event])


def request_revocation(settings: Settings, grant: Mapping[str, Any], *, person: str, reason: str) -> None:
    """Publish that a person requests the revocation of a grant: for the record, and then for the enforcers.

    Each request is a command of its own, also if an earlier one failed.

    Args:
        grant: its row of the view ``grants``.
    """
    now = datetime.now(UTC)
    grant_id, deadline = grant["grant_id"], grant["found_deadline"] or grant["deadline"]
    request = parse_access_key(grant["request_key"]) if grant["request_key"] else None
    event = Event(
        event_type="revoke.requested",
        occurred_at=now,
        source=EventSource(
            OPERATOR, settings.require_deployment(), f"{grant['grant_key']}:{now.isoformat()}", "decision"
        ),
        subject=Subject(grant["subject_id"], grant["subject_kind"] or "unknown"),
        actor=Actor(person, "human"),
        tenant=grant["tenant"],
        grant_id=grant_id,
        grant_id_kind="native",
        grant_source=IssuingSource(grant["source_system"], grant["source_instance"]),
        request_id=request.id if request is not None else None,
        request_source=IssuingSource(*request.issuer) if request is not None else None,
        resource=Resource(grant["resource_kind"], grant["resource_id"], grant["resource_environment"] or None),
        entitlement=grant["entitlement"],
        expires_at=deadline,
        outcome="pending",
        reason=reason,
        finding=Finding(PERSON_REQUEST, grant_id, "critical", now),
    )
    value, publisher = EventEncoder().encode(event), operator_publisher(settings)
    # An enforcer rejects a command that is not on record.
    for topic in (FINDINGS_TOPIC, COMMANDS_TOPIC):
        publisher.publish([Record(topic, value, event.key)])


def erase_payload(settings: Settings, origin: str, index: int, *, person: str, legal_basis: str) -> None:
    """Publish that the payload of an entry must be erased; the stores act on this event."""
    place, deployment = f"{origin}#{index}", settings.require_deployment()
    publish_as_operator(settings, [operator_event("payload.erased", deployment, place, person, reason=legal_basis)])


def epoch_opened(deployment: str, opened: OpenedEpoch, *, person: str, reason: str) -> Event:
    """Return the event that a person continues a stopped log as a new epoch. It is written with the epoch itself."""
    return Event(
        event_type="epoch.opened",
        occurred_at=datetime.now(UTC),
        source=EventSource(OPERATOR, deployment, opened.new_origin, "decision"),
        subject=Subject(opened.new_origin, "system"),
        actor=Actor(person, "human"),
        outcome="success",
        reason=reason,
        opened_epoch=opened,
    )
