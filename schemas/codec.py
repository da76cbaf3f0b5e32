"""Events to bytes and back, one at a time. Readers of many events use ``arrow``."""

from __future__ import annotations

import io
from typing import Any

import fastavro
from fastavro.schema import parse_schema

from .catalog import SchemaCatalog, event_schema
from .event import Event
from .framing import prefix_of
from .rules import InvalidEventError, check


class DecodeError(ValueError):
    """A value that is not an event. ``code`` is a short stable name: ``schema_unknown``, ``datum_invalid`` …"""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class EventEncoder:
    """Writes events with this version's schema behind one prefix.

    Args:
        prefix: the bytes before each datum; by default the single-object prefix of the schema. With a schema registry
            it is the Confluent prefix of the id that the registry gave.
    """

    def __init__(self, prefix: bytes | None = None) -> None:
        schema = event_schema()
        self._prefix = prefix if prefix is not None else bytes(schema.prefix)
        self._parsed = parse_schema(schema.definition)

    def encode(self, event: Event) -> bytes:
        """Check an event and return it framed; raise InvalidEventError, which names the field, if it breaks a rule."""
        out = io.BytesIO()
        out.write(self._prefix)
        try:
            check(event)
            fastavro.schemaless_writer(out, self._parsed, event.to_datum())
        except InvalidEventError:
            raise
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            # Not covered by the rules: a number beyond 64 bits, a lone surrogate, a value of another type.
            raise InvalidEventError("event", f"does not fit the schema: {error}"[:300]) from error
        return out.getvalue()


def decode(value: bytes, catalog: SchemaCatalog, append_time_ms: int) -> dict[str, Any]:
    """Return the datum of a framed value as its writer schema describes it.

    Raises:
        FramingError: the value has neither framing.
        DecodeError: the schema is not registered or not in force at that time, or the datum does not fit it.
    """
    prefix = prefix_of(value)
    schema = catalog.get(prefix, append_time_ms)
    if schema is None:
        raise DecodeError("schema_unknown", f"schema id {prefix.hex()} is not registered")
    try:
        datum = io.BytesIO(value[len(prefix) :])
        decoded = fastavro.schemaless_reader(datum, parse_schema(schema.definition), None)
    except Exception as error:  # fastavro raises EOFError, IndexError, UnicodeDecodeError and more for bad bytes
        raise DecodeError("datum_invalid", f"{type(error).__name__}: {error}"[:200]) from error
    if not isinstance(decoded, dict):
        raise DecodeError("datum_invalid", "the schema is not a record")
    return decoded
