"""All that is wrong with one event, given as the value of a Kafka record or as JSON.

It uses what the pipeline uses: the framing, the check of datums, the rules of event types. What is more: each rule that
is broken is named and not only the first, and the mistakes of senders are named that the pipeline cannot see.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from ..base.times import micros_of
from ..schemas.catalog import WriterSchema, event_schema, own_schemas
from ..schemas.codec import EventEncoder, decode
from ..schemas.datum_check import datum_check
from ..schemas.event import PIPELINE_TYPES, Event, make_event_id
from ..schemas.framing import (
    CONFLUENT_LENGTH,
    CONFLUENT_MARKER,
    SINGLE_OBJECT_MARKER,
    FramingError,
    prefix_of,
)
from ..schemas.from_datum import event_from_datum
from ..schemas.own_sources import PREFIX
from ..schemas.placement import ANY_PARTITION, placement_of
from ..schemas.readers import readers_of
from ..schemas.rules import LATEST_YEAR, TIMES, InvalidEventError
from ..schemas.rules import check as check_rules
from ..schemas.topics import MAX_RECORD_BYTES
from .event_json import event_from_json
from .json_fields import Location, RecordError, parse_object

MOST_ORDINALS = 100
"""Events of one record whose numbers are tried for an ``event_id``."""
_COMPUTED = ("event_id", "raw_sha256", "salt")
_LAST_MICROS = micros_of(datetime(LATEST_YEAR, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a field of an event, or of its record: ``value``, ``topic``, ``key`` …"""

    field: str
    problem: str


@dataclass(slots=True)
class CheckedEvent:
    """An event as far as it could be read, all its problems, and notes that are none.

    ``value``: the Kafka value, None if the event was JSON.
    """

    event: Event | None = None
    value: bytes | None = None
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_event(content: bytes, name: str) -> CheckedEvent:
    """Check one event: a JSON object as ``grantledger emit --stdin`` takes it, or the value of a Kafka record.

    A JSON object may have the members ``event_id``, ``raw_sha256`` and ``salt``, too. ``name``: of the file.
    """
    if content[:2] != SINGLE_OBJECT_MARKER and content.lstrip()[:1] in (b"{", b"["):
        return _check_json(content, name)
    found = CheckedEvent(value=content)
    if len(content) > MAX_RECORD_BYTES:
        found.problems.append(Problem("value", f"has {len(content):,} bytes; the limit is {MAX_RECORD_BYTES:,}"))
    try:
        schema, length = _schema_of(content, found)
    except FramingError as error:
        found.problems.append(Problem("value", f"{str(error).removeprefix('value ')}; {_looks_like(content)}"))
        return found
    if schema is None:
        return found
    datum = content[length:]
    if not readers_of(schema.text).valid(datum):
        where = _first_unfit(schema, datum)
        text = f"the datum does not fit the schema {schema.prefix.hex()}: it ends early, or a number is out of range"
        found.problems.append(Problem(where, f"{text}, here or in a field before"))
        return found
    decoded = decode(bytes(schema.prefix) + datum, own_schemas(), 0)
    _check_read(found, event_from_datum(decoded), readers_of(schema.text).slow(datum))
    return found


def check_place(
    found: CheckedEvent, shards: int, *, topic: str | None = None, key: str | None = None, partition: int | None = None
) -> None:
    """Check where a record is: its topic (without prefix), key and partition, each if given."""
    event = found.event
    if event is None:
        return
    if topic is not None and topic != event.topic:
        found.problems.append(Problem("topic", f"{event.event_type} belongs in {event.topic}, not in {topic}"))
    right = placement_of(event, shards)
    if key is not None and key != right.key:
        found.problems.append(Problem("key", f"must be {right.key!r}, is {key!r}"))
    if partition is not None and right.partition not in (ANY_PARTITION, partition):
        text = f"of tenant {event.tenant!r} must be {right.partition} of {shards}, is {partition}"
        found.problems.append(Problem("partition", text))


def _schema_of(value: bytes, found: CheckedEvent) -> tuple[WriterSchema | None, int]:
    """Return the writer schema of a value and the length of its prefix."""
    prefix, current = prefix_of(value), event_schema()
    if prefix[:1] == CONFLUENT_MARKER:
        number = int.from_bytes(prefix[1:])
        found.notes.append(
            f"schema {number} of a registry cannot be looked up here: the value is read as {current.prefix.hex()}"
        )
        return current, CONFLUENT_LENGTH
    schema = own_schemas().get(prefix, 0)
    if schema is None:
        text = (
            f"the fingerprint {prefix[2:].hex()} is of no released event schema; expected: {current.prefix[2:].hex()}"
        )
        if any(one.prefix[2:] == prefix[:1:-1] for one in own_schemas()):
            text += ", as it is but in the other byte order: it is little-endian"
        found.problems.append(Problem("value", text))
    elif schema.prefix != current.prefix:
        found.notes.append(f"an older event schema; the newest is {current.prefix.hex()}")
    return schema, len(prefix)


def _looks_like(value: bytes) -> str:
    expected = f"it must begin with {event_schema().prefix.hex()}"
    if value[:4] == b"Obj\x01":
        return f"{expected}, and not be an Avro file: a record has one datum, without the schema"
    if readers_of(event_schema().text).valid(value):
        return f"{expected}; without a prefix, the bytes are an event"
    return expected


def _first_unfit(schema: WriterSchema, datum: bytes) -> str:
    """Return the first field at which a datum no longer fits, by the same check over ever more fields."""
    fields = schema.definition["fields"]
    for count in range(1, len(fields)):
        if not datum_check(json.dumps(schema.definition | {"fields": fields[:count]}))(datum):
            return str(fields[count - 1]["name"])
    return str(fields[-1]["name"])


def _check_read(found: CheckedEvent, event: Event, micros: Mapping[str, Any]) -> None:
    found.event = event
    found.problems += _broken_rules(event)
    found.problems += _beyond(micros)
    if event.raw is not None and hashlib.sha256(event.raw).digest() != event.raw_sha256:
        found.problems.append(Problem("raw_sha256", "is not the SHA-256 of raw"))
    found.problems += _wrong_id(event)
    if event.event_type in PIPELINE_TYPES:
        found.notes.append(f"only the pipeline writes {event.event_type}; from others it is not believed")
    elif event.source.system.startswith(PREFIX):
        found.notes.append(
            f"{event.source.system} is a source of the pipeline; without its signature it is not believed"
        )


def _broken_rules(event: Event) -> Iterator[Problem]:
    try:
        check_rules(event)
    except InvalidEventError as error:
        yield from (Problem(one.field, one.problem) for one in (error, *error.more))


def _beyond(micros: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the times after the last year: as dates they become the calendar's last one."""
    times = [(name, micros.get(name)) for name in TIMES]
    times += [(f"approvals[{at}].at", one.get("at")) for at, one in enumerate(micros.get("approvals") or ())]
    for name, time in times:
        if time is not None and time > _LAST_MICROS:
            yield Problem(name, f"{time} µs is after the year {LATEST_YEAR}; the unit is microseconds since 1970")


def _wrong_id(event: Event) -> Iterator[Problem]:
    right = [make_event_id(event.source, event.event_type, ordinal) for ordinal in range(MOST_ORDINALS)]
    if event.event_id not in right:
        yield Problem("event_id", f"is not the one of source and event_type: {right[0]}; is {event.event_id!r}")


def _check_json(content: bytes, name: str) -> CheckedEvent:
    found = CheckedEvent()
    try:
        record = parse_object(content, Location(name, 1))
        given = {member: record.values.get(member) for member in _COMPUTED}
        own = {member: value for member, value in record.values.items() if member not in _COMPUTED}
        event = event_from_json(replace(record, values=own))
    except RecordError as error:
        found.problems += [Problem(one.field or "value", one.problem) for one in (error, *error.more)]
        return found
    event = _with_computed(found, event, given)
    found.event = event
    if not event.source.system:
        found.notes.append(
            "without source.system, the sender's own name is source.system, and event_id follows from it"
        )
    else:
        found.problems += _wrong_id(event)
        if not found.problems:
            found.notes.append(f"{len(EventEncoder().encode(event)):,} bytes as the value of a record")
    return found


def _with_computed(found: CheckedEvent, event: Event, given: Mapping[str, Any]) -> Event:
    """Return a JSON event with the computed members that were given."""
    if (event_id := given["event_id"]) is not None:
        event = replace(event, event_id=str(event_id))
    for name, size in (("raw_sha256", 32), ("salt", 16)):
        if (text := given[name]) is None:
            continue
        try:
            value = bytes.fromhex(text)
        except (TypeError, ValueError):
            value = b""
        if len(value) != size:
            found.problems.append(Problem(name, f"must be {size} bytes in hex"))
        elif name == "salt":
            event = replace(event, salt=value)
        elif event.raw is None or value == event.raw_sha256:
            event = replace(event, raw_sha256=value)
        else:
            found.problems.append(Problem(name, "is not the SHA-256 of raw"))
    return event
