"""The input of every benchmark: Avro events of about 400 bytes, in Kafka before the clock starts."""

from __future__ import annotations

import json
import random
import uuid
from datetime import UTC, datetime, timedelta

from confluent_kafka import Producer

from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import ACTIVITY_TOPIC, Action, Actor, Event, EventSource, Resource, Subject

DISTINCT = 50_000
"""Number of different events. They repeat, because encoding a million takes longer than the measurement."""


def encoded_events(count: int = DISTINCT) -> list[tuple[bytes, bytes]]:
    """Return (key, value) of session commands as an adapter makes them."""
    encoder = EventEncoder()
    rng = random.Random(7)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    events = []
    for number in range(count):
        user = f"engineer{number % 400:03d}@example.com"
        session = str(uuid.UUID(int=rng.getrandbits(128)))
        raw = json.dumps({"n": number})
        event = Event(
            event_type="session.command",
            occurred_at=start + timedelta(milliseconds=37 * number),
            source=EventSource(
                "teleport", "prod.example.com", str(uuid.UUID(int=rng.getrandbits(128))), "session.command"
            ),
            subject=Subject(user, "human"),
            actor=Actor(user, "human"),
            resource=Resource("host", f"db-{number % 60:02d}.prod", "production"),
            session_id=session,
            outcome="success",
            action=Action("psql", ("-c", f"select {number}"), exit_code=0),
            raw=raw.encode(),
        )
        events.append((session.encode(), encoder.encode(event)))
    return events


def fill(bootstrap_servers: str, events: int) -> float:
    """Write events to the activity topic; return their mean size in bytes."""
    distinct = encoded_events()
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 20,
            "compression.type": "none",
            "queue.buffering.max.messages": 500_000,
        }
    )
    for number in range(events):
        key, value = distinct[number % len(distinct)]
        while True:
            try:
                producer.produce(ACTIVITY_TOPIC, value, key)
                break
            except BufferError:
                producer.poll(0.1)
    if left := producer.flush(120):
        raise RuntimeError(f"{left} events were not acknowledged")
    return sum(len(value) for _, value in distinct) / len(distinct)
