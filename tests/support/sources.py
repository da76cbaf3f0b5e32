"""Registered sources for tests: their keys, registrations and signed records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from grantledger.ledger.entry import encode_headers
from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.source_keys import SignedRecord, SourceKeys, registration_key
from grantledger.ledger.source_signature import SourceSigner, key_id_of
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import Actor, Event, EventSource, RegisteredSource, SourceKey, Subject
from grantledger.schemas.own_sources import OPERATOR

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at_ms(time_ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=time_ms)


def key_of(signer: LocalSigner, valid_from: datetime = EPOCH, valid_until: datetime | None = None) -> SourceKey:
    public_key = signer.public_key
    return SourceKey(key_id_of(public_key).hex(), public_key, valid_from, valid_until)


def registered(
    deployment: str,
    system: str,
    instance: str,
    keys: Sequence[SourceKey],
    *,
    initial: bool = False,
    removed: bool = False,
    tenant: str | None = None,
) -> Event:
    """The event that registers a source."""
    return Event(
        event_type="source.registered",
        occurred_at=EPOCH,
        source=EventSource(OPERATOR, deployment, f"{system}/{instance}", "decision"),
        subject=Subject(registration_key(system, instance), "system"),
        actor=Actor("carol", "human"),
        outcome="success",
        reason="test",
        registered_source=RegisteredSource(system, instance, tenant, tuple(keys), removed, initial),
    )


def record_of(
    event: Event,
    signer: LocalSigner | None,
    deployment: str,
    append_time_ms: int,
    *,
    topic: str | None = None,
    signed_topic: str | None = None,
) -> SignedRecord:
    """The record of an event, signed by a key; ``topic`` if it is sent to another topic than its own."""
    key, value, topic = event.key.encode(), EventEncoder().encode(event), topic or event.topic
    headers = []
    if signer is not None:
        headers = SourceSigner(deployment, signer).headers(signed_topic or topic, key, value)
    return SignedRecord(topic, key, value, encode_headers(headers), append_time_ms)


class Registrar:
    """Registers sources as ``init`` and the operator do."""

    def __init__(self, deployment: str) -> None:
        self.deployment, self.operator, self.keys = deployment, LocalSigner.generate(), SourceKeys(deployment)

    def register(self, system: str, instance: str, keys: Sequence[SourceKey], time_ms: int, **fields: object) -> bool:
        event = registered(self.deployment, system, instance, keys, **fields)  # type: ignore[arg-type]
        event = replace(event, event_id="", source=replace(event.source, native_id=f"{event.key}:{time_ms}"))
        return self.keys.learn(record_of(event, self.operator, self.deployment, time_ms))

    def init(self, *systems: str) -> dict[str, LocalSigner]:
        """Register the operator and some of the pipeline's own sources, as ``init`` does; return their signers."""
        assert self.register(OPERATOR, self.deployment, [key_of(self.operator)], 0, initial=True)
        signers = {system: LocalSigner.generate() for system in systems}
        for system, signer in signers.items():
            assert self.register(system, self.deployment, [key_of(signer)], 0, initial=True)
        return {OPERATOR: self.operator, **signers}
