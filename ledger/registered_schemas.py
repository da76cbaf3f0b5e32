"""Writer schemas on record in the ledger: its ``schema.registered`` entries (docs/ledger.md, "Schemas")."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from ..schemas.catalog import ALWAYS, SchemaCatalog, WriterSchema, event_schema, released_event_schemas
from ..schemas.codec import DecodeError, decode
from ..schemas.framing import SINGLE_OBJECT_MARKER, FramingError, Prefix, single_object_prefix

KEY_PREFIX = b"schema/"


def collect_schemas(
    keys: Sequence[bytes | None], values: Sequence[bytes | None], append_times_ms: Sequence[int], catalog: SchemaCatalog
) -> list[WriterSchema]:
    """Add the schemas that entries of ``access.findings`` register to the catalog; return the new ones.

    A registration is decoded with a schema that is already on record, else with a released version of the event schema.
    One that cannot be decoded, or whose hash or fingerprint is wrong, is ignored.

    Raises:
        SchemaConflictError: two different schemas are registered under one prefix.
    """
    added = []
    for key, value, time in zip(keys, values, append_times_ms, strict=True):
        if value is None or key is None or not key.startswith(KEY_PREFIX):
            continue
        schema = _registered(value, time, catalog)
        if schema is not None and catalog.add(schema):
            added.append(schema)
    return added


def _registered(value: bytes, time: int, catalog: SchemaCatalog) -> WriterSchema | None:
    datum: dict[str, Any] = {}
    for schemas in (catalog, _bootstrap()):
        try:
            datum = decode(value, schemas, time)
            break
        except (FramingError, DecodeError):
            continue
    registered = datum.get("registered_schema")
    if datum.get("event_type") != "schema.registered" or not isinstance(registered, dict):
        return None
    try:
        prefix = Prefix(bytes.fromhex(registered["prefix"]))
        schema = WriterSchema(prefix, str(registered["json"]), ALWAYS if registered["initial"] else time)
    except (ValueError, TypeError, KeyError):
        return None
    return schema if schema.sha256 == registered.get("sha256") and _fits(prefix, schema) else None


@cache
def _bootstrap() -> SchemaCatalog:
    """Return every released version of the event schema: one of them wrote the first registration."""
    return SchemaCatalog((event_schema(), *released_event_schemas()))


def _fits(prefix: Prefix, schema: WriterSchema) -> bool:
    """Whether a prefix may name a schema: a fingerprint must be the schema's own; a registry's id is free."""
    if not prefix.startswith(SINGLE_OBJECT_MARKER):
        return True
    try:
        return single_object_prefix(schema.definition) == prefix
    except Exception:  # fastavro raises exceptions of many types for an invalid schema
        return False
