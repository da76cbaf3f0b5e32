"""hoop.dev: one parsed event: its type, time, user and connection."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ....schemas.event import Action, Actor, Event, EventSource, Resource, Subject
from ...json_fields import Fields
from ..values import UNKNOWN, email_in

SYSTEM = "hoop"
_TIMES = ("occurred_at", "timestamp", "created_at")


class HoopRecord:
    """An event: ``{"event_type", "payload"}``, or a webhook's payload alone, which contains its type.

    The constructor raises RecordError if a required member is missing or wrong.
    """

    def __init__(self, record: Fields, instance: str | None) -> None:
        self.event_type = record.required_text("event_type")
        self.payload = record.object("payload") if record.has("payload") else record
        self.instance = instance or SYSTEM  # no event names its gateway
        self.time: datetime | None = self.payload.time("occurred_at") or _first_time(record)

    @property
    def subject(self) -> Subject:
        """Who used the access. hoop identifies people and machines by email."""
        return person(self.payload.text("user") or self.payload.text("user_email"))

    @property
    def connection(self) -> Resource:
        """The accessed resource."""
        return Resource("connection", self.payload.text("connection") or UNKNOWN)

    def source(self, native_id: str, native_type: str | None = None) -> EventSource:
        """Return the source. hoop publishes each event type once per session or review, whose id is ``native_id``."""
        return EventSource(SYSTEM, self.instance, native_id, native_type or self.event_type)

    @property
    def required_time(self) -> datetime:
        """The time of the event; RecordError if there is none."""
        return self.time or self.payload.required_time("occurred_at")

    def event(self, event_type: str, native_id: str, **own: Any) -> Event:
        """Return an event of the session or review ``native_id``: the fields that all events share, and its own."""
        shared = {
            "occurred_at": self.required_time,
            "source": self.source(native_id),
            "subject": self.subject,
            "actor": Actor(self.subject.id),
            "resource": self.connection,
        }
        return Event(event_type=event_type, **{**shared, **own})

    def excerpt(self) -> Action | None:
        """Return the text that matched a guardrail, as a truncated argument: it is not the whole statement."""
        excerpt = self.payload.text("query_excerpt")
        return Action(args=(excerpt,), truncated=True) if excerpt else None


def person(name: str | None) -> Subject:
    """Return the user with this name, usually an email; ``unknown`` without a name."""
    return Subject(name, email=email_in(name)) if name else Subject(UNKNOWN)


def _first_time(record: Fields) -> datetime | None:
    """Return the time that the program that stored a webhook added to it."""
    return next((time for time in (record.time(name) for name in _TIMES) if time is not None), None)
