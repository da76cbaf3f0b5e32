"""Turns changes into events: findings for ``access.findings``, and commands, which go to ``access.commands`` as well.

The id of an event follows from its content, so publishing it twice makes one event.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Literal, NamedTuple

from ...schemas.access_key import access_key, id_of, parse_access_key
from ...schemas.codec import EventEncoder
from ...schemas.event import DEFAULT_TENANT, FINDINGS_TOPIC, Actor, Event, EventSource, Resource, Subject
from ...schemas.finding_event import FindingEventType, finding_event, key_issuer
from ...schemas.instance_names import POLICY_NAME, InstanceNames
from ...schemas.own_sources import WATCH
from ...schemas.rules import InvalidEventError
from ...schemas.topics import COMMANDS_TOPIC, MAX_RECORD_BYTES
from ..access import HOUR, Source, shorten, split_tenant_key, tenant_key, to_datetime
from ..watch_policy import EffectivePolicy, WatchPolicy
from .core.commands import COMMANDS, LOOK, REVOKE
from .core.judge import ABOUT_ACCESS, ABOUT_TENANT, FindingChange, Identity, entity_of_finding
from .core.late_records import LATE
from .core.sources import SKEW
from .core.state import AccessState
from .finding_fields import context_of, fields_of
from .shard import ONLY_SHARD, Shard

SYSTEM = WATCH
"""``source.system`` of every event of the watch."""
FAULT = "watch_fault"
"""The rule of findings about records that could not be judged."""
ChangeKind = Literal["opened", "resolved"]
_RULES = {REVOKE: "overdue", LOOK: LATE}
"""The finding rules of commands."""
_COMMAND_TYPES: dict[str, FindingEventType] = {REVOKE: "revoke.requested", LOOK: "lookup.requested"}
_TYPES: dict[ChangeKind, FindingEventType] = {"opened": "finding.opened", "resolved": "finding.resolved"}


class Outgoing(NamedTuple):
    """A record to publish."""

    topic: str
    event: Event
    value: bytes


class WatchFault(NamedTuple):
    """Something that could not be judged or reported."""

    where: str
    """Names the entry or the entity."""
    error: Exception
    source: Source | None = None
    """The source of an entry that could not be read; None if the fault concerns one access or a part of the log."""
    append: int = 0
    tenant: str = DEFAULT_TENANT
    """The tenant of such an entry."""

    @property
    def identity(self) -> Identity:
        """Identity of its finding: any sender can cause faults, so one has all of a tenant and source in an hour."""
        if self.source is None:
            return FAULT, tenant_key(self.tenant, self.where), 0
        return FAULT, tenant_key(shorten(self.tenant), shorten(str(self.source))), self.append // HOUR * HOUR

    @property
    def reason(self) -> str:
        """The kind of error, and of an invalid event the field."""
        kind = type(self.error).__name__
        return f"{kind}: {self.error.field}" if isinstance(self.error, InvalidEventError) else kind


@dataclass(frozen=True)
class FindingEvents:
    """Makes the watch's events. ``deployment`` is the instance of their source."""

    deployment: str
    policy: EffectivePolicy
    encoder: EventEncoder
    shard: Shard = ONLY_SHARD

    def of_change(self, change: FindingChange, state: AccessState, remark: Mapping[str, object]) -> list[Outgoing]:
        """Return the records that report a change.

        ``remark`` adds to the evidence, such as that lag may hide the answer.

        Raises:
            InvalidEventError: the event breaks a rule of the schema, or is too large for a record; names the field.
        """
        found = change.finding
        is_command = found.rule in COMMANDS
        rule = _RULES.get(found.rule, found.rule)
        about = fields_of(change, state)
        if is_command and "grant_id" not in about:
            return []
        source = self._source(change.identity)
        event_type = _COMMAND_TYPES.get(found.rule) or _TYPES[change.kind]
        key = published_key(found.rule, found.key, self.shard)
        event = finding_event(
            event_type, source, (rule, key), to_datetime(change.at),
            severity=found.severity or self.policy.severity(rule), deadline=_due(change.identity),
            evidence={**found.evidence, **remark}, **about, **({} if is_command else context_of(change, state)),
        )  # fmt: skip
        topics = (COMMANDS_TOPIC, FINDINGS_TOPIC) if is_command else (FINDINGS_TOPIC,)
        return [self._outgoing(topic, event) for topic in topics]

    def of_faults(self, identity: Identity, at: int, faults: Sequence[WatchFault]) -> Outgoing:
        """Return the finding that something could not be judged or reported. It contains nothing of the payload."""
        evidence: dict[str, object] = {"error": faults[0].reason}
        if len(faults) > 1 or split_tenant_key(identity[1])[1] != faults[0].where:
            evidence |= {"first": faults[0].where, "count": len(faults)}
        return self._own("opened", identity, at, evidence)

    def of_clock_jump(self, kind: ChangeKind, at: int, seconds: float) -> Outgoing:
        """Return the finding that this machine's clock jumped, or that the brokers have confirmed the time since."""
        machine = tenant_key(DEFAULT_TENANT, f"{SYSTEM}/{self.deployment}")
        return self._own(kind, (SKEW, machine, at), at, {"jumped_seconds": seconds})

    def _own(self, kind: ChangeKind, identity: Identity, at: int, evidence: Mapping[str, object]) -> Outgoing:
        rule, key, _ = identity
        event = finding_event(
            _TYPES[kind], self._source(identity), (rule, published_key(rule, key, self.shard)), to_datetime(at),
            severity="critical", deadline=_due(identity), evidence=evidence, subject=Subject(SYSTEM, "system"),
            tenant=split_tenant_key(key)[0],
        )  # fmt: skip
        return self._outgoing(FINDINGS_TOPIC, event)

    def _source(self, identity: Identity) -> EventSource:
        native_id = json.dumps([*identity, *self.shard.mark], separators=(",", ":"), ensure_ascii=False)
        return EventSource(SYSTEM, self.deployment, native_id, "finding")

    def _outgoing(self, topic: str, event: Event) -> Outgoing:
        value = self.encoder.encode(event)
        size = len(value) + len(event.key.encode())
        if size > MAX_RECORD_BYTES:
            raise InvalidEventError("event", f"has {size} bytes, more than the {MAX_RECORD_BYTES} of a record")
        return Outgoing(topic, event, value)


def subject_of(change: FindingChange) -> tuple[str, str]:
    """Return the entity that a finding or command concerns."""
    rule, key, _ = change.identity
    return ("grant", key) if rule == REVOKE else entity_of_finding(rule, key) or (rule, key)


def identity_from(native_id: str, names: InstanceNames, shard: Shard = ONLY_SHARD) -> Identity | None:
    """Return the identity that the source of a published finding names, by the names that are in force now.

    None if the watch of another shard published it.

    Raises:
        ValueError: no watch wrote it.
    """
    rule, key, deadline, *mark = json.loads(native_id)
    if mark != shard.mark:
        return None
    if rule in ABOUT_ACCESS:
        address = parse_access_key(key)
        key = access_key(address.tenant, names.of(address.issuer), address.id)
    return str(rule), str(key), int(deadline)


def scoped_key(
    names: InstanceNames, rule: str, key: str, tenant: str, *issuers: str, shard: Shard = ONLY_SHARD
) -> str | None:
    """Return the access key of a published finding, or the key of one that is not about access.

    None for the latter if the watch of another shard published it.

    ``issuers``: system and instance of the sources that issued its grant, its request and its session.
    """
    if rule not in ABOUT_ACCESS:
        if (own := shard.own(key)) is None:
            return None
        named = names.of_text(own)
        return tenant_key(tenant, named) if rule in ABOUT_TENANT else named
    grant, request, session = zip(issuers[::2], issuers[1::2], strict=True)
    return access_key(tenant, names.of(key_issuer(rule, grant, request, session)), key)


def published_key(rule: str, key: str, shard: Shard = ONLY_SHARD) -> str:
    """Return the key of a published finding: only what other fields do not have, of an access key the id."""
    if rule in ABOUT_ACCESS:
        return id_of(key)
    return shard.published(split_tenant_key(key)[1] if rule in ABOUT_TENANT else key)


def config_event(deployment: str, policy: WatchPolicy, at: datetime) -> Event:
    """Return the event that puts the policy in force on record, as JSON: judgements can be made again from it."""
    content = policy.model_dump_json().encode()
    return Event(
        event_type="config.changed",
        occurred_at=at,
        source=EventSource(SYSTEM, deployment, f"{POLICY_NAME}:{digest_of(policy)}:{at.isoformat()}", "config"),
        subject=Subject(POLICY_NAME, "system"),
        actor=Actor(SYSTEM, "system"),
        resource=Resource("config", POLICY_NAME),
        outcome="success",
        raw=content,
    )


def digest_of(policy: WatchPolicy) -> str:
    """Return the digest of a policy."""
    return sha256(policy.model_dump_json().encode()).hexdigest()


def policy_digest(native_id: str) -> str:
    """Return the digest of the policy in an event of :func:`config_event`."""
    return native_id.split(":")[1]


def _due(identity: Identity) -> datetime | None:
    return to_datetime(identity[2]) if identity[2] else None
