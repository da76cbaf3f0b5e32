"""Teleport: what an adapter remembers of one run, because a later record only refers to it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Generic, TypeVar

from ....schemas.event import Event

MOST = 100_000
"""Grants, requests and locks that are remembered. The oldest are forgotten."""
Value = TypeVar("Value")


class Recent(OrderedDict[tuple[str, str], Value], Generic[Value]):
    """The latest values by cluster and id."""

    def put(self, key: tuple[str, str], value: Value) -> None:
        """Remember a value."""
        self[key] = value
        self.move_to_end(key)
        if len(self) > MOST:
            self.popitem(last=False)


class Seen:
    """The grants, undecided requests, locks and agents (by session) of one run."""

    def __init__(self) -> None:
        self.grants = Recent[Event]()
        self.undecided = Recent[bool]()
        self.locks = Recent[tuple[Event, ...]]()
        self.agents = Recent[str]()

    def add(self, events: tuple[Event, ...]) -> None:
        """Remember the grants and requests that events report. Of several ends of a grant the latest counts."""
        for event in events:
            cluster = event.source.instance
            if event.event_type == "request.created" and event.request_id:
                self.undecided.put((cluster, event.request_id), True)
            elif event.event_type in ("request.approved", "grant.activated") and event.request_id:
                self.undecided.pop((cluster, event.request_id), None)
            if event.event_type == "grant.activated" and event.grant_id:
                key = (cluster, event.grant_id)
                known = self.grants.get(key)
                if known is None or not _ends_later(known, event):
                    self.grants.put(key, event)

    def active(self, cluster: str, at: datetime, concerned: Callable[[Event], bool]) -> tuple[Event, ...]:
        """Return the activations of the concerned grants that have not ended."""
        return tuple(
            one
            for (place, _), one in self.grants.items()
            if place == cluster and concerned(one) and (one.expires_at is None or one.expires_at > at)
        )


def _ends_later(known: Event, other: Event) -> bool:
    return bool(known.expires_at and other.expires_at and known.expires_at > other.expires_at)
