"""Writer schemas on record: ``schema.registered`` entries (docs/ledger.md, "Schemas and decoded columns")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..schemas.catalog import ALWAYS, SchemaCatalog, WriterSchema, own_schemas
from ..schemas.codec import DecodeError, decode
from ..schemas.event import FINDINGS_TOPIC
from ..schemas.framing import SINGLE_OBJECT_MARKER, FramingError, Prefix, single_object_prefix
from ..schemas.own_sources import SEALER
from .entry import NO_HEADERS
from .source_keys import SignedRecord, SourceKeys

KEY_PREFIX = b"schema/"


def collect_schemas(
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    append_times_ms: Sequence[int],
    catalog: SchemaCatalog,
    *,
    headers: Sequence[bytes] | None = None,
    sources: SourceKeys | None = None,
) -> list[WriterSchema]:
    """Add the schemas that entries of ``access.findings`` register to the catalog; return the new ones.

    A registration is decoded with a schema that is already on record, else with a released version of the event schema.
    One that cannot be decoded, whose hash or fingerprint is wrong, or that the sealer did not sign, is ignored.

    Args:
        headers: encoded as for the payload hash; needed with ``sources``.
        sources: the entries' registrations of sources are added here first. None: signatures are not checked.

    Raises:
        SchemaConflictError: two different schemas are registered under one prefix.
    """
    added = []
    signed = [NO_HEADERS] * len(keys) if headers is None else headers
    for row in zip(keys, values, signed, append_times_ms, strict=True):
        record = SignedRecord(FINDINGS_TOPIC, *row)
        if sources is not None:
            sources.learn(record)
        schema = _registered(record, catalog, sources)
        if schema is not None and catalog.add(schema):
            added.append(schema)
    return added


def registered_key(record: SignedRecord, sources: SourceKeys) -> bytes | None:
    """Return the key of a believed registration that a released event schema can decode; None for other records."""
    return record.key if _registered(record, own_schemas(), sources) is not None else None


def _registered(record: SignedRecord, catalog: SchemaCatalog, sources: SourceKeys | None) -> WriterSchema | None:
    if record.value is None or record.key is None or not record.key.startswith(KEY_PREFIX):
        return None
    datum, time = _decoded(record.value, record.append_time_ms, catalog), record.append_time_ms
    if not (sources is None or sources.is_believed(record, datum, by=SEALER)):
        return None
    registered = datum.get("registered_schema")
    if datum.get("event_type") != "schema.registered" or not isinstance(registered, dict):
        return None
    try:
        prefix = Prefix(bytes.fromhex(registered["prefix"]))
        schema = WriterSchema(prefix, str(registered["json"]), ALWAYS if registered["initial"] else time)
    except (ValueError, TypeError, KeyError):
        return None
    return schema if schema.sha256 == registered.get("sha256") and _fits(prefix, schema) else None


def _decoded(value: bytes, time: int, catalog: SchemaCatalog) -> dict[str, Any]:
    for schemas in (catalog, own_schemas()):
        try:
            return decode(value, schemas, time)
        except (FramingError, DecodeError):
            continue
    return {}


def _fits(prefix: Prefix, schema: WriterSchema) -> bool:
    """Whether a prefix may name a schema: a fingerprint must be the schema's own; a registry's id is free."""
    if not prefix.startswith(SINGLE_OBJECT_MARKER):
        return True
    try:
        return single_object_prefix(schema.definition) == prefix
    except Exception:  # fastavro raises exceptions of many types for an invalid schema
        return False
