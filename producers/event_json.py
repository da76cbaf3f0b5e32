"""Events as JSON, as ``grantledger emit --stdin`` reads them and ``--dry-run`` prints them.

Each event is one JSON object with the field names of ``event.avsc``. Times are ISO 8601 with a time zone. ``subject``
and ``actor`` may be a string, which is the id. Defaults: ``occurred_at`` is now, ``actor`` is the subject, ``outcome``
follows from the type, and an id that the event introduces is generated.
"""

from __future__ import annotations

import base64
import dataclasses
from datetime import datetime
from typing import Any

from ..schemas.event import (
    ACCESS_TYPES,
    Action,
    Actor,
    Approval,
    Event,
    IssuingSource,
    Resource,
    Source,
    Subject,
)
from ..schemas.rules import InvalidEventError
from .constructors.draft import draft
from .json_fields import Fields

_TEXTS = (
    "tenant",
    "entitlement",
    "grant_id",
    "grant_id_kind",
    "request_id",
    "session_id",
    "expiry_source",
    "removal_evidence",
    "reason",
    "ticket",
    "outcome",
    "error",
    "client_ip",
)
_TIMES = ("occurred_at", "starts_at", "expires_at")
_ISSUERS = ("grant_source", "request_source", "session_source")
_MEMBERS = frozenset(
    {"event_type", "source", "subject", "actor", "resource", "requested_seconds", "approvals", "action", "raw"}
    | set(_TEXTS)
    | set(_TIMES)
    | set(_ISSUERS)
)
_COMPUTED = frozenset({"event_id", "raw_sha256", "salt"})


def event_from_json(record: Fields) -> Event:
    """Return the checked event that a JSON object describes.

    Raises:
        RecordError: an unknown member, a wrong type or a broken rule. The message names the member.
    """
    _known(record, _MEMBERS)
    event_type = record.required_text("event_type")
    if event_type not in ACCESS_TYPES:
        record.fail("event_type", f"{event_type!r} is not one of {', '.join(ACCESS_TYPES)}")
    fields: dict[str, Any] = {name: record.text(name) for name in _TEXTS if record.has(name)}
    fields |= {name: record.time(name) for name in _TIMES if record.has(name)}
    if record.has("actor"):
        fields["actor"] = _actor(record)
    if record.has("resource"):
        resource = _known(record.object("resource"), {"kind", "id", "environment"})
        fields["resource"] = Resource(
            resource.required_text("kind"), resource.required_text("id"), resource.text("environment")
        )
    if record.has("requested_seconds"):
        fields["requested_seconds"] = record.integer("requested_seconds")
    fields["approvals"] = tuple(_approval(item) for item in record.objects("approvals"))
    if record.has("action"):
        fields["action"] = _action(record.object("action"))
    if record.has("raw"):
        fields["raw"] = record.required_text("raw").encode()
    for name in _ISSUERS:
        if record.has(name):
            issuer = _known(record.object(name), {"system", "instance"})
            fields[name] = IssuingSource(issuer.required_text("system"), issuer.required_text("instance"))
    source = _known(record.object("source"), {"system", "instance", "native_id", "native_type", "seq"})
    fields["native_id"] = source.text("native_id")
    try:
        event = draft(event_type, fields, subject=_subject(record))
    except InvalidEventError as error:
        record.fail(error.field, error.problem)
    return dataclasses.replace(event, source=_source(source), event_id="") if source.has("system") else event


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


def _known(record: Fields, members: frozenset[str] | set[str]) -> Fields:
    for name in record.values:
        if name in members:
            continue
        if name in _COMPUTED and not record.path:
            record.fail(name, "is computed and cannot be given")
        record.fail(name, "is not a field of the event")
    return record


def _subject(record: Fields) -> Subject:
    if isinstance(record.values.get("subject"), str):
        return Subject(record.required_text("subject"))
    if not record.has("subject"):
        record.fail("subject", "is missing")
    subject = _known(record.object("subject"), {"id", "kind", "email"})
    return Subject(subject.required_text("id"), subject.text("kind") or "unknown", subject.text("email"))


def _actor(record: Fields) -> Actor:
    if isinstance(record.values.get("actor"), str):
        return Actor(record.required_text("actor"))
    actor = _known(record.object("actor"), {"id", "kind"})
    return Actor(actor.required_text("id"), actor.text("kind") or "unknown")


def _approval(item: Fields) -> Approval:
    _known(item, {"reviewer", "decision", "group", "at", "reason", "forced"})
    return Approval(
        item.required_text("reviewer"),
        item.required_text("decision"),
        group=item.text("group"),
        at=item.time("at"),
        reason=item.text("reason"),
        forced=item.flag("forced") or False,
    )


def _action(action: Fields) -> Action:
    _known(action, {"command", "args", "query", "exit_code", "redacted", "truncated"})
    return Action(
        command=action.text("command"),
        args=action.texts("args"),
        query=action.text("query"),
        exit_code=action.integer("exit_code"),
        redacted=action.flag("redacted") or False,
        truncated=action.flag("truncated") or False,
    )


def _source(source: Fields) -> Source:
    return Source(
        source.required_text("system"),
        source.required_text("instance"),
        source.required_text("native_id"),
        source.required_text("native_type"),
        seq=source.integer("seq"),
    )


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
