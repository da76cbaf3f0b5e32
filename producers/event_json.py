"""Events as JSON, as ``grantledger emit --stdin`` reads them and ``--dry-run`` prints them.

Each event is one JSON object with the field names of ``event.avsc``. Times are ISO 8601 with a time zone. ``subject``
and ``actor`` may be a string, which is the id. Defaults: ``occurred_at`` is now, ``actor`` is the subject, ``outcome``
follows from the type, and an id that the event introduces is generated.
"""

from __future__ import annotations

import base64
import dataclasses
import difflib
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, TypeVar

from ..schemas.event import ACCESS_TYPES, Action, Actor, Approval, Event, IssuingSource, Resource, Source, Subject
from ..schemas.rules import GIVING, REQUIRED, InvalidEventError
from .constructors import NEW_IDS, draft
from .json_fields import Fields

Part = TypeVar("Part", Action, Actor, Approval, IssuingSource, Resource, Source, Subject)

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
_COMPUTED = frozenset({"event_id", "raw_sha256", "salt"})
_IDS = ("grant_id", "request_id", "session_id")
_MEMBERS = {
    field.name: str(field.type)
    for field in dataclasses.fields(Event)
    if field.name not in _COMPUTED | {"ordinal", "finding", "registered_schema"}
}


def event_from_json(record: Fields) -> Event:
    """Return the checked event that a JSON object describes.

    Raises:
        RecordError: an unknown member, a wrong type or a broken rule. The message names the member.
    """
    _check_names(record, _MEMBERS)
    event_type = record.required_text("event_type")
    if event_type not in ACCESS_TYPES:
        record.fail("event_type", f"{event_type!r} is not one of {', '.join(ACCESS_TYPES)}")
    _check_missing(record, event_type)
    given = {name: kind for name, kind in _MEMBERS.items() if name not in ("event_type", "source") and record.has(name)}
    fields = {name: _READERS[kind](record, name) for name, kind in given.items()}
    source = record.object("source")
    _check_names(source, [field.name for field in dataclasses.fields(Source)])
    try:
        event = draft(event_type, fields, native_id=source.text("native_id"))
    except InvalidEventError as error:
        record.fail(error.field, error.problem)
    return dataclasses.replace(event, source=_part(source, Source), event_id="") if source.has("system") else event


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


def _check_names(record: Fields, members: Collection[str]) -> None:
    for name in record.values:
        if name in _COMPUTED and not record.path:
            record.fail(name, "is computed and cannot be given")
        if name not in members:
            near = difflib.get_close_matches(name, members, 1)
            record.fail(name, "is not a field of the event" + (f"; did you mean {near[0]}?" if near else ""))
        if name in _IDS and record.values[name] == "":
            record.fail(name, "must not be empty")


def _check_missing(record: Fields, event_type: str) -> None:
    """Check that all fields are given that this type requires and that have no default."""
    required = ["subject", *(name for name, types in REQUIRED.items() if event_type in types and name in _MEMBERS)]
    if event_type in GIVING and not record.has("expiry_source"):
        required.append("expires_at")
    defaults = {NEW_IDS.get(event_type), "expiry_source"}
    missing = [name for name in required if name not in defaults and not record.has(name)]
    if missing:
        record.fail(", ".join(missing), "is missing" if len(missing) == 1 else "are missing")


def _part(record: Fields, kind: type[Part]) -> Part:
    """Return a part of the event, with its defaults for absent and empty members."""
    fields = dataclasses.fields(kind)
    _check_names(record, [field.name for field in fields])
    values: dict[str, Any] = {}
    for field in fields:
        required = field.default is dataclasses.MISSING
        value = record.required_text(field.name) if required else _READERS[str(field.type)](record, field.name)
        if value is not None:
            values[field.name] = value
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
