"""The writer schemas on record: pinned, never two of one id, in force from their time, found among the findings."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from grantledger.ledger.registered_schemas import collect_schemas
from grantledger.processors.notices import schema_key, schema_registered
from grantledger.schemas.catalog import (
    ALWAYS,
    SchemaCatalog,
    SchemaConflictError,
    WriterSchema,
    event_schema,
    load,
)
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.framing import Prefix, compact_json, confluent_prefix, single_object_prefix

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SCHEMA = event_schema()
OTHER = WriterSchema(confluent_prefix(7), '{"type":"record","name":"Other","fields":[]}')


@pytest.mark.parametrize(
    ("name", "prefix", "sha256"),
    [
        ("event", "c30140880c63f5086f1e", "5e6bc701e08560fbb4f8a3d202b417d07829359fc434800c2cf9453726af604a"),
        ("sealed_batch", "c301a8740852054ac5fb", "acdf6517d95ce1bf3e9c53e77582d652770544e92290b86dd7630365c9ab4a8c"),
        ("anchor", "c301493553ff0b00500b", "f5bd09e2323af89296acbc7111388d6ccea16136eeac73ec5dce9afad20f43c5"),
        ("receipt", "c301233d343419c32426", "298830c566525a823cb200c69f00c5bfd2251418d1ce9e244f6e8e238869e039"),
    ],
)
def test_schemas_are_pinned(name: str, prefix: str, sha256: str) -> None:
    """A changed schema has another fingerprint, and entries sealed with the old one must stay readable.

    After a compatible change: release the new version in schemas/released, and write its numbers here.
    """
    assert single_object_prefix(load(name)).hex() == prefix
    assert hashlib.sha256(compact_json(load(name)).encode()).hexdigest() == sha256


def test_the_event_schema_is_its_compact_json() -> None:
    assert json.loads(SCHEMA.text) == SCHEMA.definition == load("event")
    assert SCHEMA.sha256 == hashlib.sha256(SCHEMA.text.encode()).hexdigest()
    assert SCHEMA.in_force_ms == ALWAYS


def test_a_schema_is_in_force_from_its_registration_on() -> None:
    catalog = SchemaCatalog((replace(OTHER, in_force_ms=1000),))
    assert catalog.get(OTHER.prefix, 999) is None
    assert catalog.get(OTHER.prefix, 1000) is not None
    assert catalog.get(Prefix(b"\0\0\0\0\1"), 1000) is None
    assert OTHER.prefix in catalog
    assert [schema.text for schema in catalog] == [OTHER.text]
    assert SchemaCatalog((SCHEMA,)).get(SCHEMA.prefix, -(2**63)) == SCHEMA


def test_the_first_registration_counts_and_another_schema_of_one_id_raises() -> None:
    catalog = SchemaCatalog((replace(OTHER, in_force_ms=1000),))
    assert not catalog.add(replace(OTHER, in_force_ms=5))
    assert catalog.get(OTHER.prefix, 999) is None
    with pytest.raises(SchemaConflictError, match="schema id 0000000007 is registered twice"):
        catalog.add(WriterSchema(OTHER.prefix, OTHER.text + " "))
    assert len(catalog) == 1


def registration(schema: WriterSchema, *, initial: bool = False, encoder: EventEncoder | None = None) -> tuple:
    event = schema_registered("test.example", schema, initial, NOW)
    return schema_key(schema).encode(), (encoder or EventEncoder()).encode(event)


def test_registrations_are_found_among_the_findings() -> None:
    catalog = SchemaCatalog()
    keys, values = zip(registration(SCHEMA, initial=True), (b"x", b"y"), (None, None), registration(OTHER), strict=True)
    added = collect_schemas(keys, values, [10, 20, 30, 40], catalog)
    assert [schema.prefix for schema in added] == [SCHEMA.prefix, OTHER.prefix]
    assert catalog.get(SCHEMA.prefix, 0) is not None
    assert catalog.get(OTHER.prefix, 39) is None
    assert catalog.get(OTHER.prefix, 40) is not None
    assert collect_schemas(keys, values, [50] * 4, catalog) == []


def test_a_registration_may_be_written_with_a_schema_that_is_on_record() -> None:
    """With a schema registry the pipeline's own events are framed with its ids, too."""
    confluent = WriterSchema(confluent_prefix(3), SCHEMA.text)
    catalog = SchemaCatalog()
    encoder = EventEncoder(bytes(confluent.prefix))
    keys, values = zip(
        registration(OTHER, encoder=encoder), registration(confluent), registration(OTHER, encoder=encoder), strict=True
    )
    added = collect_schemas(keys, values, [1, 2, 3], catalog)
    assert [schema.prefix for schema in added] == [confluent.prefix, OTHER.prefix]
    assert catalog.get(OTHER.prefix, 2) is None


def test_a_registration_whose_hash_does_not_fit_is_none() -> None:
    event = schema_registered("test.example", OTHER, True, NOW)
    assert event.registered_schema is not None
    encoder = EventEncoder()
    wrong = [
        replace(event, registered_schema=replace(event.registered_schema, sha256="00" * 32)),
        replace(event, registered_schema=replace(event.registered_schema, prefix="zz")),
    ]
    catalog = SchemaCatalog()
    values = [encoder.encode(other) for other in wrong]
    assert collect_schemas([b"schema/0000000007"] * 2, values, [1, 1], catalog) == []


def test_two_schemas_with_one_id_raise() -> None:
    forged = WriterSchema(OTHER.prefix, '{"type":"record","name":"Forged","fields":[]}')
    keys, values = zip(registration(OTHER), registration(forged), strict=True)
    with pytest.raises(SchemaConflictError):
        collect_schemas(keys, values, [1, 2], SchemaCatalog())


def test_a_registration_of_another_shape_is_ignored() -> None:
    """Who registers a schema of their own can write any record with it."""
    fields = [{"name": name, "type": "string"} for name in ("event_type", "registered_schema")]
    shape = WriterSchema(confluent_prefix(9), json.dumps({"type": "record", "name": "Odd", "fields": fields}))
    catalog = SchemaCatalog((shape,))
    value = bytes(shape.prefix) + b"\x22schema.registered\x06abc"
    assert collect_schemas([b"schema/x"], [value], [1], catalog) == []
