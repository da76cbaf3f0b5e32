"""The event: one thing that happened in the life of a temporary access."""

from __future__ import annotations

import hashlib
import json
import secrets
import uuid
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

EVENT_ID_NAMESPACE = uuid.UUID("6f1c0b52-5a0e-5d7c-9c55-0b8f0e6d3a41")
"""Never changes: event ids are uuid5 in this namespace."""

REQUEST_TYPES = ("request.created", "request.approved", "request.denied", "request.cancelled", "request.expired")
GRANT_TYPES = ("grant.activated", "grant.extended", "grant.revoked", "grant.expired", "grant.failed")
GIVING = ("grant.activated", "grant.extended")
REMOVING = ("grant.revoked", "grant.expired")
SESSION_TYPES = (
    "session.started",
    "session.command",
    "session.query",
    "session.ended",
    "session.denied",
    "session.recording_failed",
)
POLICY_CHANGED = "policy.changed"
"""A role, or another rule about who may get access, was changed: on record, but neither access nor its end."""
ACCESS_TYPES = (*REQUEST_TYPES, *GRANT_TYPES, *SESSION_TYPES, POLICY_CHANGED)
"""Types that access systems report. Only the pipeline's own credentials can write the other types."""

OBSERVED = "grant.observed"
"""An enforcer, or a reporter that the policy names, read back that the access of a grant exists. No tool reports it."""

SOURCE_REPORT = "source.report"
"""A way in (`import`, `follow`, the gateway) read records of a source: how many had one result. It signs as the source.

Where ``raw`` is given, it is about that one record, which could not be mapped and is kept.
"""

PIPELINE_TYPES = (
    "finding.opened",
    "finding.resolved",
    "finding.acknowledged",
    "finding.closed",
    "revoke.requested",
    "revoke.attempted",
    "revoke.confirmed",
    "revoke.failed",
    "revoke.dry_run",
    "lookup.requested",
    "lookup.answered",
    "key.changed",
    "schema.registered",
    "source.registered",
    "config.changed",
    "payload.erased",
    "epoch.opened",
    "query.executed",
)

_UNCHANGED = frozenset({type(None), str, bytes, int, bool, float})
"""Types of values that a datum has as they are."""

NEVER_ERASED = frozenset(
    {"key.changed", "schema.registered", "source.registered", "config.changed", "payload.erased", "epoch.opened"}
)
"""Types whose payload a verifier needs: an erasure of one is refused."""

DEFAULT_TENANT = "default"
"""The tenant where none is named."""
LIFECYCLE_TOPIC = "access.lifecycle"
ACTIVITY_TOPIC = "access.activity"
FINDINGS_TOPIC = "access.findings"
QUERIES_TOPIC = "access.queries"
ACTIVITY_TYPES = frozenset(
    {"session.command", "session.query", "session.denied", "session.recording_failed", SOURCE_REPORT}
)
"""High-rate events, one per action; every other ``session.*`` event belongs to the lifecycle."""


@dataclass(frozen=True, slots=True)
class EventSource:
    """The tool that reported an event. ``native_id`` and ``native_type`` are its own names for the record."""

    system: str
    instance: str
    native_id: str
    native_type: str
    seq: int | None = None
    sender: str | None = None
    """The process that sends; ``seq`` is its counter."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """What turned the tool's record into the event."""

    adapter: str
    version: str


@dataclass(frozen=True, slots=True)
class IssuingSource:
    """The source that issued an id, if it is not the event's own source."""

    system: str
    instance: str


@dataclass(frozen=True, slots=True)
class Subject:
    """Who holds the access. ``kind``: human, service, agent, system or unknown."""

    id: str
    kind: str = "unknown"
    email: str | None = None


@dataclass(frozen=True, slots=True)
class Actor:
    """Who caused the event. ``kind``: human, service, agent, system or unknown.

    ``on_behalf_of``: the person, where the actor is an agent or impersonates somebody.
    """

    id: str
    kind: str = "unknown"
    on_behalf_of: str | None = None


@dataclass(frozen=True, slots=True)
class Resource:
    """The accessed resource."""

    kind: str
    id: str
    environment: str | None = None


@dataclass(frozen=True, slots=True)
class Approval:
    """One decision by one reviewer. ``decision``: approved, denied or pending."""

    reviewer: str
    decision: str
    group: str | None = None
    at: datetime | None = None
    reason: str | None = None
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Action:
    """A command or query in a session."""

    command: str | None = None
    args: tuple[str, ...] = ()
    query: str | None = None
    exit_code: int | None = None
    redacted: bool = False
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding of the pipeline.

    ``evidence`` is a JSON object as text, for people only. ``accept_index`` is set when a person closes an
    ``event_conflict``: the index of the entry that holds the accepted version.
    """

    rule: str
    key: str
    severity: str
    deadline: datetime | None = None
    evidence: str = "{}"
    accept_index: int | None = None


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    """A registered writer schema. ``prefix`` is hex; ``sha256`` is the hex digest of ``json`` as UTF-8."""

    prefix: str
    sha256: str
    json: str
    initial: bool = False


@dataclass(frozen=True, slots=True)
class SourceKey:
    """A public key of a source. The times are broker append times; ``valid_until`` None means without end."""

    key_id: str
    public_key: bytes
    valid_from: datetime
    valid_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class RegisteredSource:
    """A source with all its keys; replaces its registration before. ``tenant`` None: every tenant."""

    system: str
    instance: str
    tenant: str | None
    keys: tuple[SourceKey, ...]
    removed: bool = False
    initial: bool = False


@dataclass(frozen=True, slots=True)
class OpenedEpoch:
    """A stopped log that a person continues as a new epoch; ``event.avsc`` describes the fields."""

    topic: str
    partition: int
    topic_id: bytes
    first_offset: int
    old_origin: str
    old_size: int
    old_root: bytes
    new_origin: str


@dataclass(frozen=True, slots=True)
class ExecutedQuery:
    """The cost of the statement in ``action.query``. ``rows`` is None if there was no answer."""

    rows: int | None
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Report:
    """How many records of a source had one result: ``mapped``, ``skipped`` or ``failed``.

    ``reason``: why they were not mapped.
    """

    result: str
    records: int
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event, with the fields of ``event.avsc``. Datetimes carry a time zone and are written as UTC microseconds.

    ``event_id`` is derived from ``source``, ``event_type`` and ``ordinal``, which numbers the events made from one
    record. ``raw`` is the tool's record, unchanged. ``raw_sha256`` is computed from it unless given; give it when you
    leave ``raw`` out.
    """

    event_type: str
    occurred_at: datetime
    source: EventSource
    subject: Subject
    actor: Actor
    mapping: Mapping | None = None
    grant_source: IssuingSource | None = None
    request_source: IssuingSource | None = None
    session_source: IssuingSource | None = None
    tenant: str = DEFAULT_TENANT
    resource: Resource | None = None
    entitlement: str | None = None
    grant_id: str | None = None
    grant_id_kind: str | None = None
    request_id: str | None = None
    session_id: str | None = None
    approvals: tuple[Approval, ...] = ()
    starts_at: datetime | None = None
    expires_at: datetime | None = None
    requested_seconds: int | None = None
    expiry_source: str | None = None
    ends_by_itself: bool | None = None
    removal_evidence: str | None = None
    reason: str | None = None
    ticket: str | None = None
    customer: str | None = None
    outcome: str = "unknown"
    error: str | None = None
    client_ip: str | None = None
    action: Action | None = None
    finding: Finding | None = None
    registered_schema: RegisteredSchema | None = None
    registered_source: RegisteredSource | None = None
    opened_epoch: OpenedEpoch | None = None
    executed_query: ExecutedQuery | None = None
    report: Report | None = None
    received_at: datetime | None = None
    raw: bytes | None = None
    raw_sha256: bytes = b""
    salt: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    ordinal: int = 0
    event_id: str = ""

    def __post_init__(self) -> None:
        if not self.raw_sha256:
            object.__setattr__(self, "raw_sha256", hashlib.sha256(self.raw or b"").digest())
        if not self.event_id:
            object.__setattr__(self, "event_id", make_event_id(self.source, self.event_type, self.ordinal))

    @property
    def topic(self) -> str:
        """The input topic that the event belongs to."""
        return topic_of(self.event_type)

    @property
    def key(self) -> str:
        """The Kafka record key."""
        if self.finding is not None:
            return self.finding.key
        if self.topic == QUERIES_TOPIC:
            return self.actor.id or self.event_id
        if self.topic == FINDINGS_TOPIC:
            return self.subject.id or self.event_id
        if self.topic == ACTIVITY_TOPIC:
            return self.grant_id or self.session_id or self.request_id or self.event_id
        return self.grant_id or self.request_id or self.session_id or self.event_id

    def to_datum(self) -> dict[str, Any]:
        """Return the event as the datum that ``event.avsc`` describes."""
        datum: dict[str, Any] = _plain(self)
        del datum["ordinal"]
        return datum


def topic_of(event_type: str) -> str:
    """Return the only input topic in which events of this type are valid."""
    if event_type in PIPELINE_TYPES:
        return QUERIES_TOPIC if event_type == "query.executed" else FINDINGS_TOPIC
    return ACTIVITY_TOPIC if event_type in ACTIVITY_TYPES else LIFECYCLE_TOPIC


def make_event_id(source: EventSource, event_type: str, ordinal: int = 0) -> str:
    """Return the uuid5 over a record's identity, so that reading the same record twice gives the same id."""
    name = json.dumps(
        [source.system, source.instance, source.native_type, source.native_id, event_type, ordinal],
        separators=(",", ":"),
        ensure_ascii=False,
    )
    return str(uuid.uuid5(EVENT_ID_NAMESPACE, name))


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind in _UNCHANGED:
        return value
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(kind):
        # Most members need no call: this is half of the time that it takes to encode an event.
        return {
            name: one if type(one := getattr(value, name)) in _UNCHANGED else _plain(one) for name in _names_of(kind)
        }
    return value


@cache
def _names_of(kind: type[DataclassInstance]) -> tuple[str, ...]:
    return tuple(one.name for one in fields(kind))
