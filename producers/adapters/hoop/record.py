"""hoop.dev: one event taken apart: its type, its time, who and on which connection."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ....schemas.event import Action, Actor, Resource, Source, Subject
from ..reading import Fields

SYSTEM = "hoop"
UNKNOWN = "unknown"
"""Stands where a rule of ours asks for a text that the record does not hold."""
_TIMES = ("occurred_at", "timestamp", "created_at")


class HoopRecord:
    """An event, read once. Raises RecordError where a member that every event has is missing or wrong.

    Args:
        record: ``{"event_type", "payload"}``, or a webhook's payload alone, which names its type itself.
        instance: ``source.instance``; ``hoop`` where None, for no event names its gateway.
    """

    def __init__(self, record: Fields, instance: str | None) -> None:
        self.event_type = record.required_text("event_type")
        self.payload = record.object("payload") if record.has("payload") else record
        self.instance = instance or SYSTEM
        self.time: datetime | None = self.payload.time("occurred_at") or _first_time(record)

    @property
    def subject(self) -> Subject:
        """Who used the access; hoop names people and machines alike, by email."""
        return person(self.payload.text("user") or self.payload.text("user_email"))

    @property
    def connection(self) -> Resource:
        """What was accessed."""
        return Resource("connection", self.payload.text("connection") or UNKNOWN)

    def source(self, native_id: str, native_type: str | None = None) -> Source:
        """Return the source. hoop publishes each type of event once for a session or review, and knows it by that."""
        return Source(SYSTEM, self.instance, native_id, native_type or self.event_type)

    def common(self, native_id: str, actor: Actor | None = None) -> dict[str, Any]:
        """Return the fields of every event made from this record.

        Args:
            native_id: what it is about.
            actor: who caused it; the subject where None.
        """
        return {
            "occurred_at": self.time or self.payload.required_time("occurred_at"),
            "source": self.source(native_id),
            "actor": actor or Actor(self.subject.id),
        }

    def excerpt(self) -> Action | None:
        """Return the words on which a rule fired: not the statement, so they are arguments and marked as truncated."""
        words = self.payload.text("query_excerpt")
        return Action(args=(words,), truncated=True) if words else None


def person(name: str | None) -> Subject:
    """Return somebody by the name that hoop gives, as a rule an email; ``unknown`` where it gives none."""
    return Subject(name, email=name if "@" in name else None) if name else Subject(UNKNOWN)


def _first_time(record: Fields) -> datetime | None:
    """Whoever kept a webhook may have put a time around it."""
    return next((time for time in (record.time(name) for name in _TIMES) if time is not None), None)
