"""Events to bytes and back, one at a time. Readers of many events use ``arrow``."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Any

import fastavro
from fastavro.schema import parse_schema

from ..base.times import EPOCH
from .catalog import SchemaCatalog, event_schema
from .event import Event
from .framing import prefix_of
from .readers import named, readers_of
from .resolved import MICROS, non_null, resolve
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
        DecodeError: the schema is not registered or not in force at that time, or the datum is not valid.
    """
    prefix = prefix_of(value)
    schema = catalog.get(prefix, append_time_ms)
    if schema is None:
        raise DecodeError("schema_unknown", f"schema id {prefix.hex()} is not registered")
    datum = value[len(prefix) :]
    if not readers_of(schema.text).valid(datum):
        raise DecodeError("datum_invalid", f"the datum does not fit the schema {prefix.hex()}")
    return _reader(schema.text)(datum)


@lru_cache(maxsize=256)
def _reader(text: str) -> Callable[[bytes], dict[str, Any]]:
    """Return the decoder of valid datums of a schema: text as str, times as datetime."""
    parsed = parse_schema(named(resolve(text)))
    convert = _times(resolve(text)) or (lambda datum: datum)

    def read(datum: bytes) -> dict[str, Any]:
        found = fastavro.schemaless_reader(io.BytesIO(datum), parsed, None, handle_unicode_errors="replace")
        decoded: dict[str, Any] = convert(found)
        return decoded

    return read


def _times(node: Any) -> Callable[[Any], Any] | None:
    """Return what turns the times in a decoded value into datetimes, or None if the type contains none."""
    if node == MICROS:
        return _time
    if isinstance(node, list):
        return None if non_null(node) is node else _mapped(_times(non_null(node)), _if_there)
    if isinstance(node, str):
        return None
    if node["type"] == "record":
        fields = [(field["name"], convert) for field in node["fields"] if (convert := _times(field["type"]))]
        return (lambda value: value | {name: convert(value[name]) for name, convert in fields}) if fields else None
    return _mapped(_times(node["items"]), _each) if node["type"] == "array" else None


def _mapped(convert: Callable[[Any], Any] | None, over: Callable[..., Any]) -> Callable[[Any], Any] | None:
    return None if convert is None else partial(over, convert)


def _if_there(convert: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else convert(value)


def _each(convert: Callable[[Any], Any], values: list[Any]) -> list[Any]:
    return [convert(value) for value in values]


def _time(micros: int) -> datetime:
    """Return a time; one outside of the calendar becomes the calendar's first or last."""
    try:
        return EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return (datetime.min if micros < 0 else datetime.max).replace(tzinfo=UTC)
