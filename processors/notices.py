"""The events that the sealer itself writes to ``access.findings``: findings and writer schemas."""

from __future__ import annotations

import json
from datetime import datetime

from ..schemas.catalog import WriterSchema
from ..schemas.event import Actor, Event, Finding, RegisteredSchema, Source, Subject
from ..schemas.finding_rules import FINDING_RULES

SYSTEM = "grantledger"


def finding_opened(
    deployment: str,
    *,
    rule: str,
    key: str,
    evidence: dict[str, object],
    at: datetime,
    identity: str,
) -> Event:
    """Return the event that opens a finding. Events with the same rule, key and identity have the same id."""
    return Event(
        event_type="finding.opened",
        occurred_at=at,
        source=Source(SYSTEM, deployment, f"{rule}:{key}:{identity}", "finding"),
        subject=Subject(key, "system"),
        actor=Actor("grantledger-seal", "system"),
        outcome="failure",
        finding=Finding(rule, key, FINDING_RULES[rule].severity, evidence=json.dumps(evidence, sort_keys=True)),
    )


def schema_registered(deployment: str, schema: WriterSchema, initial: bool, at: datetime) -> Event:
    """Return the event that registers a writer schema.

    Args:
        initial: the deployment begins with this schema, so it is valid for every entry.
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
