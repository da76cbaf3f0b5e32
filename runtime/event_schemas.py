"""The schemas that events may be written with, and the schema registry that numbers them."""

from __future__ import annotations

from ..producers.registry import SchemaRegistry
from ..schemas.catalog import SchemaCatalog, WriterSchema, event_schema, released_event_schemas
from ..schemas.framing import confluent_prefix
from ..schemas.topics import INPUT_TOPICS
from .settings import Settings


def schema_registry(settings: Settings) -> SchemaRegistry | None:
    """Return a client of the schema registry; None if none is set."""
    if not settings.schema_registry_url:
        return None
    password = settings.schema_registry_password.get_secret_value()
    return SchemaRegistry(
        settings.schema_registry_url, username=settings.schema_registry_user or None, password=password or None
    )


def writer_schemas(settings: Settings) -> list[WriterSchema]:
    """Return the current schema by its fingerprint, and by its registry ids if there is a registry."""
    schema = event_schema()
    schemas = [schema]
    if registry := schema_registry(settings):
        cluster = settings.cluster()
        ids = {registry.register(cluster.physical(topic), schema.text) for topic in INPUT_TOPICS}
        schemas += [WriterSchema(confluent_prefix(number), schema.text) for number in sorted(ids)]
    return schemas


def schema_catalog(settings: Settings) -> SchemaCatalog:
    """Return the catalog of all schemas that events may be written with, including those of earlier versions."""
    # A released schema and the current one may differ in documentation only: then they have one fingerprint.
    every = (*released_event_schemas(), *writer_schemas(settings))
    return SchemaCatalog(tuple({schema.prefix: schema for schema in every}.values()))
