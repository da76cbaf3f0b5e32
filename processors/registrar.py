"""Registers the writer schemas in the ledger before anything written with them is sealed (DESIGN section 3)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import structlog

from ..kafka.cluster import Cluster
from ..kafka.offsets import end_offset, first_offset
from ..kafka.publisher import Publisher, Record
from ..kafka.records import read_range
from ..ledger import batch as batches
from ..schemas.catalog import WriterSchema
from ..schemas.codec import EventEncoder
from ..schemas.event import FINDINGS_TOPIC
from ..schemas.topics import sealed
from .notices import schema_key, schema_registered

log = structlog.get_logger("grantledger.registrar")


def register_schemas(cluster: Cluster, deployment: str, schemas: Iterable[WriterSchema]) -> list[WriterSchema]:
    """Publish ``schema.registered`` for the schemas that are not registered yet, and return them.

    Schemas registered while the findings log is empty are marked initial: they are valid for every entry.

    Raises:
        KafkaUnavailableError: the brokers do not acknowledge the record.
    """
    missing = {schema_key(schema).encode(): schema for schema in schemas}
    initial = True
    topic = sealed(FINDINGS_TOPIC)
    for message in read_range(cluster, topic, 0, first_offset(cluster, topic, 0), end_offset(cluster, topic, 0)):
        batch = batches.decode(message.value() or b"")
        initial = initial and batch.count == 0
        for key in batch.records().keys:
            missing.pop(key or b"", None)
        if not missing:
            return []
    # Records that are not sealed yet count too: a sealer may have died in between.
    start, end = first_offset(cluster, FINDINGS_TOPIC, 0), end_offset(cluster, FINDINGS_TOPIC, 0)
    for message in read_range(cluster, FINDINGS_TOPIC, 0, start, end):
        initial = False
        missing.pop(message.key() or b"", None)
    if not missing:
        return []
    encoder, now = EventEncoder(), datetime.now(UTC)
    Publisher(cluster).publish(
        Record(FINDINGS_TOPIC, encoder.encode(schema_registered(deployment, schema, initial, now)), schema_key(schema))
        for schema in missing.values()
    )
    log.info("schemas_registered", prefixes=[schema.prefix.hex() for schema in missing.values()], initial=initial)
    return list(missing.values())
