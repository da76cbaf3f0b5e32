"""What the processors themselves put on record: findings and schemas, as events in ``access.findings``."""

from __future__ import annotations

import json
from datetime import datetime

from ..schemas.catalog import WriterSchema
from ..schemas.event import Actor, Event, Finding, RegisteredSchema, Source, Subject

SYSTEM = "grantledger"


def finding_opened(
    deployment: str,
    *,
    rule: str,
    key: str,
    severity: str,
    evidence: dict[str, object],
    at: datetime,
    identity: str,
) -> Event:
    """Return the event that opens a finding. ``identity`` makes its id: the same finding met twice is one."""
    return Event(
        event_type="finding.opened",
        occurred_at=at,
        source=Source(SYSTEM, deployment, f"{rule}:{key}:{identity}", "finding"),
        subject=Subject(key, "system"),
        actor=Actor("grantledger-seal", "system"),
        outcome="failure",
        finding=Finding(rule, key, severity, evidence=json.dumps(evidence, sort_keys=True)),
    )


def schema_registered(deployment: str, schema: WriterSchema, initial: bool, at: datetime) -> Event:
    """Return the event that puts a writer schema on record.

    Args:
        initial: the deployment begins with it, so that it is in force for every entry.
    """
    return Event(
        event_type="schema.registered",
        occurred_at=at,
        source=Source(SYSTEM, deployment, f"{schema.prefix.hex()}:{schema.sha256}", "schema"),
        subject=Subject(schema_key(schema), "system"),
        actor=Actor("grantledger-seal", "system"),
        outcome="success",
        registered_schema=RegisteredSchema(schema.prefix.hex(), schema.sha256, schema.text, initial),
    )


def schema_key(schema: WriterSchema) -> str:
    """Return the Kafka key of a schema's registration."""
    return f"schema/{schema.prefix.hex()}"
