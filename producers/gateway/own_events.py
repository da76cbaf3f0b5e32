"""Our own events in a request: as JSON, as JSON lines, or in CloudEvents (structured, binary or batch).

CloudEvents: https://github.com/cloudevents/spec, version 1.0, JSON format and HTTP protocol binding.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from ...schemas.event import ACCESS_TYPES, Event
from ...schemas.rules import InvalidEventError
from ..event_json import event_from_json
from ..json_fields import Fields, Location, RecordError, parse_value
from .config import GatewaySource
from .problems import ProblemError

MOST_EVENTS = 10_000
"""In one request."""
MOST_DEPTH = 32
"""Of nesting. An event needs four levels."""
STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
LINES = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")
JSON = ("", "application/json", "text/json")
MEDIA_TYPES = ("application/json", *LINES, STRUCTURED, BATCH)


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that is not accepted: its index in the request, from 0, and what is wrong with which field.

    ``more``: further problems of the event, each as field and problem.
    """

    index: int
    problem: str
    field: str = ""
    more: tuple[tuple[str, str], ...] = ()

    def shown(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        more = [_shown(*one) for one in self.more]
        return {"index": self.index, **_shown(self.field, self.problem), **({"more": more} if more else {})}


def _shown(field: str, problem: str) -> dict[str, str]:
    return {"field": field, "problem": problem} if field else {"problem": problem}


def given_events(body: bytes, headers: Mapping[str, str]) -> list[Any]:
    """Return the events in a body as JSON values, without CloudEvents.

    Raises:
        ProblemError: the body is not JSON, of another type, or has too many events or levels.
    """
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if "ce-specversion" in headers:
        return [_Cloud(_binary(headers), _parsed(body, "the body"))]
    if media_type in LINES:
        lines = [line for line in body.splitlines() if line.strip()]
        return [_parsed(line, f"line {number}") for number, line in enumerate(_few(lines), 1)]
    if media_type not in (*JSON, STRUCTURED, BATCH):
        raise ProblemError(415, f"Content-Type {media_type[:80]!r} is not one of {', '.join(MEDIA_TYPES)}")
    value = _parsed(body, "the body")
    if media_type == STRUCTURED:
        return [_structured(value)]
    if media_type == BATCH and not isinstance(value, list):
        raise ProblemError(422, "a batch of CloudEvents must be a list")
    values = _few(value if isinstance(value, list) else [value])
    return [_structured(one) for one in values] if media_type == BATCH else values


def read_events(
    given: list[Any], source: GatewaySource, received_at: datetime
) -> Iterator[tuple[int, Event | Refused]]:
    """Yield the index of each event, and the event in the name of its source, or why it is refused."""
    for index, value in enumerate(given):
        try:
            yield index, _event(value, source, received_at, Location("event", index))
        except RecordError as error:
            more = tuple((one.field or "", one.problem) for one in error.more)
            yield index, Refused(index, error.problem, error.field or "", more)
        except InvalidEventError as error:
            yield index, Refused(index, error.problem, error.field)


@dataclass(frozen=True, slots=True)
class _Cloud:
    """A CloudEvent: its attributes, and the event in it."""

    attributes: Mapping[str, Any]
    data: Any


def _parsed(text: bytes, place: str) -> Any:
    try:
        value = parse_value(text, Location(place, 0))
    except RecordError as error:
        raise ProblemError(400, f"{place}: {error.problem}") from None
    if is_deeper(value, MOST_DEPTH):
        raise ProblemError(422, f"{place} is nested more than {MOST_DEPTH} levels deep")
    return value


def is_deeper(value: Any, most: int) -> bool:
    """Return whether a JSON value has more than so many levels."""
    level = [value]
    for _ in range(most):
        level = [
            child
            for one in level
            if isinstance(one, (dict, list))
            for child in (one.values() if isinstance(one, dict) else one)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True


def _few(values: list[Any]) -> list[Any]:
    if len(values) > MOST_EVENTS:
        raise ProblemError(413, f"{len(values)} events in one request; the limit is {MOST_EVENTS}")
    return values


def _structured(value: Any) -> Any:
    """Return a CloudEvent in JSON format, or what is no object, to be refused at its place."""
    if not isinstance(value, dict):
        return value
    attributes = {name: member for name, member in value.items() if name not in ("data", "data_base64")}
    return _Cloud(attributes, _Base64(value["data_base64"]) if "data_base64" in value else value.get("data"))


@dataclass(frozen=True, slots=True)
class _Base64:
    text: Any


def _binary(headers: Mapping[str, str]) -> dict[str, Any]:
    attributes = {name[3:]: unquote(value) for name, value in headers.items() if name.startswith("ce-")}
    return {**attributes, "datacontenttype": headers.get("content-type", "application/json")}


def _event(value: Any, source: GatewaySource, received_at: datetime, location: Location) -> Event:
    if isinstance(value, _Cloud):
        fields = Fields(_unwrapped(value, location), location, "data.")
    elif isinstance(value, dict):
        fields = Fields(value, location)
    else:
        raise RecordError(location, None, "must be an object")
    _check_bound(fields, source)
    bound = source.source_system, source.instance or ""
    return event_from_json(fields, sender=bound, decided={"tenant": source.tenant, "received_at": received_at})


def _check_bound(fields: Fields, source: GatewaySource) -> None:
    """Raise an error if an event names another source or tenant than its credential is for."""
    given = fields.values.get("source")
    named: list[tuple[str, Any, str | None]] = [("tenant", fields.values.get("tenant"), source.tenant)]
    if isinstance(given, dict):
        named += [
            ("source.system", given.get("system"), source.source_system),
            ("source.instance", given.get("instance"), source.instance),
        ]
    for name, value, bound in named:
        if value is not None and value != bound:
            fields.fail(name, f"is {str(value)[:80]!r}; this credential is for {bound!r}: leave it out")


def _unwrapped(cloud: _Cloud, location: Location) -> dict[str, Any]:
    """Return the event in a CloudEvent, with what the attributes say and the event does not."""
    attributes = Fields(dict(cloud.attributes), location)
    if attributes.required_text("specversion") != "1.0":
        attributes.fail("specversion", "must be 1.0")
    event_id, event_type, origin = map(attributes.required_text, ("id", "type", "source"))
    content = (attributes.text("datacontenttype") or "application/json").partition(";")[0].strip().lower()
    if content != "application/json" and not content.endswith("+json"):
        attributes.fail("datacontenttype", f"must be application/json, is {content[:80]!r}")
    data = cloud.data
    if isinstance(data, _Base64):
        try:
            data = parse_value(base64.b64decode(data.text, validate=True), location)
        except (TypeError, ValueError, binascii.Error, RecordError):
            attributes.fail("data_base64", "is not the Base64 of a JSON object")
    if not isinstance(data, dict) or is_deeper(data, MOST_DEPTH):
        attributes.fail("data", "must be an event: a JSON object")
    found = dict(data)
    if event_type in ACCESS_TYPES:
        found.setdefault("event_type", event_type)
    if attributes.has("time"):
        found.setdefault("occurred_at", attributes.values["time"])
    named = found.setdefault("source", {})
    if isinstance(named, dict):
        # Unique by the specification, so a CloudEvent that is sent again counts once.
        found["source"] = {"native_id": f"{origin} {event_id}", "native_type": event_type, **named}
    return found
