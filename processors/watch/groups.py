"""Groups of names by what they have in common. One of one name is no set: nearly all are, and sets are large."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

Key = TypeVar("Key")


def members(found: str | set[str]) -> Collection[str]:
    """Return one name, several or none."""
    if isinstance(found, set):
        return found
    return (found,) if found else ()


def join(groups: dict[Key, str | set[str]], key: Key, member: str) -> None:
    """Add a member to a group."""
    found = groups.setdefault(key, member)
    if isinstance(found, set):
        found.add(member)
    elif found != member:
        groups[key] = {found, member}


def leave(groups: dict[Key, str | set[str]], key: Key, member: str) -> None:
    """Take a member out of a group; one without members is gone."""
    found = groups.get(key)
    if found == member:
        del groups[key]
    elif isinstance(found, set):
        found.discard(member)
        if len(found) == 1:
            groups[key] = found.pop()
