"""The test vectors in schemas/vectors, computed by the code: ``PYTHONPATH=tests python tests/support/vectors.py``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from grantledger.ledger.keys import LocalSigner, public_pem
from grantledger.ledger.source_signature import HEADER, SourceSigner, key_id_of, signed_bytes
from grantledger.producers.event_json import event_to_json
from grantledger.schemas.catalog import event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import (
    EVENT_ID_NAMESPACE,
    Action,
    Actor,
    Approval,
    Event,
    EventSource,
    IssuingSource,
    Resource,
    Subject,
    make_event_id,
)
from grantledger.schemas.placement import murmur2, shard_of

FOLDER = Path(__file__).resolve().parents[2] / "schemas" / "vectors"
PRIVATE_KEY = bytes(range(32))
"""For tests only: this key is public."""
DEPLOYMENT = "prod.example.com"
_NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
_ALICE = Subject("alice@example.com", "human", "alice@example.com")
_BOT = Actor("deploy-bot", "service")
_ORDERS = Resource("database", "orders", "production")


def _event(native_id: str, event_type: str, seconds: int, salt: int, **fields: Any) -> Event:
    return Event(
        event_type=event_type,
        occurred_at=_NOON + timedelta(seconds=seconds),
        source=fields.pop("source", EventSource("deploy-bot", "eu-1", native_id, "event")),
        subject=fields.pop("subject", _ALICE),
        actor=fields.pop("actor", _BOT),
        salt=bytes([salt]) * 16,
        **fields,
    )


def events() -> dict[str, tuple[str, Event]]:
    """Return the events by name, each with what it shows."""
    access: dict[str, Any] = {"resource": _ORDERS, "entitlement": "readwrite"}
    grant: dict[str, Any] = {**access, "grant_id": "g-17", "grant_id_kind": "native", "outcome": "success"}
    session: dict[str, Any] = {"grant_id": "g-17", "grant_id_kind": "native", "session_id": "s-4"}
    bob = Approval("bob@example.com", "approved", "dba", _NOON + timedelta(seconds=30), "ja, für 1 h ✓")
    carol = Approval("carol@example.com", "pending", forced=True)
    return {
        "request": ("a request; the actor is a person, outcome pending", _event(
            "r-9/created", "request.created", 0, 1, **access, request_id="r-9", requested_seconds=3600,
            actor=Actor("alice@example.com", "human"), reason="INC-4711: stuck migration", ticket="INC-4711",
            outcome="pending",
        )),
        "approval": ("a list of records, with and without optional fields; text beyond ASCII", _event(
            "r-9/approved", "request.approved", 30, 2, **access, request_id="r-9", approvals=(bob, carol),
            actor=Actor("bob@example.com", "human"), outcome="success",
        )),
        "activation": ("a grant with its end; docs/examples send this one", _event(
            "g-17/activated", "grant.activated", 31, 3, **grant, request_id="r-9",
            expires_at=_NOON + timedelta(seconds=3631), expiry_source="native", approvals=(replace(bob, reason=None),),
        )),
        "activation_without_end": ("expires_at is null, so expiry_source is unknown; a start, an agent", _event(
            "g-18/activated", "grant.activated", 40, 4, **{**grant, "grant_id": "g-18"}, expiry_source="unknown",
            starts_at=_NOON + timedelta(seconds=60), customer="Müller & Söhne",
            actor=Actor("helper", "agent", "alice@example.com"),
        )),
        "extension": ("a new end, which the program computed; a sequence number with its sender", _event(
            "", "grant.extended", 1800, 5, **grant, expires_at=_NOON + timedelta(seconds=7200),
            expiry_source="derived",
            source=EventSource("deploy-bot", "eu-1", "g-17/extended/1", "event", 3, "deploy-bot-0"),
        )),
        "revocation": ("a removal that was read back", _event(
            "g-17/revoked", "grant.revoked", 3600, 6, **grant, removal_evidence="confirmed",
        )),
        "session": ("a session of a person by an address; the session id comes from another program", _event(
            "s-4/started", "session.started", 100, 7, **session, resource=_ORDERS, client_ip="2001:db8::7",
            session_source=IssuingSource("teleport", "eu"), outcome="success",
        )),
        "command": ("a command with arguments and a negative exit code; the raw record", _event(
            "s-4/1", "session.command", 101, 8, **session, outcome="failure", error="signal 9",
            action=Action("psql", ("-c", "select 'ß', '😀'", ""), None, -9), raw=b'{"cmd":"psql","ok":false}\n',
        )),
        "query": ("a statement of several lines; another tenant", _event(
            "s-4/2", "session.query", 102, 9, **session, tenant="payments", outcome="success",
            action=Action(query="select *\nfrom orders\nwhere note = '日本'", truncated=True),
        )),
        "policy": ("a change of who may get access: the resource is the role", _event(
            "role/dba/7", "policy.changed", 4000, 10, resource=Resource("role", "dba"), outcome="success",
            reason="TICKET-5: approval by two",
        )),
    }  # fmt: skip


def _events() -> dict[str, Any]:
    encode = EventEncoder().encode
    return {
        "about": "Events, and the Kafka record of each. "
        "value is hex: prefix and datum. Absent members are null or empty.",
        "schema": "schemas/event.avsc",
        "prefix": event_schema().prefix.hex(),
        "vectors": [
            {
                "name": name,
                "shows": shows,
                "topic": event.topic,
                "key": event.key,
                "event": event_to_json(event),
                "value": encode(event).hex(),
            }
            for name, (shows, event) in events().items()
        ],
    }


def _event_ids() -> dict[str, Any]:
    identities = [
        ("deploy-bot", "eu-1", "event", "g-17/activated", "grant.activated", 0),
        ("deploy-bot", "eu-1", "event", "g-17/activated", "grant.activated", 1),
        ("Freigabe-Dienst", "münchen", "row", "ß/日本/😀", "request.created", 0),
        ("portal", "default", "event", 'a "quoted" \\ path\n\u0001<&>/', "session.command", 0),
    ]
    return {
        "about": "event_id is the uuid5 of name (UTF-8) in the namespace. ordinal is 0, except for the second "
        "event and further ones that one record becomes.",
        "namespace": str(EVENT_ID_NAMESPACE),
        "vectors": [
            {
                "source": {"system": system, "instance": instance, "native_type": native_type, "native_id": native_id},
                "event_type": event_type,
                "ordinal": ordinal,
                "name": json.dumps(
                    [system, instance, native_type, native_id, event_type, ordinal],
                    separators=(",", ":"), ensure_ascii=False,
                ),
                "event_id": make_event_id(
                    EventSource(system, instance, native_id, native_type), event_type, ordinal
                ),
            }
            for system, instance, native_type, native_id, event_type, ordinal in identities
        ],
    }  # fmt: skip


def _placement() -> dict[str, Any]:
    tenants = ("", "a", "default", "acme", "globex", "payments", "21", "foobar", "Müller", "日本")
    return {
        "about": "Partition of access.lifecycle with several shards: (murmur2 of the tenant in UTF-8, without its sign "
        "bit) mod shards. murmur2 is unsigned here. The key of the record is the tenant.",
        "vectors": [
            {
                "tenant": tenant,
                "murmur2": murmur2(tenant.encode()),
                "partition_of_2": shard_of(tenant.encode(), 2),
                "partition_of_7": shard_of(tenant.encode(), 7),
            }
            for tenant in tenants
        ],
    }


def _signatures() -> dict[str, Any]:
    local = LocalSigner(Ed25519PrivateKey.from_private_bytes(PRIVATE_KEY))
    signer = SourceSigner(DEPLOYMENT, local)
    found = events()

    def vectors() -> Iterator[dict[str, Any]]:
        for name in ("activation", "command"):
            event = found[name][1]
            value = EventEncoder().encode(event)
            [(_, signature)] = signer.headers(event.topic, event.key, value)
            yield {
                "event": name,
                "deployment": DEPLOYMENT,
                "topic": event.topic,
                "key": event.key,
                "value": value.hex(),
                "message": signed_bytes(DEPLOYMENT, event.topic, event.key.encode(), value).hex(),
                "signature": signature.hex(),
            }

    return {
        "about": "For tests only: the private key is public. Never register it. signature is the value of the header.",
        "header": HEADER,
        "private_key": PRIVATE_KEY.hex(),
        "public_key": local.public_key.hex(),
        "public_key_pem": public_pem(local.public_key).decode(),
        "key_id": key_id_of(local.public_key).hex(),
        "vectors": list(vectors()),
    }


def files() -> dict[str, str]:
    """Return the text of each file by its name."""
    made = {
        "events": _events(), "event_ids": _event_ids(), "placement": _placement(), "signatures": _signatures(),
    }  # fmt: skip
    return {f"{name}.json": json.dumps(one, ensure_ascii=False, indent=1) + "\n" for name, one in made.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text, "utf-8")
