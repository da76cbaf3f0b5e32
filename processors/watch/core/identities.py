"""Identity of events: which ones were read before, and which ones have the identity of another event but other content.

An event is identified by tenant, source and event id. Until a person decides which of several contents is right, the
stricter reading counts; :mod:`.state` applies it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ....schemas.access_key import access_key
from .facts import Fact

_TIME_BITS, _INDEX_BITS = 52, 44
"""Microseconds until the year 2112, and indexes of entries."""
_TIMES, _INDEXES = (1 << _TIME_BITS) - 1, (1 << _INDEX_BITS) - 1


class Reading(NamedTuple):
    """How a fact is read. ``earlier``: the indexes of other contents of the same event."""

    status: Literal["first", "repeated", "conflicting", "accepted", "rejected"]
    earlier: tuple[int, ...] = ()


@dataclass(slots=True)
class Conflict:
    """An event with several contents."""

    contents: set[int]
    indexes: tuple[int, ...]
    last_append: int
    decided: bool
    """Whether a person accepted one of them."""
    grants: set[str] = field(default_factory=set)
    """The grants that they concern."""


class EventIdentities:
    """The events that were read, by a digest of their identity."""

    def __init__(self) -> None:
        self.accepted: set[tuple[str, int]] = set()
        """Source and index of the entries that people accepted of conflicting events."""
        self.conflicts: dict[int, Conflict] = {}
        self._first: dict[int, int] = {}
        """Content, append time and index of the first event, packed, because there is one for every event."""
        self._conflicting: dict[int, int] = {}
        """From the index of each event in conflict to its digest."""
        self._disputed: dict[str, set[int]] = {}
        """By grant: the events in conflict that concern it."""

    def __len__(self) -> int:
        return len(self._first)

    def add(self, fact: Fact) -> Reading:
        """Add the next fact, and return how to read it."""
        event, content = digest_of(fact), int.from_bytes(fact.content, "big")
        is_accepted = bool(self.accepted) and (str(fact.source), fact.entry) in self.accepted
        known = self._first.get(event)
        if known is None:
            self._first[event] = (content << _TIME_BITS | min(max(fact.append, 0), _TIMES)) << _INDEX_BITS | fact.index
            if is_accepted:
                self.conflicts[event] = Conflict({content}, (fact.index,), fact.append, decided=True)
                self._conflicting[fact.index] = event
            return Reading("first")
        conflict = self.conflicts.get(event)
        if conflict is None:
            if known >> _TIME_BITS + _INDEX_BITS == content:
                return Reading("repeated")
            first = known & _INDEXES
            contents = {known >> _TIME_BITS + _INDEX_BITS}
            conflict = self.conflicts[event] = Conflict(contents, (first,), fact.append, decided=False)
            self._conflicting[first] = event
        elif content in conflict.contents and not (is_accepted and not conflict.decided):
            return Reading("repeated")
        earlier = conflict.indexes
        conflict.contents.add(content)
        conflict.indexes += (fact.index,)
        conflict.last_append = max(conflict.last_append, fact.append)
        self._conflicting[fact.index] = event
        if conflict.decided:
            return Reading("rejected")
        conflict.decided = is_accepted
        return Reading("accepted" if is_accepted else "conflicting", earlier)

    def dispute(self, index: int, grant_key: str) -> None:
        """Record that a conflicting event concerns a grant."""
        event = self._conflicting[index]
        self.conflicts[event].grants.add(grant_key)
        self._disputed.setdefault(grant_key, set()).add(event)

    def is_disputed(self, grant_key: str) -> bool:
        """Whether an undecided conflict concerns a grant."""
        events = self._disputed.get(grant_key, ())
        return any(event in self.conflicts and not self.conflicts[event].decided for event in events)

    def is_conflicting(self, index: int) -> bool:
        """Whether the event at an index is one of several contents."""
        return index in self._conflicting

    def forget(self, before: int, is_known: Callable[[str], bool]) -> Iterator[None]:
        """Forget events that were read before a time, and conflicts unless one of their grants is known."""
        for event, packed in list(self._first.items()):
            if (packed >> _INDEX_BITS) & _TIMES < before:
                self._first.pop(event, None)
            yield
        for event, one in list(self.conflicts.items()):
            if one.last_append < before and not any(map(is_known, one.grants)):
                del self.conflicts[event]
        self._conflicting = {index: event for index, event in self._conflicting.items() if event in self.conflicts}
        known = self.conflicts.keys()
        self._disputed = {grant: left for grant, events in self._disputed.items() if (left := events & known)}


def digest_of(fact: Fact) -> int:
    """Return a digest of what identifies an event, of 60 bits because that makes a small integer."""
    identity = access_key(fact.tenant, fact.source, fact.event_id)
    return int.from_bytes(hashlib.blake2b(identity.encode("utf-8", "replace"), digest_size=8).digest(), "big") >> 4
