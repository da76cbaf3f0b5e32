"""Objects that several commands build from the settings: schemas, the schema registry, the address of the store."""

from __future__ import annotations

from ..kafka.sealed_log import SealedLogs
from ..kafka.sealed_log_findings import ProblemPublisher
from ..ledger.keys import LogKeys
from ..producers.registry import SchemaRegistry
from ..schemas.catalog import WriterSchema, event_schema, released_event_schemas
from ..schemas.framing import confluent_prefix
from ..schemas.topics import INPUT_TOPICS
from ..sinks.clickhouse import StoreAddress
from .keys import load_log_keys
from .settings import Settings


def sealed_logs(settings: Settings, keys: LogKeys | None = None) -> SealedLogs:
    """Return how this process reads the sealed logs.

    Args:
        keys: of a process that has the private key; others read the public key from its file.

    Raises:
        KeyUnavailableError: the public key of the logs is not configured.
    """
    cluster, deployment = settings.cluster(), settings.require_deployment()
    return SealedLogs(cluster, deployment, keys or load_log_keys(settings), ProblemPublisher(cluster, deployment))


def schema_registry(settings: Settings) -> SchemaRegistry:
    """Return a client of the schema registry in the settings."""
    password = settings.schema_registry_password.get_secret_value()
    return SchemaRegistry(
        settings.schema_registry_url, username=settings.schema_registry_user or None, password=password or None
    )


def writer_schemas(settings: Settings) -> list[WriterSchema]:
    """Return the schemas that events may be written with: by fingerprint, and by registry id where there is one.

    Raises:
        RegistryError: the registry does not answer or refuses.
    """
    schema = event_schema()
    schemas = [schema]
    if settings.schema_registry_url:
        registry = schema_registry(settings)
        cluster = settings.cluster()
        ids = {registry.register(cluster.physical(topic), schema.text) for topic in INPUT_TOPICS}
        schemas += [WriterSchema(confluent_prefix(number), schema.text) for number in sorted(ids)]
    return schemas


def known_schemas(settings: Settings) -> tuple[WriterSchema, ...]:
    """Return the schemas that events may have been written with, also by earlier versions.

    Raises:
        RegistryError: the registry does not answer or refuses.
    """
    every = (*released_event_schemas(), *writer_schemas(settings))
    return tuple({schema.prefix: schema for schema in every}.values())


def store_address(settings: Settings) -> StoreAddress:
    """Return where the store is."""
    return StoreAddress(
        path=settings.store_path,
        url=settings.clickhouse_url,
        user=settings.clickhouse_user,
        password=settings.clickhouse_password.get_secret_value(),
        database=settings.clickhouse_database,
        options=settings.clickhouse_options,
    )
