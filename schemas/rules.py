"""Validation beyond Avro types: the fields that each event type requires, and the values that they may have."""

from __future__ import annotations

from datetime import UTC, datetime

from .event import ACCESS_TYPES, PIPELINE_TYPES, Event
from .finding_rules import SEVERITIES

PRINCIPAL_KINDS = frozenset({"human", "service", "agent", "system", "unknown"})
OUTCOMES = frozenset({"success", "failure", "denied", "pending", "unknown"})
DECISIONS = frozenset({"approved", "denied", "pending"})
EXPIRY_SOURCES = frozenset({"native", "derived", "policy", "unknown"})
GRANT_ID_KINDS = frozenset({"native", "synthesized"})
REMOVAL_EVIDENCE = frozenset({"none", "deadline", "api_accepted", "confirmed"})
EARLIEST_YEAR, LATEST_YEAR = 1970, 2299
"""The years that ClickHouse's DateTime64 can hold with microseconds."""
BY_PERSON = frozenset({"finding.acknowledged", "finding.closed", "source.registered", "payload.erased", "epoch.opened"})
"""Types that record a person's decision: they name the person and the reason."""


class InvalidEventError(ValueError):
    """An event that breaks a rule. ``field`` is the dotted path of the bad field, ``problem`` what is wrong with it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


def check(event: Event) -> None:
    """Check one event against the rules of DESIGN section 3.

    Raises:
        InvalidEventError: names the first bad field and what it must be.
    """
    _check_values(event)
    _check_times(event)
    _check_required(event)


def _one_of(field: str, value: str | None, allowed: frozenset[str]) -> None:
    if value is not None and value not in allowed:
        raise InvalidEventError(field, f"{value!r} is not one of {', '.join(sorted(allowed))}")


def _check_values(event: Event) -> None:
    if event.event_type not in ACCESS_TYPES + PIPELINE_TYPES:
        raise InvalidEventError("event_type", f"{event.event_type!r} is not a known type")
    _one_of("subject.kind", event.subject.kind, PRINCIPAL_KINDS)
    _one_of("actor.kind", event.actor.kind, PRINCIPAL_KINDS)
    _one_of("outcome", event.outcome, OUTCOMES)
    _one_of("expiry_source", event.expiry_source, EXPIRY_SOURCES)
    _one_of("grant_id_kind", event.grant_id_kind, GRANT_ID_KINDS)
    _one_of("removal_evidence", event.removal_evidence, REMOVAL_EVIDENCE)
    for number, approval in enumerate(event.approvals):
        _one_of(f"approvals[{number}].decision", approval.decision, DECISIONS)
    if event.finding is not None:
        _one_of("finding.severity", event.finding.severity, frozenset(SEVERITIES))
    texts = [
        ("source", name, getattr(event.source, name)) for name in ("system", "instance", "native_id", "native_type")
    ]
    for issuer in ("grant_source", "request_source", "session_source"):
        if (named := getattr(event, issuer)) is not None:
            texts += [(issuer, "system", named.system), (issuer, "instance", named.instance)]
    for field, name, text in texts:
        if not text:
            raise InvalidEventError(f"{field}.{name}", "must not be empty")
    if not event.tenant:
        raise InvalidEventError("tenant", "must not be empty")
    if len(event.salt) != 16:
        raise InvalidEventError("salt", f"must be 16 bytes, is {len(event.salt)}")
    if len(event.raw_sha256) != 32:
        raise InvalidEventError("raw_sha256", f"must be 32 bytes, is {len(event.raw_sha256)}")


def _check_times(event: Event) -> None:
    times: list[tuple[str, datetime | None]] = [
        ("occurred_at", event.occurred_at),
        ("starts_at", event.starts_at),
        ("expires_at", event.expires_at),
        *((f"approvals[{number}].at", approval.at) for number, approval in enumerate(event.approvals)),
    ]
    for field, time in times:
        if time is None:
            continue
        if time.tzinfo is None:
            raise InvalidEventError(field, f"{time.isoformat()} has no time zone; give UTC or an offset")
        # The year in UTC counts, because UTC is written; the two differ only near the ends of a year.
        year = time.astimezone(UTC).year if EARLIEST_YEAR - 1 <= time.year <= LATEST_YEAR + 1 else time.year
        if not EARLIEST_YEAR <= year <= LATEST_YEAR:
            raise InvalidEventError(field, f"year {year} is outside {EARLIEST_YEAR} to {LATEST_YEAR}")
    if event.requested_seconds is not None and event.requested_seconds < 0:
        raise InvalidEventError("requested_seconds", f"must not be negative, is {event.requested_seconds}")


def _check_required(event: Event) -> None:
    family = event.event_type.split(".", 1)[0]
    if family in ("request", "grant", "session"):
        if not (event.grant_id or event.request_id or event.session_id):
            raise InvalidEventError("grant_id", "one of grant_id, request_id and session_id is required")
        own = {"request": event.request_id, "grant": event.grant_id, "session": event.session_id}[family]
        if not own:
            raise InvalidEventError(f"{family}_id", f"is required on {event.event_type}")
    if family in ("request", "grant"):
        if event.resource is None:
            raise InvalidEventError("resource", f"is required on {event.event_type}")
        if not event.entitlement:
            raise InvalidEventError("entitlement", f"is required on {event.event_type}")
    if event.grant_id and event.grant_id_kind is None:
        raise InvalidEventError("grant_id_kind", "is required where grant_id is given: native or synthesized")
    if event.event_type in ("grant.activated", "grant.extended"):
        if event.expiry_source is None:
            raise InvalidEventError("expiry_source", f"is required on {event.event_type}")
        if event.expires_at is None and event.expiry_source != "unknown":
            raise InvalidEventError("expires_at", "is required unless expiry_source is unknown")
    if event.event_type in ("grant.revoked", "grant.expired") and event.removal_evidence is None:
        raise InvalidEventError("removal_evidence", f"is required on {event.event_type}")
    if event.event_type in ("session.command", "session.query") and event.action is None:
        raise InvalidEventError("action", f"is required on {event.event_type}")
    _check_pipeline(event, family)


def _check_pipeline(event: Event, family: str) -> None:
    if family in ("finding", "revoke") and event.finding is None:
        raise InvalidEventError("finding", f"is required on {event.event_type}")
    if event.event_type == "schema.registered" and event.registered_schema is None:
        raise InvalidEventError("registered_schema", "is required on schema.registered")
    if event.event_type == "config.changed":
        if event.resource is None:
            raise InvalidEventError("resource", "is required on config.changed: the file's kind and name")
        if event.raw is None:
            raise InvalidEventError("raw", "is required on config.changed: the file's content")
    if event.event_type in BY_PERSON:
        if event.actor.kind != "human" or not event.actor.id:
            raise InvalidEventError("actor", f"must be a person (kind human) on {event.event_type}")
        if not event.reason:
            raise InvalidEventError("reason", f"is required on {event.event_type}")
    if event.finding is not None and event.finding.accept_index is not None and event.event_type != "finding.closed":
        raise InvalidEventError("finding.accept_index", "is allowed on finding.closed only")
