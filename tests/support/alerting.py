"""Findings, sealed batches of them, and alert configurations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from grantledger.base.times import micros_of
from grantledger.ledger.batch import Head, SealedBatch, seal
from grantledger.ledger.entry import Genesis, encode_headers
from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.source_signature import SourceSigner
from grantledger.processors.notices import schema_key, schema_registered
from grantledger.producers import Actor, Event, EventSource, Resource, Subject
from grantledger.schemas.catalog import event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import FINDINGS_TOPIC, Finding
from grantledger.sinks.alerts.finding import ChangeKind, FindingEvent, rfc3339

from .small_ledger import SIGNER, records_of

DEPLOYMENT = "test.example"
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ORIGIN = f"{DEPLOYMENT}/access.findings/0/0"


def finding(
    change: ChangeKind, key: str = "g-1", *, at: float = 0.0, rule: str = "overdue", telling: int = 0
) -> FindingEvent:
    """Return a finding's event as the outbox stores it; ``at`` in seconds since 1970."""
    micros = int(at * 1_000_000)
    return FindingEvent(
        event_id=f"{rule}-{key}-{change}-{telling}",
        change=change,
        rule=rule,
        key=key,
        deadline=rfc3339(micros_of(NOON)),
        severity="critical",
        at=micros,
        appended=micros,
        facts={"deployment": DEPLOYMENT, "tenant": "default", "subject": "alice", "resource": "orders", "evidence": {}},
    )


def event(change: ChangeKind, key: str, *, rule: str = "overdue", at: datetime = NOON, **fields: Any) -> Event:
    """Return a finding's event as the watch publishes it."""
    given: dict[str, Any] = {
        "event_type": f"finding.{change}",
        "occurred_at": at,
        "source": EventSource("grantledger-watch", DEPLOYMENT, f"{rule}:{key}", "finding"),
        "subject": Subject("alice@example.com", "human"),
        "actor": Actor("grantledger-watch", "system"),
        "resource": Resource("database", "orders", "production"),
        "entitlement": "readwrite",
        "grant_id": key,
        "grant_id_kind": "native",
        "finding": Finding(rule, key, "critical", NOON, json.dumps({"removal": "not reported"})),
    }
    return Event(**(given | fields))


@dataclass
class FindingsLog:
    """A sealed log of findings in memory. It begins with the registration of the schema, as a real one does."""

    head: Head = field(default_factory=lambda: Head.at_genesis(Genesis(ORIGIN, bytes(16), 0)))
    offset: int = 0
    registered: bool = True

    def batch(
        self,
        *values: Event | bytes | None,
        sealed_at: datetime = NOON,
        flags: int = 1,
        signers: Sequence[LocalSigner | None] = (),
    ) -> SealedBatch:
        """Seal events or other values as the next batch. ``signers``: the key that signs each, if it is signed."""
        records: list[tuple[bytes | None, bytes | None]] = []
        encoder = EventEncoder()
        if self.offset == 0 and self.registered:
            schema = event_schema()
            registered = schema_registered(DEPLOYMENT, schema, True, NOON)
            records.append((schema_key(schema).encode(), encoder.encode(registered)))
        for value in values:
            if isinstance(value, Event):
                records.append((value.key.encode(), encoder.encode(value)))
            else:
                records.append((b"key", value))
        millis = micros_of(sealed_at) // 1000
        padded = [None] * (len(records) - len(values)) + [*signers, *[None] * (len(values) - len(signers))]
        headers = [
            SourceSigner(DEPLOYMENT, by).headers(FINDINGS_TOPIC, key, value) if by is not None else []
            for by, (key, value) in zip(padded, records, strict=True)
        ]
        entries = [
            (flags, self.offset + number, millis, key, value, encode_headers(headers[number]))
            for number, (key, value) in enumerate(records)
        ]
        self.offset += len(entries)
        batch, self.head = seal(self.head, records_of(entries), self.offset, sealed_at, SIGNER)
        return batch


def soon(seconds: float) -> datetime:
    """Return the time in so many seconds."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


def webhook_toml(name: str, url: str, secret_file: str, **more: object) -> str:
    """Return the configuration of a webhook channel."""
    lines = [f"[channels.{name}]", 'kind = "webhook"', f'url = "{url}"', f'secret = {{ file = "{secret_file}" }}']
    return "\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in more.items()), ""])


def alertmanager_toml(name: str, url: str, **more: object) -> str:
    """Return the configuration of an Alertmanager channel."""
    lines = [f"[channels.{name}]", 'kind = "alertmanager"', f'url = "{url}"']
    return "\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in more.items()), ""])
