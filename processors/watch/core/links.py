"""From a key to the ids that share it. A single id is stored without a set: most are single, and sets are large."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key")


class Links(Generic[Key]):
    """A mapping from each key to one or more ids."""

    __slots__ = ("_ids",)

    def __init__(self) -> None:
        self._ids: dict[Key, str | set[str]] = {}

    def __contains__(self, key: Key) -> bool:
        """Whether any id has the key."""
        return key in self._ids

    def __iter__(self) -> Iterator[Key]:
        """Yield the keys."""
        return iter(self._ids)

    def of(self, key: Key) -> Collection[str]:
        """Return the ids of a key."""
        found = self._ids.get(key)
        if isinstance(found, set):
            return found
        return (found,) if found is not None else ()

    def is_only(self, key: Key, member: str) -> bool:
        """Whether the id is the only one of the key."""
        return self._ids.get(key) == member

    def add(self, key: Key, member: str) -> None:
        """Add an id to a key."""
        found = self._ids.setdefault(key, member)
        if isinstance(found, set):
            found.add(member)
        elif found != member:
            self._ids[key] = {found, member}

    def discard(self, key: Key, member: str) -> None:
        """Remove an id from a key. A key without ids is removed."""
        found = self._ids.get(key)
        if found == member:
            del self._ids[key]
        elif isinstance(found, set):
            found.discard(member)
            if len(found) == 1:
                self._ids[key] = found.pop()
