"""Identity of events: which ones were read before, and which ones have the identity of another event but other content.

An event is identified by tenant, source and event id. Until a person decides which of several contents is right, the
stricter reading counts; :mod:`.state` applies it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ...access import OTHER_SOURCES, shorten_source
from .facts import Fact

_MAPPING_BITS, _TIME_BITS, _INDEX_BITS = 16, 52, 44
"""Digest of the mapping, microseconds until the year 2112, and indexes of entries."""
_MAPPING_AT = _TIME_BITS + _INDEX_BITS
_CONTENT_AT = _MAPPING_AT + _MAPPING_BITS
_MAPPINGS = (1 << _MAPPING_BITS) - 1
_TIMES, _INDEXES = (1 << _TIME_BITS) - 1, (1 << _INDEX_BITS) - 1


class Reading(NamedTuple):
    """How a fact is read. ``earlier``: the indexes of other contents of the same event, until the next one.

    ``remapped``: the same content, made by another version of the adapter.
    """

    status: Literal["first", "repeated", "remapped", "conflicting", "accepted", "rejected"]
    earlier: Collection[int] = ()


FIRST = Reading("first")


@dataclass(slots=True)
class Conflict:
    """An event with several contents."""

    contents: set[int]
    indexes: dict[int, None]
    """In order, without the newest: a copy for every content would take too long."""
    newest: int
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
        """Content, newest mapping, append time and index of the first event, packed: there is one for every event."""
        self._conflicting: dict[int, int] = {}
        """From the index of each event in conflict to its digest."""
        self._disputed: dict[str, set[int]] = {}
        """By grant: the events in conflict that concern it."""

    def __len__(self) -> int:
        return len(self._first)

    def add(self, fact: Fact) -> Reading:
        """Add the next fact, and return how to read it."""
        event, content = fact.event, int.from_bytes(fact.content, "big")
        mapping = int.from_bytes(fact.mapping, "big")
        is_accepted = bool(self.accepted) and any(
            (str(source), fact.entry) in self.accepted for source in (shorten_source(fact.source), OTHER_SOURCES)
        )
        known = self._first.get(event)
        if known is None:
            time = min(max(fact.append, 0), _TIMES)
            self._first[event] = ((content << _MAPPING_BITS | mapping) << _TIME_BITS | time) << _INDEX_BITS | fact.index
            if is_accepted:
                self.conflicts[event] = Conflict({content}, {}, fact.index, fact.append, decided=True)
                self._conflicting[fact.index] = event
            return FIRST
        conflict = self.conflicts.get(event)
        if conflict is None:
            known_content = known >> _CONTENT_AT
            if known_content == content:
                changed = (mapping ^ known >> _MAPPING_AT) & _MAPPINGS
                self._first[event] = known ^ changed << _MAPPING_AT
                return Reading("remapped" if changed else "repeated")
            first = known & _INDEXES
            contents = {known_content}
            conflict = self.conflicts[event] = Conflict(contents, {}, first, fact.append, decided=False)
            self._conflicting[first] = event
        elif content in conflict.contents and not (is_accepted and not conflict.decided):
            return Reading("repeated")
        earlier = conflict.indexes
        earlier[conflict.newest] = None
        conflict.newest = fact.index
        conflict.contents.add(content)
        conflict.last_append = max(conflict.last_append, fact.append)
        self._conflicting[fact.index] = event
        if conflict.decided:
            return Reading("rejected")
        conflict.decided = is_accepted
        return Reading("accepted" if is_accepted else "conflicting", earlier.keys())

    def dispute(self, index: int, grant_key: str) -> None:
        """Record that a conflicting event concerns a grant."""
        event = self._conflicting[index]
        self.conflicts[event].grants.add(grant_key)
        self._disputed.setdefault(grant_key, set()).add(event)

    def is_disputed(self, grant_key: str) -> bool:
        """Whether an undecided conflict concerns a grant."""
        events = self._disputed.get(grant_key)
        return events is not None and any(
            event in self.conflicts and not self.conflicts[event].decided for event in events
        )

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
