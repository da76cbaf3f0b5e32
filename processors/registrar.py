"""Registers the writer schemas in the ledger before anything written with them is sealed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import structlog

from ..kafka.publisher import Publisher, Record
from ..kafka.sealed_log import SealedLogs, SealedLogStoppedError
from ..kafka.source_keys_reader import check_registrations
from ..ledger.registered_schemas import registered_key
from ..ledger.source_keys import SourceKeys
from ..schemas.catalog import WriterSchema
from ..schemas.codec import EventEncoder
from ..schemas.event import FINDINGS_TOPIC
from .notices import schema_key, schema_registered

log = structlog.get_logger("grantledger.registrar")


def register_schemas(logs: SealedLogs, schemas: Iterable[WriterSchema]) -> None:
    """Publish ``schema.registered`` for the schemas that are not registered yet.

    The first registration in the ledger is marked initial: its schemas are valid for every entry. If the sealed
    findings are discontinuous or registrations are missing, nothing is published: a person must examine that log.

    Raises:
        KafkaUnavailableError: the brokers do not acknowledge the record.
    """
    missing = {schema_key(schema).encode(): schema for schema in schemas}
    initial = True
    try:
        logs.last(FINDINGS_TOPIC)  # with a wrong key, fails before every record is reported
        sources = SourceKeys(logs.deployment)
        with logs.open(FINDINGS_TOPIC) as reader:
            for _, record in reader.read_records():
                sources.learn(record)
                if (key := registered_key(record, sources)) is not None:
                    initial = False
                    missing.pop(key, None)
                if not missing:
                    return
            check_registrations(logs, reader, sources)
    except SealedLogStoppedError as error:
        log.error("schemas_not_registered", reason=str(error))
        return
    encoder, now = EventEncoder(), datetime.now(UTC)
    events = [(schema_registered(logs.deployment, schema, initial, now), key) for key, schema in missing.items()]
    publisher = Publisher(logs.cluster, logs.signer)
    publisher.publish(Record(FINDINGS_TOPIC, encoder.encode(event), key) for event, key in events)
    log.info("schemas_registered", prefixes=[schema.prefix.hex() for schema in missing.values()], initial=initial)
