"""Sends one event to grantledger's topics, without its client library.

Copy schemas/released/event.4.avsc as event.avsc beside this file. The environment: KAFKA (brokers), TOPIC_PREFIX, and
for a registered source DEPLOYMENT, SOURCE_KEY (its private key as PEM) and SOURCE_KEY_ID (`grantledger sources keys`).
"""

import hashlib
import io
import json
import os
import secrets
import struct
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fastavro
from confluent_kafka import Producer
from cryptography.hazmat.primitives.serialization import load_pem_private_key

PREFIX = bytes.fromhex("c30140880c63f5086f1e")  # of this version of the schema
NAMESPACE = uuid.UUID("6f1c0b52-5a0e-5d7c-9c55-0b8f0e6d3a41")
TOPIC = "access.lifecycle"
SCHEMA = fastavro.parse_schema(json.loads(Path(__file__).with_name("event.avsc").read_text("utf-8")))


def event_id(source: dict[str, str], event_type: str) -> str:
    """Return the same id each time the same event is sent."""
    name = [source["system"], source["instance"], source["native_type"], source["native_id"], event_type, 0]
    return str(uuid.uuid5(NAMESPACE, json.dumps(name, separators=(",", ":"), ensure_ascii=False)))


def activation() -> dict[str, object]:
    """Return an event. Fields that are left out get the defaults of the schema."""
    now = datetime.now(UTC)
    source = {"system": "deploy-bot", "instance": "eu-1", "native_type": "event", "native_id": "g-17/activated"}
    return {
        "event_id": event_id(source, "grant.activated"),
        "event_type": "grant.activated",
        "occurred_at": now,
        "source": source,
        "subject": {"id": "alice@example.com", "kind": "human"},
        "actor": {"id": "deploy-bot", "kind": "service"},
        "resource": {"kind": "database", "id": "orders", "environment": "production"},
        "entitlement": "readwrite",
        "grant_id": "g-17",
        "grant_id_kind": "native",
        "request_id": "r-9",
        "expires_at": now + timedelta(hours=1),
        "expiry_source": "native",
        "outcome": "success",
        "raw_sha256": hashlib.sha256(b"").digest(),
        "salt": secrets.token_bytes(16),
    }


def headers(key: bytes, value: bytes) -> list[tuple[str, bytes]]:
    """Return the signature of a registered source."""
    if "SOURCE_KEY" not in os.environ:
        return []
    parts = (os.environ["DEPLOYMENT"].encode(), TOPIC.encode(), key, value)
    message = b"GLS1" + b"".join(struct.pack(">I", len(one)) + one for one in parts)
    private = load_pem_private_key(Path(os.environ["SOURCE_KEY"]).read_bytes(), None)
    return [("grantledger-signature", bytes.fromhex(os.environ["SOURCE_KEY_ID"]) + private.sign(message))]


def main() -> None:
    """Send the event, and end with an error if the brokers did not acknowledge it."""
    event = activation()
    out = io.BytesIO()
    fastavro.schemaless_writer(out, SCHEMA, event)
    key, value = (
        str(event["grant_id"]).encode(),
        PREFIX + out.getvalue(),
    )  # with lifecycle shards, the key is the tenant
    failed: list[object] = []
    producer = Producer(
        {
            "bootstrap.servers": os.environ["KAFKA"],
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",  # as the other languages: librdkafka has another default
        }
    )
    producer.produce(
        os.environ.get("TOPIC_PREFIX", "") + TOPIC, value, key, headers=headers(key, value),
        on_delivery=lambda error, _message: failed.append(error) if error else None,
    )  # fmt: skip
    left = producer.flush(30)
    if failed or left:
        raise SystemExit(f"not acknowledged: {failed or 'no answer within 30 s'}")
    print(event["event_id"])


main()
