"""Which writer schemas are on record: the ledger's own answer, from its ``schema.registered`` entries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache

from ..schemas.catalog import ALWAYS, SchemaCatalog, WriterSchema, event_schema
from ..schemas.codec import DecodeError, decode
from ..schemas.compatibility import released
from ..schemas.framing import SINGLE_OBJECT_MARKER, FramingError, Prefix, compact_json, single_object_prefix

KEY_PREFIX = b"schema/"


def harvest(
    keys: Sequence[bytes | None], values: Sequence[bytes | None], append_times_ms: Sequence[int], catalog: SchemaCatalog
) -> list[WriterSchema]:
    """Add the schemas that entries of ``access.findings`` put on record to the catalog; return the new ones.

    The registrations themselves are read with the schema of this version of grantledger or with one that is on record
    already; that is where the reading of a ledger begins.

    Raises:
        SchemaConflictError: a schema id is registered twice with different schemas.
    """
    added = []
    bootstrap = _bootstrap()
    for key, value, time in zip(keys, values, append_times_ms, strict=True):
        if value is None or key is None or not key.startswith(KEY_PREFIX):
            continue
        datum = None
        for schemas in (catalog, bootstrap):
            try:
                datum = decode(value, schemas, time)
                break
            except (FramingError, DecodeError):
                continue
        registered = datum.get("registered_schema") if datum else None
        if not registered or datum is None or datum.get("event_type") != "schema.registered":
            continue
        try:
            prefix = Prefix(bytes.fromhex(registered["prefix"]))
        except ValueError:
            continue
        schema = WriterSchema(prefix, registered["json"], ALWAYS if registered["initial"] else time)
        if schema.sha256 == registered["sha256"] and _names(prefix, schema) and catalog.add(schema):
            added.append(schema)
    return added


@cache
def _bootstrap() -> SchemaCatalog:
    """Every version of the event schema that was ever released: one of them wrote the first registration."""
    texts = [compact_json(definition) for definition in released("event").values()]
    versions = [WriterSchema(single_object_prefix(json.loads(text)), text) for text in texts]
    return SchemaCatalog((event_schema(), *versions))


def _names(prefix: Prefix, schema: WriterSchema) -> bool:
    """Whether a prefix may stand for a schema: a fingerprint must be the schema's own; a registry's id may be any."""
    if not prefix.startswith(SINGLE_OBJECT_MARKER):
        return True
    try:
        return single_object_prefix(schema.definition) == prefix
    except Exception:  # fastavro raises all kinds for what is no schema
        return False
