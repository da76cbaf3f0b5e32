"""Datums back to events: the reverse of :meth:`.event.Event.to_datum`."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from .event import Event


def event_from_datum(datum: Mapping[str, Any]) -> Event:
    """Return the event that a decoded datum describes.

    ``datum`` is as :func:`.codec.decode` returns it, by any version of the event schema. Fields that the version does
    not have get their defaults. Text is kept as it is, also where it breaks a rule.
    """
    event: Event = _built(Event, datum)
    if not datum["event_id"]:
        object.__setattr__(event, "event_id", "")  # the constructor computes it where it is missing
    return event


def _built(kind: Any, values: Mapping[str, Any]) -> Any:
    types_of = _types_of(kind)
    return kind(**{name: _value(types_of[name], value) for name, value in values.items() if name in types_of})


@cache
def _types_of(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _value(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    if get_origin(kind) in (Union, types.UnionType):
        [kind] = [one for one in get_args(kind) if one is not types.NoneType]
    if get_origin(kind) is tuple:
        return tuple(_value(get_args(kind)[0], one) for one in value)
    return _built(kind, value) if is_dataclass(kind) else value
