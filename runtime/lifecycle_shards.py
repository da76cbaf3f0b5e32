"""The number of lifecycle shards on record: a ledger keeps the one that it was created with."""

from __future__ import annotations

from ..base.errors import UsageError
from ..ledger.source_keys import SHARDS_KEY, SourceKeys
from ..schemas.event import Event, Resource
from .settings import Settings
from .source_keys import operator_event, publish_as_operator


def put_on_record(settings: Settings, known: SourceKeys, person: str) -> None:
    """Publish the number of shards, unless it is 1 or on record. Only ``init`` may do so: it has no undo.

    Args:
        known: what is on record.
        person: who creates the ledger, for the record.
    """
    if settings.lifecycle_shards == known.lifecycle_shards:
        return
    event = shards_event(settings.require_deployment(), settings.lifecycle_shards, person)
    publish_as_operator(settings, [event])


def shards_event(deployment: str, shards: int, person: str) -> Event:
    """Return the event that puts the number of shards on record."""
    fields = {"resource": Resource("config", SHARDS_KEY.decode()), "raw": str(shards).encode()}
    return operator_event("config.changed", deployment, SHARDS_KEY.decode(), person, "config", **fields)


def check_on_record(settings: Settings, known: SourceKeys) -> None:
    """Raise UsageError if another number of shards is on record than the settings state."""
    if settings.lifecycle_shards != known.lifecycle_shards:
        raise UsageError(
            f"lifecycle_shards is {settings.lifecycle_shards}, and this ledger was created with "
            f'{known.lifecycle_shards}. The number is fixed: see "Several lifecycle shards" in docs/operations.md'
        )
