"""The registered writer schemas, by prefix."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from .framing import Prefix, compact_json, single_object_prefix

ALWAYS = -(2**63)
"""In force for every entry: the ``in_force_ms`` of schemas registered when the deployment began."""


class SchemaConflictError(ValueError):
    """Two different schemas claim one prefix."""


@dataclass(frozen=True, slots=True)
class WriterSchema:
    """One Avro schema that producers write with.

    ``in_force_ms``: the broker append time, in ms since 1970, from which entries are decoded with it.
    """

    prefix: Prefix
    text: str
    in_force_ms: int = ALWAYS

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the schema's JSON text as UTF-8."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def definition(self) -> dict[str, Any]:
        """The schema as parsed JSON."""
        parsed: dict[str, Any] = json.loads(self.text)
        return parsed


class SchemaCatalog:
    """Writer schemas by prefix. Registering the same schema again changes nothing; a different one raises."""

    def __init__(self, schemas: tuple[WriterSchema, ...] = ()) -> None:
        self._by_prefix: dict[Prefix, WriterSchema] = {}
        for schema in schemas:
            self.add(schema)

    def add(self, schema: WriterSchema) -> bool:
        """Add a schema; return whether it was new.

        Raises:
            SchemaConflictError: the prefix is taken by a schema with other text.
        """
        known = self._by_prefix.get(schema.prefix)
        if known is None:
            self._by_prefix[schema.prefix] = schema
            return True
        if known.text != schema.text:
            raise SchemaConflictError(
                f"schema id {schema.prefix.hex()} is registered twice: SHA-256 {known.sha256} and {schema.sha256}"
            )
        return False

    def get(self, prefix: Prefix, append_time_ms: int) -> WriterSchema | None:
        """Return the schema in force for an entry appended at this time, or None."""
        schema = self._by_prefix.get(prefix)
        if schema is None or schema.in_force_ms > append_time_ms:
            return None
        return schema

    def __contains__(self, prefix: Prefix) -> bool:
        return prefix in self._by_prefix

    def __iter__(self) -> Iterator[WriterSchema]:
        return iter(self._by_prefix.values())

    def __len__(self) -> int:
        return len(self._by_prefix)


@cache
def load(name: str) -> dict[str, Any]:
    """Return one of the project's own Avro schemas, for example ``event``, as parsed JSON."""
    parsed: dict[str, Any] = json.loads((files(__package__) / f"{name}.avsc").read_text("utf-8"))
    return parsed


def released(name: str) -> dict[int, dict[str, Any]]:
    """Return the released versions of one of the project's own Avro schemas, by number."""
    versions = (files(__package__) / "released").iterdir()
    numbers = sorted(int(item.name.split(".")[1]) for item in versions if item.name.startswith(f"{name}."))
    return {number: load(f"released/{name}.{number}") for number in numbers}


@cache
def event_schema() -> WriterSchema:
    """Return the schema that this version of grantledger writes events with, in single-object framing."""
    definition = load("event")
    return WriterSchema(single_object_prefix(definition), compact_json(definition))


@cache
def own_schemas() -> SchemaCatalog:
    """Return the catalog of every released version of the event schema, and of this program's."""
    return SchemaCatalog((event_schema(), *released_event_schemas()))


def released_event_schemas() -> tuple[WriterSchema, ...]:
    """Return the schemas of events that any released version wrote with. Old ledgers must stay readable."""
    return tuple(WriterSchema(single_object_prefix(one), compact_json(one)) for one in released("event").values())
