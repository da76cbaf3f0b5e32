"""The events that the sealer and the anchor write to ``access.findings``: findings and writer schemas."""

from __future__ import annotations

from datetime import datetime

from ..ledger.registered_schemas import KEY_PREFIX
from ..schemas.catalog import WriterSchema
from ..schemas.event import Actor, Event, EventSource, RegisteredSchema, Subject
from ..schemas.finding_event import finding_event
from ..schemas.own_sources import ANCHOR, SEALER

SEALING = Actor(SEALER, "system")
ANCHORING = Actor(ANCHOR, "system")


def finding_opened(
    deployment: str,
    actor: Actor,
    *,
    rule: str,
    key: str,
    evidence: dict[str, object],
    at: datetime,
    identity: str,
) -> Event:
    """Return the event that opens a finding. Events with the same rule, key and identity have the same id."""
    source = EventSource(actor.id, deployment, f"{rule}:{key}:{identity}", "finding")
    return finding_event("finding.opened", source, (rule, key), at, evidence=evidence, actor=actor)


def schema_registered(deployment: str, schema: WriterSchema, initial: bool, at: datetime) -> Event:
    """Return the event that registers a writer schema. An initial one is valid for every entry of the deployment."""
    return Event(
        event_type="schema.registered",
        occurred_at=at,
        source=EventSource(SEALER, deployment, f"{schema.prefix.hex()}:{schema.sha256}", "schema"),
        subject=Subject(schema_key(schema), "system"),
        actor=SEALING,
        outcome="success",
        registered_schema=RegisteredSchema(schema.prefix.hex(), schema.sha256, schema.text, initial),
    )


def schema_key(schema: WriterSchema) -> str:
    """Return the Kafka key of a schema's registration."""
    return f"{KEY_PREFIX.decode()}{schema.prefix.hex()}"
