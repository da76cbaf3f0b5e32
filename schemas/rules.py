"""Validation beyond Avro types: the values that fields may have, and the fields that each event type requires.

:func:`check` applies the tables to one event, :mod:`.column_rules` to many decoded events at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from operator import attrgetter

from .event import (
    ACCESS_TYPES,
    GIVING,
    GRANT_TYPES,
    OBSERVED,
    PIPELINE_TYPES,
    POLICY_CHANGED,
    REQUEST_TYPES,
    SESSION_TYPES,
    SOURCE_REPORT,
    Event,
)
from .finding_rules import SEVERITIES

EVENT_TYPES = frozenset((*ACCESS_TYPES, OBSERVED, SOURCE_REPORT, *PIPELINE_TYPES))
DECISIONS = frozenset({"approved", "denied", "pending"})
_PRINCIPAL_KINDS = frozenset({"human", "service", "agent", "system", "unknown"})
ALLOWED: Mapping[str, Collection[str]] = {
    "subject.kind": _PRINCIPAL_KINDS,
    "actor.kind": _PRINCIPAL_KINDS,
    "outcome": frozenset({"success", "failure", "denied", "pending", "unknown"}),
    "expiry_source": frozenset({"native", "derived", "policy", "unknown"}),
    "grant_id_kind": frozenset({"native", "synthesized"}),
    "removal_evidence": frozenset({"none", "deadline", "api_accepted", "confirmed"}),
    "finding.severity": frozenset(SEVERITIES),
    "report.result": frozenset({"mapped", "skipped", "failed"}),
}
"""The values of enumerations, by field. A field without a value passes."""
NOT_EMPTY = ("source.system", "source.instance", "source.native_id", "source.native_type", "tenant")
ISSUERS = ("grant_source", "request_source", "session_source")
"""Optional sources. One without an instance means any installation of the tool."""
TIMES = ("occurred_at", "starts_at", "expires_at", "received_at")
EARLIEST_YEAR, LATEST_YEAR = 1970, 9999
"""The years that every part of the pipeline can represent exactly."""
BY_PERSON = frozenset({"finding.acknowledged", "finding.closed", "source.registered", "payload.erased", "epoch.opened"})
"""Types that record a person's decision: they name the person and the reason."""
FAILED = frozenset({"failure", "denied"})
"""Outcomes of events that changed nothing: a failed removal removes nothing, a denied activation gives nothing."""
REQUIRED: Mapping[str, Collection[str]] = {
    "request_id": REQUEST_TYPES,
    "grant_id": ("grant.activated", OBSERVED),
    "session_id": SESSION_TYPES,
    "resource": (*REQUEST_TYPES, *GRANT_TYPES, OBSERVED, POLICY_CHANGED, "config.changed"),
    "entitlement": (*REQUEST_TYPES, *GRANT_TYPES, OBSERVED),
    "expiry_source": GIVING,
    "removal_evidence": ("grant.revoked", "grant.expired"),
    "action": ("session.command", "session.query", "query.executed"),
    "finding": tuple(one for one in PIPELINE_TYPES if one.startswith(("finding.", "revoke.", "lookup."))),
    "registered_schema": ("schema.registered",),
    "registered_source": ("source.registered",),
    "opened_epoch": ("epoch.opened",),
    "executed_query": ("query.executed",),
    "report": (SOURCE_REPORT,),
    "raw": ("config.changed",),
    "reason": BY_PERSON,
}
"""The event types that require a field, by field. On ``config.changed``, resource is the file and raw its content."""
ABOUT_GRANTS = frozenset(GRANT_TYPES) - {"grant.activated"}
"""Types that name a grant, or only a request: then they are about all grants of the request."""
_REQUIRED_BY_TYPE = {kind: [field for field, types in REQUIRED.items() if kind in types] for kind in EVENT_TYPES}
_VALUE = {field: attrgetter(field) for field in (*ALLOWED, *NOT_EMPTY)}


class InvalidEventError(ValueError):
    """An event that breaks a rule.

    Attributes:
        field: the dotted path of the bad field.
        problem: the reason.
        more: the other problems of the event.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem
        self.more: tuple[InvalidEventError, ...] = ()


def check(event: Event) -> None:
    """Check one event against the rules of its type.

    Raises:
        InvalidEventError: names the first bad field and what it must be; ``more`` has the others.
    """
    if problems := [*_wrong_type(event), *_wrong_values(event), *_wrong_times(event), *_missing(event)]:
        first, *more = problems
        first.more = tuple(more)
        raise first


def _wrong_type(event: Event) -> Iterator[InvalidEventError]:
    if event.event_type not in EVENT_TYPES:
        yield InvalidEventError("event_type", f"{event.event_type!r} is not a known type")


def _one_of(field: str, value: str | None, allowed: Collection[str]) -> Iterator[InvalidEventError]:
    if value is not None and value not in allowed:
        yield InvalidEventError(field, f"{value!r} is not one of {', '.join(sorted(allowed))}")


def _wrong_values(event: Event) -> Iterator[InvalidEventError]:
    for field, allowed in ALLOWED.items():
        optional = field.partition(".")[0]
        if optional not in ("finding", "report") or getattr(event, optional) is not None:
            yield from _one_of(field, _VALUE[field](event), allowed)
    for number, approval in enumerate(event.approvals):
        yield from _one_of(f"approvals[{number}].decision", approval.decision, DECISIONS)
    for field in NOT_EMPTY:
        if not _VALUE[field](event):
            yield InvalidEventError(field, "must not be empty")
    for name in ISSUERS:
        issuer = getattr(event, name)
        if issuer is not None and not issuer.system:
            yield InvalidEventError(f"{name}.system", "must not be empty")
    if len(event.salt) != 16:
        yield InvalidEventError("salt", f"must be 16 bytes, is {len(event.salt)}")
    if len(event.raw_sha256) != 32:
        yield InvalidEventError("raw_sha256", f"must be 32 bytes, is {len(event.raw_sha256)}")


def _wrong_times(event: Event) -> Iterator[InvalidEventError]:
    times: list[tuple[str, datetime | None]] = [
        *((field, getattr(event, field)) for field in TIMES),
        *((f"approvals[{number}].at", approval.at) for number, approval in enumerate(event.approvals)),
    ]
    for field, time in times:
        if time is None:
            continue
        if time.tzinfo is None:
            yield InvalidEventError(field, f"{time.isoformat()} has no time zone; give UTC or an offset")
            continue
        year = _year_in_utc(time)
        if not EARLIEST_YEAR <= year <= LATEST_YEAR:
            yield InvalidEventError(field, f"year {year} is outside {EARLIEST_YEAR} to {LATEST_YEAR}")
    if event.requested_seconds is not None and event.requested_seconds < 0:
        yield InvalidEventError("requested_seconds", f"must not be negative, is {event.requested_seconds}")
    if event.report is not None and event.report.records < 0:
        yield InvalidEventError("report.records", f"must not be negative, is {event.report.records}")


def _year_in_utc(time: datetime) -> int:
    """Return the year in UTC, which is written. Python has no dates outside of the years 1 to 9999."""
    try:
        return time.astimezone(UTC).year
    except OverflowError:
        return 0 if time.year == 1 else LATEST_YEAR + 1


def _missing(event: Event) -> Iterator[InvalidEventError]:
    for field in _REQUIRED_BY_TYPE.get(event.event_type, ()):
        if getattr(event, field) in (None, ""):
            yield InvalidEventError(field, f"is required on {event.event_type}")
    if event.event_type in ABOUT_GRANTS and not event.grant_id and not event.request_id:
        yield InvalidEventError("grant_id", f"is required on {event.event_type}, unless request_id is given")
    if event.grant_id and event.grant_id_kind is None:
        yield InvalidEventError("grant_id_kind", "is required where grant_id is given: native or synthesized")
    if event.event_type in GIVING and event.expires_at is None and event.expiry_source != "unknown":
        yield InvalidEventError("expires_at", "is required unless expiry_source is unknown")
    if event.event_type in BY_PERSON and (event.actor.kind != "human" or not event.actor.id):
        yield InvalidEventError("actor", f"must be a person (kind human) on {event.event_type}")
    if event.finding is not None and event.finding.accept_index is not None and event.event_type != "finding.closed":
        yield InvalidEventError("finding.accept_index", "is allowed on finding.closed only")
