"""Events as JSON, as ``grantledger emit --stdin`` reads them and ``--dry-run`` prints them.

Each event is one JSON object with the field names of ``event.avsc``. Times are ISO 8601 with a time zone. ``subject``
and ``actor`` may be a string, which is the id. Defaults: ``occurred_at`` is now, ``actor`` is the subject, ``outcome``
follows from the type, and an id that the event introduces is generated.
"""

from __future__ import annotations

import base64
import dataclasses
import difflib
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeVar

from ..schemas.event import (
    ACCESS_TYPES,
    GIVING,
    Action,
    Actor,
    Approval,
    Event,
    EventSource,
    IssuingSource,
    Resource,
    Subject,
)
from ..schemas.rules import REQUIRED, InvalidEventError
from .constructors import NATIVE_TYPE, NEW_IDS, draft
from .json_fields import Fields, RecordError

Part = TypeVar("Part", Action, Actor, Approval, IssuingSource, Resource, EventSource, Subject)

_READERS: dict[str, Callable[[Fields, str], Any]] = {
    "str": Fields.text,
    "str | None": Fields.text,
    "bool": Fields.flag,
    "int | None": Fields.integer,
    "datetime": Fields.time,
    "datetime | None": Fields.time,
    "bytes | None": lambda record, name: record.required_text(name).encode(),
    "tuple[str, ...]": Fields.texts,
    "tuple[Approval, ...]": lambda record, name: tuple(_part(item, Approval) for item in record.objects(name)),
    "Subject": lambda record, name: _person(record, name, Subject),
    "Actor": lambda record, name: _person(record, name, Actor),
    "Resource | None": lambda record, name: _part(record.object(name), Resource),
    "IssuingSource | None": lambda record, name: _part(record.object(name), IssuingSource),
    "Action | None": lambda record, name: _part(record.object(name), Action),
}
"""How a member is read, by the type of the field in :class:`Event` and its parts."""
_PARTS: dict[type, dict[str, Callable[[Fields, str], Any]]] = {
    kind: {
        field.name: Fields.required_text if field.default is dataclasses.MISSING else _READERS[str(field.type)]
        for field in dataclasses.fields(kind)
    }
    for kind in (Action, Actor, Approval, IssuingSource, Resource, EventSource, Subject)
}
"""How each member of a part is read."""
_COMPUTED = frozenset({"event_id", "raw_sha256", "salt"})
_SOURCE_MEMBERS = [field.name for field in dataclasses.fields(EventSource)]
_IDS = ("grant_id", "request_id", "session_id")
_MEMBERS = {
    field.name: str(field.type)
    for field in dataclasses.fields(Event)
    if field.name == "source" or (field.name not in _COMPUTED | {"ordinal"} and str(field.type) in _READERS)
}
"""What access systems say. The other fields are those of the pipeline's own events, and of adapters."""


def event_from_json(
    record: Fields,
    *,
    sender: tuple[str, str] | None = None,
    decided: Mapping[str, Any] = MappingProxyType({}),
) -> Event:
    """Return the checked event that a JSON object describes.

    Args:
        sender: system and instance of the event's source, whatever the object says. Its native id and type, and the
            numbers of the sender, are still the object's.
        decided: fields of the event, whatever the object says.

    Raises:
        RecordError: an unknown member, a wrong type or a broken rule. The message names the member; ``more`` has the
            other problems.
    """
    problems = list(_wrong_names(record, _MEMBERS))
    event_type = record.values.get("event_type")
    meant = {one for name in record.values for one in _near(name, _MEMBERS)}
    if event_type in ACCESS_TYPES:
        problems += _missing(record, event_type, meant)
    else:
        try:
            record.fail("event_type", f"{record.required_text('event_type')!r} is not one of {', '.join(ACCESS_TYPES)}")
        except RecordError as error:
            problems.append(error)
    fields: dict[str, Any] = {}
    for name, kind in _MEMBERS.items():
        if name not in ("event_type", "source") and record.has(name):
            try:
                fields[name] = _READERS[kind](record, name)
            except RecordError as error:
                problems += error, *error.more
    source, native_id = None, None
    try:
        given = record.object("source")
        problems += _wrong_names(given, _SOURCE_MEMBERS)
        native_id = given.text("native_id")
        source = _part(given, EventSource) if given.has("system") else None
        if sender is not None:
            # As without one: native_type counts only beside system.
            kind = source.native_type if source is not None else NATIVE_TYPE
            numbers = given.integer("seq"), given.text("sender")
            fields["source"] = EventSource(*sender, native_id or str(uuid.uuid4()), kind, *numbers)
    except RecordError as error:
        problems += (one for one in (error, *error.more) if one not in problems)
    try:
        known = str(event_type) if event_type in ACCESS_TYPES else ""
        event = draft(known, {"subject": "missing", **fields, **decided}, native_id=native_id)
    except InvalidEventError as error:
        named = {*meant, *(_first(name.removeprefix(record.path)) for one in problems for name in _fields(one))}
        # Without an actor, it is the subject: the same problem again.
        own = [one for one in (error, *error.more) if record.has("actor") or not one.field.startswith("actor.")]
        problems += (
            RecordError(record.location, one.field, one.problem) for one in own if _first(one.field) not in named
        )
        _raise(problems)
        raise
    _raise(problems)
    return event if source is None or sender is not None else dataclasses.replace(event, source=source, event_id="")


def event_to_json(event: Event) -> dict[str, Any]:
    """Return an event as a JSON object without empty members. ``raw_base64`` replaces a ``raw`` that is not text."""
    shown: dict[str, Any] = _plain(event)
    del shown["ordinal"]
    if event.raw is not None:
        del shown["raw"]
        try:
            shown["raw"] = event.raw.decode()
        except UnicodeDecodeError:
            shown["raw_base64"] = base64.b64encode(event.raw).decode("ascii")
    return shown


def _raise(problems: Sequence[RecordError]) -> None:
    """Raise the first of some problems, with the others, if there are any."""
    if problems:
        problems[0].more = tuple(problems[1:])
        raise problems[0]


def _first(path: str) -> str:
    """Return the member of the event that a path begins with."""
    return path.partition(".")[0].partition("[")[0]


def _fields(error: RecordError) -> list[str]:
    return error.field.split(", ") if error.field else []


def _near(name: str, members: Collection[str]) -> list[str]:
    """Return the field that an unknown member may mean, if any."""
    return [] if name in members else difflib.get_close_matches(name, members, 1)


def _wrong_names(record: Fields, members: Collection[str]) -> Iterator[RecordError]:
    for name in record.values:
        problem = ""
        if name in _COMPUTED and not record.path:
            problem = "is computed and cannot be given"
        elif name not in members:
            problem = "is not a field of the event" + "".join(f"; did you mean {one}?" for one in _near(name, members))
        elif name in _IDS and record.values[name] == "":
            problem = "must not be empty"
        if problem:
            yield RecordError(record.location, record.path + name, problem)


def _missing(record: Fields, event_type: str, meant: Collection[str]) -> Iterator[RecordError]:
    """Yield the problem that fields are missing that this type requires and that have no default.

    Args:
        meant: fields that members with a wrong name probably mean.
    """
    required = ["subject", *(name for name, types in REQUIRED.items() if event_type in types and name in _MEMBERS)]
    if event_type in GIVING and not record.has("expiry_source"):
        required.append("expires_at")
    defaults = {NEW_IDS.get(event_type), "expiry_source", *meant}
    missing = [name for name in required if name not in defaults and not record.has(name)]
    if missing:
        yield RecordError(
            record.location, ", ".join(record.path + name for name in missing),
            "is missing" if len(missing) == 1 else "are missing",
        )  # fmt: skip


def _part(record: Fields, kind: type[Part]) -> Part:
    """Return a part of the event, with its defaults for absent and empty members."""
    readers = _PARTS[kind]
    problems = list(_wrong_names(record, readers))
    values: dict[str, Any] = {}
    for name, read in readers.items():
        try:
            value = read(record, name)
        except RecordError as error:
            problems.append(error)
            continue
        if value is not None:
            values[name] = value
    _raise(problems)
    return kind(**values)


def _person(record: Fields, name: str, kind: type[Part]) -> Part:
    if isinstance(record.values[name], str):
        return kind(record.required_text(name))  # type: ignore[call-arg]
    return _part(record.object(name), kind)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        members = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {name: member for name, member in members.items() if member not in (None, [], "")}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return value
