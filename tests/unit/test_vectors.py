"""The test vectors in schemas/vectors: they are what the code gives, and independent computations give the same."""

from __future__ import annotations

import hashlib
import json
import struct
import uuid
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from grantledger.producers.event_json import event_from_json
from grantledger.producers.json_fields import Fields, Location
from grantledger.schemas.arrow import decode_values
from grantledger.schemas.catalog import own_schemas
from grantledger.schemas.codec import EventEncoder, decode
from grantledger.schemas.column_rules import forbidden
from grantledger.schemas.event import Event
from grantledger.schemas.from_datum import event_from_datum
from support.vectors import FOLDER, events, files

READ = {path.name: json.loads(path.read_text("utf-8")) for path in FOLDER.glob("*.json")}


def vectors(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = READ[f"{name}.json"]["vectors"]
    return found


def test_the_files_are_the_output_of_the_code() -> None:
    """Mend them with ``PYTHONPATH=tests python tests/support/vectors.py``, if the bytes may change at all."""
    assert {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.json")} == files()


@pytest.mark.parametrize("vector", vectors("events"), ids=lambda one: one["name"])
def test_an_event_is_the_same_as_object_json_and_bytes(vector: dict[str, Any]) -> None:
    value, event = bytes.fromhex(vector["value"]), events()[vector["name"]][1]
    assert event_from_datum(decode(value, own_schemas(), 0)) == event
    assert (vector["topic"], vector["key"]) == (event.topic, event.key)
    given = {name: one for name, one in vector["event"].items() if name not in ("event_id", "raw_sha256", "salt")}
    from_json = event_from_json(Fields(given, Location("vector", 1)))
    assert replace(from_json, salt=bytes.fromhex(vector["event"]["salt"])) == event
    assert EventEncoder().encode(from_json) != value  # another salt
    assert vector["event"]["event_id"] == event.event_id


def test_the_pipeline_accepts_every_event() -> None:
    for topic in ("access.lifecycle", "access.activity"):
        values = [bytes.fromhex(one["value"]) for one in vectors("events") if one["topic"] == topic]
        table = decode_values(pa.array(values, pa.binary()), [0] * len(values), own_schemas())
        assert table.column("decode_error").to_pylist() == [b""] * len(values)
        assert forbidden(table, topic) == {}


def test_every_kind_of_event_has_a_vector() -> None:
    types = {one["event"]["event_type"] for one in vectors("events")}
    assert types >= {
        "request.created", "grant.activated", "grant.extended", "grant.revoked", "session.started", "session.command",
        "session.query", "policy.changed",
    }  # fmt: skip


def test_event_ids_by_the_standard_library() -> None:
    namespace = uuid.UUID(READ["event_ids.json"]["namespace"])
    for vector in vectors("event_ids"):
        source = vector["source"]
        parts = [source["system"], source["instance"], source["native_type"], source["native_id"]]
        assert json.loads(vector["name"]) == [*parts, vector["event_type"], vector["ordinal"]]
        digest = hashlib.sha1(namespace.bytes + vector["name"].encode()).digest()  # RFC 9562, version 5
        assert vector["event_id"] == str(uuid.UUID(bytes=digest[:16], version=5))


def test_placement_by_known_hashes_of_kafka() -> None:
    """From ``UtilsTest.testMurmur2`` of Apache Kafka."""
    known = {"21": -973932308, "foobar": -790332482}
    found = {one["tenant"]: one["murmur2"] for one in vectors("placement")}
    assert {name: found[name] for name in known} == {name: number % 2**32 for name, number in known.items()}
    for vector in vectors("placement"):
        positive = vector["murmur2"] & 0x7FFFFFFF
        assert (vector["partition_of_2"], vector["partition_of_7"]) == (positive % 2, positive % 7)


def test_signatures_by_the_library() -> None:
    keys = READ["signatures.json"]
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(keys["private_key"]))
    public = bytes.fromhex(keys["public_key"])
    assert private.public_key().public_bytes_raw() == public
    assert load_pem_public_key(keys["public_key_pem"].encode()) == private.public_key()
    assert keys["key_id"] == hashlib.sha256(public).hexdigest()[:16]
    for vector in vectors("signatures"):
        parts = [vector["deployment"].encode(), vector["topic"].encode(), vector["key"].encode()]
        parts.append(bytes.fromhex(vector["value"]))
        message = b"GLS1" + b"".join(struct.pack(">I", len(one)) + one for one in parts)
        assert vector["message"] == message.hex()
        assert vector["signature"] == keys["key_id"] + private.sign(message).hex()


def test_a_datum_of_an_older_version_becomes_an_event_too() -> None:
    event = events()["activation"][1]
    datum = {name: one for name, one in event.to_datum().items() if name not in ("customer", "received_at")}
    assert event_from_datum(datum) == event
    assert event_from_datum(datum | {"event_id": ""}) == replace_id(event)


def replace_id(event: Event) -> Event:
    other = replace(event)
    object.__setattr__(other, "event_id", "")
    return other
